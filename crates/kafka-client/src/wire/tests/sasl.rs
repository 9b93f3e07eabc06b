//! SaslHandshake, version 1, and SaslAuthenticate, versions 0 to 2.

use kafka_protocol::messages as theirs;
use zeroize::Zeroizing;

use super::{decoded, encoded, read_back, tags, versions};
use crate::wire::sasl::{authenticate, handshake};

#[test]
fn handshake_names_the_mechanism() {
    for version in versions::<handshake::Request>() {
        let read: theirs::SaslHandshakeRequest = read_back(&handshake::Request { mechanism: "SCRAM-SHA-256" }, version);
        assert_eq!(&*read.mechanism, "SCRAM-SHA-256");
    }
}

#[test]
fn offered_mechanisms_are_read() {
    let known = vec!["PLAIN".into(), "SCRAM-SHA-512".into()];
    let answer = theirs::SaslHandshakeResponse::default().with_error_code(33).with_mechanisms(known);
    let read = decoded(&encoded(&answer, 1), &["mechanisms"], |bytes| handshake::decode(bytes, 1));
    assert_eq!(read, (33, vec!["PLAIN".into(), "SCRAM-SHA-512".into()]));
}

#[test]
fn message_is_sent_but_not_shown() {
    for version in versions::<authenticate::Request>() {
        let request = authenticate::Request { message: Zeroizing::new(b"\0alice\0s3cret".to_vec()) };
        assert_eq!(format!("{request:?}"), "SaslAuthenticate(***)");
        let read: theirs::SaslAuthenticateRequest = read_back(&request, version);
        assert_eq!(&*read.auth_bytes, b"\0alice\0s3cret", "version {version}");
    }
}

#[test]
fn authentication_answer_is_read() {
    for version in versions::<authenticate::Request>() {
        let mut answer = theirs::SaslAuthenticateResponse::default().with_error_code(58);
        answer = answer.with_error_message(Some("no".into())).with_auth_bytes(b"v=abc".as_slice().into());
        let lifetime = if version >= 1 { 3_600_000 } else { 0 };
        answer = answer.with_session_lifetime_ms(lifetime);
        if version >= 2 {
            answer = answer.with_unknown_tagged_fields(tags());
        }
        let bytes = encoded(&answer, version);
        let read = decoded(&bytes, &["authentication bytes"], |bytes| authenticate::decode(bytes, version));
        let message = b"v=abc".to_vec();
        let expected =
            authenticate::Answer { code: 58, error: Some("no".into()), message, session_lifetime_ms: lifetime };
        assert_eq!(read, expected, "version {version}");
    }
}
