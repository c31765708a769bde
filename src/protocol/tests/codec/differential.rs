//! Every message in every version, against the schema tables and against the crate `kafka-protocol`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages as theirs;
use kafka_protocol::protocol::{Decodable, Encodable};

use crate::parse::Role;
use crate::sample::{SHAPES, sample};
use crate::subject::{Subject, subjects};

const SEEDS: u64 = 12;

/// Why their codec is not asked, for messages and versions that it claims to know.
const THEIRS_IS_WRONG: &[(&str, i16, &str)] = &[
    (
        "OffsetCommitRequest",
        10,
        "its API list names this version, its codec, of Kafka 4.1, refuses it",
    ),
    (
        "OffsetFetchRequest",
        10,
        "its API list names this version, its codec, of Kafka 4.1, refuses it",
    ),
];

/// Calls `check` with the bytes of every message, version, shape and seed.
fn for_each_sample(mut check: impl FnMut(&Subject, i16, &Bytes, &str)) {
    for subject in subjects() {
        for version in subject.versions() {
            for shape in SHAPES {
                for seed in 0..SEEDS {
                    let bytes = Bytes::from(sample(&subject.message, version, shape, seed));
                    let name = &subject.message.name;
                    let label = format!("{name} v{version} {shape:?} seed {seed}");
                    check(&subject, version, &bytes, &label);
                }
            }
        }
    }
}

#[test]
fn every_message_in_every_version_survives_a_round_trip() {
    let mut count = 0;
    for_each_sample(|subject, version, bytes, label| {
        let value = subject.decode(bytes, version).unwrap_or_else(|e| panic!("{label}: {e}"));
        let again = value.encode(version).unwrap_or_else(|e| panic!("{label}: {e}"));
        assert_eq!(again, bytes, "{label}: bytes differ");
        assert_eq!(subject.decode(&again, version), Ok(value), "{label}: values differ");
        count += 1;
    });
    assert!(count > 20_000, "only {count} samples");
}

#[test]
fn kafka_protocol_reads_and_writes_the_same_bytes() {
    let mut compared = BTreeSet::new();
    let mut failed = BTreeMap::new();
    for_each_sample(|subject, version, bytes, label| {
        let key = (subject.message.name.clone(), version);
        if THEIRS_IS_WRONG.iter().any(|(name, v, _)| (*name, *v) == (&key.0, version)) {
            return;
        }
        let value = subject.decode(bytes, version).unwrap_or_else(|e| panic!("{label}: {e}"));
        let ours = value.encode(version).unwrap_or_else(|e| panic!("{label}: {e}"));
        match echo(subject, version, &ours) {
            None => return,
            Some(Err(reason)) => drop(failed.insert(key.clone(), format!("{label}: {reason:#}"))),
            Some(Ok(echo)) if echo != ours => {
                failed.insert(key.clone(), format!("{label}: bytes differ"));
            }
            Some(Ok(_)) => {}
        }
        compared.insert(key);
    });
    let failed: Vec<String> = failed.into_values().collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(compared.len() > 400, "only {} messages and versions compared", compared.len());
}

/// `bytes` decoded and encoded by their codec; `None` if it does not know the message or the version.
fn echo(subject: &Subject, version: i16, bytes: &Bytes) -> Option<anyhow::Result<Bytes>> {
    if let Some(api) = subject.api {
        let api = theirs::ApiKey::try_from(api.key()).ok()?;
        let range = api.valid_versions();
        if !(range.min..=range.max).contains(&version) {
            return None;
        }
        return Some(match subject.message.role {
            Role::Request => echo_request(api, version, bytes.clone()),
            _ => echo_response(api, version, bytes.clone()),
        });
    }
    match subject.message.name.as_str() {
        "RequestHeader" => echo_as::<theirs::RequestHeader>(version, bytes.clone()),
        "ResponseHeader" => echo_as::<theirs::ResponseHeader>(version, bytes.clone()),
        "ConsumerProtocolSubscription" => {
            echo_as::<theirs::ConsumerProtocolSubscription>(version, bytes.clone())
        }
        "ConsumerProtocolAssignment" => {
            echo_as::<theirs::ConsumerProtocolAssignment>(version, bytes.clone())
        }
        "EndTxnMarker" => echo_as::<theirs::EndTxnMarker>(version, bytes.clone()),
        _ => None,
    }
}

fn echo_as<T: Decodable + Encodable + kafka_protocol::protocol::Message>(
    version: i16,
    mut bytes: Bytes,
) -> Option<anyhow::Result<Bytes>> {
    if !(T::VERSIONS.min..=T::VERSIONS.max).contains(&version) {
        return None;
    }
    Some(T::decode(&mut bytes, version).and_then(|value| {
        anyhow::ensure!(bytes.is_empty(), "{} bytes left", bytes.len());
        let mut out = BytesMut::new();
        value.encode(&mut out, version)?;
        Ok(out.freeze())
    }))
}

fn echo_request(api: theirs::ApiKey, version: i16, mut bytes: Bytes) -> anyhow::Result<Bytes> {
    let value = theirs::RequestKind::decode(api, &mut bytes, version)?;
    anyhow::ensure!(bytes.is_empty(), "{} bytes left", bytes.len());
    let mut out = BytesMut::new();
    value.encode(&mut out, version)?;
    Ok(out.freeze())
}

fn echo_response(api: theirs::ApiKey, version: i16, mut bytes: Bytes) -> anyhow::Result<Bytes> {
    let value = theirs::ResponseKind::decode(api, &mut bytes, version)?;
    anyhow::ensure!(bytes.is_empty(), "{} bytes left", bytes.len());
    let mut out = BytesMut::new();
    value.encode(&mut out, version)?;
    Ok(out.freeze())
}
