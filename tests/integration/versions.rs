//! What is advertised is served, and nothing else is.

use chronik_protocol::messages::api_versions_request::ApiVersionsRequest;
use chronik_protocol::messages::api_versions_response::ApiVersionsResponse;
use chronik_protocol::{AnyRequest, ApiKey, ErrorCode, Message, Reader};

use crate::support::client::Client;
use crate::support::requests::expect_error;
use crate::support::server::Server;

/// Produce is advertised from version 0, which clients read as support for codecs, and served from 3.
const PRODUCE_SERVED_FROM: i16 = 3;

fn named() -> ApiVersionsRequest {
    ApiVersionsRequest {
        client_software_name: "chronik-tests".into(),
        client_software_version: "1".into(),
        ..ApiVersionsRequest::default()
    }
}

fn advertised(client: &mut Client) -> Vec<(ApiKey, i16, i16)> {
    let response = client.call(3, &named());
    expect_error(response.error_code, ErrorCode::None, "ApiVersions");
    let known = |key| ApiKey::from_i16(key).unwrap_or_else(|| panic!("API key {key}"));
    let keys = response.api_keys.iter();
    keys.map(|api| (known(api.api_key), api.min_version, api.max_version)).collect()
}

/// A request that changes nothing.
fn harmless(api: ApiKey) -> AnyRequest {
    let mut request = AnyRequest::default_of(api);
    match &mut request {
        AnyRequest::Produce(produce) => produce.acks = -1,
        AnyRequest::ApiVersions(api_versions) => *api_versions = named(),
        AnyRequest::InitProducerId(init) => {
            init.transactional_id = None;
            init.transaction_timeout_ms = 60_000;
        }
        _ => {}
    }
    request
}

#[test]
fn every_advertised_version_is_answered_in_its_own_layout() {
    let server = Server::start();
    let mut client = server.client();
    let advertised = advertised(&mut client);
    assert!(advertised.len() >= 18, "{advertised:?}");
    for (api, min, max) in advertised {
        let layouts = api.valid_versions();
        assert!(layouts.contains(max), "{api} {max} has no layout in {layouts}");
        let min = if api == ApiKey::Produce { PRODUCE_SERVED_FROM } else { min };
        for version in min..=max {
            // Decoding to the last byte is the check.
            let answer = client.call_any(version, &harmless(api));
            assert!(answer.is_some(), "{api} version {version} is advertised and not answered");
        }
    }
}

#[test]
fn what_is_not_advertised_closes_the_connection_and_no_other() {
    let mut server = Server::start();
    let mut bystander = server.client();
    let advertised = advertised(&mut bystander);
    for api in ApiKey::ALL.iter().copied().filter(|api| *api != ApiKey::ApiVersions) {
        let layouts = api.valid_versions();
        let served = advertised.iter().find(|(key, ..)| *key == api);
        for version in layouts.min - 1..=layouts.max + 1 {
            let min = if api == ApiKey::Produce { PRODUCE_SERVED_FROM } else { i16::MIN };
            let is_served =
                served.is_some_and(|(_, low, high)| (*low.max(&min)..=*high).contains(&version));
            if is_served || version < 0 {
                continue;
            }
            let mut client = server.client();
            let body = if layouts.contains(version) {
                let mut w = chronik_protocol::EncodeBuf::new();
                harmless(api).encode(&mut w, version).unwrap();
                w.into_bytes()
            } else {
                bytes::Bytes::new()
            };
            client.send_body(api, version, &body);
            client.expect_close(&format!("{api} version {version}, which is not advertised"));
        }
    }
    bystander.call(3, &named());
    server.assert_alive();
}

#[test]
fn unknown_version_of_api_versions_is_answered_in_version_0() {
    let server = Server::start();
    let mut client = server.client();
    for version in [5, 6, 100, i16::MAX] {
        let latest = advertised(&mut client)
            .into_iter()
            .find_map(|(api, _, max)| (api == ApiKey::ApiVersions).then_some(max))
            .expect("ApiVersions advertises itself");
        if version <= latest {
            continue;
        }
        let mut client = server.client();
        // What a client of the future says is not known; a compact name and version stand for it.
        client.send_body(ApiKey::ApiVersions, version, b"\x02a\x021\0");
        let mut reader = Reader::new(client.try_read_frame().unwrap().expect("an answer"));
        assert_eq!(reader.i32().unwrap(), 1, "correlation id");
        let response = ApiVersionsResponse::decode(&mut reader, 0).unwrap();
        reader.expect_end().unwrap();
        expect_error(response.error_code, ErrorCode::UnsupportedVersion, "ApiVersions");
        let own = response.api_keys.iter().find(|api| api.api_key == ApiKey::ApiVersions.key());
        let own = own.expect("the answer says which versions there are");
        assert_eq!(own.max_version, latest);
    }
}

#[test]
fn connection_goes_on_after_an_unknown_version_of_api_versions() {
    let server = Server::start();
    let mut client = server.client();
    client.send_body(ApiKey::ApiVersions, i16::MAX, b"\x02a\x021\0");
    client.try_read_frame().unwrap().expect("an answer");
    let mut body = Client::connect(server.address());
    body.call(0, &ApiVersionsRequest::default());
    client.send_raw(&crate::support::client::frame(ApiKey::ApiVersions, 0, 9, b""));
    let mut reader = Reader::new(client.try_read_frame().unwrap().expect("a second answer"));
    assert_eq!(reader.i32().unwrap(), 9, "correlation id");
    expect_error(
        ApiVersionsResponse::decode(&mut reader, 0).unwrap().error_code,
        ErrorCode::None,
        "ApiVersions",
    );
}

#[test]
fn produce_is_advertised_from_version_0() {
    let server = Server::start();
    let produce =
        advertised(&mut server.client()).into_iter().find(|(api, ..)| *api == ApiKey::Produce);
    assert_eq!(produce, Some((ApiKey::Produce, 0, 13)));
}
