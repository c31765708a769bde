use super::*;

#[test]
fn a_silent_member_is_out_after_its_session() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let generation = old[0].generation;
    scene.pass(6_000);
    assert_eq!(scene.beat(&old[0].member_id, generation), Ok(()));
    scene.pass(4_001);
    let told = scene.beat(&old[0].member_id, generation);
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
    let ticket = scene.join(again(0, &old[0].member_id));
    assert_eq!(scene.joined(ticket).members.len(), 1);
}

#[test]
fn whoever_waits_for_an_answer_is_not_silent() {
    let mut scene = Scene::new();
    let tickets = [scene.join(new_member(0)), scene.join(new_member(1))];
    scene.pass(6_500);
    let [leader, follower] = tickets.map(|ticket| scene.joined(ticket));
    let waiting = scene.sync(&follower, &[]);
    for _ in 0..5 {
        scene.pass(9_000);
        assert_eq!(scene.beat(&leader.member_id, leader.generation), Ok(()));
    }
    scene.sync(&leader, &[(&follower.member_id, "y")]);
    assert_eq!(scene.synced(waiting), Ok("y".to_owned()));
    scene.pass(9_999);
    assert_eq!(scene.beat(&follower.member_id, follower.generation), Ok(()), "a session from then");
}

#[test]
fn a_group_that_everybody_left_is_recorded_as_empty() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let left = scene.leave(&[(&old[0].member_id, None), (&old[1].member_id, None)]);
    assert_eq!(left, [Ok(()), Ok(())]);
    let described = scene.state();
    assert_eq!((described.state, described.protocol_type.as_str()), ("Empty", "consumer"));
    let Some(GroupRecord::Group { value: Some(record), .. }) = scene.log.last() else {
        panic!("a record of the group is due")
    };
    assert_eq!(record.generation, old[0].generation + 1);
    assert!(record.members.is_empty() && record.protocol.is_none() && record.leader.is_none());
    assert_eq!(scene.failed_over().state(), described);
}

#[test]
fn leaving_tells_for_each_member_what_became_of_it() {
    let mut scene = Scene::new();
    let asks = JoinGroup { knows_member_id_required: true, ..new_member(5) };
    let old = scene.stable(1);
    let ticket = scene.join(asks);
    let GroupError::MemberIdRequired { member_id: pending } = scene.join_error(ticket) else {
        panic!("an id is due")
    };
    let named = [("who", None), (pending.as_str(), None), ("", Some("nobody")), ("", None)];
    let unknown = || Err(GroupError::UnknownMemberId);
    assert_eq!(scene.leave(&named), [unknown(), Ok(()), unknown(), unknown()]);
    assert_eq!(scene.leave(&[(&old[0].member_id, Some("nobody"))]), [unknown()]);
    let nowhere = LeaveGroup {
        group_id: "nowhere".to_owned(),
        members: vec![("m".to_owned(), Some("i".to_owned()))],
    };
    let ticket = scene.ask(GroupRequest::Leave(nowhere));
    let Some(GroupResponse::Leave(Ok(left))) = scene.answer(ticket) else { panic!("a list") };
    assert_eq!(left[0].outcome, unknown());
}

#[test]
fn the_leader_may_leave_in_between() {
    let mut scene = Scene::new();
    let tickets = [scene.join(new_member(0)), scene.join(new_member(1))];
    scene.pass(10_000);
    let [leader, follower] = tickets.map(|ticket| scene.joined(ticket));
    let waiting = scene.sync(&follower, &[]);
    scene.leave(&[(&leader.member_id, None)]);
    assert_eq!(scene.synced(waiting), Err(GroupError::RebalanceInProgress));
    let ticket = scene.join(again(1, &follower.member_id));
    let joined = scene.joined(ticket);
    assert_eq!(joined.leader, follower.member_id);
    assert_eq!(joined.members.len(), 1);
}

#[test]
fn a_member_that_leaves_while_it_joins_is_answered() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let ticket = scene.join(again(0, &old[0].member_id));
    scene.leave(&[(&old[0].member_id, None)]);
    assert_eq!(scene.join_error(ticket), GroupError::UnknownMemberId);
}

#[test]
fn old_generations_are_refused() {
    let mut scene = Scene::new();
    let old = scene.stable(1);
    let told = scene.beat(&old[0].member_id, old[0].generation - 1);
    assert_eq!(told, Err(GroupError::IllegalGeneration));
    let stale = Joined { generation: 77, ..old[0].clone() };
    let ticket = scene.sync(&stale, &[]);
    assert_eq!(scene.synced(ticket), Err(GroupError::IllegalGeneration));
    let other = Joined { protocol: Some("other".to_owned()), ..old[0].clone() };
    let ticket = scene.sync(&other, &[]);
    assert_eq!(scene.synced(ticket), Err(GroupError::InconsistentGroupProtocol));
}
