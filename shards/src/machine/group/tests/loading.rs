use super::*;

#[test]
fn a_coordinator_answers_when_it_has_loaded_and_not_before() {
    let mut coordinator = Coordinator::new(GroupSettings::default(), LeaderEpoch(4));
    let now = Now::default();
    let beat = Heartbeat {
        group_id: "g".to_owned(),
        generation: 1,
        member_id: "m".to_owned(),
        instance_id: None,
    };
    let told = |coordinator: &mut Coordinator, number| {
        let request = GroupRequest::Heartbeat(beat.clone());
        let mut output = coordinator.handle(now, Ticket(number), request);
        assert_eq!((output.leader_epoch, output.records.len()), (LeaderEpoch(4), 0));
        match output.replies.remove(0).response {
            GroupResponse::Heartbeat(Err(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(told(&mut coordinator, 0), GroupError::LoadInProgress);
    let _ = coordinator.loaded(now);
    assert_eq!(told(&mut coordinator, 1), GroupError::UnknownMemberId);
    let _ = coordinator.resign(now, LeaderEpoch(3));
    assert_eq!(told(&mut coordinator, 2), GroupError::UnknownMemberId, "old news change nothing");
    let _ = coordinator.resign(now, LeaderEpoch(5));
    assert!(!coordinator.is_serving());
    assert_eq!(told(&mut coordinator, 3), GroupError::NotCoordinator);
    assert_eq!(coordinator.next_deadline(), None);
}

#[test]
fn whoever_waits_is_told_of_the_end() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let joining = scene.join(again(0, &old[0].member_id));
    let output = scene.coordinator.resign(scene.now, LeaderEpoch(2));
    scene.take(output);
    assert_eq!(scene.join_error(joining), GroupError::NotCoordinator);
}

#[test]
fn members_go_on_after_a_failover() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let mut next = scene.failed_over();
    let (before, after) = (scene.state(), next.state());
    assert_eq!(before, after);
    for member in &old {
        assert_eq!(next.beat(&member.member_id, member.generation), Ok(()));
    }
    let ticket = next.sync(&old[1], &[]);
    assert_eq!(next.synced(ticket), Ok("part".to_owned()));
    next.pass(10_001);
    assert_eq!(next.state().state, "Empty", "sessions go on, too");
}

#[test]
fn a_rebalance_that_was_under_way_begins_again() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let tickets = [0, 1].map(|n| scene.join(again(n as u8, &old[n].member_id)));
    let joined = tickets.map(|ticket| scene.joined(ticket));
    let mut next = scene.failed_over();
    let ticket = next.sync(&joined[1], &[]);
    assert_eq!(next.synced(ticket), Err(GroupError::IllegalGeneration));
    let told = next.beat(&joined[0].member_id, joined[0].generation);
    assert_eq!(told, Err(GroupError::IllegalGeneration));
    let tickets = [0, 1].map(|n| next.join(again(n as u8, &old[n].member_id)));
    assert_eq!(next.joined(tickets[0]).generation, old[0].generation + 1);
}

#[test]
fn groups_are_listed_by_state_and_type() {
    let mut scene = Scene::new();
    scene.stable(1);
    scene.commit("simple", "t", 0, 5, "").unwrap();
    let mut listed = |states: &[&str], types: &[&str]| -> Vec<String> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let request = ListGroups { states: owned(states), types: owned(types) };
        let ticket = scene.ask(GroupRequest::ListGroups(request));
        match scene.answer(ticket) {
            Some(GroupResponse::ListGroups(Ok(groups))) => groups
                .iter()
                .map(|it| {
                    format!("{} {} {} {}", it.group_id, it.protocol_type, it.state, it.group_type)
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    };
    let [group, simple] = ["g consumer Stable classic", "simple  Empty classic"];
    assert_eq!(listed(&[], &[]), [group, simple]);
    assert_eq!(listed(&["stable", "Dead"], &[]), [group]);
    assert_eq!(listed(&["EMPTY"], &["Classic"]), [simple]);
    assert_eq!(listed(&[], &["consumer"]), Vec::<String>::new());
}

#[test]
#[should_panic(expected = "have not been replayed")]
fn a_turn_before_the_last_ones_records_are_replayed_is_a_mistake() {
    let mut scene = Scene::new();
    let request = GroupRequest::Join(new_member(0));
    let _ = scene.coordinator.handle(scene.now, Ticket(0), request);
    let _ = scene.coordinator.tick(scene.now);
}
