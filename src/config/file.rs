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
    /// `[bind] kafka`.
    pub bind_kafka: Option<String>,
    /// `[advertise] kafka`.
    pub advertise_kafka: Option<String>,
    /// `profile`, or `name` of `[profile]`.
    pub profile: Option<String>,
    /// `[profile]`: keys of the profile that the node changes.
    pub profile_changes: Table,
    /// `[kafka]`: Kafka's own keys with their values as text.
    pub kafka: Vec<(String, String)>,
}

/// Keys that a cluster would need. They are known, so that the refusal can say why.
const CLUSTER_KEYS: &[&str] = &[
    "peers",
    "replication_factor",
    "min_insync_replicas",
    "bind.wal",
    "bind.raft",
    "advertise.wal",
    "advertise.raft",
];

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
                "bind" => file.bind_kafka = reader.kafka_address(key, value)?,
                "advertise" => file.advertise_kafka = reader.kafka_address(key, value)?,
                "profile" => reader.profile(value, &mut file)?,
                "kafka" => reader.flatten("", reader.table(key, value)?, &mut file.kafka)?,
                _ => return Err(reader.unknown(key.clone())),
            }
        }
        Ok(file)
    }
}

/// Reads values and names the file in what it refuses.
struct Reader<'a> {
    path: &'a Path,
}

impl Reader<'_> {
    /// The `kafka` key of `[bind]` or `[advertise]`.
    fn kafka_address(&self, table: &str, value: &Value) -> Result<Option<String>, NodeConfigError> {
        let mut address = None;
        for (key, value) in self.table(table, value)? {
            let name = format!("{table}.{key}");
            match key.as_str() {
                "kafka" => address = Some(self.text(&name, value)?.to_owned()),
                _ => return Err(self.unknown(name)),
            }
        }
        Ok(address)
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

    fn number(&self, key: &str, value: &Value) -> Result<i32, NodeConfigError> {
        let number = value.as_integer().and_then(|number| i32::try_from(number).ok());
        number.ok_or_else(|| self.wrong_kind(key, "a whole number of 32 bits"))
    }

    fn unknown(&self, key: String) -> NodeConfigError {
        let path = self.path.to_owned();
        if CLUSTER_KEYS.contains(&key.as_str()) {
            NodeConfigError::ClusterKey { path, key }
        } else {
            NodeConfigError::UnknownKey { path, key }
        }
    }

    fn wrong_kind(&self, key: &str, expected: &'static str) -> NodeConfigError {
        NodeConfigError::WrongKind { path: self.path.to_owned(), key: key.to_owned(), expected }
    }
}
