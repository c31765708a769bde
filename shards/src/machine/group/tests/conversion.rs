//! Groups whose members change their protocol, one after the other.

use super::consumers::{joins, orchard, owns, request, told};
use super::offsets::commit;
use super::*;
use crate::machine::group::embedded::{NamedPartitions, assignment, assignment_bytes};

/// A subscription to apples, by a member that has `owned` of it.
fn subscribes(owned: &[i32]) -> Bytes {
    let mut bytes = b"\0\x01\0\0\0\x01\0\x06apples\xff\xff\xff\xff".to_vec();
    bytes.extend([0, 0, 0, u8::from(!owned.is_empty())]);
    if !owned.is_empty() {
        bytes.extend(b"\0\x06apples");
        bytes.extend((owned.len() as i32).to_be_bytes());
        owned.iter().for_each(|it| bytes.extend(it.to_be_bytes()));
    }
    bytes.into()
}

fn classic(n: u8, member_id: &str, owned: &[i32]) -> JoinGroup {
    let protocols = vec![("range".to_owned(), subscribes(owned))];
    JoinGroup { protocols, ..again(n, member_id) }
}

fn apples(partitions: &[i32]) -> Bytes {
    let topics: NamedPartitions = vec![("apples".to_owned(), partitions.to_vec())];
    assignment_bytes(1, &topics)
}

impl Scene {
    fn sync_bytes(&mut self, member_id: &str, generation: i32, parts: &[(&str, Bytes)]) -> Ticket {
        self.ask(GroupRequest::Sync(SyncGroup {
            group_id: "g".to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: None,
            protocol_type: Some("consumer".to_owned()),
            protocol: Some("range".to_owned()),
            assignments: parts.iter().map(|(id, part)| ((*id).to_owned(), part.clone())).collect(),
        }))
    }

    /// Partitions of apples that a classic member gets.
    fn part(&mut self, member_id: &str, generation: i32) -> Result<Vec<i32>, GroupError> {
        let ticket = self.sync_bytes(member_id, generation, &[]);
        match self.answer(ticket) {
            Some(GroupResponse::Sync(Ok(synced))) => {
                assert_eq!(self.after(ticket), After::Records);
                let read = assignment(&synced.assignment).unwrap();
                Ok(read.topics.into_iter().flat_map(|(_, partitions)| partitions).collect())
            }
            Some(GroupResponse::Sync(Err(error))) => Err(error.clone()),
            other => panic!("synced? {other:?}"),
        }
    }

    /// Classic members a, with partitions 0 and 1, and b, with partition 2. Their ids.
    fn classic_orchard(settings: GroupSettings) -> (Self, String, String) {
        let mut scene = Self::with(settings);
        scene.coordinator.set_topics(Arc::new(orchard()));
        let tickets = [0, 1].map(|n| scene.join(classic(n, "", &[])));
        while tickets.iter().any(|ticket| scene.answer(*ticket).is_none()) {
            scene.pass(1_000);
        }
        let [a, b] = tickets.map(|ticket| scene.joined(ticket));
        let parts = [(a.member_id.as_str(), apples(&[0, 1])), (b.member_id.as_str(), apples(&[2]))];
        let leader = if a.leader == a.member_id { &a } else { &b };
        let other = if a.leader == a.member_id { &b } else { &a };
        scene.sync_bytes(&other.member_id, 1, &[]);
        scene.sync_bytes(&leader.member_id, 1, &parts);
        assert_eq!(scene.state().state, "Stable");
        (scene, a.member_id, b.member_id)
    }

    fn rejoin(&mut self, n: u8, member_id: &str, owned: &[i32]) -> Joined {
        let ticket = self.join(classic(n, member_id, owned));
        self.joined(ticket)
    }
}

fn with_policy(migration_policy: MigrationPolicy) -> GroupSettings {
    GroupSettings { migration_policy, ..GroupSettings::default() }
}

#[test]
fn a_classic_group_becomes_a_consumer_group_with_its_members() {
    let (mut scene, a, b) = Scene::classic_orchard(GroupSettings::default());
    let before = scene.log.len();
    assert_eq!(scene.told(joins("x", &["apples"])), told(2, ""), "all is with the others");
    let kinds: Vec<u8> = scene.log[before..].iter().map(|it| it.encode().0[1]).collect();
    let converted = [2, 5, 5, 3, 7, 7, 6, 8, 8];
    assert_eq!(kinds[..converted.len()], converted, "as Kafka records it");
    assert_eq!(scene.failed_over().consumers(), scene.consumers());
    let group = scene.consumers();
    assert_eq!((group.state, group.epoch, group.members.len()), ("Reconciling", 2, 3));
    assert!(scene.coordinator.groups.is_empty());

    assert_eq!(scene.beat(&a, 1), Err(GroupError::RebalanceInProgress));
    let joined = scene.rejoin(0, &a, &[]);
    assert_eq!((joined.generation, joined.leader.as_str(), joined.members.len()), (2, "", 0));
    assert_eq!(joined.protocol.as_deref(), Some("range"));
    let part = scene.part(&a, 2).unwrap();
    assert_eq!(part.len(), 1, "{part:?}");
    assert_eq!(scene.beat(&a, 2), Ok(()));
    assert_eq!(scene.beat(&b, 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.rejoin(1, &b, &[2]).generation, 2, "it keeps what it has");
    assert_eq!(scene.part(&b, 2), Ok(vec![2]));
    let (epoch, assignment) = scene.told(request("x", 2));
    assert_eq!((epoch, assignment.len()), (2, 4), "{assignment}");
    assert_eq!(scene.consumers().state, "Stable");
    assert_eq!(scene.failed_over().consumers(), scene.consumers());
}

#[test]
fn a_cooperative_classic_member_gives_up_before_others_get() {
    let (mut scene, a, b) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    let joined = scene.rejoin(0, &a, &[0, 1]);
    assert_eq!(joined.generation, 1, "it has to give up in its epoch");
    let kept = scene.part(&a, 1).unwrap();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(scene.beat(&a, 1), Err(GroupError::RebalanceInProgress), "and to say so");
    assert_eq!(scene.told(request("x", 2)), told(2, "-"));
    assert_eq!(scene.rejoin(0, &a, &kept).generation, 2);
    assert_eq!(scene.part(&a, 2), Ok(kept));
    let (_, assignment) = scene.told(request("x", 2));
    assert_eq!(assignment.len(), 4, "{assignment}");
    scene.rejoin(1, &b, &[2]);
    assert_eq!(scene.part(&b, 2), Ok(vec![2]));
}

#[test]
fn a_consumer_group_becomes_a_classic_one_with_its_last_classic_members() {
    let (mut scene, a, b) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    scene.rejoin(0, &a, &[]);
    scene.part(&a, 2).unwrap();
    let before = scene.log.len();
    scene.consume(request("x", -1)).unwrap();
    let kinds: Vec<u8> = scene.log[before..].iter().map(|it| it.encode().0[1]).collect();
    assert_eq!(kinds, [8, 8, 8, 7, 7, 7, 6, 5, 5, 5, 4, 3, 2], "tombstones and the group");
    assert_eq!(scene.state().state, "PreparingRebalance");
    let mut next = scene.failed_over();
    assert_eq!(next.state().state, "PreparingRebalance", "what has become free is shared");
    assert_eq!(next.beat(&a, 2), Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.beat(&a, 2), Err(GroupError::RebalanceInProgress));
    let tickets = [scene.join(classic(0, &a, &[])), scene.join(classic(1, &b, &[]))];
    let joined = tickets.map(|ticket| scene.joined(ticket));
    assert!(joined.iter().all(|it| it.generation == 3 && !it.leader.is_empty()), "{joined:?}");
}

#[test]
fn the_policy_says_which_way_a_group_with_members_may_go() {
    let missing = || GroupError::GroupIdNotFound("g".to_owned());
    for policy in [MigrationPolicy::Disabled, MigrationPolicy::Downgrade] {
        let (mut scene, a, _) = Scene::classic_orchard(with_policy(policy));
        assert_eq!(scene.consume(joins("x", &["apples"])), Err(missing()), "{policy:?}");
        assert_eq!(scene.beat(&a, 1), Ok(()), "nothing has happened");
    }
    let (mut scene, a, _) = Scene::classic_orchard(with_policy(MigrationPolicy::Upgrade));
    scene.told(joins("x", &["apples"]));
    scene.consume(request("x", -1)).unwrap();
    assert_eq!(scene.consumers().members.len(), 2, "it stays a consumer group");
    assert_eq!(scene.beat(&a, 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.rejoin(0, &a, &[]).generation, 3);

    let mut scene = Scene::with(with_policy(MigrationPolicy::Disabled));
    scene.coordinator.set_topics(Arc::new(orchard()));
    scene.told(joins("x", &["apples"]));
    let ticket = scene.join(classic(0, "", &[]));
    assert_eq!(scene.join_error(ticket), GroupError::InconsistentGroupProtocol);
}

#[test]
fn a_classic_group_whose_parts_cannot_be_read_stays_one() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    let members = scene.stable(1);
    let missing = GroupError::GroupIdNotFound("g".to_owned());
    assert_eq!(scene.consume(joins("x", &["apples"])), Err(missing));
    assert_eq!(scene.beat(&members[0].member_id, 1), Ok(()));
}

#[test]
fn who_waits_to_join_is_told_to_join_again_when_its_group_is_converted() {
    let (mut scene, a, b) = Scene::classic_orchard(GroupSettings::default());
    let waiting = scene.join(classic(1, &b, &[]));
    let waiting = match scene.answer(waiting) {
        Some(_) => scene.join(JoinGroup {
            protocols: vec![("range".to_owned(), subscribes(&[2]))],
            ..classic(1, &b, &[])
        }),
        None => waiting,
    };
    assert_eq!(scene.answer(waiting), None);
    scene.told(joins("x", &["apples"]));
    assert_eq!(scene.join_error(waiting), GroupError::RebalanceInProgress);
    assert_eq!(scene.beat(&a, 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn a_classic_member_that_does_not_join_or_sync_in_time_is_out() {
    let (mut scene, a, b) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    assert_eq!(scene.rejoin(1, &b, &[]).generation, 2);
    // A heartbeat in its session's time, but neither joins nor asks for its part.
    for _ in 0..13 {
        let _ = scene.beat(&a, 1);
        let _ = scene.beat(&b, 2);
        scene.told(request("x", 2));
        scene.pass(5_000);
    }
    let group = scene.consumers();
    assert_eq!(group.members.len(), 1, "{group:?}");
    assert_eq!(scene.beat(&a, 1), Err(GroupError::UnknownMemberId));
    assert_eq!(scene.beat(&b, 2), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_silent_classic_member_is_out_after_its_own_session() {
    let (mut scene, _, _) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    scene.pass(9_000);
    assert_eq!(scene.consumers().members.len(), 3);
    scene.pass(1_500);
    assert_eq!(scene.consumers().members.len(), 1);
    assert_eq!(scene.told(request("x", 2)).1, "1: 0 1 2");
}

#[test]
fn classic_members_join_a_consumer_group_and_leave_it() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    scene.told(joins("x", &["apples"]));
    let wants_id = JoinGroup { knows_member_id_required: true, ..classic(0, "", &[]) };
    let ticket = scene.join(wants_id.clone());
    let GroupError::MemberIdRequired { member_id } = scene.join_error(ticket) else {
        panic!("it is told its id")
    };
    let ticket = scene.join(JoinGroup { member_id: member_id.clone(), ..wants_id });
    assert_eq!(scene.joined(ticket).generation, 3);
    assert_eq!(scene.part(&member_id, 3), Ok(Vec::new()));
    let other =
        JoinGroup { protocols: vec![("other".to_owned(), subscribes(&[]))], ..classic(1, "", &[]) };
    let ticket = scene.join(other);
    assert_eq!(scene.join_error(ticket), GroupError::InconsistentGroupProtocol);
    assert_eq!(scene.beat("x", 2), Err(GroupError::UnknownMemberId), "it is no classic member");
    assert_eq!(scene.beat(&member_id, 2), Err(GroupError::IllegalGeneration));
    assert_eq!(scene.beat(&member_id, 3), Ok(()), "what it shall have is not free");
    assert_eq!(
        scene.leave(&[(&member_id, None), ("nobody", None)]),
        [Ok(()), Err(GroupError::UnknownMemberId)]
    );
    assert_eq!(scene.consumers().members.len(), 1);
    assert_eq!(scene.leave(&[("x", None)]), [Ok(())], "an operator removes whom it likes");
    assert_eq!(scene.consumers().members.len(), 0);
}

#[test]
fn the_last_static_consumer_that_comes_back_classic_converts_its_group() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    let consumer =
        ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..joins("x", &["apples"]) };
    assert_eq!(scene.told(consumer), told(2, "1: 0 1 2"));
    let back = JoinGroup { instance_id: Some("i".to_owned()), ..classic(0, "", &[]) };
    let ticket = scene.join(back);
    let joined = scene.joined(ticket);
    assert_eq!(joined.generation, 2, "without a rebalance");
    assert_eq!(scene.state().state, "Stable");
    assert_eq!(scene.part(&joined.member_id, 2), Ok(vec![0, 1, 2]), "it has what it had");
    assert_eq!(scene.failed_over().state(), scene.state());
}

#[test]
fn commits_of_classic_members_are_judged_by_their_generation() {
    let (mut scene, a, _) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    let mut commit = |generation, partition| {
        scene.commit_as(CommitOffsets {
            generation_or_epoch: generation,
            member_id: a.clone(),
            knows_epochs: false,
            ..commit("g", "apples", partition, 1, "")
        })
    };
    assert_eq!(commit(1, 0), Ok(vec![Ok(())]));
    assert_eq!(commit(2, 0), Err(GroupError::IllegalGeneration));
}

#[test]
fn members_give_up_what_they_own_in_any_topic() {
    let (mut scene, a, _) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    assert_eq!(scene.told(owns("x", 2, &[])), told(2, "-"));
    assert_eq!(scene.rejoin(0, &a, &[0, 1]).generation, 1);
}

#[test]
fn a_static_classic_member_that_comes_back_as_a_consumer_has_what_it_had() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    let named =
        |n: u8, name: &str| JoinGroup { instance_id: Some(name.to_owned()), ..classic(n, "", &[]) };
    let tickets = [scene.join(named(0, "i0")), scene.join(named(1, "i1"))];
    scene.pass(10_000);
    let [a, b] = tickets.map(|ticket| scene.joined(ticket));
    let parts = [(a.member_id.as_str(), apples(&[0, 1])), (b.member_id.as_str(), apples(&[2]))];
    scene.sync_bytes(&b.member_id, 1, &[]);
    scene.sync_bytes(&a.member_id, 1, &parts);
    // The group is converted by it, and it does not wait for the session of its former self.
    let back = |member: &str, name: &str| ConsumerHeartbeat {
        instance_id: Some(name.to_owned()),
        ..joins(member, &["apples"])
    };
    assert_eq!(scene.told(back("x", "i0")), told(1, "1: 0 1"));
    assert_eq!(scene.told(back("y", "i1")), told(1, "1: 2"));
    assert_eq!(scene.consumers().members.len(), 2);
    assert_eq!(scene.failed_over().consumers(), scene.consumers());
    assert_eq!(scene.consume(back("z", "i0")), Err(GroupError::UnreleasedInstanceId));
    let of =
        |name: &str, request| ConsumerHeartbeat { instance_id: Some(name.to_owned()), ..request };
    // Nothing of the former selves is due any more.
    for _ in 0..4 {
        scene.pass(9_000);
        scene.consume(of("i0", request("x", 1))).unwrap();
        scene.consume(of("i1", request("y", 1))).unwrap();
    }
    assert_eq!((scene.consumers().epoch, scene.consumers().members.len()), (1, 2));
}

#[test]
fn a_group_that_is_converted_while_it_rebalances_shares_anew() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    let named = JoinGroup { instance_id: Some("i".to_owned()), ..classic(0, "", &[]) };
    let tickets = [scene.join(named), scene.join(classic(1, "", &[]))];
    scene.pass(10_000);
    let [a, b] = tickets.map(|ticket| scene.joined(ticket));
    let parts = [(a.member_id.as_str(), apples(&[0, 1])), (b.member_id.as_str(), apples(&[2]))];
    scene.sync_bytes(&b.member_id, 1, &[]);
    scene.sync_bytes(&a.member_id, 1, &parts);
    assert_eq!(scene.leave(&[(&b.member_id, None)]), [Ok(())]);
    assert_eq!(scene.state().state, "PreparingRebalance");
    // It takes its own place and subscribes to the same: nothing else would have the group look at what is free.
    let back = ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..joins("x", &["apples"]) };
    assert_eq!(scene.told(back), told(2, "1: 0 1 2"));
}

#[test]
fn the_last_static_consumer_that_comes_back_has_a_group_that_is_on_its_way_rebalance() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    let consumer =
        ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..joins("x", &["apples"]) };
    scene.told(consumer);
    let ticket = scene.join(classic(1, "", &[]));
    let b = scene.joined(ticket).member_id;
    assert_eq!(scene.part(&b, 3), Ok(Vec::new()), "what it shall have is with the other");
    let back = JoinGroup { instance_id: Some("i".to_owned()), ..classic(0, "", &[]) };
    let ticket = scene.join(back);
    assert_eq!(scene.answer(ticket), None, "it waits for the others");
    assert_eq!(scene.beat(&b, 3), Err(GroupError::RebalanceInProgress));
    let again = scene.join(classic(1, &b, &[]));
    assert_eq!([ticket, again].map(|it| scene.joined(it).generation), [4, 4]);
}

#[test]
fn the_last_static_consumer_that_comes_back_to_other_topics_has_its_group_rebalance() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    let consumer =
        ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..joins("x", &["pears"]) };
    assert_eq!(scene.told(consumer), told(2, "2: 0 1"));
    let back = JoinGroup { instance_id: Some("i".to_owned()), ..classic(0, "", &[]) };
    let ticket = scene.join(back);
    let joined = scene.joined(ticket);
    assert_eq!((joined.generation, joined.leader.as_str()), (3, joined.member_id.as_str()));
    assert_eq!(scene.state().state, "CompletingRebalance");
}

#[test]
fn partitions_that_cannot_be_are_nobodys() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    let ticket = scene.join(classic(0, "", &[]));
    scene.pass(10_000);
    let a = scene.joined(ticket).member_id;
    scene.sync_bytes(&a, 1, &[(&a, apples(&[-1, i32::MIN, 1, 7]))]);
    assert_eq!(scene.told(joins("x", &["apples"])).0, 2);
    let targets = |scene: &mut Scene| {
        let members = scene.consumers().members;
        let topics = members.iter().flat_map(|member| &member.target);
        let mut parts: Vec<i32> =
            topics.flat_map(|topic| topic.partitions.iter().map(|it| it.0)).collect();
        parts.sort_unstable();
        parts
    };
    assert_eq!(targets(&mut scene), [0, 1, 2]);
    scene.rejoin(0, &a, &[-5, 1, 7]);
    scene.rejoin(0, &a, &[-5]);
    assert_eq!(scene.consumers().epoch, 2);
    assert!(scene.part(&a, 2).unwrap().iter().all(|it| (0..3).contains(it)));
    assert_eq!(targets(&mut scene), [0, 1, 2]);
}

#[test]
fn a_group_that_does_not_fit_a_batch_keeps_its_protocol() {
    let fits = GroupSettings::default();
    let (mut scene, a, _) = Scene::classic_orchard(fits.clone());
    let before = scene.log.len();
    scene.told(joins("x", &["apples"]));
    let record_bytes = |record: &GroupRecord| {
        let (key, value) = record.encode();
        28 + key.len() + value.map_or(0, |value| value.len())
    };
    let bytes: usize = scene.log[before..].iter().map(record_bytes).sum();
    assert_eq!(scene.beat(&a, 1), Err(GroupError::RebalanceInProgress));
    let exactly = GroupSettings { group_record_bytes_max: bytes, ..fits.clone() };
    let (mut scene, _, _) = Scene::classic_orchard(exactly);
    scene.told(joins("x", &["apples"]));

    let less = GroupSettings { group_record_bytes_max: bytes - 1, ..fits };
    let (mut scene, a, _) = Scene::classic_orchard(less);
    let (before, due) = (scene.log.len(), scene.coordinator.timers.clone());
    let missing = GroupError::GroupIdNotFound("g".to_owned());
    assert_eq!(scene.consume(joins("x", &["apples"])), Err(missing));
    assert_eq!(scene.beat(&a, 1), Ok(()));
    assert_eq!((scene.log.len(), &scene.coordinator.timers), (before, &due), "nothing happened");
}

#[test]
fn a_consumer_group_whose_classic_members_do_not_fit_a_batch_stays_one() {
    let (mut scene, _, b) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    scene.rejoin(1, &b, &[]);
    let mut scene = Scene::from_log(
        GroupSettings { group_record_bytes_max: 300, ..GroupSettings::default() },
        scene.log,
    );
    scene.coordinator.set_topics(Arc::new(orchard()));
    scene.consume(request("x", -1)).unwrap();
    assert_eq!(scene.consumers().members.len(), 2);
    let large = vec![("range".to_owned(), Bytes::from(vec![0; 400]))];
    let ticket = scene.join(JoinGroup { protocols: large, ..classic(1, &b, &[]) });
    let refused = scene.join_error(ticket);
    assert!(matches!(refused, GroupError::GroupTooLarge { limit: 300, .. }), "{refused:?}");
}

#[test]
fn a_full_coordinator_takes_no_classic_member_into_a_consumer_group() {
    let settings = GroupSettings { held_bytes_max: 0, ..GroupSettings::default() };
    let (mut scene, _, b) = Scene::classic_orchard(GroupSettings::default());
    scene.told(joins("x", &["apples"]));
    let mut scene = Scene::from_log(settings, scene.log);
    scene.coordinator.set_topics(Arc::new(orchard()));
    for member_id in ["", "made-up"] {
        let ticket = scene.join(classic(3, member_id, &[]));
        let refused = scene.join_error(ticket);
        assert!(matches!(refused, GroupError::CoordinatorFull { .. }), "{refused:?}");
    }
    assert_eq!(scene.rejoin(1, &b, &[]).generation, 2, "who is there goes on");
}

#[test]
fn what_classic_members_tell_is_counted() {
    let mut scene = Scene::with(GroupSettings::default());
    scene.coordinator.set_topics(Arc::new(orchard()));
    scene.told(joins("x", &["apples"]));
    let bytes = |scene: &Scene| scene.coordinator.durable.consumer_group("g").unwrap().bytes();
    let before = bytes(&scene);
    let mut metadata = subscribes(&[]).to_vec();
    metadata.extend(vec![0; 100_000]);
    let protocols = vec![("range".to_owned(), Bytes::from(metadata))];
    let ticket = scene.join(JoinGroup { protocols, ..classic(0, "", &[]) });
    scene.joined(ticket);
    assert!(bytes(&scene) > before + 100_000);
}
