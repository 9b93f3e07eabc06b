//! SaslHandshake and SaslAuthenticate: PLAIN (KIP-43, KIP-152, KIP-368, RFC 4616) and OAUTHBEARER (KIP-255, RFC 7628).
//!
//! Rules: while users or tokens are set, a connection may ask for nothing but versions and authentication before it has said who it
//! is; what it asks else ends it, as at a real broker.

use std::time::Instant;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use super::{Call, text};

const PLAIN: &str = "PLAIN";
const OAUTHBEARER: &str = "OAUTHBEARER";

/// How somebody says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    OAuthBearer,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Session {
    /// Nothing was said yet.
    #[default]
    New,
    /// The mechanism is agreed on.
    Mechanism(Mechanism),
    /// It is known who it is, until then if ever.
    Authenticated(Option<Instant>),
}

impl Session {
    /// Whether a request of that kind may come now.
    pub(crate) fn allows(self, call: &Call<'_>, api: ApiKey) -> bool {
        let early = matches!(api, ApiKey::ApiVersions | ApiKey::SaslHandshake | ApiKey::SaslAuthenticate);
        let authenticated = match self {
            Self::Authenticated(end) => end.is_none_or(|end| Instant::now() < end),
            Self::New | Self::Mechanism(_) => false,
        };
        early || authenticated || offered(call).is_empty()
    }
}

/// The mechanisms that somebody could be known by.
fn offered(call: &Call<'_>) -> Vec<(&'static str, Mechanism)> {
    let security = &call.shared.security;
    let plain = (!security.users.is_empty()).then_some((PLAIN, Mechanism::Plain));
    let tokens = (!security.tokens.is_empty()).then_some((OAUTHBEARER, Mechanism::OAuthBearer));
    plain.into_iter().chain(tokens).collect()
}

pub(super) fn handshake(
    call: &Call<'_>,
    session: &mut Session,
    request: &SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    let offered = offered(call);
    let wanted = offered.iter().find(|(name, _)| request.mechanism.as_str() == *name);
    let code = match (call.refused(), wanted) {
        (Some(code), _) => code,
        (None, Some((_, mechanism))) => {
            *session = Session::Mechanism(*mechanism);
            0
        }
        (None, None) => ResponseError::UnsupportedSaslMechanism.code(),
    };
    let mechanisms = offered.iter().map(|(name, _)| text(*name)).collect();
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
        None if !matches!(session, Session::Mechanism(_)) => ResponseError::IllegalSaslState,
        None if is_known(call, *session, &request.auth_bytes) => {
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

fn is_known(call: &Call<'_>, session: Session, message: &[u8]) -> bool {
    match session {
        Session::Mechanism(Mechanism::Plain) => is_user(call, message),
        Session::Mechanism(Mechanism::OAuthBearer) => is_token(call, message),
        Session::New | Session::Authenticated(_) => false,
    }
}

/// Whether this is a header of GS2 and a bearer token that is known.
fn is_token(call: &Call<'_>, message: &[u8]) -> bool {
    let token = str::from_utf8(message).ok().and_then(|text| {
        let (_, rest) = text.strip_prefix("n,")?.split_once("\x01auth=Bearer ")?;
        Some(rest.split_once('\x01')?.0)
    });
    token.is_some_and(|token| call.shared.security.tokens.contains(token))
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
