use super::*;

/// Looks with so small a budget at a time.
fn look(scene: &Scene, budget: usize, groups_max: usize, offsets_max: usize) -> GroupsLook {
    let mut look = GroupsLook::new(groups_max, offsets_max);
    let mut next = Some(GroupCursor::default());
    let mut steps = 0;
    while let Some(from) = next {
        let mut left = budget;
        next = scene.coordinator.look(from, &mut left, &mut look);
        steps += 1;
        assert!(steps < 1000, "every step goes on");
    }
    look
}

/// Three groups of offsets alone, and a consumer group with a member.
fn scene() -> Scene {
    let mut scene = Scene::new();
    for group in ["a", "b", "c"] {
        for (topic, partitions) in [("pears", 3), ("plums", 2)] {
            for partition in 0..partitions {
                scene.commit(group, topic, partition, 10 + i64::from(partition), "").unwrap();
            }
        }
    }
    scene.ask(GroupRequest::ConsumerHeartbeat(ConsumerHeartbeat {
        group_id: "k".to_owned(),
        client: Client::default(),
        member_id: "member".to_owned(),
        member_epoch: 0,
        instance_id: None,
        rack_id: None,
        rebalance_timeout_ms: Some(30_000),
        topics: Some(vec!["pears".to_owned()]),
        expression: None,
        server_assignor: None,
        owned: Some(Vec::new()),
    }));
    scene
}

#[test]
fn a_look_in_steps_of_any_size_tells_the_same() {
    let scene = scene();
    let whole = look(&scene, usize::MAX, 100, 100);
    assert_eq!((whole.group_count, whole.offset_count), (4, 15));
    let groups: Vec<_> = whole
        .groups
        .iter()
        .map(|group| (&*group.group_id, group.group_type, group.state, group.members))
        .collect();
    let expected = [
        ("a", "classic", "Empty", 0),
        ("b", "classic", "Empty", 0),
        ("c", "classic", "Empty", 0),
        ("k", "consumer", "Stable", 1),
    ];
    assert_eq!(groups, expected);
    let pears = &whole.offsets[0];
    assert_eq!((&*pears.group_id, &*pears.topic), ("a", "pears"));
    let offsets: Vec<_> = pears.offsets.iter().map(|(at, offset)| (at.0, offset.0)).collect();
    assert_eq!(offsets, [(0, 10), (1, 11), (2, 12)]);
    for budget in 1..20 {
        assert_eq!(look(&scene, budget, 100, 100), whole, "budget {budget}");
    }
}

#[test]
fn what_is_beyond_the_bounds_is_counted_and_not_told() {
    let scene = scene();
    for budget in [1, 7, 100] {
        let bounded = look(&scene, budget, 2, 7);
        assert_eq!((bounded.group_count, bounded.offset_count), (4, 15));
        assert_eq!(bounded.groups.len(), 2);
        let told: Vec<_> = bounded
            .offsets
            .iter()
            .map(|it| (&*it.group_id, &*it.topic, it.offsets.len()))
            .collect();
        assert_eq!(told, [("a", "pears", 3), ("a", "plums", 2), ("b", "pears", 2)]);
        let nothing = look(&scene, budget, 0, 0);
        assert_eq!((nothing.group_count, nothing.offset_count), (4, 15));
        assert!(nothing.groups.is_empty() && nothing.offsets.is_empty());
    }
}

#[test]
fn a_look_goes_on_although_the_group_that_it_was_at_is_gone() {
    let mut scene = scene();
    let mut look = GroupsLook::new(100, 100);
    let mut budget = 2;
    let at = scene.coordinator.look(GroupCursor::default(), &mut budget, &mut look);
    assert_eq!((look.group_count, look.offset_count), (1, 3), "within the first group");
    scene.ask(GroupRequest::DeleteGroups(vec!["a".to_owned(), "b".to_owned()]));
    let mut budget = 100;
    assert_eq!(scene.coordinator.look(at.unwrap(), &mut budget, &mut look), None);
    assert_eq!((look.group_count, look.offset_count), (3, 8), "the third, and the consumers");
}
