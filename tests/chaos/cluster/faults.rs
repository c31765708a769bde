//! What happens to nodes and to the connections between them.

use std::time::{Duration, Instant};

use super::probe::Course;
use crate::support::cluster::Cluster;
use crate::support::links::Way;
use crate::support::random::Random;
use crate::support::wal::forget_last_commits;

/// Longer than a node's silence takes to be noticed, and its partitions to be led by others.
const FROZEN_MS: (usize, usize) = (1500, 4000);
const CUT_MS: (usize, usize) = (300, 4000);
const DOWN_MS: (usize, usize) = (0, 2500);
const SLOW_MS: (usize, usize) = (5, 60);

/// Longer than handing everything over takes.
const SLOW_STOP: Duration = Duration::from_secs(1);

const SHARDS_MAX: usize = 4;

/// More than are under way at once.
const FORGOTTEN_COMMITS: usize = 10;

/// One kind of fault. Those of a node are mostly the leader's that is named, and sometimes another's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    KillOne,
    KillTwo,
    KillAll,
    Freeze,
    Stop,
    /// Killed, and back with another number of shards.
    OtherShards,
    /// One after another, in order, under load.
    RollingRestart,
    /// A node hears nobody and is not heard.
    Isolate,
    /// A node hears, and is not heard.
    Mute,
    /// A node is heard, and does not hear.
    Deaf,
    /// Two nodes do not reach each other; both reach the third.
    CutPair,
    /// What a node says and hears comes late.
    Slow,
    /// Connections break, and are there again at once.
    Reset,
    /// The leader, and nobody else.
    KillLeader,
    /// Likewise.
    StopLeader,
    /// All nodes, on disks that have not got what they said they had. Nobody can stand that.
    LyingDisks,
}

/// What there is to draw from.
pub const ALL: [Fault; 13] = [
    Fault::KillOne,
    Fault::Isolate,
    Fault::Freeze,
    Fault::KillAll,
    Fault::Stop,
    Fault::KillTwo,
    Fault::OtherShards,
    Fault::Mute,
    Fault::Deaf,
    Fault::CutPair,
    Fault::Slow,
    Fault::Reset,
    Fault::RollingRestart,
];

/// All faults in a random order, again and again.
#[derive(Debug, Default)]
pub struct Deck(Vec<Fault>);

impl Deck {
    pub fn draw(&mut self, random: &mut Random) -> Fault {
        if self.0.is_empty() {
            self.0 = ALL.to_vec();
        }
        self.0.swap_remove(random.below(self.0.len()))
    }
}

/// Lets a fault happen and end, and waits until all nodes serve. `leader` leads something; faults of one node are
/// often its.
pub fn inflict(
    fault: Fault,
    cluster: &mut Cluster,
    leader: i32,
    random: &mut Random,
    course: &mut Course<'_, '_>,
) {
    let victim = if random.chance(4) { 1 + random.below(3) as i32 } else { leader };
    let others: Vec<i32> = cluster.ids().filter(|id| *id != victim).collect();
    match fault {
        Fault::KillLeader => kill(cluster, &[leader], random, course),
        Fault::StopLeader => {
            stop(cluster, leader);
            pause(random, DOWN_MS);
            back(cluster, &[leader], course);
        }
        Fault::KillOne => kill(cluster, &[victim], random, course),
        Fault::KillTwo => kill(cluster, &[victim, others[random.below(2)]], random, course),
        Fault::KillAll => kill(cluster, &[victim, others[0], others[1]], random, course),
        Fault::LyingDisks => {
            cluster.kill9_at_once(&[1, 2, 3]);
            for id in cluster.ids() {
                forget_last_commits(&cluster.data_dir(id), FORGOTTEN_COMMITS);
            }
            back(cluster, &[1, 2, 3], course);
        }
        Fault::OtherShards => {
            cluster.set_shards(victim, random.between(1, SHARDS_MAX) as u16);
            kill(cluster, &[victim], random, course);
        }
        Fault::Freeze => {
            cluster.freeze(victim);
            course.while_frozen(victim);
            pause(random, FROZEN_MS);
            cluster.thaw(victim);
            course.over();
        }
        Fault::Stop => {
            stop(cluster, victim);
            pause(random, DOWN_MS);
            back(cluster, &[victim], course);
        }
        Fault::RollingRestart => {
            for id in cluster.ids() {
                stop(cluster, id);
                cluster.restart(id);
            }
            course.over();
        }
        Fault::Isolate => {
            others.iter().for_each(|other| cluster.links().set_both(victim, *other, Way::Held));
            heal_later(cluster, random, course);
        }
        Fault::Mute => {
            others.iter().for_each(|other| cluster.links().set(victim, *other, Way::Held));
            heal_later(cluster, random, course);
        }
        Fault::Deaf => {
            others.iter().for_each(|other| cluster.links().set(*other, victim, Way::Held));
            heal_later(cluster, random, course);
        }
        Fault::CutPair => {
            cluster.links().set_both(victim, others[random.below(2)], Way::Held);
            heal_later(cluster, random, course);
        }
        Fault::Slow => {
            let delay = Duration::from_millis(random.between(SLOW_MS.0, SLOW_MS.1) as u64);
            others
                .iter()
                .for_each(|other| cluster.links().set_both(victim, *other, Way::Slow(delay)));
            heal_later(cluster, random, course);
        }
        Fault::Reset => {
            for _ in 0..random.between(1, 5) {
                others.iter().for_each(|other| cluster.links().reset(victim, *other));
                pause(random, (0, 200));
            }
            course.over();
        }
    }
}

fn kill(cluster: &mut Cluster, victims: &[i32], random: &mut Random, course: &mut Course<'_, '_>) {
    cluster.kill9_at_once(victims);
    pause(random, DOWN_MS);
    back(cluster, victims, course);
}

/// Stops a node in order, and says so when that takes longer than it should.
fn stop(cluster: &mut Cluster, node: i32) {
    let (before, begin) = (cluster.stderr(node).len(), Instant::now());
    cluster.stop(node);
    let took = begin.elapsed();
    if took > SLOW_STOP {
        println!(
            "chaos: node {node} took {took:.2?} to stop:\n{}",
            &cluster.stderr(node)[before..]
        );
    }
}

/// Starts processes again.
fn back(cluster: &mut Cluster, nodes: &[i32], course: &mut Course<'_, '_>) {
    cluster.spawn(nodes);
    course.over();
    cluster.await_serving(nodes);
}

fn heal_later(cluster: &Cluster, random: &mut Random, course: &mut Course<'_, '_>) {
    pause(random, CUT_MS);
    cluster.links().heal();
    course.over();
}

/// Faults last: there is nothing to wait for but time.
fn pause(random: &mut Random, (low, high): (usize, usize)) {
    std::thread::sleep(Duration::from_millis(random.between(low, high) as u64));
}
