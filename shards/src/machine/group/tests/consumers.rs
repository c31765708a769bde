use super::offsets::commit;
use super::*;
use crate::format::group_record::{MemberState, TopicPartitions};

/// Topics `apples` of three partitions and `pears` of two.
pub(super) fn orchard() -> Topics {
    let topic = |n, partitions| TopicFacts { topic_id: TopicId([n; 16]), partitions };
    let by_name = [("apples".to_owned(), topic(1, 3)), ("pears".to_owned(), topic(2, 2))];
    Topics { version: 1, by_name: by_name.into() }
}

pub(super) fn request(member_id: &str, member_epoch: i32) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group_id: "g".to_owned(),
        client: Client { id: "client".to_owned(), host: "/127.0.0.1".to_owned() },
        member_id: member_id.to_owned(),
        member_epoch,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: None,
        topics: None,
        expression: None,
        server_assignor: None,
        owned: None,
    }
}

pub(super) fn joins(member_id: &str, topics: &[&str]) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        rebalance_timeout_ms: Some(30_000),
        topics: Some(topics.iter().map(|topic| (*topic).to_owned()).collect()),
        owned: Some(Vec::new()),
        ..request(member_id, 0)
    }
}

pub(super) fn owns(member_id: &str, epoch: i32, places: &[(u8, &[i32])]) -> ConsumerHeartbeat {
    let topic = |(n, partitions): &(u8, &[i32])| TopicPartitions {
        topic_id: TopicId([*n; 16]),
        partitions: partitions.iter().map(|it| PartitionIndex(*it)).collect(),
    };
    ConsumerHeartbeat {
        owned: Some(places.iter().map(topic).collect()),
        ..request(member_id, epoch)
    }
}

/// `1: 0 2, 2: 1` stands for partitions 0 and 2 of topic 1, and partition 1 of topic 2.
fn shown(topics: &[TopicPartitions]) -> String {
    let show = |topic: &TopicPartitions| {
        let partitions = topic.partitions.iter().map(ToString::to_string).collect::<Vec<_>>();
        format!("{}: {}", topic.topic_id.0[0], partitions.join(" "))
    };
    topics.iter().map(show).collect::<Vec<_>>().join(", ")
}

impl Scene {
    fn orchard() -> Self {
        let mut scene = Self::new();
        scene.coordinator.set_topics(Arc::new(orchard()));
        scene
    }

    pub(super) fn consume(
        &mut self,
        request: ConsumerHeartbeat,
    ) -> Result<ConsumerBeat, GroupError> {
        let ticket = self.ask(GroupRequest::ConsumerHeartbeat(request));
        match self.answer(ticket) {
            Some(GroupResponse::ConsumerHeartbeat(beat)) => {
                assert_eq!(self.after(ticket), After::Records);
                beat.clone()
            }
            other => panic!("heard? {other:?}"),
        }
    }

    /// Epoch and assignment, `-` when there is none in the answer.
    pub(super) fn told(&mut self, request: ConsumerHeartbeat) -> (i32, String) {
        let beat = self.consume(request).unwrap();
        let assignment = beat.assignment.as_deref().map_or("-".to_owned(), shown);
        (beat.member_epoch, assignment)
    }

    pub(super) fn consumers(&mut self) -> DescribedConsumerGroup {
        let ticket = self.ask(GroupRequest::DescribeConsumerGroups(vec!["g".to_owned()]));
        match self.answer(ticket) {
            Some(GroupResponse::DescribeConsumerGroups(groups)) => groups[0].1.clone().unwrap(),
            other => panic!("described? {other:?}"),
        }
    }
}

pub(super) fn told(epoch: i32, assignment: &str) -> (i32, String) {
    (epoch, assignment.to_owned())
}

#[test]
fn the_first_member_has_everything_at_once() {
    let mut scene = Scene::orchard();
    let first = scene.told(joins("a", &["apples", "pears"]));
    assert_eq!(first, told(2, "1: 0 1 2, 2: 0 1"));
    let kinds: Vec<u8> = scene.log.iter().map(|record| record.encode().0[1]).collect();
    assert_eq!(kinds, [5, 3, 7, 6, 8], "as Kafka records it");
    assert_eq!(scene.told(request("a", 2)), told(2, "-"), "no news");
    assert_eq!(scene.log.len(), 5, "and nothing to be recorded");
    let group = scene.consumers();
    assert_eq!((group.state, group.epoch, group.assignor.as_str()), ("Stable", 2, "uniform"));
}

#[test]
fn partitions_move_when_they_are_given_up_and_not_before() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    assert_eq!(scene.told(joins("b", &["apples"])), told(3, ""));
    assert_eq!(scene.consumers().state, "Reconciling");
    assert_eq!(scene.told(request("a", 2)), told(2, "1: 0 1"), "it is told what to keep");
    assert_eq!(scene.told(request("b", 3)), told(3, "-"), "2 is not free yet");
    assert_eq!(scene.told(owns("a", 2, &[(1, &[0, 1, 2])])), told(2, "-"), "it has it still");
    assert_eq!(scene.told(request("b", 3)), told(3, "-"));
    assert_eq!(scene.told(owns("a", 2, &[(1, &[0, 1])])), told(3, "-"));
    assert_eq!(scene.told(request("b", 3)), told(3, "1: 2"));
    assert_eq!(scene.consumers().state, "Stable");
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_out() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    scene.told(joins("b", &["apples"]));
    scene.told(request("a", 2));
    for _ in 0..3 {
        scene.pass(9_999);
        scene.told(owns("a", 2, &[(1, &[0, 1, 2])]));
        scene.told(request("b", 3));
    }
    scene.pass(10);
    assert_eq!(scene.consume(request("a", 2)), Err(GroupError::UnknownMemberId));
    assert_eq!(scene.told(request("b", 3)), told(4, "1: 0 1 2"));
}

#[test]
fn a_silent_member_is_out_after_its_session() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    scene.pass(30_000);
    scene.told(joins("b", &["apples"]));
    scene.pass(15_001);
    assert_eq!(scene.told(request("b", 3)), told(4, "1: 0 1 2"));
    assert_eq!(scene.consume(request("a", 2)), Err(GroupError::UnknownMemberId));
    scene.pass(45_001);
    assert_eq!(scene.consumers().state, "Empty");
}

#[test]
fn a_member_that_leaves_frees_what_it_had() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    let gone = scene.consume(request("a", -1)).unwrap();
    assert_eq!((gone.member_epoch, gone.assignment), (-1, None));
    let kinds: Vec<u8> = scene.log[5..].iter().map(|record| record.encode().0[1]).collect();
    assert_eq!(kinds, [8, 7, 5, 3], "as Kafka records it");
    assert_eq!(scene.told(joins("b", &["apples"])), told(4, "1: 0 1 2"));
}

#[test]
fn epochs_fence_those_who_are_not_up_to_date() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    assert_eq!(scene.consume(request("a", 3)), Err(GroupError::FencedMemberEpoch));
    assert_eq!(scene.consume(request("a", 1)), Err(GroupError::FencedMemberEpoch));
    assert_eq!(scene.consume(request("b", 2)), Err(GroupError::UnknownMemberId));
    scene.told(joins("b", &["apples"]));
    scene.told(request("a", 2));
    assert_eq!(scene.told(owns("a", 2, &[(1, &[0, 1])])), told(3, "-"));
    // The answer was lost: the member names its epoch before, and has nothing beyond.
    assert_eq!(scene.told(owns("a", 2, &[(1, &[0, 1])])), told(3, "-"));
    let beyond = scene.consume(owns("a", 2, &[(1, &[0, 1, 2])]));
    assert_eq!(beyond, Err(GroupError::FencedMemberEpoch));
    assert_eq!(scene.consume(request("a", 2)), Err(GroupError::FencedMemberEpoch));
    assert_eq!(scene.told(joins("a", &["apples"])), told(3, "1: 0 1"), "it may always join again");
}

#[test]
fn a_member_may_subscribe_to_other_topics() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    let pears = ConsumerHeartbeat { topics: Some(vec!["pears".to_owned()]), ..request("a", 2) };
    assert_eq!(scene.told(pears), told(2, ""), "apples are given up first");
    assert_eq!(scene.told(owns("a", 2, &[])), told(3, "2: 0 1"));
}

#[test]
fn members_subscribe_by_regular_expression() {
    let mut scene = Scene::orchard();
    let by = |text: &str| ConsumerHeartbeat {
        topics: None,
        expression: Some(text.to_owned()),
        ..joins("a", &[])
    };
    let refused = scene.consume(by("("));
    assert!(matches!(refused, Err(GroupError::InvalidRegularExpression(_))), "{refused:?}");
    assert_eq!(scene.log, []);
    assert_eq!(scene.told(by("app.*|figs")), told(2, "1: 0 1 2"));
    let mut topics = orchard();
    topics.version = 2;
    topics.by_name.insert("figs".into(), TopicFacts { topic_id: TopicId([3; 16]), partitions: 1 });
    scene.coordinator.set_topics(Arc::new(topics));
    assert_eq!(scene.told(request("a", 2)), told(3, "1: 0 1 2, 3: 0"));
    let other = ConsumerHeartbeat { expression: Some(String::new()), ..request("a", 3) };
    scene.told(ConsumerHeartbeat { topics: Some(vec!["pears".to_owned()]), ..other });
    let Some(GroupRecord::RegularExpression { value, .. }) =
        scene.log.iter().rfind(|record| matches!(record, GroupRecord::RegularExpression { .. }))
    else {
        panic!("a record of the expression")
    };
    assert_eq!(*value, None, "nobody has it any more");
    assert_eq!(scene.told(owns("a", 3, &[])), told(4, "2: 0 1"));
}

#[test]
fn topics_that_grow_are_assigned_anew() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples", "none"]));
    let mut topics = orchard();
    topics.by_name.get_mut("pears").unwrap().partitions = 9;
    scene.coordinator.set_topics(Arc::new(topics.clone()));
    assert_eq!(scene.told(request("a", 2)), told(2, "-"), "it does not subscribe to pears");
    topics.by_name.get_mut("apples").unwrap().partitions = 4;
    scene.coordinator.set_topics(Arc::new(topics));
    assert_eq!(scene.told(request("a", 2)), told(3, "1: 0 1 2 3"));
}

#[test]
fn most_members_choose_the_assignor() {
    let mut scene = Scene::orchard();
    let by = |id: &str, name: &str| ConsumerHeartbeat {
        server_assignor: Some(name.to_owned()),
        ..joins(id, &["apples"])
    };
    let unknown = scene.consume(by("a", "sticky"));
    assert_eq!(unknown, Err(GroupError::UnsupportedAssignor("sticky".to_owned())));
    scene.told(by("a", "range"));
    scene.told(by("b", "range"));
    scene.told(by("c", "uniform"));
    assert_eq!(scene.consumers().assignor, "range");
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let mut scene = Scene::orchard();
    let cases = [
        ConsumerHeartbeat { group_id: " ".to_owned(), ..joins("a", &[]) },
        joins("", &[]),
        ConsumerHeartbeat { instance_id: Some(String::new()), ..joins("a", &[]) },
        ConsumerHeartbeat { rack_id: Some(String::new()), ..joins("a", &[]) },
        ConsumerHeartbeat { rebalance_timeout_ms: None, ..joins("a", &[]) },
        ConsumerHeartbeat { owned: None, ..joins("a", &[]) },
        ConsumerHeartbeat { topics: None, ..joins("a", &[]) },
        request("a", -2),
        request("a", -3),
    ];
    for case in cases {
        let refused = scene.consume(case.clone());
        assert!(matches!(refused, Err(GroupError::InvalidRequest(_))), "{case:?}: {refused:?}");
    }
    let missing = GroupError::GroupIdNotFound("g".to_owned());
    assert_eq!(scene.consume(request("a", 1)), Err(missing));
}

fn named(request: ConsumerHeartbeat) -> ConsumerHeartbeat {
    ConsumerHeartbeat { instance_id: Some("i".to_owned()), ..request }
}

#[test]
fn a_static_member_comes_back_to_what_it_had() {
    let mut scene = Scene::orchard();
    scene.told(named(joins("a", &["apples"])));
    let early = scene.consume(named(joins("b", &["apples"])));
    assert_eq!(early, Err(GroupError::UnreleasedInstanceId));
    assert_eq!(scene.consume(named(request("b", 2))), Err(GroupError::FencedInstanceId));
    let left = scene.consume(named(request("a", -2))).unwrap();
    assert_eq!(left.member_epoch, -2);
    scene.told(joins("other", &["apples"]));
    assert_eq!(scene.told(request("other", 3)), told(3, "-"), "it is kept for the one that left");
    assert_eq!(scene.told(named(joins("b", &["apples"]))), told(3, "1: 0 1"));
    assert_eq!(scene.consume(named(request("a", 2))), Err(GroupError::FencedInstanceId));
    assert_eq!(scene.told(request("other", 3)), told(3, "1: 2"));
    assert_eq!(scene.consumers().members.len(), 2);
}

#[test]
fn a_static_member_that_stays_away_is_out_after_its_session() {
    let mut scene = Scene::orchard();
    scene.told(named(joins("a", &["apples"])));
    scene.consume(named(request("a", -2))).unwrap();
    scene.pass(45_001);
    assert_eq!(scene.consumers().members, []);
}

#[test]
fn a_full_group_takes_nobody() {
    let mut scene =
        Scene::with(GroupSettings { consumer_members_max: 1, ..GroupSettings::default() });
    scene.coordinator.set_topics(Arc::new(orchard()));
    scene.told(joins("a", &["apples"]));
    let refused = scene.consume(joins("b", &["apples"]));
    assert_eq!(refused, Err(GroupError::GroupMaxSizeReached { limit: 1 }));
    assert_eq!(scene.told(joins("a", &["apples"])).0, 2);
}

#[test]
fn a_group_may_have_times_of_its_own() {
    let mut scene = Scene::orchard();
    let own = GroupOverrides {
        consumer_session_timeout_ms: Some(60_000),
        consumer_heartbeat_interval_ms: Some(7_000),
    };
    scene.coordinator.set_overrides([("g".to_owned(), own)].into());
    assert_eq!(scene.consume(joins("a", &["apples"])).unwrap().heartbeat_interval_ms, 7_000);
    scene.pass(59_999);
    assert_eq!(scene.consume(request("a", 2)).unwrap().heartbeat_interval_ms, 7_000);
}

#[test]
fn members_go_on_after_a_failover() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    scene.told(joins("b", &["apples"]));
    scene.told(request("a", 2));
    let mut next = scene.failed_over();
    next.coordinator.set_topics(Arc::new(orchard()));
    assert_eq!(next.consumers(), scene.consumers());
    assert_eq!(next.told(owns("a", 2, &[(1, &[0, 1])])), told(3, "-"));
    assert_eq!(next.told(request("b", 3)), told(3, "1: 2"));
    assert_eq!(next.log.len(), scene.log.len() + 2, "topics are as they were");
}

#[test]
fn a_group_changes_its_protocol_while_it_is_empty_whatever_the_policy() {
    let migration_policy = MigrationPolicy::Disabled;
    let mut scene = Scene::with(GroupSettings { migration_policy, ..GroupSettings::default() });
    scene.coordinator.set_topics(Arc::new(orchard()));
    let old = scene.stable(1);
    let missing = GroupError::GroupIdNotFound("g".to_owned());
    assert_eq!(scene.consume(joins("x", &["apples"])), Err(missing));
    scene.leave(&[(&old[0].member_id, None)]);
    assert_eq!(scene.told(joins("x", &["apples"])), told(2, "1: 0 1 2"));
    let ticket = scene.join(new_member(0));
    assert_eq!(scene.join_error(ticket), GroupError::InconsistentGroupProtocol);
    scene.consume(request("x", -1)).unwrap();
    let ticket = scene.join(new_member(0));
    scene.pass(3_000);
    assert_eq!(scene.joined(ticket).generation, 1);
    assert_eq!(scene.failed_over().coordinator.durable, scene.coordinator.durable);
}

#[test]
fn offsets_are_committed_in_an_epoch_in_which_the_member_had_the_partition() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    scene.told(joins("b", &["apples"]));
    scene.told(request("a", 2));
    scene.told(owns("a", 2, &[(1, &[0, 1])]));
    scene.told(request("b", 3));
    let mut commit = |member_id: &str, epoch, partition, knows_epochs| {
        let outcome = scene.commit_as(CommitOffsets {
            generation_or_epoch: epoch,
            member_id: member_id.to_owned(),
            knows_epochs,
            ..commit("g", "apples", partition, 1, "")
        });
        outcome.map(|partitions| assert_eq!(partitions, [Ok(())]))
    };
    assert_eq!(commit("a", 3, 0, true), Ok(()));
    assert_eq!(commit("a", 2, 0, true), Ok(()), "it had this one in epoch 2");
    assert_eq!(commit("a", 2, 2, true), Err(GroupError::StaleMemberEpoch));
    assert_eq!(commit("b", 2, 2, true), Err(GroupError::StaleMemberEpoch));
    assert_eq!(commit("b", 3, 2, true), Ok(()));
    assert_eq!(commit("b", 4, 2, true), Err(GroupError::StaleMemberEpoch));
    assert_eq!(commit("c", 3, 2, true), Err(GroupError::UnknownMemberId));
    assert_eq!(commit("a", 3, 0, false), Err(GroupError::UnsupportedVersion));
    assert_eq!(commit("", -1, 0, true), Err(GroupError::UnknownMemberId));
    let mut fetch = |member: Option<(&str, i32)>| {
        let ticket = scene.ask(GroupRequest::FetchOffsets(FetchOffsets {
            group_id: "g".to_owned(),
            member: member.map(|(id, epoch)| (id.to_owned(), epoch)),
            topics: None,
        }));
        match scene.answer(ticket) {
            Some(GroupResponse::FetchOffsets(found)) => found.clone().map(|lines| lines.len()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(fetch(None), Ok(2));
    assert_eq!(fetch(Some(("a", 3))), Ok(2));
    assert_eq!(fetch(Some(("a", 2))), Err(GroupError::StaleMemberEpoch));
    assert_eq!(fetch(Some(("c", 3))), Err(GroupError::UnknownMemberId));
}

#[test]
fn an_empty_consumer_group_is_deleted_with_all_that_it_left() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    let delete = |scene: &mut Scene| {
        let ids = vec!["g".to_owned(), "g".to_owned()];
        let ticket = scene.ask(GroupRequest::DeleteGroups(ids));
        match scene.answer(ticket) {
            Some(GroupResponse::DeleteGroups(lines)) => {
                lines.iter().map(|(_, outcome)| outcome.clone()).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(delete(&mut scene)[0], Err(GroupError::NonEmptyGroup));
    scene.consume(request("a", -1)).unwrap();
    let gone = GroupError::GroupIdNotFound("g".to_owned());
    assert_eq!(delete(&mut scene), [Ok(()), Err(gone)]);
    assert_eq!(scene.coordinator.durable, Durable::default());
}

#[test]
fn an_empty_consumer_group_goes_when_its_offsets_have_expired() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    scene.consume(request("a", -1)).unwrap();
    scene.pass(600_001);
    assert_eq!(scene.coordinator.durable, Durable::default());
}

#[test]
fn a_member_of_an_unknown_state_joins_again_without_anything() {
    let mut scene = Scene::orchard();
    scene.told(joins("a", &["apples"]));
    for record in &mut scene.log {
        if let GroupRecord::Current { value: Some(value), .. } = record {
            value.state = MemberState::Unknown;
        }
    }
    let mut next = Scene::from_log(GroupSettings::default(), scene.log);
    next.coordinator.set_topics(Arc::new(orchard()));
    assert_eq!(next.consume(request("a", 2)), Err(GroupError::FencedMemberEpoch));
    assert_eq!(next.told(joins("a", &["apples"])), told(2, "1: 0 1 2"));
}
