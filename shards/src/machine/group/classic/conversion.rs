//! A classic group out of a consumer group, and what a consumer group is made of.

use bytes::Bytes;

use super::{CONSUMER_PROTOCOL_TYPE, ClassicGroup, ClassicState, Member, Waiting};
use crate::machine::group::conversion::ClassicPart;
use crate::machine::group::request::GroupError;
use crate::machine::group::turn::Turn;
use crate::model::Now;

impl ClassicGroup {
    /// How many members it has.
    pub(in crate::machine::group) fn members_len(&self) -> usize {
        self.members.len()
    }

    /// Its generation and its members, with what they have.
    pub(in crate::machine::group) fn parts(&self) -> (i32, Vec<ClassicPart>) {
        let protocol = self.protocol.clone().or_else(|| self.select_protocol());
        let part = |(member_id, member): (&String, &Member)| ClassicPart {
            member_id: member_id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            metadata: match member.metadata(protocol.as_deref()) {
                // It has come since with other protocols: with those the group will be.
                metadata if metadata.is_empty() => {
                    member.protocols.first().map_or_else(Bytes::new, |(_, it)| it.clone())
                }
                metadata => metadata,
            },
            protocols: member.protocols.clone(),
            assignment: member.assignment.clone(),
        };
        (self.generation, self.members.iter().map(part).collect())
    }

    /// A group of these members, each with its part.
    pub(in crate::machine::group) fn of_parts(
        group_id: &str,
        generation: i32,
        parts: Vec<ClassicPart>,
        now: Now,
    ) -> Self {
        let mut group = Self::new(group_id);
        group.protocol_type = Some(CONSUMER_PROTOCOL_TYPE.to_owned());
        group.generation = generation;
        group.state = ClassicState::Stable;
        group.state_at = Some(now.wall);
        for part in parts {
            let member = Member {
                instance_id: part.instance_id,
                client_id: part.client_id,
                client_host: part.client_host,
                rebalance_timeout_ms: part.rebalance_timeout_ms,
                session_timeout_ms: part.session_timeout_ms,
                protocols: part.protocols,
                assignment: part.assignment,
                is_new: false,
                waiting: Waiting::Nothing,
            };
            group.insert(part.member_id, member);
        }
        group.protocol = group.select_protocol();
        group.subscribed_topics = group.subscriptions();
        group
    }

    /// It has been made of a consumer group: sessions begin, and members join again if they have to.
    pub(in crate::machine::group) fn begin(&mut self, turn: &mut Turn<'_>, rebalances: bool) {
        let member_ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            self.heard(turn, &member_id);
        }
        if rebalances {
            self.rebalance(turn);
        }
    }

    /// It ends as a classic group: whoever waits is to join again, and has a session's time for that.
    pub(in crate::machine::group) fn end(&mut self, turn: &mut Turn<'_>) {
        self.abandon(turn, &GroupError::RebalanceInProgress);
        self.forget_pending(turn);
        turn.timers.disarm(&self.join_timer());
        turn.timers.disarm(&self.sync_timer());
        for member_id in self.members.keys() {
            self.heard(turn, member_id);
        }
    }
}
