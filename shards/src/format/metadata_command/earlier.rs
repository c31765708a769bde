//! Layouts of commands that are read, and no longer written.

use rkyv::{Archive, Deserialize, Serialize};

use super::{MetadataFormatError, NodeIdBytes, RegisterBroker, from_body};
use crate::model::NodeId;

/// A registration in a version before the one that is written; `None` for any other version.
pub(super) fn registration(
    version: u16,
    body: &[u8],
) -> Option<Result<RegisterBroker, MetadataFormatError>> {
    match version {
        1 => Some(from_body::<LoneRegistration>(body).map(RegisterBroker::from)),
        2 => Some(from_body::<RegistrationWithoutPeers>(body).map(RegisterBroker::from)),
        _ => None,
    }
}

/// [`RegisterBroker`] in version 1, of nodes that were alone.
#[derive(Archive, Serialize, Deserialize)]
struct LoneRegistration {
    #[rkyv(with = NodeIdBytes)]
    node_id: NodeId,
    incarnation: [u8; 16],
    shards: u16,
    host: String,
    port: u16,
}

/// [`RegisterBroker`] in version 2: where peers connect is not in it.
#[derive(Archive, Serialize, Deserialize)]
struct RegistrationWithoutPeers {
    #[rkyv(with = NodeIdBytes)]
    node_id: NodeId,
    incarnation: [u8; 16],
    shards: u16,
    host: String,
    port: u16,
    directory_id: [u8; 16],
    rack: Option<String>,
    fenced: bool,
}

impl From<LoneRegistration> for RegisterBroker {
    fn from(lone: LoneRegistration) -> Self {
        Self {
            node_id: lone.node_id,
            incarnation: lone.incarnation,
            shards: lone.shards,
            host: lone.host,
            port: lone.port,
            directory_id: [0; 16],
            rack: None,
            fenced: false,
            replication: None,
            control: None,
        }
    }
}

impl From<RegistrationWithoutPeers> for RegisterBroker {
    fn from(earlier: RegistrationWithoutPeers) -> Self {
        Self {
            node_id: earlier.node_id,
            incarnation: earlier.incarnation,
            shards: earlier.shards,
            host: earlier.host,
            port: earlier.port,
            directory_id: earlier.directory_id,
            rack: earlier.rack,
            fenced: earlier.fenced,
            replication: None,
            control: None,
        }
    }
}
