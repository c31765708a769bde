//! Members of groups, as far as tests speak for them: one request at a time, in one fixed version.

use chronik_protocol::messages::consumer_group_heartbeat_request::ConsumerGroupHeartbeatRequest;
use chronik_protocol::messages::consumer_group_heartbeat_response::ConsumerGroupHeartbeatResponse;
use chronik_protocol::messages::delete_groups_request::DeleteGroupsRequest;
use chronik_protocol::messages::describe_groups_request::DescribeGroupsRequest;
use chronik_protocol::messages::describe_groups_response::DescribedGroup;
use chronik_protocol::messages::find_coordinator_request::FindCoordinatorRequest;
use chronik_protocol::messages::find_coordinator_response::Coordinator;
use chronik_protocol::messages::heartbeat_request::HeartbeatRequest;
use chronik_protocol::messages::join_group_request::{JoinGroupRequest, JoinGroupRequestProtocol};
use chronik_protocol::messages::join_group_response::JoinGroupResponse;
use chronik_protocol::messages::leave_group_request::{LeaveGroupRequest, MemberIdentity};
use chronik_protocol::messages::list_groups_request::ListGroupsRequest;
use chronik_protocol::messages::list_groups_response::ListGroupsResponse;
use chronik_protocol::messages::offset_commit_request::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use chronik_protocol::messages::offset_fetch_request::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use chronik_protocol::messages::sync_group_request::{
    SyncGroupRequest, SyncGroupRequestAssignment,
};
use chronik_protocol::messages::sync_group_response::SyncGroupResponse;
use chronik_protocol::{ErrorCode, KafkaString};

use super::client::Client;
use super::requests::error;
use super::wait_for;

pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Who coordinates a group, as version 4 says it.
pub fn find_coordinator(client: &mut Client, group: &str) -> Coordinator {
    let request = FindCoordinatorRequest {
        coordinator_keys: vec![group.into()],
        ..FindCoordinatorRequest::default()
    };
    client.call(4, &request).coordinators.pop().expect("one group was asked for")
}

/// Waits until the coordinator of a group answers, and says on which port.
pub fn await_coordinator(client: &mut Client, group: &str) -> u16 {
    wait_for("a coordinator", || {
        let found = find_coordinator(client, group);
        let code = error(found.error_code);
        assert!(code == ErrorCode::None || code.is_retriable(), "{found:?}");
        (code == ErrorCode::None).then_some(u16::try_from(found.port).expect("a port"))
    })
}

/// A member of a classic group of consumers.
#[derive(Clone, Debug)]
pub struct Member {
    pub group: String,
    pub member_id: KafkaString,
    pub instance_id: Option<KafkaString>,
    pub generation: i32,
    pub session_timeout_ms: i32,
}

impl Member {
    pub fn new(group: &str) -> Self {
        Self {
            group: group.to_owned(),
            member_id: KafkaString::default(),
            instance_id: None,
            generation: -1,
            session_timeout_ms: 10_000,
        }
    }

    pub fn join_request(&self) -> JoinGroupRequest {
        JoinGroupRequest {
            group_id: self.group.as_str().into(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: 10_000,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: b"metadata"[..].into(),
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        }
    }

    /// Learns its id.
    pub fn introduce(&mut self, client: &mut Client) {
        // It may not know of its partition yet, or load.
        let response = wait_for("the coordinator to answer", || {
            let response = client.call(9, &self.join_request());
            (!error(response.error_code).is_retriable()).then_some(response)
        });
        assert_eq!(error(response.error_code), ErrorCode::MemberIdRequired);
        self.member_id = response.member_id;
    }

    pub fn joined(&mut self, response: &JoinGroupResponse) {
        assert_eq!(error(response.error_code), ErrorCode::None, "{response:?}");
        self.generation = response.generation_id;
        self.member_id = response.member_id.clone();
    }

    /// Joins; the others, if there are any, are not waited for.
    pub fn join(&mut self, client: &mut Client) -> JoinGroupResponse {
        if self.member_id.is_empty() && self.instance_id.is_none() {
            self.introduce(client);
        }
        let response = client.call(9, &self.join_request());
        self.joined(&response);
        response
    }

    pub fn sync_request(&self, parts: &[(&Member, &str)]) -> SyncGroupRequest {
        let assignments = parts.iter().map(|(member, part)| SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: part.to_string().into(),
            ..SyncGroupRequestAssignment::default()
        });
        SyncGroupRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments: assignments.collect(),
            ..SyncGroupRequest::default()
        }
    }

    pub fn sync(&self, client: &mut Client, parts: &[(&Member, &str)]) -> SyncGroupResponse {
        client.call(5, &self.sync_request(parts))
    }

    pub fn heartbeat_request(&self) -> HeartbeatRequest {
        HeartbeatRequest {
            group_id: self.group.as_str().into(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            ..HeartbeatRequest::default()
        }
    }

    pub fn heartbeat(&self, client: &mut Client) -> ErrorCode {
        error(client.call(4, &self.heartbeat_request()).error_code)
    }

    pub fn leave(&self, client: &mut Client) -> ErrorCode {
        let request = LeaveGroupRequest {
            group_id: self.group.as_str().into(),
            members: vec![MemberIdentity {
                member_id: self.member_id.clone(),
                group_instance_id: self.instance_id.clone(),
                ..MemberIdentity::default()
            }],
            ..LeaveGroupRequest::default()
        };
        let response = client.call(5, &request);
        assert_eq!(error(response.error_code), ErrorCode::None);
        error(response.members[0].error_code)
    }

    pub fn commit(
        &self,
        client: &mut Client,
        topic: &str,
        partition: i32,
        offset: i64,
    ) -> ErrorCode {
        let request = OffsetCommitRequest {
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.instance_id.clone(),
            ..commit_request(&self.group, topic, partition, offset)
        };
        error(client.call(9, &request).topics[0].partitions[0].error_code)
    }
}

/// A commit of somebody who is no member.
pub fn commit_request(
    group: &str,
    topic: &str,
    partition: i32,
    offset: i64,
) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: group.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: partition,
                committed_offset: offset,
                committed_metadata: Some("kept".into()),
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// What a group has committed, −1 for nothing; waits for a coordinator that loads.
pub fn committed(client: &mut Client, group: &str, topic: &str, partition: i32) -> i64 {
    let request = OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: group.into(),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: topic.into(),
                partition_indexes: vec![partition],
                ..OffsetFetchRequestTopics::default()
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    wait_for("the committed offset", || {
        let response = client.call(9, &request);
        let found = &response.groups[0];
        let code = error(found.error_code);
        if code.is_retriable() {
            return None;
        }
        assert_eq!(code, ErrorCode::None);
        assert_eq!(error(found.topics[0].partitions[0].error_code), ErrorCode::None);
        Some(found.topics[0].partitions[0].committed_offset)
    })
}

pub fn describe_group(client: &mut Client, group: &str) -> DescribedGroup {
    let request =
        DescribeGroupsRequest { groups: vec![group.into()], ..DescribeGroupsRequest::default() };
    client.call(6, &request).groups.pop().expect("one group was asked for")
}

pub fn list_groups(client: &mut Client, states: &[&str], types: &[&str]) -> ListGroupsResponse {
    let words = |words: &[&str]| words.iter().map(|word| KafkaString::from(*word)).collect();
    let request = ListGroupsRequest {
        states_filter: words(states),
        types_filter: words(types),
        ..ListGroupsRequest::default()
    };
    client.call(5, &request)
}

pub fn delete_group(client: &mut Client, group: &str) -> ErrorCode {
    let request =
        DeleteGroupsRequest { groups_names: vec![group.into()], ..DeleteGroupsRequest::default() };
    error(client.call(2, &request).results[0].error_code)
}

/// A member of a consumer group: what it is to say next.
#[derive(Clone, Debug)]
pub struct ConsumerMember {
    pub group: String,
    pub member_id: String,
    pub epoch: i32,
}

impl ConsumerMember {
    pub fn new(group: &str, member_id: &str) -> Self {
        Self { group: group.to_owned(), member_id: member_id.to_owned(), epoch: 0 }
    }

    /// Joins, or says that nothing has changed.
    pub fn beat(&mut self, client: &mut Client, topics: &[&str]) -> ConsumerGroupHeartbeatResponse {
        let joins = self.epoch == 0;
        let names = topics.iter().map(|name| KafkaString::from(*name)).collect();
        let request = ConsumerGroupHeartbeatRequest {
            group_id: self.group.as_str().into(),
            member_id: self.member_id.as_str().into(),
            member_epoch: self.epoch,
            rebalance_timeout_ms: if joins { 10_000 } else { -1 },
            subscribed_topic_names: joins.then_some(names),
            topic_partitions: joins.then(Vec::new),
            ..ConsumerGroupHeartbeatRequest::default()
        };
        let response = client.call(1, &request);
        if response.error_code == 0 {
            self.epoch = response.member_epoch;
        }
        response
    }
}
