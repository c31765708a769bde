//! What a node needs to run well, looked at on this host: each finding is a fact and what to do.
//!
//! A failed finding keeps a node from starting, or from keeping its promises; a warning costs speed.

mod disk;
mod process;
mod report;
mod system;

use std::path::Path;

use crate::host::Host;
use crate::plan::Plan;
use crate::profile::Profile;

pub use disk::{SyncLatency, measure_sync};
pub use report::{json, text};

/// How a finding turned out.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// A node works, less well than it could.
    Warn,
    /// A node does not start, or not for long.
    Fail,
}

/// One fact about the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// What was looked at.
    pub topic: &'static str,
    /// How it turned out.
    pub verdict: Verdict,
    /// What was found.
    pub fact: String,
    /// What to do; there whenever the verdict is not ok.
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(topic: &'static str, fact: impl Into<String>) -> Self {
        Self { topic, verdict: Verdict::Ok, fact: fact.into(), remedy: None }
    }

    fn warn(topic: &'static str, fact: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (fact, remedy) = (fact.into(), Some(remedy.into()));
        Self { topic, verdict: Verdict::Warn, fact, remedy }
    }

    fn fail(topic: &'static str, fact: impl Into<String>, remedy: impl Into<String>) -> Self {
        let (fact, remedy) = (fact.into(), Some(remedy.into()));
        Self { topic, verdict: Verdict::Fail, fact, remedy }
    }
}

/// Looks at everything that a node with this profile and data directory depends on. Takes a few seconds, for
/// the disk.
#[must_use]
pub fn run(profile: &Profile, host: &Host, data_dir: &Path) -> Vec<Finding> {
    let plan = Plan::resolve(profile, host);
    let shards = plan.as_ref().map_or(host.cpus.len(), |plan| plan.shards.len());
    let mut findings = vec![system::kernel(), system::io_uring()];
    findings.push(match &plan {
        Ok(plan) => Finding::ok("plan", format!("profile {}, {shards} shards", plan.profile.name)),
        Err(error) => {
            let fact = format!("this host does not have what profile {} asks for", profile.name);
            Finding::fail("plan", fact, error.to_string())
        }
    });
    for note in plan.iter().flat_map(|plan| &plan.notes) {
        findings.push(Finding::warn(note.topic, note.fact.clone(), note.remedy.clone()));
    }
    findings.push(process::cpus(host));
    findings.push(process::memlock(host, shards));
    findings.push(process::open_files(host, shards));
    findings.push(system::governor(&host.cpus));
    findings.push(system::clock());
    findings.push(system::huge_pages());
    let wal_bytes = plan.as_ref().map_or(0, Plan::wal_bytes_max);
    findings.extend(disk::look(data_dir, wal_bytes));
    findings
}
