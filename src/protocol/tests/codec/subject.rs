//! The codecs under test, chosen by what a schema table says.

use bytes::Bytes;
use chronik_protocol::messages::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, ControlRecordTypeSchema,
    EndTxnMarker, RequestHeader, ResponseHeader,
};
use chronik_protocol::{
    AnyRequest, AnyResponse, ApiKey, DecodeError, EncodeBuf, EncodeError, Message as _, Reader,
};

use crate::parse::{Message, Role, Table};
use crate::sample::tables;

/// One message of the tables.
#[derive(Clone, Debug)]
pub struct Subject {
    pub message: Message,
    pub api: Option<ApiKey>,
}

/// Any decoded message.
#[derive(Clone, Debug, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "few exist at a time")]
pub enum Value {
    Request(AnyRequest),
    Response(AnyResponse),
    RequestHeader(RequestHeader),
    ResponseHeader(ResponseHeader),
    Subscription(ConsumerProtocolSubscription),
    Assignment(ConsumerProtocolAssignment),
    ControlRecordType(ControlRecordTypeSchema),
    EndTxnMarker(EndTxnMarker),
}

pub fn subjects() -> Vec<Subject> {
    let of_table = |table: Table| {
        let api = table.api.map(|(key, _)| ApiKey::from_i16(key).expect("API is known"));
        table.messages.into_iter().map(move |message| Subject { message, api })
    };
    tables().into_iter().flat_map(of_table).collect()
}

impl Subject {
    pub fn versions(&self) -> impl Iterator<Item = i16> + use<> {
        self.message.valid.min..=self.message.valid.max
    }

    /// Decodes a message that fills `bytes`.
    pub fn decode(&self, bytes: &Bytes, version: i16) -> Result<Value, DecodeError> {
        let r = &mut Reader::new(bytes.clone());
        let value = match (self.message.role, self.api, self.message.name.as_str()) {
            (Role::Request, Some(api), _) => Value::Request(AnyRequest::decode(r, api, version)?),
            (Role::Response, Some(api), _) => {
                Value::Response(AnyResponse::decode(r, api, version)?)
            }
            (_, _, "RequestHeader") => Value::RequestHeader(RequestHeader::decode(r, version)?),
            (_, _, "ResponseHeader") => Value::ResponseHeader(ResponseHeader::decode(r, version)?),
            (_, _, "ConsumerProtocolSubscription") => {
                Value::Subscription(ConsumerProtocolSubscription::decode(r, version)?)
            }
            (_, _, "ConsumerProtocolAssignment") => {
                Value::Assignment(ConsumerProtocolAssignment::decode(r, version)?)
            }
            (_, _, "ControlRecordTypeSchema") => {
                Value::ControlRecordType(ControlRecordTypeSchema::decode(r, version)?)
            }
            (_, _, "EndTxnMarker") => Value::EndTxnMarker(EndTxnMarker::decode(r, version)?),
            (_, _, name) => panic!("no codec for {name}"),
        };
        r.expect_end()?;
        Ok(value)
    }
}

impl Value {
    pub fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
        let mut w = EncodeBuf::new();
        match self {
            Self::Request(m) => m.encode(&mut w, version),
            Self::Response(m) => m.encode(&mut w, version),
            Self::RequestHeader(m) => m.encode(&mut w, version),
            Self::ResponseHeader(m) => m.encode(&mut w, version),
            Self::Subscription(m) => m.encode(&mut w, version),
            Self::Assignment(m) => m.encode(&mut w, version),
            Self::ControlRecordType(m) => m.encode(&mut w, version),
            Self::EndTxnMarker(m) => m.encode(&mut w, version),
        }?;
        let length = w.len();
        let bytes = w.into_bytes();
        assert_eq!(bytes.len(), length, "announced and written length differ");
        Ok(bytes)
    }
}
