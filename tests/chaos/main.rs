//! Servers that are killed again and again under load, alone and as a cluster, and what must hold each time they are back.

#![allow(clippy::unwrap_used, reason = "a test target")]

#[path = "../support/mod.rs"]
mod support;

mod cluster;
mod gate;
mod kill9;
mod ledger;
mod load;
mod verify;
