//! Chronik: a durable broker that speaks the Kafka wire protocol.
//!
//! This crate is the node around the shards: [`cli`] and [`config`] say what it shall be, [`boot`] claims
//! what it needs, [`control`] keeps the metadata, [`net`] and [`handlers`] speak to Kafka clients,
//! [`metrics`] tells how all of it is doing, and [`node`] puts them together.

pub mod boot;
pub mod cli;
pub mod cluster_tool;
pub mod config;
pub mod control;
pub mod front;
pub mod handlers;
pub mod introduction;
pub mod isr_changes;
pub mod metadata_view;
pub mod metrics;
pub mod net;
pub mod node;
pub mod proposals;
pub mod replicas;
