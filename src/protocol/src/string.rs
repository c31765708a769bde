//! Kafka's strings as shared, validated bytes.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::str::{self, Utf8Error};

use bytes::Bytes;

/// A UTF-8 string that shares the memory it was decoded from.
///
/// Keeping one keeps the whole frame alive: `detach` before storing it for longer than the request.
/// Invariant: the bytes are UTF-8. Reading it as `str` checks that again, since this crate has no `unsafe`;
/// where only equality matters, compare the bytes.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KafkaString(Bytes);

impl KafkaString {
    /// A string out of shared bytes, if they are UTF-8.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Utf8Error> {
        str::from_utf8(&bytes)?;
        Ok(Self(bytes))
    }

    /// A string that lives as long as the program.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// The string's text.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("the bytes were UTF-8 when the string was made")
    }

    /// The string's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the string has no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy in memory of its own, which no longer keeps the frame alive.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }

    /// The shared bytes.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for KafkaString {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for KafkaString {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for KafkaString {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

// `Borrow<str>` demands the hash of `str`.
impl Hash for KafkaString {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl From<&str> for KafkaString {
    /// Copies the text.
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for KafkaString {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl PartialEq<str> for KafkaString {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for KafkaString {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Debug for KafkaString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for KafkaString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn decoded_string_shares_the_frame_and_a_detached_one_does_not() {
        let frame = Bytes::from(b"xtopicx".to_vec());
        let shared = KafkaString::from_utf8(frame.slice(1..6)).unwrap();
        assert_eq!(shared, "topic");
        assert_eq!(shared.as_bytes().as_ptr(), frame[1..].as_ptr());
        assert_ne!(shared.detach().as_bytes().as_ptr(), frame[1..].as_ptr());
        assert_eq!(shared.detach(), shared);
    }

    #[test]
    fn bytes_that_are_no_utf8_make_no_string() {
        assert!(KafkaString::from_utf8(Bytes::from_static(&[0xff])).is_err());
        assert!(KafkaString::from_utf8(Bytes::from_static(&[0xed, 0xa0, 0x80])).is_err());
    }

    #[test]
    fn map_with_string_keys_is_searched_by_str() {
        let map = HashMap::from([(KafkaString::from("a"), 1)]);
        assert_eq!(map.get("a"), Some(&1));
    }
}
