//! SaslHandshake and SaslAuthenticate: PLAIN (KIP-43, KIP-152, KIP-368, RFC 4616) and OAUTHBEARER (KIP-255, RFC 7628).
//!
//! Rules: if there are users or tokens, a connection may send only ApiVersions and SASL requests before it is
//! authenticated. Any other request ends the connection, as on a real broker.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::{Call, text};

const PLAIN: &str = "PLAIN";
const OAUTHBEARER: &str = "OAUTHBEARER";

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    OAuthBearer,
}

/// The authentication state of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SaslSession {
    /// The client has not sent a handshake.
    #[default]
    New,
    /// The handshake agreed on this mechanism.
    Mechanism(Mechanism),
    /// The client is authenticated until this time, or without limit.
    Authenticated(Option<Instant>),
}

impl SaslSession {
    /// Returns whether the connection may send a request of this kind now.
    pub(crate) fn allows(self, call: &Call<'_>, api: ApiKey) -> bool {
        let early = matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        let authenticated = match self {
            Self::Authenticated(end) => end.is_none_or(|end| Instant::now() < end),
            Self::New | Self::Mechanism(_) => false,
        };
        early || authenticated || enabled_mechanisms(call).is_empty()
    }
}

/// Returns the mechanisms that the cluster accepts.
fn enabled_mechanisms(call: &Call<'_>) -> Vec<(&'static str, Mechanism)> {
    let security = &call.shared.security;
    let plain = (!security.users.is_empty()).then_some((PLAIN, Mechanism::Plain));
    let tokens = (!security.tokens.is_empty()).then_some((OAUTHBEARER, Mechanism::OAuthBearer));
    plain.into_iter().chain(tokens).collect()
}

pub(super) fn handshake(
    call: &Call<'_>,
    session: &mut SaslSession,
    request: &SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    let enabled = enabled_mechanisms(call);
    let requested = enabled.iter().find(|(name, _)| request.mechanism.as_str() == *name);
    let code = match (call.refused(), requested) {
        (Some(code), _) => code,
        (None, Some((_, mechanism))) => {
            *session = SaslSession::Mechanism(*mechanism);
            0
        }
        (None, None) => ResponseError::UnsupportedSaslMechanism.code(),
    };
    let mechanisms = enabled.iter().map(|(name, _)| text(*name)).collect();
    SaslHandshakeResponse::default().with_error_code(code).with_mechanisms(mechanisms)
}

pub(super) fn authenticate(
    call: &Call<'_>,
    session: &mut SaslSession,
    request: &SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    let response = SaslAuthenticateResponse::default();
    let error = match call.refuse {
        Some(refuse) => refuse.code,
        None if !matches!(session, SaslSession::Mechanism(_)) => ResponseError::IllegalSaslState,
        None if has_valid_credentials(call, *session, &request.auth_bytes) => {
            let lifetime = call.shared.security.session_lifetime.filter(|_| call.version >= 1);
            *session = SaslSession::Authenticated(lifetime.map(|lifetime| Instant::now() + lifetime));
            let lifetime_ms = lifetime.map_or(0, |lifetime| i64::try_from(lifetime.as_millis()).unwrap_or(i64::MAX));
            return response.with_error_message(None).with_session_lifetime_ms(lifetime_ms);
        }
        None => ResponseError::SaslAuthenticationFailed,
    };
    *session = SaslSession::New;
    response
        .with_error_code(error.code())
        .with_error_message(Some(text("Authentication failed: Invalid username or password")))
}

fn has_valid_credentials(call: &Call<'_>, session: SaslSession, message: &[u8]) -> bool {
    match session {
        SaslSession::Mechanism(Mechanism::Plain) => is_user(call, message),
        SaslSession::Mechanism(Mechanism::OAuthBearer) => is_token(call, message),
        SaslSession::New | SaslSession::Authenticated(_) => false,
    }
}

/// Returns whether a message has a GS2 header and a known bearer token.
fn is_token(call: &Call<'_>, message: &[u8]) -> bool {
    let token = str::from_utf8(message).ok().and_then(|text| {
        let (_, rest) = text.strip_prefix("n,")?.split_once("\x01auth=Bearer ")?;
        Some(rest.split_once('\x01')?.0)
    });
    token.is_some_and(|token| call.shared.security.tokens.contains(token))
}

/// Returns whether a message has a known user and password. Its parts are authorisation id, user and password,
/// separated by NUL.
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
