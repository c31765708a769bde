//! The topics of the cluster, as far as groups must know them, and regular expressions over their names.

use std::collections::{BTreeMap, BTreeSet};

use regex::{Regex, RegexBuilder};

use super::{Partitions, Place};
use crate::machine::group::embedded::NamedPartitions;
use crate::machine::group::request::GroupError;
use crate::model::{PartitionIndex, TopicId};

/// What a compiled expression may take. One that takes more is refused.
const EXPRESSION_BYTES_MAX: usize = 256 << 10;

/// A topic, as groups know it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicFacts {
    /// Its identity.
    pub topic_id: TopicId,
    /// How many partitions it has.
    pub partitions: i32,
}

/// The topics of the cluster at one place in the metadata.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topics {
    /// Index of the metadata that they are of.
    pub version: i64,
    /// By name.
    pub by_name: BTreeMap<String, TopicFacts>,
}

impl Topics {
    /// Topics that exist, of those names.
    pub(super) fn known<'a>(
        &'a self,
        names: impl IntoIterator<Item = &'a String>,
    ) -> impl Iterator<Item = (&'a String, TopicFacts)> {
        let known = |name: &'a String| Some((name, *self.by_name.get(name)?));
        names.into_iter().filter_map(known)
    }

    /// The partitions of topics that exist, as somebody names them.
    pub(super) fn places(&self, named: &NamedPartitions) -> Partitions {
        let known = named
            .iter()
            .filter_map(|(name, indexes)| Some((self.by_name.get(name)?.topic_id, indexes)));
        let places = known.flat_map(|(topic_id, indexes)| {
            let indexes = indexes.iter().filter(|index| **index >= 0);
            indexes.map(move |index| (topic_id, PartitionIndex(*index)))
        });
        places.collect()
    }

    /// Partitions by the names of their topics, those left out that do not exist any more.
    pub(super) fn named<'a>(&self, places: impl IntoIterator<Item = &'a Place>) -> NamedPartitions {
        let mut by_id: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
        for (topic_id, index) in places {
            by_id.entry(*topic_id).or_default().push(index.0);
        }
        let named = self
            .by_name
            .iter()
            .filter_map(|(name, facts)| Some((name.clone(), by_id.get(&facts.topic_id)?.clone())));
        named.collect()
    }

    /// Names that an expression matches as a whole, ascending.
    ///
    /// # Errors
    /// [`GroupError::InvalidRegularExpression`].
    pub(super) fn matching(&self, expression: &str) -> Result<Vec<String>, GroupError> {
        let expression = compiled(expression)?;
        Ok(self.by_name.keys().filter(|name| expression.is_match(name)).cloned().collect())
    }

    /// A number that differs, most likely, when one of those topics differs; 0 when there is none.
    pub(super) fn hash(&self, names: &BTreeSet<String>) -> i64 {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64;
        let mut take = |bytes: &[u8]| {
            for byte in bytes {
                hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        };
        let mut any = false;
        for (name, topic) in self.known(names) {
            any = true;
            take(&(name.len() as u64).to_be_bytes());
            take(name.as_bytes());
            take(&topic.topic_id.0);
            take(&topic.partitions.to_be_bytes());
        }
        if any { hash as i64 } else { 0 }
    }
}

fn compiled(expression: &str) -> Result<Regex, GroupError> {
    let invalid = |error: regex::Error| GroupError::InvalidRegularExpression(error.to_string());
    // Alone first: what closes the group around it would otherwise pass.
    let build = |text: &str| RegexBuilder::new(text).size_limit(EXPRESSION_BYTES_MAX).build();
    build(expression).map_err(invalid)?;
    build(&format!("^(?:{expression})$")).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(names: &[&str]) -> Topics {
        let named = (1..).zip(names).map(|(n, name)| {
            ((*name).to_owned(), TopicFacts { topic_id: TopicId([n; 16]), partitions: 2 })
        });
        Topics { version: 1, by_name: named.collect() }
    }

    #[test]
    fn an_expression_matches_whole_names() {
        let topics = topics(&["apples", "pineapples", "pears"]);
        let matching = |text| topics.matching(text).unwrap();
        assert_eq!(matching("app.*"), ["apples"]);
        assert_eq!(matching(".*apples|pears"), ["apples", "pears", "pineapples"]);
        assert_eq!(matching("apple"), Vec::<String>::new());
    }

    #[test]
    fn expressions_that_are_none_or_take_too_much_are_refused() {
        for text in ["(", "a)|(b", "(?<=a)b", "(((a{99}){99}){99}){99}"] {
            let refused = topics(&[]).matching(text);
            let is_invalid = matches!(refused, Err(GroupError::InvalidRegularExpression(_)));
            assert!(is_invalid, "{text}: {refused:?}");
        }
    }

    #[test]
    fn the_hash_tells_topics_apart() {
        let some = topics(&["a", "b"]);
        let both: BTreeSet<String> = ["a", "b"].map(str::to_owned).into();
        let one: BTreeSet<String> = ["a", "gone"].map(str::to_owned).into();
        let mut grown = some.clone();
        grown.by_name.get_mut("b").unwrap().partitions = 3;
        assert_ne!(some.hash(&both), grown.hash(&both));
        assert_eq!(some.hash(&one), grown.hash(&one));
        assert_ne!(some.hash(&one), some.hash(&both));
        assert_eq!(some.hash(&BTreeSet::new()), 0);
    }
}
