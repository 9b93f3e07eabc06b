//! Events of users: login, logout, registration, refreshed tokens.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `user.logged_in`: a user logged in.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserLoggedIn {
    /// The user's id.
    pub user_id: String,
    /// The user's mail address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The client's IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The request's `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Time of the login.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub login_time: Timestamp,
    /// The new session's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Whether the session outlives the browser.
    pub remember_me: bool,
    /// The login method: `password`, `sso`, `passkey` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_method: Option<String>,
    /// The device, as a text or an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_info: Option<Value>,
    /// The place, as a text or an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub location: Option<Value>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `user.registered`: a user registered.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserRegistered {
    /// The user's id.
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
    /// Time of the registration.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub registration_time: Timestamp,
    /// The client's IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The source of the registration: `web`, `mobile`, `invitation` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registration_source: Option<String>,
    /// Whether the mail address is verified.
    pub email_verified: bool,
    /// The user's organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `user.logged_out`: a user's session ended.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserLoggedOut {
    /// The user's id.
    pub user_id: String,
    /// The ended session's id, as in the `user.logged_in` that began it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// Time of the logout.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub logout_time: Timestamp,
    /// The reason: `user`, `timeout`, `revoked` and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_reason: Option<String>,
    /// Whether all sessions of the user ended.
    pub all_sessions: bool,
    /// The client's IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The request's `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `user.token_refreshed`: a session received a new access token. The event names tokens by id (`jti`, RFC 7519). The
/// token itself is a secret and never part of an event.
#[derive(Clone, PartialEq, Default, Debug, Serialize, Deserialize)]
pub struct UserTokenRefreshed {
    /// The user's id.
    pub user_id: String,
    /// The session's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The new token's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_id: Option<String>,
    /// The replaced token's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_token_id: Option<String>,
    /// Time of the refresh.
    #[serde(serialize_with = "crate::rfc3339::serialize")]
    pub refresh_time: Timestamp,
    /// Expiry of the new token.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "crate::rfc3339::serialize_option")]
    pub expires_at: Option<Timestamp>,
    /// The client application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// The client's IP address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_address: Option<String>,
    /// The request's `User-Agent`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
    /// Fields that this version does not know.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}
