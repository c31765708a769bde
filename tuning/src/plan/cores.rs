//! Which CPUs the shards and the threads beside them get.

use super::{PlanError, SHARDS_MAX};
use crate::cpulist;
use crate::host::Host;
use crate::profile::{ControlCore, Cores, Profile, ShardCount};

/// Usable CPUs from which on the control core is one of its own, where that is left to the plan.
const CPUS_FOR_CONTROL_MIN: usize = 4;

/// Who runs where.
pub(super) struct Seats {
    pub shards: Vec<Option<usize>>,
    pub shard_cpus: Option<Vec<usize>>,
    pub control_cpus: Option<Vec<usize>>,
}

pub(super) fn seat(profile: &Profile, host: &Host) -> Result<Seats, PlanError> {
    let control_cpus = control_cpus(profile, host)?;
    let cores = match &profile.cores {
        Cores::List(cpus) => in_mask("cores", cpus, host)?,
        Cores::All => {
            let is_control = |cpu: &usize| control_cpus.iter().flatten().any(|taken| taken == cpu);
            host.cpus.iter().copied().filter(|cpu| !is_control(cpu)).collect()
        }
    };
    if cores.is_empty() {
        return Err(PlanError::NoCoreLeft { usable: cpulist::format(&host.cpus) });
    }
    let count = match profile.shards {
        ShardCount::PerCore => cores.len().min(usize::from(SHARDS_MAX)),
        ShardCount::Count(count) => usize::from(count),
    };
    if !(1..=usize::from(SHARDS_MAX)).contains(&count) {
        return Err(PlanError::ShardCount(count));
    }
    if !profile.pin {
        let is_everywhere = cores.len() == host.cpus.len();
        return Ok(Seats {
            shards: vec![None; count],
            shard_cpus: Some(cores).filter(|_| !is_everywhere),
            control_cpus,
        });
    }
    if count > cores.len() {
        let list = cpulist::format(&cores);
        return Err(PlanError::TooFewCores { shards: count, cores: cores.len(), list });
    }
    let shards = cores.iter().take(count).copied().map(Some).collect();
    Ok(Seats { shards, shard_cpus: None, control_cpus })
}

fn control_cpus(profile: &Profile, host: &Host) -> Result<Option<Vec<usize>>, PlanError> {
    match &profile.control_core {
        ControlCore::Any => Ok(None),
        ControlCore::List(cpus) => in_mask("control_core", cpus, host).map(Some),
        ControlCore::Auto if host.cpus.len() < CPUS_FOR_CONTROL_MIN => Ok(None),
        // The first: the kernel's own work is often there as well.
        ControlCore::Auto => {
            let is_free = |cpu: &&usize| match &profile.cores {
                Cores::All => true,
                Cores::List(cores) => !cores.contains(cpu),
            };
            Ok(host.cpus.iter().find(is_free).map(|cpu| vec![*cpu]))
        }
    }
}

fn in_mask(key: &'static str, cpus: &[usize], host: &Host) -> Result<Vec<usize>, PlanError> {
    match cpus.iter().find(|cpu| !host.cpus.contains(cpu)) {
        None => Ok(cpus.to_vec()),
        Some(&cpu) => {
            let usable = cpulist::format(&host.cpus);
            Err(PlanError::NotInMask { key, cpu, usable })
        }
    }
}
