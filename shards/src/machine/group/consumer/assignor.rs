//! Who shall have which partition: the two assignors of the coordinator. Source: KIP-848.
//!
//! Both are functions of the members, what they subscribe to and what they shall have now; the same input gives
//! the same answer. Every partition of a topic that somebody subscribes to goes to exactly one of its subscribers.

use std::collections::{BTreeMap, BTreeSet};

use super::{Partitions, Place};
use crate::model::{PartitionIndex, TopicId};

/// How partitions are given to members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::machine::group) enum Assignor {
    /// As evenly as can be, with as few moves as that takes.
    Uniform,
    /// Each topic in contiguous ranges: members get the same partitions of topics with as many.
    Range,
}

impl Assignor {
    /// What a group uses whose members ask for none.
    pub(super) const DEFAULT: Self = Self::Uniform;

    /// The assignor of that name.
    pub(super) fn named(name: &str) -> Option<Self> {
        match name {
            "uniform" => Some(Self::Uniform),
            "range" => Some(Self::Range),
            _ => None,
        }
    }

    /// Kafka's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Range => "range",
        }
    }

    /// What each member shall have.
    pub(super) fn assign(self, spec: &Spec<'_>) -> BTreeMap<String, Partitions> {
        match self {
            Self::Uniform if spec.is_homogeneous() => even(spec),
            Self::Uniform => balanced(spec),
            Self::Range => ranges(spec),
        }
    }
}

/// A member, as an assignor sees it.
pub(super) struct MemberSpec<'a> {
    pub(super) member_id: &'a str,
    pub(super) instance_id: Option<&'a str>,
    pub(super) topics: BTreeSet<TopicId>,
    /// What it shall have until now.
    pub(super) target: Option<&'a Partitions>,
}

/// What there is to be assigned, and to whom.
pub(super) struct Spec<'a> {
    /// Static members first, by their instance ids: ranges stay when such a member starts again.
    members: Vec<MemberSpec<'a>>,
    /// Topics that somebody subscribes to, with their numbers of partitions.
    topics: BTreeMap<TopicId, i32>,
}

impl<'a> Spec<'a> {
    pub(super) fn new(mut members: Vec<MemberSpec<'a>>, topics: BTreeMap<TopicId, i32>) -> Self {
        members.sort_by_key(|member| {
            (member.instance_id.is_none(), member.instance_id, member.member_id)
        });
        Self { members, topics }
    }

    fn is_homogeneous(&self) -> bool {
        self.members.windows(2).all(|pair| pair[0].topics == pair[1].topics)
    }

    fn places(&self) -> impl Iterator<Item = Place> + '_ {
        self.topics.iter().flat_map(|(topic, count)| {
            (0..*count).map(move |partition| (*topic, PartitionIndex(partition)))
        })
    }

    /// What a member has and may keep: the topic is subscribed to, the partition exists.
    fn kept(&self, member: &MemberSpec<'_>) -> Vec<Place> {
        let may_keep = |(topic, partition): &&Place| {
            member.topics.contains(topic)
                && self.topics.get(topic).is_some_and(|count| (0..*count).contains(&partition.0))
        };
        member.target.into_iter().flatten().filter(may_keep).copied().collect()
    }

    fn named(&self, parts: Vec<Partitions>) -> BTreeMap<String, Partitions> {
        let ids = self.members.iter().map(|member| member.member_id.to_owned());
        ids.zip(parts).collect()
    }
}

/// All members subscribe to the same: each gets as many, some one more.
fn even(spec: &Spec<'_>) -> BTreeMap<String, Partitions> {
    let Some(first) = spec.members.first() else { return BTreeMap::new() };
    let mut free: BTreeSet<Place> =
        spec.places().filter(|(topic, _)| first.topics.contains(topic)).collect();
    let count = spec.members.len();
    let quota = free.len() / count;
    // So many have one more than the others. Whoever has it already keeps it.
    let mut larger = free.len() % count;
    let mut parts = Vec::with_capacity(count);
    for member in &spec.members {
        let kept = spec.kept(member);
        let mut keeps = kept.len().min(quota);
        if kept.len() > quota && larger > 0 {
            larger -= 1;
            keeps += 1;
        }
        let part: Partitions = kept.into_iter().take(keeps).collect();
        for place in &part {
            free.remove(place);
        }
        parts.push(part);
    }
    let mut free = free.into_iter();
    for part in &mut parts {
        let missing = quota.saturating_sub(part.len());
        part.extend(free.by_ref().take(missing));
    }
    for part in parts.iter_mut().filter(|part| part.len() == quota).take(larger) {
        part.extend(free.next());
    }
    assert_eq!(free.next(), None, "every partition is assigned");
    spec.named(parts)
}

/// Members subscribe to different topics: nobody has two partitions more than another who could have one.
fn balanced(spec: &Spec<'_>) -> BTreeMap<String, Partitions> {
    let mut parts: Vec<Partitions> =
        spec.members.iter().map(|member| spec.kept(member).into_iter().collect()).collect();
    let taken: BTreeSet<Place> = parts.iter().flatten().copied().collect();
    let mut subscribers: BTreeMap<TopicId, Vec<usize>> = BTreeMap::new();
    for (index, member) in spec.members.iter().enumerate() {
        for topic in member.topics.iter().filter(|topic| spec.topics.contains_key(*topic)) {
            subscribers.entry(*topic).or_default().push(index);
        }
    }
    let mut free: Vec<Place> = spec.places().filter(|place| !taken.contains(place)).collect();
    // Topics with few subscribers first: the others can make up for it.
    free.sort_by_key(|place| (subscribers.get(&place.0).map_or(0, Vec::len), *place));
    for place in free {
        let eligible = subscribers.get(&place.0).into_iter().flatten();
        if let Some(index) = eligible.min_by_key(|index| parts[**index].len()) {
            parts[*index].insert(place);
        }
    }
    // Each move makes the members more even, so there is an end; the bound is for the mind's peace.
    for _ in 0..spec.places().count() * spec.members.len() {
        let Some((place, from, to)) = unfair(&parts, &subscribers) else { break };
        parts[from].remove(&place);
        parts[to].insert(place);
    }
    spec.named(parts)
}

/// A partition of somebody who has at least two more than another of the topic's subscribers.
fn unfair(
    parts: &[Partitions],
    subscribers: &BTreeMap<TopicId, Vec<usize>>,
) -> Option<(Place, usize, usize)> {
    let mut from: Vec<usize> = (0..parts.len()).collect();
    from.sort_by_key(|index| std::cmp::Reverse(parts[*index].len()));
    for from in from {
        let mut seen = None;
        for place in &parts[from] {
            if seen == Some(place.0) {
                continue;
            }
            seen = Some(place.0);
            let eligible = subscribers.get(&place.0).into_iter().flatten();
            let to = eligible.min_by_key(|index| parts[**index].len());
            if let Some(to) = to.filter(|to| parts[**to].len() + 1 < parts[from].len()) {
                return Some((*place, from, *to));
            }
        }
    }
    None
}

/// Each topic is cut into as many ranges as it has subscribers.
fn ranges(spec: &Spec<'_>) -> BTreeMap<String, Partitions> {
    let mut parts = vec![Partitions::new(); spec.members.len()];
    for (topic, count) in &spec.topics {
        let members = spec.members.iter().enumerate();
        let subscribers: Vec<usize> =
            members.filter(|(_, member)| member.topics.contains(topic)).map(|(at, _)| at).collect();
        let Ok(among) = i32::try_from(subscribers.len()) else { continue };
        if among == 0 {
            continue;
        }
        let (quota, larger) = (count / among, count % among);
        let mut next = 0;
        for (rank, index) in (0..).zip(subscribers) {
            let end = next + quota + i32::from(rank < larger);
            parts[index].extend((next..end).map(|partition| (*topic, PartitionIndex(partition))));
            next = end;
        }
    }
    spec.named(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn topic(n: u8) -> TopicId {
        TopicId([n; 16])
    }

    fn spec<'a>(
        members: &'a [(String, Vec<u8>)],
        topics: &[(u8, i32)],
        targets: &'a BTreeMap<String, Partitions>,
    ) -> Spec<'a> {
        let topics: BTreeMap<TopicId, i32> =
            topics.iter().map(|(n, it)| (topic(*n), *it)).collect();
        let members = members.iter().map(|(id, subscribed)| MemberSpec {
            member_id: id,
            instance_id: None,
            topics: subscribed
                .iter()
                .map(|n| topic(*n))
                .filter(|it| topics.contains_key(it))
                .collect(),
            target: targets.get(id),
        });
        Spec::new(members.collect(), topics.clone())
    }

    fn members(subscribed: &[&[u8]]) -> Vec<(String, Vec<u8>)> {
        let named = (b'a'..).zip(subscribed);
        named.map(|(id, topics)| (char::from(id).to_string(), topics.to_vec())).collect()
    }

    fn shown(parts: &BTreeMap<String, Partitions>) -> Vec<String> {
        let show = |(id, part): (&String, &Partitions)| {
            let places = part.iter().map(|(topic, partition)| format!("{}{partition}", topic.0[0]));
            format!("{id}: {}", places.collect::<Vec<_>>().join(" "))
        };
        parts.iter().map(show).collect()
    }

    #[test]
    fn ranges_are_contiguous_and_the_first_have_more() {
        let members = members(&[&[1, 2], &[1, 2], &[1]]);
        let none = BTreeMap::new();
        let parts = Assignor::Range.assign(&spec(&members, &[(1, 5), (2, 3)], &none));
        assert_eq!(shown(&parts), ["a: 10 11 20 21", "b: 12 13 22", "c: 14"]);
    }

    #[test]
    fn static_members_come_first() {
        let nothing = Partitions::new();
        let member = |member_id, instance_id| MemberSpec {
            member_id,
            instance_id,
            topics: BTreeSet::from([topic(1)]),
            target: Some(&nothing),
        };
        let members = vec![member("a", None), member("z", Some("i2")), member("y", Some("i1"))];
        let parts = Assignor::Range.assign(&Spec::new(members, BTreeMap::from([(topic(1), 4)])));
        assert_eq!(shown(&parts), ["a: 13", "y: 10 11", "z: 12"]);
    }

    #[test]
    fn uniform_moves_no_more_than_it_must() {
        let two = members(&[&[1], &[1]]);
        let none = BTreeMap::new();
        let before = Assignor::Uniform.assign(&spec(&two, &[(1, 5)], &none));
        assert_eq!(shown(&before), ["a: 10 11 14", "b: 12 13"]);
        let three = members(&[&[1], &[1], &[1]]);
        let after = Assignor::Uniform.assign(&spec(&three, &[(1, 5)], &before));
        assert_eq!(shown(&after), ["a: 10 11", "b: 12 13", "c: 14"]);
        let again = Assignor::Uniform.assign(&spec(&two, &[(1, 5)], &after));
        assert_eq!(shown(&again), ["a: 10 11 14", "b: 12 13"]);
    }

    #[test]
    fn nobody_gets_what_it_does_not_subscribe_to() {
        let members = members(&[&[1, 2], &[2], &[]]);
        let none = BTreeMap::new();
        let parts = Assignor::Uniform.assign(&spec(&members, &[(1, 3), (2, 3)], &none));
        assert_eq!(shown(&parts), ["a: 10 11 12", "b: 20 21 22", "c: "]);
    }

    proptest! {
        #[test]
        fn every_partition_has_one_owner_who_wants_it(
            subscribed in proptest::collection::vec(proptest::collection::vec(0u8..4, 0..4), 1..8),
            counts in proptest::collection::vec(0i32..9, 4),
            later in proptest::collection::vec(0i32..9, 4),
            range in any::<bool>(),
        ) {
            let assignor = if range { Assignor::Range } else { Assignor::Uniform };
            let lists: Vec<&[u8]> = subscribed.iter().map(Vec::as_slice).collect();
            let members = members(&lists);
            let mut before = BTreeMap::new();
            for counts in [counts, later] {
                let topics: Vec<(u8, i32)> = (0..4).zip(counts).collect();
                let spec = spec(&members, &topics, &before);
                let parts = assignor.assign(&spec);
                prop_assert_eq!(&parts, &assignor.assign(&spec));
                let wanted: BTreeSet<TopicId> =
                    spec.members.iter().flat_map(|member| member.topics.clone()).collect();
                let expected: Vec<Place> =
                    spec.places().filter(|(topic, _)| wanted.contains(topic)).collect();
                let mut given: Vec<Place> = parts.values().flatten().copied().collect();
                given.sort_unstable();
                prop_assert_eq!(given, expected);
                for member in &spec.members {
                    let part = &parts[member.member_id];
                    prop_assert!(part.iter().all(|(topic, _)| member.topics.contains(topic)));
                    for other in spec.members.iter().filter(|_| !range) {
                        let could = part.iter().any(|(topic, _)| other.topics.contains(topic));
                        let fair = parts[other.member_id].len() + 1 >= part.len();
                        prop_assert!(!could || fair, "{:?}", shown(&parts));
                    }
                }
                before = parts;
            }
        }
    }
}
