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

impl Tls {
    pub(super) fn load(_: TlsSettings) -> Result<Self, Vec<String>> {
        Err(vec![
            "security_protocol (KAFKA_SECURITY_PROTOCOL) asks for TLS, which this build lacks: build with the feature \
             tls"
            .to_owned(),
        ])
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
