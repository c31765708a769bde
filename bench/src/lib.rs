//! Measures brokers that speak the Kafka protocol, Chronik among them.
//!
//! [`engine`] is the client, [`report`] what comes out. Between them: [`wire`] and [`topic`] ask a server one
//! thing at a time, [`produce`] is the traffic of producers and [`load`] makes it for a topic, [`target`] is what is
//! measured and [`measure`] measures it; [`workloads`] has one file a subcommand.

#![forbid(unsafe_code)]

pub mod child;
pub mod cli;
pub mod embedded;
pub mod engine;
pub mod error;
pub mod fetch;
pub mod floor;
pub mod host;
pub mod load;
pub mod measure;
pub mod process;
pub mod produce;
pub mod progress;
pub mod report;
pub mod rounds;
pub mod settings;
pub mod sink;
pub mod target;
pub mod topic;
pub mod verify;
pub mod wire;
pub mod workloads;
