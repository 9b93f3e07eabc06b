//! Damaged files with a private key. No message shows any part of the key.

use std::path::{Path, PathBuf};

use crate::support::captured_log::CapturedLog;
use crate::support::tls::{cluster, tls_config, with_client_certificate};
use crate::support::{LONG, Producer, leak, process};
use kafka_courier::{KafkaConfig, SecurityProtocol};

fn pem_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

fn read_pem(name: &str) -> String {
    std::fs::read_to_string(pem_path(name)).unwrap()
}

/// Returns the base64 of a PEM file in one line.
fn body(pem: &str) -> String {
    pem.lines().filter(|line| !line.starts_with('-')).collect()
}

fn utf16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
    text.encode_utf16().flat_map(order).collect()
}

fn der(pem: &str) -> Vec<u8> {
    use rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};
    PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap().secret_der().to_vec()
}

/// Returns damaged forms of a key: the kind of damage, the bytes, and text of the message about the key.
fn damaged(pem: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let certificate = read_pem("client.pem");
    let one_line = pem.trim().replace('\n', " ");
    let body = body(pem);
    let header = pem.lines().next().unwrap();
    let footer = pem.lines().last().unwrap();
    let forms: Vec<(&str, Vec<u8>, &str)> = vec![
        ("escaped line breaks", pem.replace('\n', "\\n").into(), "line breaks are written as \\n"),
        ("escaped CRLF", pem.replace('\n', "\\r\\n").into(), "line breaks are written as \\n"),
        ("one line with spaces", one_line.clone().into(), "one line"),
        ("one line without spaces", pem.replace('\n', "").into(), "one line"),
        ("no footer", pem.replace(footer, "").into(), "no END line"),
        ("no header", pem.replace(header, "").into(), "no BEGIN line"),
        ("base64 alone", body.clone().into(), "no BEGIN line"),
        ("unknown label", pem.replace("PRIVATE", "SECRET").into(), "no private key"),
        ("label of a certificate", relabelled(&body, "CERTIFICATE").into(), "no private key"),
        ("label of OpenSSH", relabelled(&body, "OPENSSH PRIVATE KEY").into(), "OpenSSH"),
        ("footer of another label", pem.replace("END ", "END X").into(), "no END line"),
        ("header with four dashes", pem.replace("KEY-----\n", "KEY----\n").into(), "BEGIN line"),
        ("truncated base64", cut(pem, 3).into(), "base64"),
        ("half of it", pem[..pem.len() / 2].into(), "no END line"),
        ("bad character inside", with_bad_character(pem).into(), "base64"),
        ("DER", der(pem), "DER"),
        ("UTF-16, little endian, with a mark", utf16(&format!("\u{feff}{pem}"), u16::to_le_bytes), "UTF-16"),
        ("UTF-16, big endian, without a mark", utf16(pem, u16::to_be_bytes), "UTF-16"),
        ("in quotes", format!("\"{}\"", one_line).into(), "one line"),
        ("in nested quotes", format!("'\"{}\"'", pem.replace('\n', "\\n")).into(), "line breaks are written as \\n"),
        ("base64 of the file", leak::base64(pem.as_bytes()).into(), "no BEGIN line"),
        ("combined, the key in one line", format!("{certificate}{one_line}\n").into(), "one line"),
        ("combined, the key first", format!("{one_line}\n{certificate}").into(), "one line"),
        ("as a member of JSON", format!("{{\"key\": \"{}\"}}", pem.replace('\n', "\\n")).into(), "line breaks are"),
        ("binary around it", [&[0, 159, 146, 150, 255], one_line.as_bytes(), &[0, 1, 2]].concat(), "one line"),
        ("nothing", Vec::new(), "empty"),
        ("white space", b"\n \n\t\n".to_vec(), "empty"),
        ("huge", pem.replace('\n', " ").repeat((9 << 20) / pem.len()).into(), "larger than"),
    ];
    forms
}

fn relabelled(body: &str, label: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// Removes this number of characters before the footer.
fn cut(pem: &str, characters: usize) -> String {
    let at = pem.rfind("\n-----END").unwrap();
    format!("{}{}", &pem[..at - characters], &pem[at..])
}

fn with_bad_character(pem: &str) -> String {
    let at = pem.find('\n').unwrap() + 20;
    format!("{}#{}", &pem[..at], &pem[at + 1..])
}

fn config(role: &str, path: &Path) -> KafkaConfig {
    let mut config = KafkaConfig::default();
    let path = path.display().to_string();
    config.security_protocol = SecurityProtocol::Ssl;
    config.ssl_ca_location = pem_path("ca.pem").display().to_string();
    config.ssl_certificate_location = pem_path("client.pem").display().to_string();
    config.ssl_key_location = pem_path("client-pkcs8.pem").display().to_string();
    match role {
        "key" => config.ssl_key_location = path,
        "certificate" => config.ssl_certificate_location = path,
        _ => config.ssl_ca_location = path,
    }
    config
}

/// Asserts that the output has no part of the key, neither as base64 nor decoded.
fn assert_hidden(pem: &str, output: &str, what: &str) {
    for secret in [body(pem).into_bytes(), pem.lines().nth(1).unwrap().into(), der(pem)] {
        let found = leak::find(&secret, output);
        assert_eq!(found, None, "{what}: {output}");
    }
}

#[tokio::test]
async fn damaged_keys_are_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret.pem");
    let (log, _guard) = CapturedLog::capture();
    for name in ["client-pkcs8.pem", "client-sec1.pem", "client-rsa-pkcs1.pem"] {
        let pem = read_pem(name);
        for (what, bytes, word) in damaged(&pem) {
            let log_before = log.text().len();
            std::fs::write(&path, bytes).unwrap();
            for role in ["key", "certificate", "CA"] {
                let config = config(role, &path);
                let shown = format!("{config:?}");
                let Err(error) = Producer::build(config) else { panic!("{what} is accepted as {role}") };
                let output = leak::all_of(&error) + &shown + &log.text()[log_before..];
                assert_hidden(&pem, &output, what);
                let message = error.to_string();
                assert!(
                    message.contains("secret.pem") && (role != "key" || message.contains(word)),
                    "{what}: {message}"
                );
            }
        }
    }
}

#[tokio::test]
async fn keys_that_change_are_never_shown() {
    let pem = read_pem("client-pkcs8.pem");
    let cluster = cluster("server", true).await;
    let folder = tempfile::tempdir().unwrap();
    let (key, next) = (folder.path().join("secret.pem"), folder.path().join("next"));
    std::fs::write(&key, &pem).unwrap();
    let mut config = with_client_certificate(tls_config(&cluster), "client.pem", "client-pkcs8.pem");
    config.ssl_key_location = key.display().to_string();
    let (log, _guard) = CapturedLog::capture();
    let producer = Producer::build(config).unwrap();
    for (what, bytes, word) in damaged(&pem) {
        let log_before = log.text().len();
        std::fs::write(&next, bytes).unwrap();
        std::fs::rename(&next, &key).unwrap();
        cluster.kill(1).await;
        cluster.restart(1).unwrap();
        producer.health_check(LONG).await.unwrap();
        // The log escapes backslashes in fields.
        let logged = log.text()[log_before..].replace("\\\\", "\\");
        assert!(logged.contains("certificate reload failed") && logged.contains(word), "{what}: {logged}");
        assert_hidden(&pem, &logged, what);
    }
}

/// The environment of a process names the system's authorities, so the test runs itself with another environment.
#[test]
fn keys_among_system_roots_stay_hidden() {
    const ITSELF: &str = concat!(module_path!(), "::keys_among_system_roots_stay_hidden");
    if process::runs_only(ITSELF) {
        let config = KafkaConfig::builder().security_protocol("SSL").ssl_roots("system");
        let error = config.build().unwrap_err();
        println!("{}", leak::all_of(&error));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    let pem = read_pem("client-pkcs8.pem");
    for (what, bytes, _) in damaged(&pem).into_iter().filter(|form| form.0 != "huge") {
        std::fs::write(&path, bytes).unwrap();
        let none = folder.path().join("none");
        let itself = process::only(ITSELF).env("SSL_CERT_FILE", &path).env("SSL_CERT_DIR", none).output().unwrap();
        let output = String::from_utf8_lossy(&itself.stdout).into_owned() + &String::from_utf8_lossy(&itself.stderr);
        assert_hidden(&pem, &output, what);
    }
}
