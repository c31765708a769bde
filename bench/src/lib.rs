//! Measures brokers that speak the Kafka protocol, Chronik among them.
//!
//! [`engine`] is the client that puts a load on connections, [`report`] what comes out. Between them: [`wire`]
//! asks a server one thing at a time, [`produce`] and [`consume`] are the traffics, [`target`] is what is measured, and
//! [`workloads`] has one file a subcommand.

#![forbid(unsafe_code)]

pub mod engine;
pub mod floor;
pub mod report;
pub mod wire;
