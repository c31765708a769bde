use super::*;

#[test]
fn a_new_member_is_told_its_id_and_joins_with_it() {
    let mut scene = Scene::new();
    let request = JoinGroup { knows_member_id_required: true, ..new_member(0) };
    let ticket = scene.join(request.clone());
    let GroupError::MemberIdRequired { member_id } = scene.join_error(ticket) else {
        panic!("an id is due")
    };
    assert_eq!(member_id, "a-00000000-0000-4000-8000-000000000000");
    assert_eq!(scene.log.len(), 1, "the group is there for whoever lists groups");
    let ticket = scene.join(JoinGroup { member_id: member_id.clone(), ..request });
    assert_eq!(scene.answer(ticket), None);
    scene.pass(3_000);
    let joined = scene.joined(ticket);
    assert_eq!((joined.generation, joined.leader.as_str()), (1, member_id.as_str()));
    assert_eq!(joined.members.len(), 1);
    assert_eq!(joined.protocol.as_deref(), Some("range"));
}

#[test]
fn an_id_that_is_not_used_expires() {
    let mut scene = Scene::new();
    let request = JoinGroup { knows_member_id_required: true, ..new_member(0) };
    let ticket = scene.join(request.clone());
    let GroupError::MemberIdRequired { member_id } = scene.join_error(ticket) else {
        panic!("an id is due")
    };
    scene.pass(10_001);
    let ticket = scene.join(JoinGroup { member_id, ..request });
    assert_eq!(scene.join_error(ticket), GroupError::UnknownMemberId);
}

#[test]
fn the_initial_delay_grows_while_members_come_up_to_the_rebalance_timeout() {
    let mut scene = Scene::new();
    let mut tickets = vec![scene.join(new_member(0))];
    // One in each delay: the phase lasts a rebalance time-out, which is twenty delays.
    for n in 1..20 {
        scene.pass(2_990);
        tickets.push(scene.join(new_member(n)));
        assert_eq!(scene.answer(tickets[0]), None, "held open for {n}");
    }
    scene.pass(3_300);
    let generations: Vec<i32> =
        tickets.iter().map(|ticket| scene.joined(*ticket).generation).collect();
    assert_eq!(generations, [1; 20]);
    let leaders = tickets.iter().filter(|ticket| !scene.joined(**ticket).members.is_empty());
    assert_eq!(leaders.count(), 1, "the leader alone learns of all members");
}

#[test]
fn followers_wait_for_the_leaders_assignment() {
    let mut scene = Scene::new();
    let tickets = [scene.join(new_member(0)), scene.join(new_member(1))];
    scene.pass(10_000);
    let [leader, follower] = tickets.map(|ticket| scene.joined(ticket));
    assert_eq!(leader.leader, leader.member_id, "whoever came first leads");
    let waiting = scene.sync(&follower, &[]);
    assert_eq!(scene.answer(waiting), None);
    assert_eq!(scene.state().state, "CompletingRebalance");
    let parts = [(leader.member_id.as_str(), "x"), (follower.member_id.as_str(), "y")];
    let brought = scene.sync(&leader, &parts);
    assert_eq!(scene.synced(waiting), Ok("y".to_owned()));
    assert_eq!(scene.synced(brought), Ok("x".to_owned()));
    assert_eq!([scene.after(waiting), scene.after(brought)], [After::Records; 2]);
    let described = scene.state();
    assert_eq!((described.state, described.protocol.as_str()), ("Stable", "range"));
    assert_eq!(described.members[1].assignment, "y");
}

#[test]
fn a_member_that_comes_has_everybody_join_again() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let third = scene.join(new_member(2));
    let generation = old[0].generation;
    for member in &old {
        let told = scene.beat(&member.member_id, generation);
        assert_eq!(told, Err(GroupError::RebalanceInProgress));
    }
    let first = scene.join(again(0, &old[0].member_id));
    assert_eq!(scene.answer(third), None, "one is missing");
    let second = scene.join(again(1, &old[1].member_id));
    for ticket in [first, second, third] {
        assert_eq!(scene.joined(ticket).generation, generation + 1);
    }
    assert_eq!(scene.joined(first).members.len(), 3);
}

#[test]
fn whoever_does_not_join_in_time_is_out() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let first = scene.join(again(0, &old[0].member_id));
    // The other one is heard, but does not join.
    for _ in 0..20 {
        scene.pass(2_999);
        assert!(scene.beat(&old[1].member_id, old[1].generation).is_err());
    }
    assert_eq!(scene.answer(first), None);
    scene.pass(100);
    assert_eq!(scene.joined(first).members.len(), 1);
    let told = scene.beat(&old[1].member_id, old[1].generation);
    assert_eq!(told, Err(GroupError::UnknownMemberId));
}

#[test]
fn whoever_does_not_sync_in_time_is_out() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let tickets = [0, 1].map(|n| scene.join(again(n as u8, &old[n].member_id)));
    let joined = tickets.map(|ticket| scene.joined(ticket));
    let brought = scene.sync(&joined[0], &[(&joined[0].member_id, "x")]);
    assert_eq!(scene.synced(brought), Ok("x".to_owned()));
    for _ in 0..20 {
        scene.pass(2_999);
        for member in &joined {
            assert_eq!(scene.beat(&member.member_id, member.generation), Ok(()));
        }
    }
    scene.pass(100);
    let told = scene.beat(&joined[1].member_id, joined[1].generation);
    assert_eq!(told, Err(GroupError::UnknownMemberId));
    let told = scene.beat(&joined[0].member_id, joined[0].generation);
    assert_eq!(told, Err(GroupError::RebalanceInProgress));
}

#[test]
fn an_answer_that_was_lost_is_given_again() {
    let mut scene = Scene::new();
    let first = scene.join(new_member(0));
    scene.pass(3_000);
    let joined = scene.joined(first);
    let ticket = scene.join(again(0, &joined.member_id));
    assert_eq!(scene.joined(ticket), joined, "to the leader, while its assignment is due");
    let lost = scene.sync(&joined, &[(&joined.member_id, "x")]);
    let ticket = scene.sync(&joined, &[]);
    assert_eq!(scene.synced(ticket), scene.synced(lost));
}

#[test]
fn a_follower_without_news_stays_in_its_generation_and_a_leader_begins_another() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let ticket = scene.join(again(1, &old[1].member_id));
    assert_eq!(scene.joined(ticket).generation, old[1].generation);
    assert_eq!(scene.state().state, "Stable");
    scene.join(again(0, &old[0].member_id));
    assert_eq!(scene.state().state, "PreparingRebalance");
}

#[test]
fn a_member_with_news_begins_another_generation() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let protocols = vec![("range".to_owned(), subscription("other"))];
    scene.join(JoinGroup { protocols, ..again(1, &old[1].member_id) });
    assert_eq!(scene.state().state, "PreparingRebalance");
}

#[test]
fn whoever_waits_for_its_part_is_told_of_a_new_rebalance() {
    let mut scene = Scene::new();
    let tickets = [scene.join(new_member(0)), scene.join(new_member(1))];
    scene.pass(10_000);
    let follower = scene.joined(tickets[1]);
    let waiting = scene.sync(&follower, &[]);
    scene.join(new_member(2));
    assert_eq!(scene.synced(waiting), Err(GroupError::RebalanceInProgress));
    let ticket = scene.sync(&follower, &[]);
    assert_eq!(scene.synced(ticket), Err(GroupError::RebalanceInProgress));
}

#[test]
fn the_protocol_is_what_most_like_best_of_what_all_have() {
    let mut scene = Scene::new();
    let protocols = |names: &[&str]| -> Vec<(String, Bytes)> {
        names.iter().map(|name| ((*name).to_owned(), subscription("t"))).collect()
    };
    let lists = [&["lone", "a", "b"][..], &["b", "a"], &["b", "a", "x"]];
    let tickets: Vec<Ticket> = (0..)
        .zip(lists)
        .map(|(n, list)| scene.join(JoinGroup { protocols: protocols(list), ..new_member(n) }))
        .collect();
    let stranger = scene.join(JoinGroup { protocols: protocols(&["lone"]), ..new_member(9) });
    assert_eq!(scene.join_error(stranger), GroupError::InconsistentGroupProtocol);
    let other_type = JoinGroup { protocol_type: "connect".to_owned(), ..new_member(8) };
    let stranger = scene.join(other_type);
    assert_eq!(scene.join_error(stranger), GroupError::InconsistentGroupProtocol);
    scene.pass(10_000);
    assert_eq!(scene.joined(tickets[0]).protocol.as_deref(), Some("b"));
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let mut scene = Scene::new();
    let refused = |scene: &mut Scene, request| {
        let ticket = scene.join(request);
        scene.join_error(ticket)
    };
    let nameless = JoinGroup { group_id: String::new(), ..new_member(0) };
    assert_eq!(refused(&mut scene, nameless), GroupError::InvalidGroupId);
    for session_timeout_ms in [5_999, 1_800_001] {
        let request = JoinGroup { session_timeout_ms, ..new_member(0) };
        let error = refused(&mut scene, request);
        assert!(matches!(error, GroupError::InvalidSessionTimeout { .. }), "{error}");
    }
    assert_eq!(refused(&mut scene, again(0, "who")), GroupError::UnknownMemberId);
    let mute = JoinGroup { protocols: Vec::new(), ..new_member(0) };
    assert_eq!(refused(&mut scene, mute), GroupError::InconsistentGroupProtocol);
    assert_eq!(scene.log, [], "no group came of it");
    assert_eq!(scene.beat("who", 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_full_group_takes_nobody() {
    let mut scene = Scene::with(GroupSettings { members_max: 2, ..GroupSettings::default() });
    let old = scene.stable(2);
    let ticket = scene.join(new_member(2));
    assert_eq!(scene.join_error(ticket), GroupError::GroupMaxSizeReached { limit: 2 });
    assert_eq!(scene.state().state, "Stable");
    let ids = |scene: &mut Scene| scene.state().members.len();
    assert_eq!(ids(&mut scene), old.len());
}

#[test]
fn ids_that_are_given_out_count_as_members() {
    let mut scene = Scene::with(GroupSettings { members_max: 2, ..GroupSettings::default() });
    let asks = |n| JoinGroup { knows_member_id_required: true, ..new_member(n) };
    let ids = [0, 1].map(|n| {
        let ticket = scene.join(asks(n));
        match scene.join_error(ticket) {
            GroupError::MemberIdRequired { member_id } => member_id,
            other => panic!("{other}"),
        }
    });
    let ticket = scene.join(asks(2));
    assert_eq!(scene.join_error(ticket), GroupError::GroupMaxSizeReached { limit: 2 });
    let tickets = [0, 1].map(|n| scene.join(again(n as u8, &ids[n])));
    scene.pass(6_000);
    assert_eq!(scene.joined(tickets[0]).members.len(), 2, "whoever has an id has a place");
}

#[test]
fn a_full_coordinator_takes_no_new_members() {
    let mut scene = Scene::with(GroupSettings { held_bytes_max: 500, ..GroupSettings::default() });
    let old = scene.stable(2);
    let ticket = scene.join(new_member(2));
    assert!(matches!(scene.join_error(ticket), GroupError::CoordinatorFull { limit: 500, .. }));
    assert_eq!(scene.beat(&old[0].member_id, old[0].generation), Ok(()), "what is there goes on");
}

#[test]
fn an_assignment_that_fits_no_record_is_refused_and_the_group_joins_again() {
    let settings = GroupSettings { group_record_bytes_max: 400, ..GroupSettings::default() };
    let mut scene = Scene::with(settings);
    let tickets = [scene.join(new_member(0)), scene.join(new_member(1))];
    scene.pass(10_000);
    let [leader, follower] = tickets.map(|ticket| scene.joined(ticket));
    let waiting = scene.sync(&follower, &[]);
    let part = "0123456789".repeat(20).leak();
    let brought = scene.sync(&leader, &[(&leader.member_id, part), (&follower.member_id, part)]);
    let refused = scene.synced(brought);
    assert!(matches!(refused, Err(GroupError::GroupTooLarge { limit: 400, .. })), "{refused:?}");
    assert_eq!(scene.synced(waiting), Err(GroupError::RebalanceInProgress));
    assert_eq!(scene.state().state, "PreparingRebalance");
}

#[test]
fn a_new_member_whose_request_waits_too_long_is_forgotten() {
    let settings = GroupSettings { new_member_join_timeout_ms: 5_000, ..GroupSettings::default() };
    let mut scene = Scene::with(settings);
    let old = scene.stable(1);
    let ticket = scene.join(new_member(1));
    scene.pass(4_999);
    assert!(scene.beat(&old[0].member_id, old[0].generation).is_err());
    assert_eq!(scene.answer(ticket), None);
    scene.pass(2);
    assert_eq!(scene.join_error(ticket), GroupError::UnknownMemberId);
}

#[test]
fn a_request_that_is_sent_again_replaces_the_one_that_waits() {
    let mut scene = Scene::new();
    let old = scene.stable(2);
    let first = scene.join(again(0, &old[0].member_id));
    let second = scene.join(again(0, &old[0].member_id));
    assert_eq!(scene.join_error(first), GroupError::RebalanceInProgress);
    assert_eq!(scene.answer(second), None);
    scene.join(again(1, &old[1].member_id));
    assert_eq!(scene.joined(second).generation, old[0].generation + 1);
}
