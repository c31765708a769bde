//! The families of metrics: names, meanings, and where their values come from.
//!
//! Names begin with `chronik_` and end with their unit; those of the process are the ones that every Prometheus client
//! has. A counter begins at zero with the process.

use std::time::Duration;

use chronik_protocol::ErrorCode;
use chronik_shards::shard::{COMMIT_MICROS_BOUNDS, ShardReport};

use super::figures::{Answer, NodeFigures, ShardFigures};
use super::limits::MetricsLimits;
use super::process::ProcessFigures;
use super::text::{Counted, Family, Text};
use crate::net::CloseReason;

/// All that is known.
pub(super) struct Told<'a> {
    /// What shards answered, by shard; `None` before they serve.
    pub(super) answers: Option<&'a [Option<Answer>]>,
    /// The process.
    pub(super) process: ProcessFigures,
    /// How long it took to ask.
    pub(super) took: Duration,
}

/// A shard that has answered, and its number as a label.
struct Shard<'a> {
    label: String,
    figures: &'a ShardFigures,
}

/// Writes everything.
pub(super) fn text(told: &Told<'_>, limits: &MetricsLimits) -> Vec<u8> {
    let mut text = Text::default();
    let mut build = Family::gauge("chronik_build_info", "The server; always 1.");
    build.sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    text.add(build);
    process(&mut text, &told.process);
    let Some(answers) = told.answers else { return text.into_bytes() };
    let silent = answers.iter().filter(|answer| answer.is_none()).count();
    text.add_one(
        Family::gauge(
            "chronik_silent_shards",
            "Shards that did not answer this scrape in time; their samples are missing.",
        ),
        silent as f64,
    );
    text.add_one(
        Family::gauge("chronik_scrape_duration_seconds", "How long the shards were asked."),
        told.took.as_secs_f64(),
    );
    let there = || answers.iter().flatten();
    let shards: Vec<Shard<'_>> = there()
        .filter_map(|answer| {
            let figures = answer.figures.as_deref()?;
            Some(Shard { label: answer.shard.to_string(), figures })
        })
        .collect();
    partitions(&mut text, &shards);
    records(&mut text, &shards);
    requests(&mut text, &shards);
    connections(&mut text, &shards);
    write_ahead_log(&mut text, &shards);
    storage(&mut text, &shards);
    if let Some(node) = shards.iter().find_map(|shard| shard.figures.node.as_ref()) {
        let is_controller = there().any(|answer| answer.standing.is_controller);
        cluster(&mut text, node, is_controller);
    }
    groups(&mut text, &shards, limits);
    text.into_bytes()
}

fn process(text: &mut Text, process: &ProcessFigures) {
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    let gauges = [
        ("process_resident_memory_bytes", "Resident memory.", whole(process.resident_bytes)),
        ("process_virtual_memory_bytes", "Virtual memory.", whole(process.virtual_bytes)),
        ("process_open_fds", "Open files and sockets.", whole(process.open_fds)),
        ("process_max_fds", "Files and sockets that may be open.", whole(process.fds_max)),
        ("process_threads", "Threads.", whole(process.threads)),
        ("process_start_time_seconds", "Start, in seconds since 1970.", process.start_seconds),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            text.add_one(Family::gauge(name, help), value);
        }
    }
    if let Some(seconds) = process.cpu_seconds {
        text.add_one(Family::counter("process_cpu_seconds_total", "Time on CPUs."), seconds);
    }
}

/// A family with one sample a shard.
fn by_shard(
    text: &mut Text,
    shards: &[Shard<'_>],
    mut family: Family,
    value: impl Fn(&ShardFigures) -> u64,
) {
    for shard in shards {
        family.sample(&[("shard", &shard.label)], value(shard.figures) as f64);
    }
    text.add(family);
}

fn partitions(text: &mut Text, shards: &[Shard<'_>]) {
    let family = Family::gauge("chronik_partitions", "Partitions with a replica on the shard.");
    by_shard(text, shards, family, |figures| figures.survey.partitions);
    let family = Family::gauge("chronik_led_partitions", "Partitions that the shard leads.");
    by_shard(text, shards, family, |figures| figures.survey.led);
    let help = "Partitions that the shard leads, with replicas that are not in sync.";
    let family = Family::gauge("chronik_under_replicated_partitions", help);
    by_shard(text, shards, family, |figures| figures.survey.under_replicated);
    let help =
        "Partitions that the shard leads, with fewer replicas in sync than min.insync.replicas.";
    let family = Family::gauge("chronik_under_min_isr_partitions", help);
    by_shard(text, shards, family, |figures| figures.survey.under_min_isr);
    let help = "Partitions of the shard whose files cannot be used.";
    let family = Family::gauge("chronik_failed_partitions", help);
    by_shard(text, shards, family, |figures| figures.survey.failed);
    let help = "Times that a partition that the shard leads lost an in-sync replica.";
    let family = Family::counter("chronik_isr_shrinks_total", help);
    by_shard(text, shards, family, |figures| figures.report.tally.isr_shrinks);
    let help = "Times that a partition that the shard leads gained an in-sync replica.";
    let family = Family::counter("chronik_isr_expands_total", help);
    by_shard(text, shards, family, |figures| figures.report.tally.isr_expands);
}

fn records(text: &mut Text, shards: &[Shard<'_>]) {
    let help = "Records of clients that the shard appended as the leader.";
    let family = Family::counter("chronik_produced_records_total", help);
    by_shard(text, shards, family, |figures| figures.report.tally.produced_records);
    let help = "Bytes of the batches of clients that the shard appended as the leader.";
    let family = Family::counter("chronik_produced_bytes_total", help);
    by_shard(text, shards, family, |figures| figures.report.tally.produced_bytes);
    let help = "Records that clients connected to the shard were sent.";
    let family = Family::counter("chronik_fetched_records_total", help);
    by_shard(text, shards, family, |figures| figures.requests.fetched_records);
    let help = "Bytes of the batches that clients connected to the shard were sent.";
    let family = Family::counter("chronik_fetched_bytes_total", help);
    by_shard(text, shards, family, |figures| figures.requests.fetched_bytes);
}

fn requests(text: &mut Text, shards: &[Shard<'_>]) {
    let help = "Requests of clients connected to the shard.";
    let mut family = Family::counter("chronik_requests_total", help);
    for shard in shards {
        for (api, count) in &shard.figures.requests.requests {
            family.sample(&[("shard", &shard.label), ("api", api.name())], *count as f64);
        }
    }
    text.add(family);
    let help = "Errors that answers told, each as often as it was told.";
    let mut family = Family::counter("chronik_request_errors_total", help);
    for shard in shards {
        for (api, code, count) in &shard.figures.requests.errors {
            let error = ErrorCode::from_i16(*code).map_or("UNKNOWN", ErrorCode::name);
            let labels = [("shard", &*shard.label), ("api", api.name()), ("error", error)];
            family.sample(&labels, *count as f64);
        }
    }
    text.add(family);
    let help =
        "Requests that wait on the shard: for a disk, for replicas, for records, for members.";
    let family = Family::gauge("chronik_parked_requests", help);
    by_shard(text, shards, family, |figures| figures.report.parked as u64);
}

fn connections(text: &mut Text, shards: &[Shard<'_>]) {
    let family = Family::gauge("chronik_connections", "Open connections of clients.");
    by_shard(text, shards, family, |figures| figures.net.connections as u64);
    let help = "Connections of clients that wait for memory for a request.";
    let family = Family::gauge("chronik_connections_awaiting_memory", help);
    by_shard(text, shards, family, |figures| figures.net.waiting_for_memory as u64);
    let help = "Connections of clients that were opened.";
    let family = Family::counter("chronik_connections_opened_total", help);
    by_shard(text, shards, family, |figures| figures.net.opened);
    let help = "Connections of clients that were closed, by why.";
    let mut family = Family::counter("chronik_connections_closed_total", help);
    for shard in shards {
        for (kind, count) in shard.figures.net.closed.iter().enumerate() {
            let labels = [("shard", &*shard.label), ("reason", CloseReason::kind_name(kind))];
            family.sample(&labels, *count as f64);
        }
    }
    text.add(family);
    let family = Family::counter("chronik_received_bytes_total", "Bytes received from clients.");
    by_shard(text, shards, family, |figures| figures.net.bytes_in);
    let family = Family::counter("chronik_sent_bytes_total", "Bytes sent to clients.");
    by_shard(text, shards, family, |figures| figures.net.bytes_out);
}

fn write_ahead_log(text: &mut Text, shards: &[Shard<'_>]) {
    let help =
        "Bytes of the write-ahead log that are taken: no checkpoint has freed them, or they wait.";
    let family = Family::gauge("chronik_wal_used_bytes", help);
    by_shard(text, shards, family, |figures| figures.report.wal.taken_bytes);
    let help = "Bytes that the write-ahead log may have; when they are taken producers wait.";
    let family = Family::gauge("chronik_wal_size_bytes", help);
    by_shard(text, shards, family, |figures| figures.report.wal.bytes_max);
    let help = "Bytes written to the write-ahead log, padding included.";
    let family = Family::counter("chronik_wal_written_bytes_total", help);
    by_shard(text, shards, family, |figures| figures.report.commit_bytes);
    let help = "How long commits to the write-ahead log took until they were on the disk.";
    let mut family = Family::histogram("chronik_wal_commit_duration_seconds", help);
    let bounds = COMMIT_MICROS_BOUNDS.map(|micros| micros as f64 / 1e6);
    for shard in shards {
        let times = &shard.figures.report.commit_times;
        let sum = times.sum_micros as f64 / 1e6;
        let counted = Counted { bounds: &bounds, counts: &times.counts, sum };
        family.counted(&[("shard", &shard.label)], counted);
    }
    text.add(family);
}

fn storage(text: &mut Text, shards: &[Shard<'_>]) {
    let help = "Bytes of all logs of the shard, in segments or on their way there.";
    let family = Family::gauge("chronik_log_bytes", help);
    by_shard(text, shards, family, |figures| figures.survey.log_bytes);
    let help = "Bytes of batches that are not in segments yet, and in memory and the write-ahead log until then.";
    let family = Family::gauge("chronik_storage_lag_bytes", help);
    by_shard(text, shards, family, |figures| figures.survey.unflushed_bytes);
    let help = "Jobs that the shard's storage thread has no room for.";
    let family = Family::gauge("chronik_storage_jobs_waiting", help);
    by_shard(text, shards, family, |figures| figures.report.store_jobs_waiting as u64);
    two(
        text,
        shards,
        Family::counter("chronik_segment_reads_total", "Reads of segments, by what answered."),
        "from",
        |report| [("page_cache", report.reads.hot), ("disk", report.reads.cold)],
    );
    two(
        text,
        shards,
        Family::counter("chronik_compactions_total", "Compactions that ended, by how."),
        "outcome",
        |report| [("completed", report.compaction.completed), ("failed", report.compaction.failed)],
    );
    let help = "Records that compaction removed.";
    let family = Family::counter("chronik_compaction_removed_records_total", help);
    by_shard(text, shards, family, |figures| figures.report.compaction.records_removed);
    let help = "Partitions that are not compacted any more because their records cannot be read.";
    let family = Family::gauge("chronik_uncleanable_partitions", help);
    by_shard(text, shards, family, |figures| figures.survey.uncleanable);
}

/// A family with two samples a shard.
fn two(
    text: &mut Text,
    shards: &[Shard<'_>],
    mut family: Family,
    label: &'static str,
    values: impl Fn(&ShardReport) -> [(&'static str, u64); 2],
) {
    for shard in shards {
        for (which, value) in values(&shard.figures.report) {
            family.sample(&[("shard", &shard.label), (label, which)], value as f64);
        }
    }
    text.add(family);
}

fn cluster(text: &mut Text, node: &NodeFigures, is_controller: bool) {
    let help = "Whether this node is the controller.";
    text.add_one(
        Family::gauge("chronik_controller_active", help),
        f64::from(u8::from(is_controller)),
    );
    let family = Family::gauge("chronik_cluster_topics", "Topics, as this node knows.");
    text.add_one(family, node.topics as f64);
    let family = Family::gauge("chronik_cluster_partitions", "Partitions, as this node knows.");
    text.add_one(family, node.partitions as f64);
    let help = "Partitions that nobody leads, as this node knows: the same on every node, not to be added up.";
    text.add_one(Family::gauge("chronik_offline_partitions", help), node.leaderless as f64);
    let mut nodes = Family::gauge("chronik_cluster_nodes", "Nodes, as this node knows.");
    nodes.sample(&[("state", "serving")], node.nodes_serving as f64);
    nodes.sample(&[("state", "fenced")], node.nodes_fenced as f64);
    text.add(nodes);
    let help = "High watermark of partitions that this node leads: the offset after the last record that \
                consumers may read.";
    let mut family = Family::gauge("chronik_partition_high_watermark_offset", help);
    for (topic, partition, high_watermark) in &node.high_watermarks {
        let labels = [("topic", topic.as_str()), ("partition", &partition.to_string())];
        family.sample(&labels, high_watermark.get() as f64);
    }
    text.add(family);
}

fn groups(text: &mut Text, shards: &[Shard<'_>], limits: &MetricsLimits) {
    let help =
        "Coordinators of groups on the shard, by whether they serve or still read their partition.";
    let mut family = Family::gauge("chronik_group_coordinators", help);
    for Shard { label, figures: ShardFigures { groups, .. } } in shards {
        let states =
            [("serving", groups.coordinators_serving), ("unready", groups.coordinators_unready)];
        for (state, count) in states {
            family.sample(&[("shard", label), ("state", state)], count as f64);
        }
    }
    text.add(family);

    let help = "Members of the groups that this node coordinates.";
    let mut members = Family::gauge("chronik_group_members", help);
    let help = "States of the groups that this node coordinates: 1 for the one that a group is in.";
    let mut states = Family::gauge("chronik_group_state", help);
    let of_all = shards.iter().flat_map(|shard| &shard.figures.groups.groups);
    for group in of_all.take(limits.groups_max) {
        let of_group = [("group", group.group_id.as_str()), ("type", group.group_type)];
        members.sample(&of_group, group.members as f64);
        states.sample(&[of_group[0], of_group[1], ("state", group.state)], 1.0);
    }
    text.add(members);
    text.add(states);

    let help = "The next record that a group wants to read, as it has committed. Groups that this node coordinates.";
    let mut committed = Family::gauge("chronik_group_committed_offset", help);
    let help = "Records between a group's committed offset and the high watermark. Groups that this node coordinates, \
                partitions that it leads or is in sync with.";
    let mut lags = Family::gauge("chronik_group_lag_records", help);
    let topics = shards.iter().flat_map(|shard| &shard.figures.lags);
    let lines = topics.flat_map(|topic| topic.partitions.iter().map(move |line| (topic, line)));
    let mut told = 0;
    for (topic, line) in lines.take(limits.group_partitions_max) {
        told += 1;
        let labels = [
            ("group", topic.group_id.as_str()),
            ("topic", topic.topic.as_str()),
            ("partition", &line.partition.to_string()),
        ];
        committed.sample(&labels, line.committed.get() as f64);
        if let Some(lag) = line.lag {
            lags.sample(&labels, lag as f64);
        }
    }
    text.add(committed);
    text.add(lags);

    let group_count: usize = shards.iter().map(|shard| shard.figures.groups.group_count).sum();
    let offset_count: usize = shards.iter().map(|shard| shard.figures.groups.offset_count).sum();
    let led = shards.iter().find_map(|shard| shard.figures.node.as_ref()).map_or(0, |it| it.led);
    let help = "What is not told by name, because there is more of it than --metrics-groups-max, \
                --metrics-group-partitions-max or --metrics-partitions-max allow.";
    let mut family = Family::gauge("chronik_metrics_left_out", help);
    let left_out = [
        ("groups", group_count.saturating_sub(limits.groups_max)),
        ("group_partitions", offset_count.saturating_sub(told)),
        ("partitions", led.saturating_sub(limits.partitions_max)),
    ];
    for (what, count) in left_out {
        family.sample(&[("what", what)], count as f64);
    }
    text.add(family);
}
