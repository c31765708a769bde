use super::*;

impl Scene {
    pub(super) fn commit_as(
        &mut self,
        request: CommitOffsets,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let ticket = self.ask(GroupRequest::CommitOffsets(request));
        assert_eq!(self.after(ticket), After::Records);
        match self.answer(ticket) {
            Some(GroupResponse::CommitOffsets(outcome)) => {
                let outcomes = outcome.clone()?;
                Ok(outcomes.into_iter().map(|line| line.outcome).collect())
            }
            other => panic!("committed? {other:?}"),
        }
    }

    /// Without being a member.
    pub(super) fn commit(
        &mut self,
        group_id: &str,
        topic: &str,
        partition: i32,
        offset: i64,
        metadata: &str,
    ) -> Result<(), GroupError> {
        let outcomes = self.commit_as(commit(group_id, topic, partition, offset, metadata))?;
        outcomes[0].clone()
    }

    fn fetch(&mut self, group_id: &str, topics: Option<&[(&str, &[i32])]>) -> Vec<String> {
        let owned = |(topic, partitions): &(&str, &[i32])| {
            ((*topic).to_owned(), partitions.iter().map(|it| PartitionIndex(*it)).collect())
        };
        let topics = topics.map(|topics| topics.iter().map(owned).collect());
        let request = FetchOffsets { group_id: group_id.to_owned(), member: None, topics };
        let ticket = self.ask(GroupRequest::FetchOffsets(request));
        assert_eq!(self.after(ticket), After::Records);
        let Some(GroupResponse::FetchOffsets(Ok(found))) = self.answer(ticket) else {
            panic!("fetched?")
        };
        let shown = |line: &FetchedOffset| {
            let offset = line.committed.as_ref().map_or(-1, |(offset, ..)| offset.0);
            format!("{}-{}: {offset}", line.topic, line.partition)
        };
        found.iter().map(shown).collect()
    }

    fn delete(
        &mut self,
        group_id: &str,
        topic: &str,
    ) -> Result<Result<(), GroupError>, GroupError> {
        let ticket = self.ask(GroupRequest::DeleteOffsets(DeleteOffsets {
            group_id: group_id.to_owned(),
            partitions: vec![(topic.to_owned(), PartitionIndex(0))],
        }));
        match self.answer(ticket) {
            Some(GroupResponse::DeleteOffsets(outcome)) => {
                outcome.clone().map(|lines| lines[0].outcome.clone())
            }
            other => panic!("deleted? {other:?}"),
        }
    }

    fn delete_groups(&mut self, ids: &[&str]) -> Vec<Result<(), GroupError>> {
        let ids = ids.iter().map(|id| (*id).to_owned()).collect();
        let ticket = self.ask(GroupRequest::DeleteGroups(ids));
        match self.answer(ticket) {
            Some(GroupResponse::DeleteGroups(lines)) => {
                lines.iter().map(|(_, outcome)| outcome.clone()).collect()
            }
            other => panic!("deleted? {other:?}"),
        }
    }

    fn is_known(&self, group_id: &str) -> bool {
        self.coordinator.groups.contains_key(group_id)
    }
}

pub(super) fn commit(
    group_id: &str,
    topic: &str,
    partition: i32,
    offset: i64,
    metadata: &str,
) -> CommitOffsets {
    CommitOffsets {
        group_id: group_id.to_owned(),
        generation_or_epoch: -1,
        member_id: String::new(),
        instance_id: None,
        retention_ms: None,
        knows_epochs: true,
        offsets: vec![OffsetToCommit {
            topic: topic.to_owned(),
            topic_id: TopicId([1; 16]),
            partition: PartitionIndex(partition),
            offset: Offset(offset),
            leader_epoch: None,
            metadata: metadata.to_owned(),
        }],
    }
}

#[test]
fn what_is_committed_is_fetched() {
    let mut scene = Scene::new();
    scene.commit("g", "t", 0, 5, "note").unwrap();
    scene.commit("g", "t", 1, 6, "").unwrap();
    scene.commit("g", "t", 0, 7, "").unwrap();
    let named = scene.fetch("g", Some(&[("t", &[1, 0, 2]), ("u", &[0])]));
    assert_eq!(named, ["t-1: 6", "t-0: 7", "t-2: -1", "u-0: -1"]);
    assert_eq!(scene.fetch("g", None), ["t-0: 7", "t-1: 6"]);
    assert_eq!(scene.fetch("nobody", Some(&[("t", &[0])])), ["t-0: -1"]);
    assert_eq!(scene.fetch("nobody", None), Vec::<String>::new());
    assert_eq!(scene.failed_over().fetch("g", None), ["t-0: 7", "t-1: 6"]);
}

#[test]
fn metadata_that_are_too_long_are_refused_for_their_partition_alone() {
    let settings = GroupSettings { offset_metadata_max_bytes: 3, ..GroupSettings::default() };
    let mut scene = Scene::with(settings);
    let mut request = commit("g", "t", 0, 5, "four");
    request.offsets.extend(commit("g", "t", 1, 6, "abc").offsets);
    let outcomes = scene.commit_as(request).unwrap();
    let too_large = GroupError::OffsetMetadataTooLarge { bytes: 4, limit: 3 };
    assert_eq!(outcomes, [Err(too_large), Ok(())]);
    assert_eq!(scene.fetch("g", None), ["t-1: 6"]);
    assert!(scene.commit("h", "t", 0, 5, "four").is_err());
    assert!(!scene.is_known("h"), "no group came of it");
}

#[test]
fn members_commit_in_their_generation_only() {
    let mut scene = Scene::new();
    let old = scene.stable(1);
    let (member_id, generation) = (old[0].member_id.clone(), old[0].generation);
    let as_member = |member_id: &str, generation| CommitOffsets {
        generation_or_epoch: generation,
        member_id: member_id.to_owned(),
        ..commit("g", "t", 0, 5, "")
    };
    assert_eq!(scene.commit_as(as_member(&member_id, generation)), Ok(vec![Ok(())]));
    let stale = scene.commit_as(as_member(&member_id, generation - 1));
    assert_eq!(stale, Err(GroupError::IllegalGeneration));
    let stranger = scene.commit_as(as_member("who", generation));
    assert_eq!(stranger, Err(GroupError::UnknownMemberId));
    assert_eq!(scene.commit("g", "t", 0, 5, ""), Err(GroupError::UnknownMemberId), "a simple one");
    let absent = CommitOffsets { group_id: "nowhere".to_owned(), ..as_member("m", 1) };
    let gone = GroupError::GroupIdNotFound("nowhere".to_owned());
    assert_eq!(scene.commit_as(absent.clone()), Err(gone));
    let older = CommitOffsets { knows_epochs: false, ..absent };
    assert_eq!(scene.commit_as(older), Err(GroupError::IllegalGeneration));
    // While the group prepares, its last generation may still commit; while the leader assigns, none.
    let waiting = scene.join(new_member(1));
    assert_eq!(scene.commit_as(as_member(&member_id, generation)), Ok(vec![Ok(())]));
    scene.join(again(0, &member_id));
    assert_eq!(scene.joined(waiting).generation, generation + 1);
    let early = scene.commit_as(as_member(&member_id, generation + 1));
    assert_eq!(early, Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_commit_is_a_sign_of_life() {
    let mut scene = Scene::new();
    let old = scene.stable(1);
    for _ in 0..4 {
        scene.pass(9_000);
        let request = CommitOffsets {
            generation_or_epoch: old[0].generation,
            member_id: old[0].member_id.clone(),
            ..commit("g", "t", 0, 5, "")
        };
        assert_eq!(scene.commit_as(request), Ok(vec![Ok(())]));
    }
}

#[test]
fn a_full_coordinator_takes_offsets_that_it_has_already() {
    let mut scene = Scene::with(GroupSettings { held_bytes_max: 150, ..GroupSettings::default() });
    scene.commit("g", "t", 0, 5, "").unwrap();
    scene.commit("g", "t", 1, 5, "").unwrap();
    let full = scene.commit("g", "t", 2, 5, "");
    assert!(matches!(full, Err(GroupError::CoordinatorFull { .. })), "{full:?}");
    assert_eq!(scene.commit("g", "t", 1, 6, ""), Ok(()));
}

#[test]
fn offsets_of_subscribed_topics_are_not_deleted() {
    let mut scene = Scene::new();
    scene.commit("g", "t", 0, 5, "").unwrap();
    scene.commit("g", "u", 0, 5, "").unwrap();
    let old = scene.stable(1);
    assert_eq!(scene.delete("g", "t"), Ok(Err(GroupError::GroupSubscribedToTopic)));
    assert_eq!(scene.delete("g", "u"), Ok(Ok(())));
    assert_eq!(scene.delete("g", "u"), Ok(Ok(())), "nothing is left to be deleted");
    assert_eq!(scene.fetch("g", None), ["t-0: 5"]);
    let missing = GroupError::GroupIdNotFound("nowhere".to_owned());
    assert_eq!(scene.delete("nowhere", "t"), Err(missing));
    scene.leave(&[(&old[0].member_id, None)]);
    assert_eq!(scene.delete("g", "t"), Ok(Ok(())));
}

#[test]
fn offsets_of_a_group_that_cannot_be_read_are_not_deleted() {
    let mut scene = Scene::new();
    let ticket = scene.join(JoinGroup { protocol_type: "connect".to_owned(), ..new_member(0) });
    scene.pass(3_000);
    assert_eq!(scene.joined(ticket).generation, 1);
    assert_eq!(scene.delete("g", "t"), Err(GroupError::NonEmptyGroup));
}

#[test]
fn only_groups_without_members_are_deleted() {
    let mut scene = Scene::new();
    scene.commit("simple", "t", 0, 5, "").unwrap();
    scene.commit("simple", "u", 3, 5, "").unwrap();
    scene.stable(1);
    let outcomes = scene.delete_groups(&["simple", "g", "nowhere", "simple"]);
    let missing = |id: &str| Err(GroupError::GroupIdNotFound(id.to_owned()));
    let expected = [Ok(()), Err(GroupError::NonEmptyGroup), missing("nowhere"), missing("simple")];
    assert_eq!(outcomes, expected);
    assert_eq!(scene.fetch("simple", None), Vec::<String>::new());
    assert!(!scene.failed_over().is_known("simple"));
}

const WEEK_MS: u64 = 7 * 24 * 3_600 * 1_000;
const CHECK_MS: u64 = 600_000;

#[test]
fn offsets_of_simple_consumers_expire_by_their_commit_and_the_group_with_them() {
    let mut scene = Scene::new();
    scene.commit("g", "t", 0, 5, "").unwrap();
    scene.pass(WEEK_MS / 2);
    scene.commit("g", "t", 1, 5, "").unwrap();
    scene.pass(WEEK_MS / 2 + CHECK_MS);
    assert_eq!(scene.fetch("g", None), ["t-1: 5"]);
    scene.pass(WEEK_MS / 2);
    assert!(!scene.is_known("g"));
    assert!(!scene.failed_over().is_known("g"));
}

#[test]
fn offsets_of_an_empty_group_expire_by_when_it_became_empty() {
    let mut scene = Scene::new();
    let old = scene.stable(1);
    let as_member = |offset| CommitOffsets {
        generation_or_epoch: old[0].generation,
        member_id: old[0].member_id.clone(),
        ..commit("g", "t", 0, offset, "")
    };
    scene.commit_as(as_member(5)).unwrap();
    for _ in 0..(WEEK_MS / CHECK_MS + 10) {
        for _ in 0..75 {
            scene.pass(8_000);
            scene.beat(&old[0].member_id, old[0].generation).unwrap();
        }
    }
    assert_eq!(scene.fetch("g", None), ["t-0: 5"], "its topic is subscribed to");
    scene.leave(&[(&old[0].member_id, None)]);
    scene.pass(WEEK_MS - 1);
    assert_eq!(scene.fetch("g", None), ["t-0: 5"]);
    scene.pass(CHECK_MS + 1);
    assert!(!scene.is_known("g"));
}

#[test]
fn an_expiry_time_of_the_clients_own_counts_alone() {
    let mut scene = Scene::new();
    let request = CommitOffsets { retention_ms: Some(1_000), ..commit("g", "t", 0, 5, "") };
    scene.commit_as(request).unwrap();
    scene.pass(CHECK_MS);
    assert!(!scene.is_known("g"));
}

#[test]
fn expiry_goes_on_where_it_stopped() {
    let settings = GroupSettings { expired_records_max: 3, ..GroupSettings::default() };
    let mut scene = Scene::with(settings);
    for group_id in ["a", "b", "c"] {
        for partition in 0..4 {
            scene.commit(group_id, "t", partition, 5, "").unwrap();
        }
    }
    scene.pass(WEEK_MS + CHECK_MS);
    scene.pass(1_000);
    assert!(scene.coordinator.groups.is_empty());
    assert_eq!(scene.log.len(), 12 + 12 + 3);
}

#[test]
fn offsets_of_deleted_topics_go() {
    let mut scene = Scene::new();
    scene.commit("g", "t", 0, 5, "").unwrap();
    scene.commit("g", "u", 0, 5, "").unwrap();
    let output = scene.coordinator.forget_topics(&["t".to_owned()]);
    scene.take(output);
    assert_eq!(scene.fetch("g", None), ["u-0: 5"]);
}
