//! The part of a configuration that says where metrics are told, and how much.

use std::net::SocketAddr;

use super::file::ConfigFile;
use super::{NodeConfigError, Peers, value_error};
use crate::cli::CommandLine;
use crate::metrics::{MetricsConfig, MetricsLimits};

const ADDRESS: &str = "--metrics-addr";

/// Where metrics are told; `None` where nobody asks for them.
pub(super) fn resolve(
    command: &CommandLine,
    file: &ConfigFile,
    clients: SocketAddr,
    peers: Option<&Peers>,
) -> Result<Option<MetricsConfig>, NodeConfigError> {
    let in_file = match &file.bind.metrics {
        Some(text) => Some(text.parse::<SocketAddr>().map_err(|_| {
            value_error("[bind] metrics", text, "an IP address and a port are due: 127.0.0.1:9644")
        })?),
        None => None,
    };
    let limits = [
        ("--metrics-groups-max", command.metrics_groups_max, file.metrics.groups_max),
        (
            "--metrics-group-partitions-max",
            command.metrics_group_partitions_max,
            file.metrics.group_partitions_max,
        ),
        ("--metrics-partitions-max", command.metrics_partitions_max, file.metrics.partitions_max),
    ];
    let Some(bind) = command.metrics_addr.or(in_file) else {
        let given = limits.iter().find_map(|(key, flag, in_file)| Some((*key, flag.or(*in_file)?)));
        return match given {
            Some((key, value)) => {
                let reason =
                    "metrics are told nowhere: say where with --metrics-addr or [bind] metrics";
                Err(value_error(key, value, reason))
            }
            None => Ok(None),
        };
    };
    if bind.port() == 0 {
        return Err(value_error(ADDRESS, bind, "nobody can be told port 0"));
    }
    let mut taken = vec![("clients", clients)];
    taken.extend(peers.map(|peers| ("replication", peers.replication_bind)));
    taken.extend(peers.map(|peers| ("the control plane", peers.control_bind)));
    if let Some((whose, _)) = taken.iter().find(|(_, address)| *address == bind) {
        return Err(value_error(ADDRESS, bind, format!("this is the address for {whose}")));
    }
    let [groups, group_partitions, partitions] = limits.map(|(_, flag, in_file)| flag.or(in_file));
    let usual = MetricsLimits::default();
    let limits = MetricsLimits {
        groups_max: groups.unwrap_or(usual.groups_max),
        group_partitions_max: group_partitions.unwrap_or(usual.group_partitions_max),
        partitions_max: partitions.unwrap_or(usual.partitions_max),
    };
    Ok(Some(MetricsConfig { bind, limits }))
}
