//! Who this data directory belongs to: `node.toml`, written once and checked at every start.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use chronik_shards::model::{NodeId, TopicId};
use serde::{Deserialize, Serialize};

/// The layout of the data directory that this release reads and writes.
pub const FORMAT_VERSION: u32 = 1;

/// What a data directory says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeIdentity {
    /// The cluster, as clients see it: 22 characters of URL-safe base64.
    pub cluster_id: String,
    /// The node.
    pub node_id: NodeId,
}

/// `node.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    format_version: u32,
    cluster_id: String,
    node_id: i32,
}

/// A directory that does not belong to this node, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Another node's.
    #[error("{path} belongs to node {found}, and this is node {expected}")]
    OtherNode {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: i32,
        /// As configured.
        expected: NodeId,
    },
    /// Another release's.
    #[error("{path} is in format version {found}, this release reads {FORMAT_VERSION}")]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: u32,
    },
    /// Not such a file.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// In which way.
        reason: String,
    },
    /// The directory holds data and no `node.toml`: whose it is cannot be known.
    #[error("{0} holds data and has no node.toml: whose data it is cannot be known")]
    Orphaned(PathBuf),
    /// The file system refuses.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
}

impl NodeIdentity {
    /// Reads the directory's identity, or gives a new one to a directory without data.
    ///
    /// # Errors
    /// [`IdentityError`] naming the file; the server must not touch the directory then.
    pub fn establish(data_dir: &Path, node_id: NodeId) -> Result<Self, IdentityError> {
        let path = data_dir.join("node.toml");
        match fs::read_to_string(&path) {
            Ok(text) => Self::check(&path, &text, node_id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if ["shards", "raft", "topics"].iter().any(|part| data_dir.join(part).exists()) {
                    return Err(IdentityError::Orphaned(data_dir.to_owned()));
                }
                Self::create(data_dir, &path, node_id)
                    .map_err(|source| IdentityError::Io { path, source })
            }
            Err(source) => Err(IdentityError::Io { path, source }),
        }
    }

    fn check(path: &Path, text: &str, node_id: NodeId) -> Result<Self, IdentityError> {
        let damaged = |reason: String| IdentityError::Damaged { path: path.to_owned(), reason };
        // The version first: the other fields are only known to mean what they say under it.
        let table: toml::Table = text.parse().map_err(|error| damaged(format!("{error}")))?;
        let version = table.get("format_version").and_then(toml::Value::as_integer);
        match version.map(u32::try_from) {
            Some(Ok(FORMAT_VERSION)) => {}
            Some(Ok(found)) => {
                return Err(IdentityError::FormatVersion { path: path.to_owned(), found });
            }
            _ => return Err(damaged("format_version is missing".to_owned())),
        }
        let file: NodeFile = toml::from_str(text).map_err(|error| damaged(format!("{error}")))?;
        if file.node_id != node_id.0 {
            let (path, found) = (path.to_owned(), file.node_id);
            return Err(IdentityError::OtherNode { path, found, expected: node_id });
        }
        if file.cluster_id.parse::<TopicId>().is_err() {
            return Err(damaged(format!("cluster_id {:?}", file.cluster_id)));
        }
        Ok(Self { cluster_id: file.cluster_id, node_id })
    }

    /// Writes beside, syncs, renames: a crash leaves either no identity or a whole one.
    fn create(data_dir: &Path, path: &Path, node_id: NodeId) -> io::Result<Self> {
        let cluster_id = random_topic_id()?.to_string();
        let file = NodeFile { format_version: FORMAT_VERSION, cluster_id, node_id: node_id.0 };
        let text = toml::to_string(&file).map_err(io::Error::other)?;
        let beside = data_dir.join("node.toml.new");
        let mut out = File::create(&beside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&beside, path)?;
        File::open(data_dir)?.sync_all()?;
        Ok(Self { cluster_id: file.cluster_id, node_id })
    }
}

/// Random bytes from the operating system.
///
/// # Errors
/// When it has none to give.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A new topic id: a random UUID (RFC 9562, version 4) whose text does not begin with a dash, which
/// tools would take for an option.
///
/// # Errors
/// When the operating system has no random bytes.
pub fn random_topic_id() -> io::Result<TopicId> {
    loop {
        let mut bytes = random_bytes()?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let id = TopicId(bytes);
        if !id.to_string().starts_with('-') {
            return Ok(id);
        }
    }
}
