//! Why a run has no figures.

use std::io;

use chronik_protocol::EncodeError;

use crate::child::ChildError;
use crate::embedded::EmbeddedError;
use crate::engine::EngineError;
use crate::floor::FloorError;
use crate::wire::WireError;

/// Why a run has no figures. One line that says what to do, or whose fault it is.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Asking a server.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Loading a server.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A node of our own.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// The bare server.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// A server of our own.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// A request has no form in the server's version.
    #[error("encoding a request: {0}")]
    Encode(#[from] EncodeError),
    /// The operating system.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: String,
        /// What it said.
        error: io::Error,
    },
    /// Options that do not go together.
    #[error("{0}")]
    Options(String),
    /// What was read back is not what was acknowledged.
    #[error("{target}: {what}")]
    Untrue {
        /// Which server.
        target: String,
        /// What is wrong.
        what: String,
    },
    /// A signal.
    #[error("stopped")]
    Stopped,
}

impl BenchError {
    /// An error of the operating system.
    pub fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::System { what, error }
    }
}
