//! Rules of the machine as a whole, on the bench.

mod chance;
mod durability;
mod flushing;
mod idempotence;
mod reading;
mod removal;
mod runs;
mod starting;
mod survey;
