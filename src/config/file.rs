//! The configuration file: TOML, its keys, and nothing beside them.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::NodeConfigError;

/// What the file says. Everything is optional.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct ConfigFile {
    /// `node_id`.
    pub node_id: Option<i32>,
    /// `data_dir`.
    pub data_dir: Option<PathBuf>,
    /// `rack`.
    pub rack: Option<String>,
    /// `bootstrap`.
    pub bootstrap: Option<bool>,
    /// `replication_factor`.
    pub replication_factor: Option<i32>,
    /// `min_insync_replicas`.
    pub min_insync_replicas: Option<i32>,
    /// `[bind]`.
    pub bind: Addresses,
    /// `[advertise]`.
    pub advertise: Addresses,
    /// `[[peers]]`: every node of the cluster, this one included.
    pub peers: Vec<PeerEntry>,
    /// `profile`, or `name` of `[profile]`.
    pub profile: Option<String>,
    /// `[profile]`: keys of the profile that the node changes.
    pub profile_changes: Table,
    /// `[metrics]`.
    pub metrics: Metrics,
    /// `[kafka]`: Kafka's own keys with their values as text.
    pub kafka: Vec<(String, String)>,
}

/// An address for each kind of connection.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Addresses {
    /// Of clients.
    pub kafka: Option<String>,
    /// Of replication.
    pub wal: Option<String>,
    /// Of the control plane.
    pub raft: Option<String>,
    /// Of those who watch. Nobody is told of it: `[advertise]` has no such key.
    pub metrics: Option<String>,
}

/// How much the metrics tell.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Metrics {
    /// `groups_max`.
    pub groups_max: Option<usize>,
    /// `group_partitions_max`.
    pub group_partitions_max: Option<usize>,
    /// `partitions_max`.
    pub partitions_max: Option<usize>,
}

/// One `[[peers]]` table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct PeerEntry {
    pub id: i32,
    pub kafka: String,
    pub wal: String,
    pub raft: String,
}

impl ConfigFile {
    pub(super) fn read(path: &Path) -> Result<Self, NodeConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| NodeConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text)
    }

    pub(super) fn parse(path: &Path, text: &str) -> Result<Self, NodeConfigError> {
        let reader = Reader { path };
        let table: Table = text.parse().map_err(|error: toml::de::Error| {
            // Its own report spans lines with a drawing of the place; one line is due here.
            let line = error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1);
            let reason = format!("line {line}: {}", error.message().replace('\n', " "));
            NodeConfigError::Syntax { path: path.to_owned(), reason }
        })?;
        let mut file = Self::default();
        for (key, value) in &table {
            match key.as_str() {
                "node_id" => file.node_id = Some(reader.number(key, value)?),
                "data_dir" => file.data_dir = Some(reader.text(key, value)?.into()),
                "rack" => file.rack = Some(reader.text(key, value)?.to_owned()),
                "replication_factor" => {
                    file.replication_factor = Some(reader.number(key, value)?);
                }
                "min_insync_replicas" => {
                    file.min_insync_replicas = Some(reader.number(key, value)?);
                }
                "bootstrap" => file.bootstrap = Some(reader.flag(key, value)?),
                "bind" => file.bind = reader.addresses(key, value)?,
                "advertise" => file.advertise = reader.addresses(key, value)?,
                "peers" => file.peers = reader.peers(value)?,
                "profile" => reader.profile(value, &mut file)?,
                "metrics" => file.metrics = reader.metrics(value)?,
                "kafka" => reader.flatten("", reader.table(key, value)?, &mut file.kafka)?,
                _ => return Err(reader.unknown(key.clone())),
            }
        }
        Ok(file)
    }

    /// The first key that says something of a cluster.
    pub(super) fn cluster_key(&self) -> Option<&'static str> {
        let Addresses { wal: bind_wal, raft: bind_raft, .. } = &self.bind;
        let Addresses { wal: advertise_wal, raft: advertise_raft, .. } = &self.advertise;
        let keys = [
            ("peers", !self.peers.is_empty()),
            ("bootstrap", self.bootstrap.is_some()),
            ("replication_factor", self.replication_factor.is_some()),
            ("min_insync_replicas", self.min_insync_replicas.is_some()),
            ("bind.wal", bind_wal.is_some()),
            ("bind.raft", bind_raft.is_some()),
            ("advertise.wal", advertise_wal.is_some()),
            ("advertise.raft", advertise_raft.is_some()),
        ];
        keys.into_iter().find(|(_, is_set)| *is_set).map(|(key, _)| key)
    }
}

/// Reads values and names the file in what it refuses.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    /// The keys of `[bind]` or `[advertise]`.
    fn addresses(&self, table: &str, value: &Value) -> Result<Addresses, NodeConfigError> {
        let mut addresses = Addresses::default();
        for (key, value) in self.table(table, value)? {
            let name = format!("{table}.{key}");
            let place = match key.as_str() {
                "kafka" => &mut addresses.kafka,
                "wal" => &mut addresses.wal,
                "raft" => &mut addresses.raft,
                "metrics" if table == "bind" => &mut addresses.metrics,
                _ => return Err(self.unknown(name)),
            };
            *place = Some(self.text(&name, value)?.to_owned());
        }
        Ok(addresses)
    }

    /// The keys of `[metrics]`.
    fn metrics(&self, value: &Value) -> Result<Metrics, NodeConfigError> {
        let mut metrics = Metrics::default();
        for (key, value) in self.table("metrics", value)? {
            let name = format!("metrics.{key}");
            let place = match key.as_str() {
                "groups_max" => &mut metrics.groups_max,
                "group_partitions_max" => &mut metrics.group_partitions_max,
                "partitions_max" => &mut metrics.partitions_max,
                _ => return Err(self.unknown(name)),
            };
            let count = value.as_integer().and_then(|count| usize::try_from(count).ok());
            *place = Some(count.ok_or_else(|| self.wrong_kind(&name, "a whole number from 0 on"))?);
        }
        Ok(metrics)
    }

    /// The `[[peers]]` tables.
    fn peers(&self, value: &Value) -> Result<Vec<PeerEntry>, NodeConfigError> {
        let tables = value
            .as_array()
            .filter(|tables| !tables.is_empty())
            .ok_or_else(|| self.wrong_kind("peers", "one [[peers]] table a node"))?;
        tables.iter().map(|table| self.peer(table)).collect()
    }

    fn peer(&self, value: &Value) -> Result<PeerEntry, NodeConfigError> {
        let table = self.table("peers", value)?;
        let known = ["id", "kafka", "wal", "raft"];
        if let Some(key) = table.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(self.unknown(format!("peers.{key}")));
        }
        let due = |key: &str| {
            let name = format!("peers.{key}");
            let missing = NodeConfigError::MissingKey { path: self.path.into(), key: name.clone() };
            table.get(key).map(|value| (name, value)).ok_or(missing)
        };
        let text = |key: &str| {
            let (name, value) = due(key)?;
            self.text(&name, value).map(str::to_owned)
        };
        let (name, id) = due("id")?;
        let id = self.number(&name, id)?;
        Ok(PeerEntry { id, kafka: text("kafka")?, wal: text("wal")?, raft: text("raft")? })
    }

    /// `profile = "latency"`, or a table with a `name` and keys of the profile's own.
    fn profile(&self, value: &Value, file: &mut ConfigFile) -> Result<(), NodeConfigError> {
        let mut changes = match value {
            Value::String(name) => {
                file.profile = Some(name.clone());
                return Ok(());
            }
            Value::Table(table) => table.clone(),
            _ => return Err(self.wrong_kind("profile", "text or a table")),
        };
        if let Some(name) = changes.remove("name") {
            file.profile = Some(self.text("profile.name", &name)?.to_owned());
        }
        file.profile_changes = changes;
        Ok(())
    }

    /// `num.partitions = 3` without quotes is a table in a table: both spellings mean one key.
    fn flatten(
        &self,
        prefix: &str,
        table: &Table,
        out: &mut Vec<(String, String)>,
    ) -> Result<(), NodeConfigError> {
        for (key, value) in table {
            let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
            let text = match value {
                Value::Table(inner) => {
                    self.flatten(&name, inner, out)?;
                    continue;
                }
                Value::String(text) => text.clone(),
                Value::Integer(number) => number.to_string(),
                Value::Boolean(flag) => flag.to_string(),
                Value::Float(_) | Value::Datetime(_) | Value::Array(_) => {
                    let key = format!("[kafka] {name}");
                    return Err(self.wrong_kind(&key, "text, a whole number, true or false"));
                }
            };
            out.push((name, text));
        }
        Ok(())
    }

    fn table<'t>(&self, key: &str, value: &'t Value) -> Result<&'t Table, NodeConfigError> {
        value.as_table().ok_or_else(|| self.wrong_kind(key, "a table"))
    }

    fn text<'t>(&self, key: &str, value: &'t Value) -> Result<&'t str, NodeConfigError> {
        value.as_str().ok_or_else(|| self.wrong_kind(key, "text"))
    }

    fn flag(&self, key: &str, value: &Value) -> Result<bool, NodeConfigError> {
        value.as_bool().ok_or_else(|| self.wrong_kind(key, "true or false"))
    }

    fn number(&self, key: &str, value: &Value) -> Result<i32, NodeConfigError> {
        let number = value.as_integer().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| self.wrong_kind(key, "a whole number of 32 bits"))
    }

    fn unknown(&self, key: String) -> NodeConfigError {
        NodeConfigError::UnknownKey { path: self.path.to_owned(), key }
    }

    fn wrong_kind(&self, key: &str, expected: &'static str) -> NodeConfigError {
        NodeConfigError::WrongKind { path: self.path.to_owned(), key: key.to_owned(), expected }
    }
}
