//! The floor: what this machine does when nothing but the bare work is done, in the terms and the process layout of
//! the broker. Every figure of a broker has meaning beside it.
//!
//! The bare server ([`server`]) has an executor of the broker's runtime on each of the broker's cores, and gets the
//! same bytes from the same client. It looks at twelve bytes of each frame. What a broker does beyond that (checks,
//! offsets, partitions, segments) is what the ratio to it shows.

mod cell;
mod connection;
pub mod disk;
mod frames;
mod group;
pub mod server;
mod sink;
pub mod traffic;

use std::io;

use crate::child::ChildError;

pub use cell::{FLOOR, FloorCell};
pub use group::GroupOptions;
pub use server::{FloorServer, FloorServerOptions, Service};
pub use traffic::{Bare, BareAnswer};

/// Why there is no floor.
#[derive(Debug, thiserror::Error)]
pub enum FloorError {
    /// An option's value.
    #[error("{0}")]
    Options(String),
    /// The host does not have what the profile asks for.
    #[error("--floor-profile and --floor-cores: {0}")]
    Plan(String),
    /// The system refuses something.
    #[error("the bare server: {0}")]
    Io(#[from] io::Error),
    /// Its process.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// A core's thread ended before it served; what it said stands above.
    #[error("a core of the bare server did not start")]
    NotReady,
}
