//! Whether partitions take records: probes that are written to each of them from the end of a fault on.

use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use chronik_protocol::ErrorCode;
use chronik_protocol::messages::produce_response::ProduceResponse;

use super::scene::{Leaders, Scene};
use crate::ledger::{Acknowledged, Identity, Ledger};
use crate::support::batch::Batch;
use crate::support::client::Client;
use crate::support::poll_pause;
use crate::support::requests::{PRODUCE_BY_NAME, error, produce_request, produced};

/// How long until a partition must take records again. What is wanted is printed, not asserted.
pub const AVAILABLE_PATIENCE: Duration = Duration::from_secs(60);

/// Before another node is asked.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// Longer than any node is frozen.
const LATE_PATIENCE: Duration = Duration::from_secs(20);

/// Attempts of one probe, at most; each has a number of its own.
const ATTEMPTS_MAX: u32 = 1 << 20;

/// The worker number of the records that probe a partition.
fn prober(partition: usize) -> u32 {
    LATE - 1 - partition as u32
}

/// The worker number of what a node is sent while it is frozen.
const LATE: u32 = u32::MAX;

/// Whether this is the number of a worker that probes.
pub fn is_probe(worker: u32) -> bool {
    worker >= u32::MAX / 2
}

/// What is done while a fault takes its course.
pub struct Course<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    scene: &'env Scene,
    ledger: &'env Ledger,
    round: u32,
    /// Where the late produce goes.
    partition: usize,
    late: Option<Client>,
    probes: Vec<ScopedJoinHandle<'scope, Duration>>,
}

impl<'scope, 'env> Course<'scope, 'env> {
    pub fn new(
        scope: &'scope Scope<'scope, 'env>,
        (scene, ledger): (&'env Scene, &'env Ledger),
        round: u32,
        partition: usize,
    ) -> Self {
        Self { scope, scene, ledger, round, partition, late: None, probes: Vec::new() }
    }

    /// Sends a node that is frozen a record. Should it be acknowledged when the node thaws, it has to be there.
    pub fn while_frozen(&mut self, node: i32) {
        let batch = Batch::of([self.late().value()]).encode();
        let request = produce_request(&self.scene.topic, self.partition as i32, -1, batch);
        // The kernel takes connections and bytes for the process.
        let mut client = self.scene.connect(node, LATE_PATIENCE).expect("a frozen node");
        client.try_send(PRODUCE_BY_NAME, &request).expect("a frozen node");
        self.late = Some(client);
    }

    fn late(&self) -> Identity {
        Identity { worker: LATE, number: self.round }
    }

    /// From now on nothing is wrong any more but what the nodes themselves have to set right.
    pub fn over(&mut self) {
        let (scene, ledger, round) = (self.scene, self.ledger, self.round);
        for partition in 0..scene.partitions {
            let probe = move || await_available(scene, ledger, partition, round);
            self.probes.push(self.scope.spawn(probe));
        }
    }

    /// Waits until every partition has taken a record; how long that took.
    pub fn available(mut self) -> Duration {
        if let Some(mut client) = self.late.take() {
            let first = self.late();
            if let Ok(response) = client.try_receive::<ProduceResponse>() {
                note(self.ledger, self.partition, first, response);
            }
        }
        assert!(!self.probes.is_empty(), "a fault that is not over");
        let gaps = self.probes.into_iter().map(|probe| probe.join().expect("a probe"));
        gaps.max().unwrap_or_default()
    }
}

fn await_available(scene: &Scene, ledger: &Ledger, partition: usize, round: u32) -> Duration {
    let _watch = scene.watch();
    let begin = Instant::now();
    let mut leaders = Leaders::new(scene, u64::from(round));
    for attempt in 0..ATTEMPTS_MAX {
        leaders.refresh(scene);
        // One that was refused may be there all the same: every attempt has a number of its own.
        let number = round * ATTEMPTS_MAX + attempt;
        let first = Identity { worker: prober(partition), number };
        if probe(scene, ledger, &leaders, partition, first) {
            break;
        }
        assert!(
            begin.elapsed() < AVAILABLE_PATIENCE,
            "partition {partition} takes no record; leader {:?}",
            leaders.of(partition)
        );
        assert!(!scene.has_failed(), "a client failed");
    }
    begin.elapsed()
}

fn probe(
    scene: &Scene,
    ledger: &Ledger,
    leaders: &Leaders,
    partition: usize,
    first: Identity,
) -> bool {
    let leader = leaders.of(partition);
    let client = leader.and_then(|leader| scene.connect(leader.node, ANSWER_PATIENCE));
    let Some(mut client) = client else {
        poll_pause();
        return false;
    };
    let bytes = Batch::of([first.value()]).encode();
    let request = produce_request(&scene.topic, partition as i32, -1, bytes);
    let answer = client.try_call(PRODUCE_BY_NAME, &request);
    let is_taken = answer.is_ok_and(|response| note(ledger, partition, first, response));
    if !is_taken {
        poll_pause();
    }
    is_taken
}

/// Whether a record was acknowledged, which the ledger learns.
fn note(ledger: &Ledger, partition: usize, first: Identity, response: ProduceResponse) -> bool {
    let answer = produced(response);
    let code = error(answer.error_code);
    if code != ErrorCode::None {
        assert!(code.is_retriable(), "partition {partition}: {code:?}");
        return false;
    }
    let batch = Acknowledged { base_offset: answer.base_offset, first, count: 1 };
    ledger.acknowledge(partition, batch);
    true
}
