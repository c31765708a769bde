//! What has to hold of groups in a cluster.

use chronik_shards::format::group_record::GroupRecord;
use chronik_shards::format::record::Records;
use chronik_shards::machine::group::{Coordinator, FetchOffsets, Ticket};

use super::*;
use crate::run::whole_batches;

impl World {
    fn coordinated_keys(&self) -> Vec<ReplicaKey> {
        self.all_keys().into_iter().filter(|key| is_of_groups(*key)).collect()
    }

    /// What the log of a node says of its groups, as far as it is committed.
    fn replayed(&mut self, seat: usize, key: ReplicaKey) -> Result<Coordinator, Breach> {
        let node = self.seats[seat].node.as_mut().expect("it runs");
        let (_, _, batches) =
            whole_batches(node, key).map_err(|error| format!("node {}: {error}", seat + 1))?;
        let mut coordinator = Coordinator::new(settings(), LeaderEpoch(i32::MAX));
        for batch in batches {
            let payload = batch.decompressed(1 << 20).map_err(|error| error.to_string())?;
            for record in Records::new(&batch.header, &payload) {
                let record = record.map_err(|error| error.to_string())?;
                let record_key = record.key.ok_or("a record without a key")?;
                let record = GroupRecord::decode(record_key, record.value);
                coordinator.replay(&record.map_err(|error| error.to_string())?);
            }
        }
        Ok(coordinator)
    }

    /// What coordinators know is what their logs say, wherever all of it is committed.
    pub(super) fn check_coordinators(&mut self) -> Result<(), Breach> {
        for key in self.coordinated_keys() {
            for seat in self.running() {
                let node = self.seats[seat].node.as_ref().expect("it runs");
                let machine = &node.shards[node.owner(key)].machine;
                let Some(info) = machine.info(key) else { continue };
                let Some(coordinator) = machine.group_coordinator(&key) else { continue };
                if info.high_watermark < info.log_end_offset || !coordinator.is_serving() {
                    continue;
                }
                let live = coordinator.clone();
                if !self.replayed(seat, key)?.agrees_with(&live) {
                    return Err(format!(
                        "{key}: the coordinator on node {} knows what its log does not say",
                        seat + 1
                    ));
                }
            }
        }
        Ok(())
    }

    /// What keeps groups from being well: every member is in one generation, and every partition is with one of them.
    pub(in crate::cluster) fn unrest_of_groups(&self) -> String {
        let Some(groups) = &self.groups else { return String::new() };
        if !groups.loads.is_empty() {
            return "a coordinator loads".to_owned();
        }
        for group in &groups.groups {
            let group_id = &group.terms.group_id;
            let mut generations = BTreeSet::new();
            let mut parts = Vec::new();
            for (place, found) in group.places.iter().enumerate() {
                match found.member.as_ref().filter(|member| member.is_settled()) {
                    Some(member) => {
                        generations.insert(member.generation());
                        parts.extend(member.parts());
                    }
                    None => return format!("{group_id}: member {place} is not settled"),
                }
            }
            parts.sort_unstable();
            if generations.len() != 1 || parts != (0..PARTITIONS).collect::<Vec<_>>() {
                return format!("{group_id}: {parts:?} in generations {generations:?}");
            }
        }
        String::new()
    }

    /// Groups get well within a bound.
    pub(in crate::cluster) fn check_healing(&self) -> Result<(), Breach> {
        let calm_since = self.groups.as_ref().and_then(|groups| groups.calm_since);
        if calm_since.is_some_and(|since| self.micros > since + HEALING_US) {
            let unrest = self.unrest();
            return Err(format!("not well {HEALING_US} us after the last fault: {unrest}"));
        }
        Ok(())
    }

    /// Every replica tells the same of groups, and has every offset that a member was told is committed.
    pub(in crate::cluster) fn check_groups(&mut self) -> Result<(), Breach> {
        if self.groups.is_none() {
            return Ok(());
        }
        self.check_coordinators()?;
        for key in self.coordinated_keys() {
            let partition = self.controller.image().partition(key).expect("it is known").clone();
            let leader = partition.leader.ok_or("nobody leads")?;
            let mut told = self.replayed(seat_of(leader), key)?;
            for seat in partition.replicas.into_iter().map(seat_of) {
                if !self.replayed(seat, key)?.agrees_with(&told) {
                    return Err(format!("{key}: node {} tells another story", seat + 1));
                }
            }
            self.check_offsets(key, &mut told)?;
        }
        for (group, _) in self.places() {
            let assigned = self.groups().groups[group].checker.assignments;
            assert!(assigned > 0, "group {group} had members");
        }
        Ok(())
    }

    fn check_offsets(&mut self, key: ReplicaKey, told: &mut Coordinator) -> Result<(), Breach> {
        let now = moment(self.micros);
        for record in told.loaded(now).records {
            told.replay(&record);
        }
        for group in self.groups().groups.iter().filter(|group| group.key == key) {
            let group_id = group.terms.group_id.clone();
            let request = FetchOffsets { group_id, member: None, topics: None };
            let fetched = told.handle(now, Ticket(0), GroupRequest::FetchOffsets(request));
            let GroupResponse::FetchOffsets(Ok(lines)) = &fetched.replies[0].response else {
                return Err(format!("offsets cannot be fetched: {fetched:?}"));
            };
            for partition in 0..PARTITIONS {
                let found = lines.iter().find(|line| line.partition.0 == partition);
                let committed = found.and_then(|line| line.committed.as_ref());
                let offset = committed.map_or(-1, |(offset, ..)| offset.0);
                let known = group.checker.known(partition);
                if offset < known {
                    let group_id = &group.terms.group_id;
                    return Err(format!("{group_id}: {partition} is at {offset}, was at {known}"));
                }
            }
        }
        Ok(())
    }
}
