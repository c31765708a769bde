//! The loop that ties a shard together: inputs → machine → effects → io.
//!
//! `node` starts one thread per shard with its helpers, and stops them in order.
//! [`ShardHandle`] is how everything that runs on a shard's thread speaks to this and to other
//! shards: the same request, answered by a direct call or over the mesh. A shard handles one request
//! at a time and never waits within one: what has to wait (disks, replicas, more records) is parked
//! under a token, and the answer goes to whoever asked when the machine or a reader says so.
//!
//! Order on a shard: what the control thread has pushed is taken before the requests of other
//! shards that were sent after it.

mod answer;
mod commit_times;
mod core;
mod groups;
mod handle;
mod node;
mod peers;
mod request;
mod segments;
mod watch;

pub use self::answer::{Answer, PendingProduce};
pub use self::commit_times::{COMMIT_MICROS_BOUNDS, CommitTimes};
pub use self::handle::ShardHandle;
pub use self::node::{NodeHandle, NodeSpec, ShardPlan, StartError, start};
pub use self::request::{
    EpochQuestion, Fetched, FetchedPartition, ListOffset, ListPosition, ListedOffset,
    ProduceRequestPart, ShardReport,
};

#[cfg(test)]
mod tests;
