//! One cell of the floor: the same requests as a cell of brokers, to the bare server.

use super::{Bare, BareAnswer, FloorServer, Service};
use crate::engine::StopFlag;
use crate::error::BenchError;
use crate::load::{ProducePlan, Producers};
use crate::measure::{RunningLoads, Timing, round, unless_stopped, watch};
use crate::progress::Progress;
use crate::report::{Cell, Durability, Round};
use crate::target::Target;

/// Name of the bare server in tables.
pub const FLOOR: &str = "floor";

/// Largest answer: a whole frame.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What is measured.
#[derive(Clone, PartialEq, Debug)]
pub struct FloorCell {
    /// What the bare server does with it.
    pub service: Service,
    /// In the table.
    pub load: String,
    /// What is sent.
    pub plan: ProducePlan,
}

impl FloorCell {
    /// For progress.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{FLOOR} {}", self.load)
    }

    /// The cell without rounds.
    #[must_use]
    pub fn empty(&self) -> Cell {
        let durability = match self.service {
            Service::Commit => Durability::WaitsForDisk,
            Service::Discard => Durability::NotAcknowledged,
            Service::Answer | Service::Echo | Service::Sink => Durability::NoLog,
        };
        Cell {
            target: FLOOR.to_owned(),
            load: self.load.clone(),
            durability,
            rounds: Vec::new(),
            ratio_to_floor: None,
        }
    }

    /// Measures once.
    ///
    /// # Errors
    /// [`BenchError`].
    pub fn measure(
        &self,
        server: &FloorServer,
        timing: Timing,
        stop: &StopFlag,
        progress: &mut Progress,
    ) -> Result<Round, BenchError> {
        let addresses = server.addresses(self.service);
        let answer = match self.service {
            Service::Answer | Service::Commit | Service::Sink => BareAnswer::Short,
            Service::Echo => BareAnswer::Whole,
            Service::Discard => BareAnswer::None,
        };
        let mut connected = Vec::new();
        for load in Producers::bare_loads(self.plan.clone(), addresses)? {
            let load = crate::engine::Load {
                name: load.name,
                addresses: load.addresses,
                traffic: Bare::new(load.traffic, answer),
                in_flight: load.in_flight,
                pace: load.pace,
                frame_bytes_max: ANSWER_BYTES_MAX,
            };
            connected.push(load.connect()?);
        }
        let target = Target::bare(FLOOR, addresses[0], server.pid());
        let schedule = timing.schedule(stop);
        let running = RunningLoads::start(connected, &schedule)?;
        let watched = watch(
            &target,
            &schedule,
            progress,
            || running.records(),
            || running.any_finished(),
            || {},
        );
        let outcomes = running.join()?;
        unless_stopped(stop)?;
        Ok(round(&outcomes, self.plan.closed_loop_slots(), watched.cost()))
    }
}
