//! The values, field by field. Their layouts are tables on the types.

use bytes::Bytes;

use super::fields::{Input, Output};
use super::{
    AssignedPartitions, ClassicMember, ClassicProtocols, CommittedOffset, ConsumerGroupMember,
    ConsumerGroupMetadata, CurrentAssignment, GroupMetadata, GroupRecordError as Error,
    MemberState, ResolvedRegularExpression, TargetAssignment, TargetAssignmentMetadata,
    TopicPartitions,
};
use crate::model::{Offset, PartitionIndex, TimestampMs, TopicId};

impl CommittedOffset {
    /// Of a key of kind 0: offset, metadata, commit timestamp.
    pub(super) fn decode_legacy(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        input.version(0, 0..=0, i16::MAX)?;
        let value = Self {
            offset: Offset(input.i64()?),
            leader_epoch: None,
            metadata: input.string()?,
            committed_at: TimestampMs(input.i64()?),
            expires_at: None,
            topic_id: TopicId::ZERO,
        };
        input.end()?;
        Ok(value)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        let version = input.version(1, 0..=4, 4)?;
        let given = |number: i32| (number >= 0).then_some(number);
        let offset = Offset(input.i64()?);
        let leader_epoch = if version >= 3 { given(input.i32()?) } else { None };
        let metadata = input.string()?;
        let committed_at = TimestampMs(input.i64()?);
        let expires_at = if version == 1 {
            Some(TimestampMs(input.i64()?)).filter(|at| at.0 >= 0)
        } else {
            None
        };
        let mut topic_id = TopicId::ZERO;
        input.tagged(|tag, field| match tag {
            0 => field.topic_id().map(|id| topic_id = id).map(|()| true),
            _ => Ok(false),
        })?;
        input.end()?;
        Ok(Self { offset, leader_epoch, metadata, committed_at, expires_at, topic_id })
    }

    /// The version in which it is written: the oldest that has what it holds. One with an expiry time has
    /// no room for a topic id.
    pub(super) fn version(&self) -> i16 {
        match (self.expires_at, self.topic_id) {
            (Some(_), _) => 1,
            (None, TopicId::ZERO) => 3,
            (None, _) => 4,
        }
    }

    pub(super) fn encode(&self, version: i16) -> Bytes {
        let mut output = Output::value(version, version >= 4);
        output.i64(self.offset.0);
        if version >= 3 {
            output.i32(self.leader_epoch.unwrap_or(-1));
        }
        output.string(&self.metadata).i64(self.committed_at.0);
        if version == 1 {
            output.i64(self.expires_at.map_or(-1, |at| at.0));
        }
        let topic_id = (self.topic_id != TopicId::ZERO).then(|| {
            let mut field = Output::tag();
            field.topic_id(self.topic_id);
            field
        });
        output.tagged(topic_id);
        output.finish()
    }
}

impl GroupMetadata {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        let version = input.version(2, 0..=4, 4)?;
        let value = Self {
            protocol_type: input.string()?,
            generation: input.i32()?,
            protocol: input.nullable_string()?,
            leader: input.nullable_string()?,
            state_at: if version >= 2 { TimestampMs(input.i64()?) } else { TimestampMs::NONE },
            members: input.list(13, |input| ClassicMember::decode(input, version))?,
        };
        input.no_tagged()?;
        input.end()?;
        Ok(value)
    }

    pub(super) fn encode(&self, version: i16) -> Bytes {
        let mut output = Output::value(version, version >= 4);
        output.string(&self.protocol_type).i32(self.generation);
        output.nullable_string(self.protocol.as_deref()).nullable_string(self.leader.as_deref());
        if version >= 2 {
            output.i64(self.state_at.0);
        }
        output.list(&self.members, |output, member| member.encode(output, version));
        output.tagged(None);
        output.finish()
    }
}

impl ClassicMember {
    fn decode(input: &mut Input<'_>, version: i16) -> Result<Self, Error> {
        let member_id = input.string()?;
        let instance_id = if version >= 3 { input.nullable_string()? } else { None };
        let client_id = input.string()?;
        let client_host = input.string()?;
        let rebalance = if version >= 1 { Some(input.i32()?) } else { None };
        let session_timeout_ms = input.i32()?;
        let member = Self {
            member_id,
            instance_id,
            client_id,
            client_host,
            // Before there were two time-outs, one served for both.
            rebalance_timeout_ms: rebalance.unwrap_or(session_timeout_ms),
            session_timeout_ms,
            subscription: input.bytes()?,
            assignment: input.bytes()?,
        };
        input.no_tagged()?;
        Ok(member)
    }

    fn encode(&self, output: &mut Output, version: i16) {
        output.string(&self.member_id);
        if version >= 3 {
            output.nullable_string(self.instance_id.as_deref());
        }
        output.string(&self.client_id).string(&self.client_host);
        if version >= 1 {
            output.i32(self.rebalance_timeout_ms);
        }
        output.i32(self.session_timeout_ms).bytes(&self.subscription).bytes(&self.assignment);
        output.tagged(None);
    }
}

/// A number in tag 0, left out when it is 0.
fn tagged_number(number: i64) -> Option<Output> {
    (number != 0).then(|| {
        let mut field = Output::tag();
        field.i64(number);
        field
    })
}

impl ConsumerGroupMetadata {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        input.version(3, 0..=0, 0)?;
        let mut value = Self { epoch: input.i32()?, metadata_hash: 0 };
        input.tagged(|tag, field| match tag {
            0 => field.i64().map(|hash| value.metadata_hash = hash).map(|()| true),
            _ => Ok(false),
        })?;
        input.end()?;
        Ok(value)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut output = Output::value(0, true);
        output.i32(self.epoch).tagged(tagged_number(self.metadata_hash));
        output.finish()
    }
}

/// A value of the retired kind 4: no topics.
pub(super) fn no_partitions() -> Bytes {
    let mut output = Output::value(0, true);
    output.list::<()>(&[], |_, ()| {}).tagged(None);
    output.finish()
}

impl ConsumerGroupMember {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        input.version(5, 0..=0, 0)?;
        let mut value = Self {
            instance_id: input.nullable_string()?,
            rack_id: input.nullable_string()?,
            client_id: input.string()?,
            client_host: input.string()?,
            topics: input.list(1, Input::string)?,
            expression: input.nullable_string()?,
            rebalance_timeout_ms: input.i32()?,
            server_assignor: input.nullable_string()?,
            classic: None,
        };
        input.tagged(|tag, field| match tag {
            0 => {
                value.classic = ClassicProtocols::decode(field)?;
                Ok(true)
            }
            _ => Ok(false),
        })?;
        input.end()?;
        Ok(value)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut output = Output::value(0, true);
        output.nullable_string(self.instance_id.as_deref());
        output.nullable_string(self.rack_id.as_deref());
        output.string(&self.client_id).string(&self.client_host);
        output.list(&self.topics, |output, topic| {
            output.string(topic);
        });
        output.nullable_string(self.expression.as_deref()).i32(self.rebalance_timeout_ms);
        output.nullable_string(self.server_assignor.as_deref());
        // Kafka writes that there are none, where it leaves other tags out.
        output.tagged(Some(self.classic.as_ref().map_or_else(
            || {
                let mut none = Output::tag();
                none.i8(0);
                none
            },
            ClassicProtocols::encode,
        )));
        output.finish()
    }
}

impl ClassicProtocols {
    fn decode(input: &mut Input<'_>) -> Result<Option<Self>, Error> {
        if input.i8()? <= 0 {
            return Ok(None);
        }
        let session_timeout_ms = input.i32()?;
        let protocols = input.list(3, |input| {
            let protocol = (input.string()?, input.bytes()?);
            input.no_tagged()?;
            Ok(protocol)
        })?;
        input.no_tagged()?;
        Ok(Some(Self { session_timeout_ms, protocols }))
    }

    fn encode(&self) -> Output {
        let mut field = Output::tag();
        field.i8(1).i32(self.session_timeout_ms);
        field.list(&self.protocols, |output, (name, metadata)| {
            output.string(name).bytes(metadata).tagged(None);
        });
        field.tagged(None);
        field
    }
}

impl TargetAssignmentMetadata {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        input.version(6, 0..=0, 0)?;
        let mut value = Self { epoch: input.i32()?, assigned_at: TimestampMs(0) };
        input.tagged(|tag, field| match tag {
            0 => field.i64().map(|at| value.assigned_at = TimestampMs(at)).map(|()| true),
            _ => Ok(false),
        })?;
        input.end()?;
        Ok(value)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut output = Output::value(0, true);
        output.i32(self.epoch).tagged(tagged_number(self.assigned_at.0));
        output.finish()
    }
}

impl TargetAssignment {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        input.version(7, 0..=0, 0)?;
        let topics = input.list(18, |input| {
            let topic_id = input.topic_id()?;
            let partitions = input.list(4, |input| input.i32().map(PartitionIndex))?;
            input.no_tagged()?;
            Ok(TopicPartitions { topic_id, partitions })
        })?;
        input.no_tagged()?;
        input.end()?;
        Ok(Self { topics })
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut output = Output::value(0, true);
        output.list(&self.topics, |output, topic| {
            output.topic_id(topic.topic_id);
            output.list(&topic.partitions, |output, partition| {
                output.i32(partition.0);
            });
            output.tagged(None);
        });
        output.tagged(None);
        output.finish()
    }
}

impl MemberState {
    const fn from_number(number: i8) -> Self {
        match number {
            0 => Self::Stable,
            1 => Self::UnrevokedPartitions,
            2 => Self::UnreleasedPartitions,
            _ => Self::Unknown,
        }
    }

    const fn number(self) -> i8 {
        match self {
            Self::Stable => 0,
            Self::UnrevokedPartitions => 1,
            Self::UnreleasedPartitions => 2,
            Self::Unknown => 127,
        }
    }
}

impl AssignedPartitions {
    fn decode(input: &mut Input<'_>) -> Result<Self, Error> {
        let topic_id = input.topic_id()?;
        let partitions = input.list(4, Input::i32)?;
        let mut epochs = None;
        input.tagged(|tag, field| match tag {
            0 => field.list(4, Input::i32).map(|list| epochs = Some(list)).map(|()| true),
            _ => Ok(false),
        })?;
        let epochs: Vec<i32> = epochs.unwrap_or_default();
        if !epochs.is_empty() && epochs.len() != partitions.len() {
            let (partitions, epochs) = (partitions.len(), epochs.len());
            return Err(Error::Epochs { partitions, epochs });
        }
        let epoch = |place: usize| epochs.get(place).copied();
        let numbered = partitions.into_iter().enumerate();
        let partitions = numbered.map(|(place, index)| (PartitionIndex(index), epoch(place)));
        Ok(Self { topic_id, partitions: partitions.collect() })
    }

    fn encode(&self, output: &mut Output) {
        output.topic_id(self.topic_id);
        output.list(&self.partitions, |output, (partition, _)| {
            output.i32(partition.0);
        });
        let epochs: Option<Vec<i32>> = self.partitions.iter().map(|(_, epoch)| *epoch).collect();
        output.tagged(epochs.filter(|epochs| !epochs.is_empty()).map(|epochs| {
            let mut field = Output::tag();
            field.list(&epochs, |output, epoch| {
                output.i32(*epoch);
            });
            field
        }));
    }
}

impl CurrentAssignment {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        input.version(8, 0..=0, 0)?;
        let value = Self {
            epoch: input.i32()?,
            previous_epoch: input.i32()?,
            state: MemberState::from_number(input.i8()?),
            assigned: input.list(18, AssignedPartitions::decode)?,
            revoking: input.list(18, AssignedPartitions::decode)?,
        };
        input.no_tagged()?;
        input.end()?;
        Ok(value)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut output = Output::value(0, true);
        output.i32(self.epoch).i32(self.previous_epoch).i8(self.state.number());
        output.list(&self.assigned, |output, topic| topic.encode(output));
        output.list(&self.revoking, |output, topic| topic.encode(output));
        output.tagged(None);
        output.finish()
    }
}

impl ResolvedRegularExpression {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut input = Input::new(bytes);
        input.version(16, 0..=0, 0)?;
        let value = Self {
            topics: input.list(1, Input::string)?,
            version: input.i64()?,
            resolved_at: TimestampMs(input.i64()?),
        };
        input.no_tagged()?;
        input.end()?;
        Ok(value)
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut output = Output::value(0, true);
        output.list(&self.topics, |output, topic| {
            output.string(topic);
        });
        output.i64(self.version).i64(self.resolved_at.0).tagged(None);
        output.finish()
    }
}
