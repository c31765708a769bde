//! The list of APIs, and dispatch over it.
//!
//! The generated code calls `define_apis!` once with key, name, request and response of every API.

use crate::message::Message;
use crate::messages::ApiKey;

/// A message that asks, with its answer.
pub trait Request: Message {
    /// The API.
    const API: ApiKey;
    /// What a broker answers with.
    type Response: Response;
}

/// A message that answers.
pub trait Response: Message {
    /// The API.
    const API: ApiKey;
}

macro_rules! define_apis {
    ($($key:literal $name:ident $request:ident $response:ident,)*) => {
        /// An API of the protocol. APIs that Kafka removed are not listed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!("`", stringify!($name), "`.")]
                $name = $key,
            )*
        }

        impl ApiKey {
            /// Every API, by ascending key.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The API with this key.
            pub const fn from_i16(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name, such as `InitProducerId`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// Versions for which both messages have a layout.
            ///
            /// What a broker offers is its own decision, and at most this.
            pub const fn valid_versions(self) -> VersionRange {
                match self {
                    $(Self::$name => <$request as Message>::VALID_VERSIONS,)*
                }
            }

            /// First flexible version of the request.
            pub const fn request_flexible_from(self) -> Option<i16> {
                match self {
                    $(Self::$name => <$request as Message>::FLEXIBLE_FROM,)*
                }
            }

            /// First flexible version of the response.
            pub const fn response_flexible_from(self) -> Option<i16> {
                match self {
                    $(Self::$name => <$response as Message>::FLEXIBLE_FROM,)*
                }
            }
        }

        $(
            impl Request for $request {
                const API: ApiKey = ApiKey::$name;
                type Response = $response;
            }

            impl Response for $response {
                const API: ApiKey = ApiKey::$name;
            }
        )*

        any_message!(
            "A request of any API.",
            AnyRequest, $($name $request,)*
        );
        any_message!(
            "A response of any API.",
            AnyResponse, $($name $response,)*
        );
    };
}

macro_rules! any_message {
    ($doc:literal, $any:ident, $($name:ident $message:ident,)*) => {
        #[doc = $doc]
        #[derive(Clone, Debug, PartialEq)]
        #[allow(clippy::large_enum_variant, reason = "a boxed variant would cost every decode")]
        pub enum $any {
            $(
                #[doc = concat!("`", stringify!($message), "`.")]
                $name($message),
            )*
        }

        impl $any {
            /// The API's message with every field at its default.
            pub fn default_of(api: ApiKey) -> Self {
                match api {
                    $(ApiKey::$name => Self::$name(Default::default()),)*
                }
            }

            /// The API.
            pub fn api(&self) -> ApiKey {
                match self {
                    $(Self::$name(_) => ApiKey::$name,)*
                }
            }

            /// Decodes the message; bytes may follow it.
            pub fn decode(
                r: &mut Reader,
                api: ApiKey,
                version: i16,
            ) -> Result<Self, DecodeError> {
                match api {
                    $(ApiKey::$name => Message::decode(r, version).map(Self::$name),)*
                }
            }

            /// Appends the message to `w`. After an error `w` is of no use.
            pub fn encode(&self, w: &mut EncodeBuf, version: i16) -> Result<(), EncodeError> {
                match self {
                    $(Self::$name(message) => message.encode(w, version),)*
                }
            }
        }
    };
}

pub(crate) use {any_message, define_apis};

impl ApiKey {
    /// The number on the wire.
    pub const fn key(self) -> i16 {
        self as i16
    }

    /// Version of the header in front of a request of `version`; also right for versions above the
    /// valid ones, whose header must still be read to answer `UNSUPPORTED_VERSION`.
    pub fn request_header_version(self, version: i16) -> i16 {
        if self.request_flexible_from().is_some_and(|from| version >= from) { 2 } else { 1 }
    }

    /// Version of the header in front of a response of `version`.
    ///
    /// Always 0 for `ApiVersions`: a client reads that answer before it knows what the broker speaks.
    pub fn response_header_version(self, version: i16) -> i16 {
        let flexible = self.response_flexible_from().is_some_and(|from| version >= from);
        i16::from(flexible && self != Self::ApiVersions)
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
