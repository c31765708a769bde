//! ApiVersions: what this broker speaks. Source: KIP-35, KIP-511.

use chronik_protocol::messages::api_versions_request::ApiVersionsRequest;
use chronik_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};
use chronik_protocol::{ErrorCode, RequestFrame};

use super::answer::{Answer, answer};
use super::request_counts::RequestCounts;
use super::served::{self, SERVED};
use crate::net::{ClientSoftware, ConnectionContext};

/// Answers a request of any version: one from the future gets version 0 and UNSUPPORTED_VERSION, with
/// the list, so that the client can ask again.
pub fn handle(
    counts: &RequestCounts,
    frame: RequestFrame,
    connection: &ConnectionContext,
) -> Answer {
    let version = frame.version();
    let correlation_id = frame.header.correlation_id;
    let ours = served::find(frame.api).expect("ApiVersions is served");
    if !ours.versions.contains(version) {
        let response = response(ErrorCode::UnsupportedVersion);
        return answer(counts, correlation_id, 0, &response);
    }
    let request: ApiVersionsRequest = match frame.decode() {
        Ok(request) => request,
        Err(error) => return Answer::Close(error.to_string()),
    };
    let error = match version >= 3 && !is_software_named(&request) {
        true => ErrorCode::InvalidRequest,
        false => ErrorCode::None,
    };
    if version >= 3 && error == ErrorCode::None {
        connection.set_software(ClientSoftware {
            name: request.client_software_name.to_string(),
            version: request.client_software_version.to_string(),
        });
    }
    answer(counts, correlation_id, version, &response(error))
}

fn response(error: ErrorCode) -> ApiVersionsResponse {
    let api_keys = match error {
        ErrorCode::InvalidRequest => Vec::new(),
        _ => SERVED
            .iter()
            .map(|served| ApiVersion {
                api_key: served.api.key(),
                min_version: served.advertised_min,
                max_version: served.versions.max,
                ..ApiVersion::default()
            })
            .collect(),
    };
    ApiVersionsResponse { error_code: error.code(), api_keys, ..ApiVersionsResponse::default() }
}

/// KIP-511: both begin and end with a letter or digit, with dots and dashes between.
fn is_software_named(request: &ApiVersionsRequest) -> bool {
    let is_named = |text: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
        let ends = text.bytes().next().into_iter().chain(text.bytes().last());
        !text.is_empty()
            && text.bytes().all(inner)
            && ends.into_iter().all(|byte| byte.is_ascii_alphanumeric())
    };
    is_named(&request.client_software_name) && is_named(&request.client_software_version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, version: &str) -> bool {
        is_software_named(&ApiVersionsRequest {
            client_software_name: name.into(),
            client_software_version: version.into(),
            ..ApiVersionsRequest::default()
        })
    }

    #[test]
    fn software_names_follow_kip_511() {
        assert!(named("apache-kafka-java", "4.1.0"));
        assert!(named("a", "1"));
        assert!(!named("", "1"));
        assert!(!named("-java", "1"));
        assert!(!named("java", "1."));
        assert!(!named("ja va", "1"));
    }

    #[test]
    fn list_names_every_served_api_and_produce_from_zero() {
        let listed = response(ErrorCode::None).api_keys;
        assert_eq!(listed.len(), SERVED.len());
        assert_eq!((listed[0].api_key, listed[0].min_version, listed[0].max_version), (0, 0, 13));
    }
}
