//! Tests of the generated codecs against the schema tables, an independent implementation, bytes derived by
//! hand, and hostile input.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod allocations;
mod differential;
mod golden;
mod hostile;
#[allow(dead_code, reason = "the generator's parser, of which the sampler uses a part")]
#[path = "../../codegen/parse.rs"]
mod parse;
mod rules;
mod sample;
mod subject;
mod tables;
