//! A server that is killed again and again under load, and what must hold each time it is back.

#![allow(clippy::unwrap_used, reason = "a test target")]

#[path = "../support/mod.rs"]
mod support;

mod gate;
mod kill9;
mod ledger;
mod load;
mod verify;
