//! What goes wrong: processes, power, disks, links, the controller's reach, and bugs put in on purpose.

use super::*;

impl World {
    pub(super) fn fault(&mut self) -> Result<(), Breach> {
        if self.bug.is_some() && self.rng.one_in(6) {
            return self.misbehave();
        }
        match self.rng.below(100) {
            0..12 => self.go_down(false)?,
            12..20 => self.go_down(true)?,
            20..22 => self.all_down()?,
            22..46 => self.come_back()?,
            46..49 => self.one_stops_in_order()?,
            49 => self.all_stop_in_order()?,
            50..58 => self.freeze(),
            58..64 => self.slow_disk(),
            64..72 => self.cut(),
            72..80 => self.mend(),
            80..85 => self.cut_controller(),
            85..88 => self.fill_disk(),
            88..90 => self.fail_sync(),
            90..92 => self.set_clock(),
            92..94 => self.rot()?,
            94 => self.wipe(),
            _ => self.reset_one(),
        }
        Ok(())
    }

    fn go_down(&mut self, loses_power: bool) -> Result<(), Breach> {
        let up: Vec<usize> = (0..NODES).filter(|seat| self.seats[*seat].node.is_some()).collect();
        // One node down at a time most of the time.
        if up.len() < 2 || (up.len() < NODES && !self.rng.one_in(3)) {
            return Ok(());
        }
        let seat = up[self.rng.place(up.len())];
        self.stop(seat, loses_power);
        Ok(())
    }

    pub(super) fn stop(&mut self, seat: usize, loses_power: bool) {
        let what = if loses_power { "loses power" } else { "is killed" };
        self.trace(|| format!("node {} {what}", seat + 1));
        self.note(if loses_power { Event::PowerLost } else { Event::Killed });
        self.end(seat, loses_power);
    }

    fn end(&mut self, seat: usize, loses_power: bool) {
        self.note_unflushed(seat);
        let seed = self.rng.next();
        self.seats[seat].node = None;
        self.seats[seat].fails_syncs = false;
        self.seats[seat].disk.fail_syncs(false);
        match loses_power {
            true => self.seats[seat].disk.crash(seed),
            false => self.seats[seat].disk.end_process(seed),
        }
        self.network.gone(seat, !loses_power);
        self.forget_clients(seat);
        self.forget_groups(seat);
    }

    /// A node says that it is about to stop, finishes, and ends.
    fn stop_in_order(&mut self, seat: usize) -> Result<(), Breach> {
        self.trace(|| format!("node {} stops in order", seat + 1));
        self.controller.drain(seat);
        let (now, mut effects) = (self.now(seat), Vec::new());
        let node = self.seats[seat].node.as_mut().expect("it runs");
        for shard in 0..node.shards.len() {
            node.act(now, shard, &mut effects, |machine, out| machine.stop(now, out));
        }
        self.take(seat, effects)?;
        self.finish_io(seat)?;
        if self.seats[seat].node.is_some() {
            self.end(seat, false);
            self.note(Event::StoppedInOrder);
        }
        Ok(())
    }

    fn all_stop_in_order(&mut self) -> Result<(), Breach> {
        for seat in self.running() {
            self.stop_in_order(seat)?;
        }
        self.note(Event::AllStoppedInOrder);
        if self.rng.one_in(2) { self.start_all() } else { Ok(()) }
    }

    fn one_stops_in_order(&mut self) -> Result<(), Breach> {
        let running = self.running();
        let place = self.rng.place(running.len().max(1));
        match running.get(place) {
            Some(seat) if running.len() > 2 => self.stop_in_order(*seat),
            _ => Ok(()),
        }
    }

    fn all_down(&mut self) -> Result<(), Breach> {
        let loses_power = self.rng.one_in(2);
        for seat in 0..NODES {
            if self.seats[seat].node.is_some() {
                self.stop(seat, loses_power);
            }
        }
        self.note(if loses_power { Event::AllLostPower } else { Event::AllKilled });
        Ok(())
    }

    fn come_back(&mut self) -> Result<(), Breach> {
        self.give_up_replaced();
        for seat in 0..NODES {
            if self.seats[seat].node.is_none() && self.rng.one_in(2) {
                // Registering takes the controller.
                self.controller.cut(seat, false);
                self.start(seat)?;
            }
        }
        Ok(())
    }

    fn freeze(&mut self) {
        let seat = self.rng.place(NODES);
        if self.runs(seat) {
            let micros = [20_000, 400_000, 1_500_000][self.rng.place(3)];
            self.seats[seat].frozen_until = self.micros + self.rng.below(micros);
            self.trace(|| format!("node {} freezes", seat + 1));
            self.note(Event::Frozen);
        }
    }

    fn slow_disk(&mut self) {
        let seat = self.rng.place(NODES);
        let micros = [30_000, 300_000, 900_000][self.rng.place(3)];
        self.seats[seat].slow_until = self.micros + self.rng.below(micros);
        self.trace(|| format!("the disk of node {} stalls", seat + 1));
        self.note(Event::SlowDisk);
    }

    fn cut(&mut self) {
        let from = self.rng.place(NODES);
        let to = (from + 1 + self.rng.place(NODES - 1)) % NODES;
        self.trace(|| format!("nothing gets from node {} to node {}", from + 1, to + 1));
        self.network.cut(from, to);
        if self.rng.one_in(2) {
            self.network.cut(to, from);
            self.note(Event::Cut);
        } else {
            self.note(Event::OneWayCut);
        }
    }

    fn mend(&mut self) {
        for from in 0..NODES {
            for to in 0..NODES {
                if self.rng.one_in(2) {
                    self.network.mend(from, to);
                }
            }
            if self.rng.one_in(2) {
                self.controller.cut(from, false);
            }
        }
        self.trace(|| "links are mended".to_owned());
    }

    fn cut_controller(&mut self) {
        let seat = self.rng.place(NODES);
        self.trace(|| format!("node {} loses the controller", seat + 1));
        self.controller.cut(seat, true);
        self.note(Event::ControllerCut);
    }

    /// Who catches up does not flush, is proposed to join, and starts again before that is decided.
    fn restart_who_joins(&mut self) -> Result<(), Breach> {
        let image = self.controller.image();
        let is_behind = |seat: &usize| {
            let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
            let node = node_id(*seat);
            partitions.any(|it| it.replicas.contains(&node) && !it.isr.contains(&node))
        };
        let behind: Vec<usize> = self.running().into_iter().filter(is_behind).collect();
        for seat in &behind {
            self.seats[*seat].slow_until = self.micros + 400_000;
        }
        for _ in 0..600 {
            match self.rng.below(10) {
                0..7 => self.deliver_one()?,
                7 => self.produce()?,
                8 => self.perform_one()?,
                _ => {
                    self.micros += 500;
                    self.tick()?;
                }
            }
            let joining = self.controller.joining().map(seat_of);
            if let Some(seat) = joining.filter(|seat| self.runs(*seat) && behind.contains(seat)) {
                self.stop(seat, true);
                self.start(seat)?;
                return self.decide_one();
            }
        }
        Ok(())
    }

    /// Where a deliberate bug of the disk acts.
    fn misbehave(&mut self) -> Result<(), Breach> {
        match self.bug {
            Some(Bug::AckBeforeFlush) => {
                for seat in self.running() {
                    let now = self.now(seat);
                    let mut effects = Vec::new();
                    let node = self.seats[seat].node.as_mut().expect("it runs");
                    for shard in 0..node.shards.len() {
                        node.claim_write(now, shard, &mut effects);
                    }
                    self.take(seat, effects)?;
                }
                // The claims count once they were told.
                for _ in 0..60 {
                    self.deliver_one()?;
                }
                for seat in self.running() {
                    self.stop(seat, true);
                }
                Ok(())
            }
            Some(Bug::FollowerAckBeforeFlush) => {
                for _ in 0..40 {
                    self.deliver_one()?;
                    self.produce()?;
                }
                for seat in self.running() {
                    if self.rng.one_in(2) {
                        self.stop(seat, true);
                    }
                }
                Ok(())
            }
            Some(Bug::RejoinsWithoutEpoch) => self.restart_who_joins(),
            Some(
                Bug::CommittedIsrOnly
                | Bug::SkippedTruncation
                | Bug::ElectionOutsideIsr
                | Bug::CompactsBeyondWatermark
                | Bug::GroupAnswersEarly
                | Bug::GroupsLoadStale,
            )
            | None => Ok(()),
        }
    }
}
