//! What stands in for TLS in a build without it.
//!
//! Rules: asking for TLS is an error when settings are checked; so there is never one of these.

use std::error::Error;

use tokio::net::TcpStream;

use super::TlsSettings;
use crate::core::Reason;
use crate::driver::stream::Io;

/// There is none.
#[derive(Debug)]
pub(super) enum Tls {}

impl Tls {
    pub(super) fn load(_: TlsSettings) -> Result<Self, Vec<String>> {
        Err(vec![
            "security_protocol (KAFKA_SECURITY_PROTOCOL) asks for TLS, which this build does not have: build it with the \
             feature tls"
                .to_owned(),
        ])
    }

    pub(super) fn refresh(&self) {
        match *self {}
    }

    pub(super) async fn connect(&self, _: &str, _: u16, _: TcpStream) -> Result<Box<dyn Io>, Reason> {
        match *self {}
    }

    pub(super) fn failure(&self, _: &str, _: u16, _: &(dyn Error + 'static)) -> Option<Reason> {
        match *self {}
    }
}
