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
    /// The cluster, as clients see it: 22 characters of URL-safe base64. A node with peers has none until
    /// they have agreed on one.
    pub cluster_id: Option<String>,
    /// The node.
    pub node_id: NodeId,
    /// The directory: random, given once. Whoever comes without it has lost its records.
    pub directory_id: [u8; 16],
}

/// Whether a directory without data is one of a cluster of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Founding {
    /// It is: it gets a cluster id at once.
    Alone,
    /// It is not: the peers agree on a cluster id.
    WithPeers,
}

/// `node.toml`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    format_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
    node_id: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory_id: Option<String>,
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
    /// Of a node with peers, and this one is started without.
    #[error(
        "{0} belongs to a node with peers, who have not agreed on a cluster yet: name the peers"
    )]
    WithPeers(PathBuf),
    /// Of another cluster than the peers'.
    #[error("{path} belongs to cluster {found}, and the peers are cluster {agreed}")]
    OtherCluster {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: String,
        /// What the peers have agreed on.
        agreed: String,
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
    /// Reads the directory's identity, or gives a new one to a directory without data. A directory of an
    /// earlier release gets the id that it lacks.
    ///
    /// # Errors
    /// [`IdentityError`] naming the file; the server must not touch the directory then.
    pub fn establish(
        data_dir: &Path,
        node_id: NodeId,
        founding: Founding,
    ) -> Result<Self, IdentityError> {
        let path = data_dir.join("node.toml");
        let failed = |source| IdentityError::Io { path: path.clone(), source };
        let file = match fs::read_to_string(&path) {
            Ok(text) => check(&path, &text, node_id)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if ["shards", "raft", "topics"].iter().any(|part| data_dir.join(part).exists()) {
                    return Err(IdentityError::Orphaned(data_dir.to_owned()));
                }
                let cluster_id = match founding {
                    Founding::Alone => Some(random_topic_id().map_err(failed)?.to_string()),
                    Founding::WithPeers => None,
                };
                let node_id = node_id.get();
                let format_version = FORMAT_VERSION;
                NodeFile { format_version, cluster_id, node_id, directory_id: None }
            }
            Err(source) => return Err(failed(source)),
        };
        if file.cluster_id.is_none() && founding == Founding::Alone {
            return Err(IdentityError::WithPeers(path));
        }
        let directory_id = match &file.directory_id {
            Some(text) => uuid(&path, "directory_id", text)?,
            None => random_bytes().map_err(failed)?,
        };
        let identity = Self { cluster_id: file.cluster_id, node_id, directory_id };
        if file.directory_id.is_none() {
            identity.write(data_dir).map_err(failed)?;
        }
        Ok(identity)
    }

    /// Takes the cluster id that the peers have agreed on, for good.
    ///
    /// # Errors
    /// [`IdentityError`] when it has another one, or the file cannot be written.
    pub fn join(&mut self, data_dir: &Path, cluster_id: [u8; 16]) -> Result<(), IdentityError> {
        let path = data_dir.join("node.toml");
        let agreed = TopicId(cluster_id).to_string();
        match &self.cluster_id {
            Some(known) if *known == agreed => return Ok(()),
            Some(known) => {
                let (found, agreed) = (known.clone(), agreed);
                return Err(IdentityError::OtherCluster { path, found, agreed });
            }
            None => self.cluster_id = Some(agreed),
        }
        self.write(data_dir).map_err(|source| IdentityError::Io { path, source })
    }

    /// The cluster's id as bytes, if it has one.
    #[must_use]
    pub fn cluster_id_bytes(&self) -> Option<[u8; 16]> {
        let id: TopicId = self.cluster_id.as_ref()?.parse().expect("checked when it was read");
        Some(id.0)
    }

    /// Writes beside, syncs, renames: a crash leaves either the identity before or this one.
    fn write(&self, data_dir: &Path) -> io::Result<()> {
        let file = NodeFile {
            format_version: FORMAT_VERSION,
            cluster_id: self.cluster_id.clone(),
            node_id: self.node_id.get(),
            directory_id: Some(TopicId(self.directory_id).to_string()),
        };
        let text = toml::to_string(&file).map_err(io::Error::other)?;
        let beside = data_dir.join("node.toml.new");
        let mut out = File::create(&beside)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        fs::rename(&beside, data_dir.join("node.toml"))?;
        File::open(data_dir)?.sync_all()
    }
}

fn check(path: &Path, text: &str, node_id: NodeId) -> Result<NodeFile, IdentityError> {
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
    if file.node_id != node_id.get() {
        let (path, found) = (path.to_owned(), file.node_id);
        return Err(IdentityError::OtherNode { path, found, expected: node_id });
    }
    if let Some(cluster_id) = &file.cluster_id {
        uuid(path, "cluster_id", cluster_id)?;
    } else if file.directory_id.is_none() {
        return Err(damaged("cluster_id is missing".to_owned()));
    }
    Ok(file)
}

fn uuid(path: &Path, field: &str, text: &str) -> Result<[u8; 16], IdentityError> {
    let damaged =
        |_| IdentityError::Damaged { path: path.to_owned(), reason: format!("{field} {text:?}") };
    text.parse::<TopicId>().map(|id| id.0).map_err(damaged)
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
