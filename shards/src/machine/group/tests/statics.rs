use super::*;

/// A stable group of two static members, the first of which leads.
fn stable_pair(scene: &mut Scene) -> [Joined; 2] {
    let tickets = [scene.join(static_member(0, "i0")), scene.join(static_member(1, "i1"))];
    scene.pass(10_000);
    let joined = tickets.map(|ticket| scene.joined(ticket));
    scene.sync(&joined[1], &[]);
    let parts = [(joined[0].member_id.as_str(), "x"), (joined[1].member_id.as_str(), "y")];
    scene.sync(&joined[0], &parts);
    assert_eq!(scene.state().state, "Stable");
    joined
}

#[test]
fn a_static_member_that_starts_again_takes_its_place_without_a_rebalance() {
    let mut scene = Scene::new();
    let [_, old] = stable_pair(&mut scene);
    let ticket = scene.join(JoinGroup { fresh_id: [9; 16], ..static_member(1, "i1") });
    let joined = scene.joined(ticket);
    assert_eq!(scene.after(ticket), After::Records, "the new id must be in the log");
    assert_ne!(joined.member_id, old.member_id);
    assert_eq!(joined.generation, old.generation);
    assert!(!joined.skip_assignment && joined.members.is_empty());
    assert_eq!(scene.state().state, "Stable");
    let ticket = scene.sync(&joined, &[]);
    assert_eq!(scene.synced(ticket), Ok("y".to_owned()));
    assert_eq!(scene.beat(&old.member_id, old.generation), Err(GroupError::UnknownMemberId));
    let mut next = scene.failed_over();
    assert_eq!(next.beat(&joined.member_id, joined.generation), Ok(()));
}

#[test]
fn a_static_leader_that_starts_again_skips_the_assignment_if_it_knows_how() {
    let mut scene = Scene::new();
    let [leader, _] = stable_pair(&mut scene);
    let ticket = scene.join(JoinGroup { fresh_id: [9; 16], ..static_member(0, "i0") });
    let joined = scene.joined(ticket);
    assert!(joined.skip_assignment);
    assert_eq!((joined.leader.clone(), joined.members.len()), (joined.member_id.clone(), 2));
    let older =
        JoinGroup { fresh_id: [8; 16], knows_skip_assignment: false, ..static_member(0, "i0") };
    let ticket = scene.join(older);
    let told = scene.joined(ticket);
    assert_eq!(told.leader, joined.member_id, "it is not told that it leads");
    assert!(!told.skip_assignment && told.members.is_empty());
    assert_ne!(told.member_id, leader.member_id);
}

#[test]
fn the_former_self_of_a_static_member_is_fenced() {
    let mut scene = Scene::new();
    let [leader, old] = stable_pair(&mut scene);
    // The group rebalances, and both selves wait for its end.
    scene.join(JoinGroup { instance_id: Some("i0".to_owned()), ..again(0, &leader.member_id) });
    let waiting = scene.join(JoinGroup {
        instance_id: Some("i1".to_owned()),
        protocols: vec![("range".to_owned(), subscription("u"))],
        ..again(1, &old.member_id)
    });
    let rejoined = scene.joined(waiting);
    let sync = scene.sync(&rejoined, &[]);
    scene.join(JoinGroup { fresh_id: [9; 16], ..static_member(1, "i1") });
    assert_eq!(scene.synced(sync), Err(GroupError::FencedInstanceId));
    let ticket = scene.ask(GroupRequest::Heartbeat(Heartbeat {
        group_id: "g".to_owned(),
        generation: rejoined.generation,
        member_id: rejoined.member_id.clone(),
        instance_id: Some("i1".to_owned()),
    }));
    let fenced = GroupResponse::Heartbeat(Err(GroupError::FencedInstanceId));
    assert_eq!(scene.answer(ticket), Some(&fenced));
}

#[test]
fn a_static_member_that_is_away_keeps_its_part_until_its_session_ends() {
    let mut scene = Scene::new();
    let [leader, away] = stable_pair(&mut scene);
    let ticket = scene.join(JoinGroup {
        rebalance_timeout_ms: 2_000,
        instance_id: Some("i0".to_owned()),
        ..again(0, &leader.member_id)
    });
    assert_eq!(scene.answer(ticket), None);
    scene.pass(9_999);
    assert_eq!(scene.answer(ticket), None, "the other's time to join is not over");
    scene.pass(2);
    assert_eq!(scene.joined(ticket).members.len(), 1, "its session was, however");
    let told = scene.beat(&away.member_id, away.generation);
    assert_eq!(told, Err(GroupError::UnknownMemberId));
}

#[test]
fn a_phase_ends_with_static_members_that_did_not_join() {
    let mut scene = Scene::new();
    let tickets = [(0, "i0", 60_000), (1, "i1", 600_000)].map(|(n, name, session_timeout_ms)| {
        let request =
            JoinGroup { session_timeout_ms, rebalance_timeout_ms: 5_000, ..static_member(n, name) };
        scene.join(request)
    });
    scene.pass(5_000);
    let joined = tickets.map(|ticket| scene.joined(ticket));
    scene.sync(&joined[1], &[]);
    scene.sync(&joined[0], &[]);
    let ticket = scene.join(JoinGroup {
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 5_000,
        instance_id: Some("i0".to_owned()),
        ..again(0, &joined[0].member_id)
    });
    scene.pass(5_001);
    let next = scene.joined(ticket);
    assert_eq!(next.members.len(), 2, "the one that is away is assigned, too");
    assert_eq!(next.leader, joined[0].member_id);
}

#[test]
fn an_operator_removes_a_static_member_by_its_instance_id() {
    let mut scene = Scene::new();
    let [leader, gone] = stable_pair(&mut scene);
    let fenced = scene.leave(&[("other", Some("i1"))]);
    assert_eq!(fenced, [Err(GroupError::FencedInstanceId)]);
    assert_eq!(scene.leave(&[("", Some("i1"))]), [Ok(())]);
    let told = scene.beat(&gone.member_id, gone.generation);
    assert_eq!(told, Err(GroupError::UnknownMemberId));
    let told = scene.beat(&leader.member_id, leader.generation);
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
}
