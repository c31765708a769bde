//! Which APIs are served, in which versions: the one list that dispatch, ApiVersions and its tests use.

use chronik_protocol::{ApiKey, VersionRange};

/// An API that is served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServedApi {
    /// Its key.
    pub api: ApiKey,
    /// The versions that are answered.
    pub versions: VersionRange,
    /// The lowest version that is told to clients. Lower than served only for Produce: librdkafka reads
    /// support for codecs from the presence of versions that nobody sends any more.
    pub advertised_min: i16,
}

const fn served(api: ApiKey, min: i16, max: i16) -> ServedApi {
    ServedApi { api, versions: VersionRange { min, max }, advertised_min: min }
}

/// Everything that is served, by ascending key. What is not here is not advertised.
pub const SERVED: &[ServedApi] = &[
    ServedApi { advertised_min: 0, ..served(ApiKey::Produce, 3, 13) },
    served(ApiKey::Fetch, 4, 18),
    served(ApiKey::ListOffsets, 1, 11),
    served(ApiKey::Metadata, 0, 13),
    served(ApiKey::OffsetCommit, 2, 10),
    served(ApiKey::OffsetFetch, 1, 10),
    served(ApiKey::FindCoordinator, 0, 6),
    served(ApiKey::JoinGroup, 0, 9),
    served(ApiKey::Heartbeat, 0, 4),
    served(ApiKey::LeaveGroup, 0, 5),
    served(ApiKey::SyncGroup, 0, 5),
    served(ApiKey::DescribeGroups, 0, 6),
    served(ApiKey::ListGroups, 0, 5),
    served(ApiKey::ApiVersions, 0, 4),
    served(ApiKey::CreateTopics, 2, 7),
    served(ApiKey::DeleteTopics, 1, 6),
    served(ApiKey::DeleteRecords, 0, 2),
    served(ApiKey::InitProducerId, 0, 5),
    served(ApiKey::OffsetForLeaderEpoch, 2, 4),
    served(ApiKey::DescribeConfigs, 1, 4),
    served(ApiKey::AlterConfigs, 0, 2),
    served(ApiKey::DescribeLogDirs, 1, 4),
    served(ApiKey::CreatePartitions, 0, 3),
    served(ApiKey::DeleteGroups, 0, 3),
    served(ApiKey::ElectLeaders, 0, 2),
    served(ApiKey::IncrementalAlterConfigs, 0, 1),
    served(ApiKey::AlterPartitionReassignments, 0, 1),
    served(ApiKey::ListPartitionReassignments, 0, 0),
    served(ApiKey::OffsetDelete, 0, 0),
    served(ApiKey::DescribeQuorum, 0, 2),
    served(ApiKey::DescribeCluster, 0, 2),
    served(ApiKey::UnregisterBroker, 0, 0),
    served(ApiKey::ConsumerGroupHeartbeat, 0, 1),
    served(ApiKey::ConsumerGroupDescribe, 0, 1),
    served(ApiKey::ListConfigResources, 0, 1),
    served(ApiKey::DescribeTopicPartitions, 0, 0),
    served(ApiKey::AddRaftVoter, 0, 1),
    served(ApiKey::RemoveRaftVoter, 0, 0),
];

/// How an API is served, if it is.
#[must_use]
pub fn find(api: ApiKey) -> Option<&'static ServedApi> {
    SERVED.iter().find(|served| served.api == api)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_version_has_a_layout() {
        for served in SERVED {
            let layouts = served.api.valid_versions();
            for version in served.versions.iter() {
                assert!(layouts.contains(version), "{} {version} not in {layouts}", served.api);
            }
        }
    }

    #[test]
    fn each_api_is_listed_once_in_ascending_order() {
        assert!(SERVED.windows(2).all(|pair| pair[0].api < pair[1].api));
    }
}
