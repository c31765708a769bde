//! Tuning: what a node may use of its host.
//!
//! A [`profile`] is what an operator asks for, the [`host`] is what there is, and a [`plan`] is what a
//! node makes of both; an impossible one is refused with the reason. Every rule about limits of the
//! host is in [`limits`], and [`check`] tells an operator how the host measures up.
//!
//! The plan is a pure function of profile and host facts. Deliberately absent: anything that starts a
//! node, and settings of Kafka's, which are in the node's configuration.

pub mod check;
pub mod cpulist;
pub mod host;
pub mod limits;
pub mod plan;
pub mod profile;
pub mod size;
