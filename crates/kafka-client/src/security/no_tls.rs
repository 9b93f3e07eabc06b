//! Replaces TLS in a build without it.
//!
//! Rule: settings that ask for TLS are an error, so that no value of [`Tls`] exists.

use std::error::Error;

use tokio::net::TcpStream;

use super::settings::TlsSettings;
use crate::reason::Reason;
use crate::stream::ByteStream;

/// TLS that is never constructed.
#[derive(Debug)]
pub(super) enum Tls {}

/// Why TLS can't be set up. The text follows the option.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(" asks for TLS, which this build lacks: build with the feature tls")]
pub(super) struct TlsSetupError;

impl TlsSetupError {
    pub(super) const fn option(&self) -> &'static str {
        "security_protocol"
    }

    pub(super) const fn is_about_file(&self) -> bool {
        false
    }
}

impl Tls {
    pub(super) fn load(_: TlsSettings) -> Result<Self, Vec<TlsSetupError>> {
        Err(vec![TlsSetupError])
    }

    pub(super) fn refresh(&self) {
        match *self {}
    }

    pub(super) async fn connect(&self, _: &str, _: u16, _: TcpStream) -> Result<Box<dyn ByteStream>, Reason> {
        match *self {}
    }

    pub(super) fn failure(&self, _: &str, _: u16, _: &(dyn Error + 'static)) -> Option<Reason> {
        match *self {}
    }
}
