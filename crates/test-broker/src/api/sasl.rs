//! SaslHandshake and SaslAuthenticate: PLAIN (KIP-43, KIP-152, KIP-368, RFC 4616).
//!
//! Rules: while users are set, a connection may ask for nothing but versions and authentication before it has said who it
//! is; what it asks else ends it, as at a real broker.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::{Call, text};

const PLAIN: &str = "PLAIN";

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Session {
    /// Nothing was said yet.
    #[default]
    New,
    /// The mechanism is agreed on.
    Mechanism,
    /// It is known who it is, until then if ever.
    Authenticated(Option<Instant>),
}

impl Session {
    /// Whether a request of that kind may come now.
    pub(crate) fn allows(self, call: &Call<'_>, api: ApiKey) -> bool {
        let early = matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        let authenticated = match self {
            Self::Authenticated(end) => end.is_none_or(|end| Instant::now() < end),
            Self::New | Self::Mechanism => false,
        };
        early || authenticated || call.shared.security.users.is_empty()
    }
}

pub(super) fn handshake(
    call: &Call<'_>,
    session: &mut Session,
    request: &SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    let offered = !call.shared.security.users.is_empty();
    let mechanisms = if offered { vec![text(PLAIN)] } else { Vec::new() };
    let code = match call.refused() {
        Some(code) => code,
        None if offered && request.mechanism.as_str() == PLAIN => {
            *session = Session::Mechanism;
            0
        }
        None => ResponseError::UnsupportedSaslMechanism.code(),
    };
    SaslHandshakeResponse::default().with_error_code(code).with_mechanisms(mechanisms)
}

pub(super) fn authenticate(
    call: &Call<'_>,
    session: &mut Session,
    request: &SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let response = SaslAuthenticateResponse::default();
    let error = match call.refuse {
        Some(refuse) => refuse.code,
        None if *session != Session::Mechanism => ResponseError::IllegalSaslState,
        None if is_user(call, &request.auth_bytes) => {
            let lifetime = call.shared.security.session_lifetime.filter(|_| call.version >= 1);
            *session = Session::Authenticated(lifetime.map(|lifetime| Instant::now() + lifetime));
            let lifetime_ms = lifetime.map_or(0, |lifetime| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
            return response.with_error_message(None).with_session_lifetime_ms(lifetime_ms);
        }
        None => ResponseError::SaslAuthenticationFailed,
    };
    *session = Session::New;
    response
        .with_error_code(error.code())
        .with_error_message(Some(text("Authentication failed: Invalid username or password")))
}

/// Whether these are authorisation id, user and password, with a NUL between each.
fn is_user(call: &Call<'_>, message: &[u8]) -> bool {
    let mut parts = message.split(|byte| *byte == 0).map(|part| str::from_utf8(part).ok());
    let (Some(Some(authzid)), Some(Some(user)), Some(Some(password)), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    (authzid.is_empty() || authzid == user)
        && call.shared.security.users.get(user).is_some_and(|known| known == password)
}
