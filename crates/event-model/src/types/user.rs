//! What users do: log in and out, register, refresh tokens.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `user.logged_in`: a user has logged in.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserLoggedIn {
    /// Who.
    pub user_id: String,
    /// The user's mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The request's `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// When.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub login_time: Timestamp,
    /// The session that began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Whether the session is to outlive the browser.
    pub remember_me: bool,
    /// How: `password`, `sso`, `passkey` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_method: Option<String>,
    /// The device, as a text or as an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_info: Option<Value>,
    /// The place, as a text or as an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `user.registered`: a user has registered.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserRegistered {
    /// Who.
    pub user_id: String,
    /// The user's mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The user's given name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_name: Option<String>,
    /// The user's family name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_name: Option<String>,
    /// When.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub registration_time: Timestamp,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// Through what: `web`, `mobile`, `invitation` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration_source: Option<String>,
    /// Whether the mail address is known to be the user's.
    pub email_verified: bool,
    /// The organisation that the user belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `user.logged_out`: a user's session has ended.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserLoggedOut {
    /// Who.
    pub user_id: String,
    /// The session that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// When.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub logout_time: Timestamp,
    /// Why: `user`, `timeout`, `revoked` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_reason: Option<String>,
    /// Whether all of the user's sessions ended with this one.
    pub all_sessions: bool,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The request's `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `user.token_refreshed`: a session got a new access token. Tokens are named by id (`jti`, RFC 7519); the token
/// itself is a secret and never part of an event.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserTokenRefreshed {
    /// Who.
    pub user_id: String,
    /// The session that the token belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Id of the new token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// Id of the token that it replaces.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_token_id: Option<String>,
    /// When.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub refresh_time: Timestamp,
    /// When the new token ends.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::rfc3339::serialize_option")]
    pub expires_at: Option<Timestamp>,
    /// The client application that asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The request's `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
