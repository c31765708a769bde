//! What values look like and which are accepted.

use super::{ConfigError, ConfigLimits};

/// A value's type as clients are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConfigType {
    /// `true` or `false`.
    Boolean,
    /// Text.
    String,
    /// 32 bits.
    Int,
    /// 64 bits.
    Long,
    /// A number with a fraction.
    Double,
    /// Words with commas between.
    List,
}

/// Which values a key accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// A 32-bit number in a range, both ends included.
    Int {
        /// Least.
        min: i32,
        /// Most.
        max: i32,
    },
    /// A 64-bit number in a range, both ends included.
    Long {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
    },
    /// A number from 0 to 1.
    Ratio,
    /// Bytes of a batch: from 0 to what a WAL file holds.
    MessageBytes,
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// One of these words, whatever the case of its letters.
    AnyCaseOf(&'static [&'static str]),
    /// One or more of these words, each once, with commas between.
    ListOf(&'static [&'static str]),
    /// Anything; such keys are described and not set.
    Text,
}

impl Rule {
    /// The type that values have.
    #[must_use]
    pub fn config_type(self) -> ConfigType {
        match self {
            Self::Int { .. } | Self::MessageBytes => ConfigType::Int,
            Self::Long { .. } => ConfigType::Long,
            Self::Ratio => ConfigType::Double,
            Self::Boolean => ConfigType::Boolean,
            Self::OneOf(_) | Self::AnyCaseOf(_) | Self::Text => ConfigType::String,
            Self::ListOf(_) => ConfigType::List,
        }
    }

    /// Checks a value.
    ///
    /// # Errors
    /// [`ConfigError::InvalidValue`] saying what the key takes.
    pub fn check(self, name: &str, value: &str, limits: ConfigLimits) -> Result<(), ConfigError> {
        let refuse = |reason: String| {
            let (name, value) = (name.to_owned(), value.to_owned());
            Err(ConfigError::InvalidValue { name, value, reason })
        };
        let text = value.trim();
        let range = |min: i64, max: i64| match text.parse::<i64>() {
            Ok(number) if (min..=max).contains(&number) => Ok(()),
            _ => refuse(format!("a whole number from {min} to {max} is due")),
        };
        match self {
            Self::Int { min, max } => range(i64::from(min), i64::from(max)),
            Self::Long { min, max } => range(min, max),
            Self::MessageBytes => {
                let most = i32::try_from(limits.message_bytes_max).unwrap_or(i32::MAX);
                range(0, i64::from(most))
            }
            Self::Ratio => match text.parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
                _ => refuse("a number from 0 to 1 is due".to_owned()),
            },
            Self::Boolean if matches!(text, "true" | "false") => Ok(()),
            Self::Boolean => refuse("true or false is due".to_owned()),
            Self::OneOf(words) if words.contains(&text) => Ok(()),
            Self::AnyCaseOf(words) if words.iter().any(|it| it.eq_ignore_ascii_case(text)) => {
                Ok(())
            }
            Self::OneOf(words) | Self::AnyCaseOf(words) => {
                refuse(format!("this server serves {}", words.join(", ")))
            }
            Self::ListOf(words) => {
                let given: Vec<&str> = list(text).collect();
                let once = given.iter().enumerate().all(|(at, word)| !given[..at].contains(word));
                if !given.is_empty() && once && given.iter().all(|word| words.contains(word)) {
                    Ok(())
                } else {
                    refuse(format!("a list of {} is due, each once", words.join(", ")))
                }
            }
            Self::Text => Ok(()),
        }
    }
}

/// The words of a list.
pub(super) fn list(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// A ratio that its rule has accepted, in millionths.
pub(super) fn ppm(value: &str) -> u32 {
    let ratio: f64 = value.trim().parse().expect("checked by the key's rule");
    (ratio * 1e6).round() as u32
}

/// A number that its rule has accepted.
pub(super) fn number(value: &str) -> i64 {
    value.trim().parse().expect("checked by the key's rule")
}
