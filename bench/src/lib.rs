//! Measures brokers that speak the Kafka protocol, Chronik among them.
//!
//! [`engine`] is the client, [`report`] what comes out. Between them: [`wire`] and [`topic`] ask a server one
//! thing at a time, [`produce`] and [`fetch`] are the traffics, [`target`] is what is measured, and [`workloads`]
//! has one file a subcommand.

#![forbid(unsafe_code)]

pub mod embedded;
pub mod engine;
pub mod host;
pub mod process;
pub mod produce;
pub mod report;
pub mod rounds;
pub mod topic;
pub mod wire;
