//! Which names a topic may have. Source: Kafka's rules, so that tools and directories agree.

/// Longest name, so that `<topic>-<partition>` and its suffixes stay within a file name.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A name that a topic cannot have.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TopicNameError {
    /// No name at all.
    #[error("a topic needs a name")]
    Empty,
    /// `.` and `..` mean directories.
    #[error("a topic cannot be named {0:?}")]
    Reserved(String),
    /// Longer than `TOPIC_NAME_BYTES_MAX`.
    #[error("a topic name of {0} bytes: {TOPIC_NAME_BYTES_MAX} are allowed")]
    TooLong(usize),
    /// Something besides letters, digits, `.`, `_` and `-`.
    #[error(
        "topic name {name:?} contains {found:?}: only a-z, A-Z, 0-9, '.', '_' and '-' may be used"
    )]
    Character {
        /// The name.
        name: String,
        /// Its first bad character.
        found: char,
    },
}

/// Checks a name by itself.
///
/// # Errors
/// [`TopicNameError`] saying which rule is broken.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameError> {
    if name.is_empty() {
        return Err(TopicNameError::Empty);
    }
    if name == "." || name == ".." {
        return Err(TopicNameError::Reserved(name.to_owned()));
    }
    if name.len() > TOPIC_NAME_BYTES_MAX {
        return Err(TopicNameError::TooLong(name.len()));
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|c| !allowed(*c)) {
        Some(found) => Err(TopicNameError::Character { name: name.to_owned(), found }),
        None => Ok(()),
    }
}

/// The name as metric systems see it, where `.` and `_` are one.
pub(super) fn fold(name: &str) -> String {
    name.replace('.', "_")
}
