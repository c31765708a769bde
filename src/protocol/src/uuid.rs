//! Kafka's UUIDs: 16 bytes, written in URL-safe base64 without padding.

use std::fmt;
use std::str::FromStr;

/// A UUID as Kafka writes it, for example of a topic. All zero stands for "none".
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

/// Text that is no UUID: not 22 characters of the URL-safe alphabet, or bits beyond the 128th set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUuid;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Characters of six bits that hold 128 bits; the last one uses two of its six.
const TEXT_CHARS: usize = 22;
const SPARE_BITS: u32 = 4;

impl Uuid {
    /// The UUID that stands for "none".
    pub const ZERO: Self = Self([0; 16]);

    /// Whether this is the UUID that stands for "none".
    pub fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = u128::from_be_bytes(self.0);
        let mut text = [0; TEXT_CHARS];
        for (index, c) in text.iter_mut().enumerate() {
            let below = 128 - 6 * (index as i32 + 1);
            let bits = if below >= 0 { value >> below } else { value << -below };
            *c = ALPHABET[(bits & 0x3f) as usize];
        }
        f.pad(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = InvalidUuid;

    fn from_str(text: &str) -> Result<Self, InvalidUuid> {
        let chars = text.as_bytes();
        if chars.len() != TEXT_CHARS {
            return Err(InvalidUuid);
        }
        let (last, most) = chars.split_last().ok_or(InvalidUuid)?;
        let mut value = 0u128;
        for c in most {
            value = value << 6 | u128::from(six_bits(*c)?);
        }
        let tail = six_bits(*last)?;
        if tail & ((1 << SPARE_BITS) - 1) != 0 {
            return Err(InvalidUuid);
        }
        value = value << (6 - SPARE_BITS) | u128::from(tail >> SPARE_BITS);
        Ok(Self(value.to_be_bytes()))
    }
}

fn six_bits(c: u8) -> Result<u8, InvalidUuid> {
    match c {
        b'A'..=b'Z' => Ok(c - b'A'),
        b'a'..=b'z' => Ok(c - b'a' + 26),
        b'0'..=b'9' => Ok(c - b'0' + 52),
        b'-' => Ok(62),
        b'_' => Ok(63),
        _ => Err(InvalidUuid),
    }
}

impl fmt::Display for InvalidUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID of 22 characters in URL-safe base64")
    }
}

impl std::error::Error for InvalidUuid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_what_kafka_writes() {
        // Kafka's reserved ids for the metadata topic and for "none".
        let metadata = Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(metadata.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        let all = Uuid([0xff; 16]);
        assert_eq!(all.to_string(), "_____________________w");
    }

    #[test]
    fn text_and_bytes_convert_both_ways() {
        let mut bytes = [0u8; 16];
        for step in 0..=255u8 {
            bytes[usize::from(step) % 16] ^= step.wrapping_mul(37).wrapping_add(1);
            let uuid = Uuid(bytes);
            assert_eq!(uuid.to_string().parse(), Ok(uuid));
        }
    }

    #[test]
    fn malformed_text_is_refused() {
        let zero = "AAAAAAAAAAAAAAAAAAAAAA";
        for text in ["", "AAAA", &zero[1..], &format!("{zero}=="), "AAAAAAAAAAAAAAAAAAAAA+"] {
            assert_eq!(text.parse::<Uuid>(), Err(InvalidUuid), "{text}");
        }
        // Spare bits set: a second spelling of the same bytes.
        assert_eq!("AAAAAAAAAAAAAAAAAAAAAB".parse::<Uuid>(), Err(InvalidUuid));
    }
}
