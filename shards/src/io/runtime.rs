//! The executor of a shard: one glommio executor on one thread, and its task queues.
//!
//! An executor that has nothing to do sleeps in the kernel and is not woken.
//!
//! The preemption timer is long on purpose. glommio 0.9.0 arms it before each turn, and if it has fired
//! before the turn's first task queue ran, the executor sleeps although tasks are ready, until the next
//! event. With a timer of 1 ms that happened whenever the kernel took the thread off its CPU at
//! that moment, which on a busy machine is every few thousand turns. So nothing may lean on the
//! timer: whoever could stay ready for long gives the turn away by itself (see `io/turn`), and the
//! completions of urgent work, which go to the ring that interrupts a turn, end it at once.

use std::future::Future;
use std::io;
use std::time::Duration;

use glommio::{
    ExecutorJoinHandle, Latency, LocalExecutorBuilder, Placement, PoolPlacement, Shares,
    TaskQueueHandle,
};

use super::process::{ProcessMask, THREAD_PREFIX};
use crate::model::ShardId;

/// Longest turn of a task queue that does not give way by itself.
const TURN_MAX: Duration = Duration::from_millis(200);

/// Where a shard's thread runs.
#[derive(Clone, Copy, Debug)]
pub enum ShardCpus {
    /// Where the thread that starts the node may run.
    Inherited,
    /// On this CPU.
    Pinned(usize),
    /// On any of these.
    Among(ProcessMask),
}

/// How a shard's thread runs.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorPlan {
    /// Where.
    pub cpus: ShardCpus,
    /// How long to look for work before sleeping. Zero costs nothing; more buys latency between
    /// shards with CPU time, and only while there is traffic.
    pub spin_before_park: Duration,
    /// Bytes that each ring registers.
    pub ring_buffer_bytes: usize,
}

/// The task queues of a shard, by what they serve.
#[derive(Clone, Copy, Debug)]
pub struct TaskQueues {
    /// Messages from other threads, deadlines, and the WAL: never long, never late.
    pub urgent: TaskQueueHandle,
    /// Reads of old data from the disk: a third of what everything else gets.
    pub cold_reads: TaskQueueHandle,
}

impl TaskQueues {
    /// Creates them on the executor that runs the caller.
    pub fn create() -> Self {
        let executor = glommio::executor();
        Self {
            urgent: executor.create_task_queue(
                Shares::Static(1000),
                Latency::Matters(TURN_MAX),
                "urgent",
            ),
            cold_reads: executor.create_task_queue(
                Shares::Static(300),
                Latency::NotImportant,
                "cold reads",
            ),
        }
    }
}

/// Starts a shard's thread and runs `main` on it.
pub fn start<G, F, T>(
    shard: ShardId,
    plan: ExecutorPlan,
    main: G,
) -> io::Result<ExecutorJoinHandle<T>>
where
    G: FnOnce() -> F + Send + 'static,
    F: Future<Output = T> + 'static,
    T: Send + 'static,
{
    let (placement, mask) = match plan.cpus {
        ShardCpus::Inherited => (Placement::Unbound, None),
        ShardCpus::Pinned(cpu) => (Placement::Fixed(cpu), None),
        ShardCpus::Among(mask) => (Placement::Unbound, Some(mask)),
    };
    LocalExecutorBuilder::new(placement)
        .name(&format!("{THREAD_PREFIX}shard-{shard}"))
        .io_memory(plan.ring_buffer_bytes)
        .preempt_timer(TURN_MAX)
        .spin_before_park(plan.spin_before_park)
        // Otherwise the helper runs on the shard's own CPU.
        .blocking_thread_pool_placement(PoolPlacement::Unbound(1))
        .spawn(move || {
            if let Some(mask) = mask {
                mask.apply();
            }
            main()
        })
        .map_err(|error| io::Error::other(format!("cannot start shard {shard}: {error}")))
}
