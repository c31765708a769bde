//! What consumers of the classic protocol tell each other through the coordinator: what they subscribe to, and what
//! they get. Source: Kafka's `ConsumerProtocolSubscription` and `ConsumerProtocolAssignment`.
//!
//! | since | subscription | assignment |
//! | ---: | --- | --- |
//! | 0 | version: 2 bytes; topics: array of strings; user data: bytes or null | version: 2 bytes; topics: array of name and array of partitions; user data: bytes or null |
//! | 1 | partitions that it has: array of name and array of partitions | |
//! | 2 | generation: 4 bytes | |
//! | 3 | rack id: string or null | |
//!
//! What is behind the last known field is of a later version and passed over.

use bytes::{BufMut, Bytes, BytesMut};

/// The last version that is known.
const VERSION_MAX: i16 = 3;

/// Partitions by the names of their topics.
pub(super) type NamedPartitions = Vec<(String, Vec<i32>)>;

/// What a consumer subscribes to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Subscription {
    pub(super) version: i16,
    pub(super) topics: Vec<String>,
    /// What it has and would like to keep.
    pub(super) owned: NamedPartitions,
    pub(super) rack_id: Option<String>,
}

/// What a consumer gets.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Assignment {
    pub(super) topics: NamedPartitions,
    /// Whether its assignor tells it more, in a language of its own.
    pub(super) has_user_data: bool,
}

/// Reads a subscription; `None` if it is none.
pub(super) fn subscription(bytes: &[u8]) -> Option<Subscription> {
    let mut input = Input(bytes);
    let version = input.version()?;
    let topics = input.list(2, Input::string)?;
    input.nullable_bytes()?;
    let owned = if version >= 1 { input.list(6, Input::partitions)? } else { Vec::new() };
    if version >= 2 {
        input.i32()?;
    }
    let rack_id = if version >= 3 { input.nullable_string()? } else { None };
    let rack_id = rack_id.filter(|rack| !rack.is_empty());
    Some(Subscription { version, topics, owned, rack_id })
}

/// Reads an assignment; `None` if it is none. Whoever has never got one has an empty one.
pub(super) fn assignment(bytes: &[u8]) -> Option<Assignment> {
    if bytes.is_empty() {
        return Some(Assignment::default());
    }
    let mut input = Input(bytes);
    input.version()?;
    let topics = input.list(6, Input::partitions)?;
    let has_user_data = input.nullable_bytes()?.is_some_and(|data| !data.is_empty());
    Some(Assignment { topics, has_user_data })
}

/// The bytes of an assignment, in a version.
pub(super) fn assignment_bytes(version: i16, topics: &NamedPartitions) -> Bytes {
    let count = |length: usize| i32::try_from(length).expect("what members have fits a record");
    let mut bytes = BytesMut::new();
    bytes.put_i16(version.clamp(0, VERSION_MAX));
    bytes.put_i32(count(topics.len()));
    for (name, partitions) in topics {
        bytes.put_i16(i16::try_from(name.len()).expect("names of topics are short"));
        bytes.put_slice(name.as_bytes());
        bytes.put_i32(count(partitions.len()));
        partitions.iter().for_each(|partition| bytes.put_i32(*partition));
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// Bytes that are still to be read.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn i16(&mut self) -> Option<i16> {
        Some(i16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn i32(&mut self) -> Option<i32> {
        Some(i32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn version(&mut self) -> Option<i16> {
        self.i16().filter(|version| *version >= 0).map(|version| version.min(VERSION_MAX))
    }

    fn string(&mut self) -> Option<String> {
        self.nullable_string()?
    }

    /// The outer `None` is no string at all.
    fn nullable_string(&mut self) -> Option<Option<String>> {
        let length = self.i16()?;
        if length == -1 {
            return Some(None);
        }
        let text = self.take(usize::try_from(length).ok()?)?;
        Some(Some(std::str::from_utf8(text).ok()?.to_owned()))
    }

    /// The outer `None` is no bytes at all.
    fn nullable_bytes(&mut self) -> Option<Option<&'a [u8]>> {
        let length = self.i32()?;
        if length == -1 {
            return Some(None);
        }
        Some(Some(self.take(usize::try_from(length).ok()?)?))
    }

    /// An array whose elements take `bytes_min` bytes at least.
    fn list<T>(
        &mut self,
        bytes_min: usize,
        mut element: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let count = usize::try_from(self.i32()?).ok()?;
        if count > self.0.len() / bytes_min {
            return None;
        }
        (0..count).map(|_| element(self)).collect()
    }

    fn partitions(&mut self) -> Option<(String, Vec<i32>)> {
        Some((self.string()?, self.list(4, Self::i32)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_subscription_of_version_3() {
        let bytes = b"\0\x03\0\0\0\x01\0\x01a\xff\xff\xff\xff\0\0\0\x01\0\x01a\0\0\0\x02\0\0\0\x04\0\0\0\x05\
                      \0\0\0\x07\0\x01r";
        let expected = Subscription {
            version: 3,
            topics: vec!["a".to_owned()],
            owned: vec![("a".to_owned(), vec![4, 5])],
            rack_id: Some("r".to_owned()),
        };
        assert_eq!(subscription(bytes), Some(expected));
        for cut in 0..bytes.len() {
            assert_eq!(subscription(&bytes[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn earlier_and_later_versions_are_read_as_far_as_they_are_known() {
        let first = subscription(b"\0\0\0\0\0\x01\0\x01a\0\0\0\x02xy").unwrap();
        assert_eq!((first.version, first.owned, first.rack_id), (0, Vec::new(), None));
        let later = b"\0\x09\0\0\0\0\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xffmore";
        assert_eq!(subscription(later).unwrap().version, 3);
        assert_eq!(subscription(b"\xff\xff\0\0\0\0\xff\xff\xff\xff"), None);
    }

    #[test]
    fn what_cannot_be_allocates_nothing() {
        assert_eq!(subscription(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(assignment(b"\0\0\x7f\xff\xff\xff"), None);
        assert_eq!(assignment(b"\0\0\0\0\0\x01\0\x01a\x7f\xff\xff\xff"), None);
    }

    #[test]
    fn an_assignment_is_read_as_it_was_written() {
        let topics = vec![("a".to_owned(), vec![1, 2]), ("bc".to_owned(), vec![])];
        let bytes = assignment_bytes(1, &topics);
        let golden = b"\0\x01\0\0\0\x02\0\x01a\0\0\0\x02\0\0\0\x01\0\0\0\x02\0\x02bc\0\0\0\0\xff\xff\xff\xff";
        assert_eq!(bytes, &golden[..]);
        assert_eq!(assignment(&bytes), Some(Assignment { topics, has_user_data: false }));
        assert_eq!(assignment(b""), Some(Assignment::default()));
        assert!(assignment(b"\0\0\0\0\0\0\0\0\0\x01x").unwrap().has_user_data);
    }
}
