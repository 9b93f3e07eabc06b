//! Files that hold a private key, and are damaged: no message shows any of the key.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests may, as tests do
#[path = "support/heard.rs"]
mod heard;
#[path = "support/leak.rs"]
mod leak;
#[path = "support/tls.rs"]
mod secured;
mod support;

use std::path::{Path, PathBuf};

use heard::Heard;
use kafka_courier::{KafkaConfig, SecurityProtocol};
use secured::{as_client, cluster, with_tls};
use support::{LONG, Producer};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(file(name)).unwrap()
}

/// The base64 of a PEM file, in one line.
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

/// A key's PEM in damaged forms: what was done to it, and a word of the message about it as a key.
fn damaged(pem: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let certificate = text("client.pem");
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

/// Without some characters before its footer.
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
    config.ssl_ca_location = file("ca.pem").display().to_string();
    config.ssl_certificate_location = file("client.pem").display().to_string();
    config.ssl_key_location = file("client-pkcs8.pem").display().to_string();
    match role {
        "key" => config.ssl_key_location = path,
        "certificate" => config.ssl_certificate_location = path,
        _ => config.ssl_ca_location = path,
    }
    config
}

/// Nothing of the key is in the output, neither of its base64 nor of what that stands for.
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
    let (heard, _listening) = Heard::listen();
    for name in ["client-pkcs8.pem", "client-sec1.pem", "client-rsa-pkcs1.pem"] {
        let pem = text(name);
        for (what, bytes, word) in damaged(&pem) {
            let heard_before = heard.text().len();
            std::fs::write(&path, bytes).unwrap();
            for role in ["key", "certificate", "CA"] {
                let config = config(role, &path);
                let shown = format!("{config:?}");
                let Err(error) = Producer::build(config) else { panic!("{what} is taken as {role}") };
                let output = leak::all_of(&error) + &shown + &heard.text()[heard_before..];
                assert_hidden(&pem, &output, what);
                let said = error.to_string();
                assert!(said.contains("secret.pem") && (role != "key" || said.contains(word)), "{what}: {said}");
            }
        }
    }
}

#[tokio::test]
async fn keys_that_change_are_never_shown() {
    let pem = text("client-pkcs8.pem");
    let cluster = cluster("server", true).await;
    let folder = tempfile::tempdir().unwrap();
    let (key, next) = (folder.path().join("secret.pem"), folder.path().join("next"));
    std::fs::write(&key, &pem).unwrap();
    let mut config = as_client(with_tls(&cluster), "client.pem", "client-pkcs8.pem");
    config.ssl_key_location = key.display().to_string();
    let (heard, _listening) = Heard::listen();
    let producer = Producer::build(config).unwrap();
    for (what, bytes, word) in damaged(&pem) {
        let heard_before = heard.text().len();
        std::fs::write(&next, bytes).unwrap();
        std::fs::rename(&next, &key).unwrap();
        cluster.kill(1).await;
        cluster.restart(1).unwrap();
        producer.health_check(LONG).await.unwrap();
        // A field is written with its backslashes escaped.
        let said = heard.text()[heard_before..].replace("\\\\", "\\");
        assert!(said.contains("certificate reload failed") && said.contains(word), "{what}: {said}");
        assert_hidden(&pem, &said, what);
    }
}

/// The authorities of an operating system are a process's environment: this one runs itself with another.
#[test]
fn keys_among_system_roots_stay_hidden() {
    const ITSELF: &str = "keys_among_system_roots_stay_hidden";
    const CHILD: &str = "KAFKA_COURIER_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let config = KafkaConfig::builder().security_protocol("SSL").ssl_roots("system");
        let error = config.build().unwrap_err();
        println!("{}", leak::all_of(&error));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("roots.pem");
    let pem = text("client-pkcs8.pem");
    for (what, bytes, _) in damaged(&pem).into_iter().filter(|form| form.0 != "huge") {
        std::fs::write(&path, bytes).unwrap();
        let itself = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ITSELF, "--test-threads", "1", "--nocapture"])
            .env("SSL_CERT_FILE", &path)
            .env("SSL_CERT_DIR", folder.path().join("none"))
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&itself.stdout).into_owned() + &String::from_utf8_lossy(&itself.stderr);
        assert_hidden(&pem, &said, what);
    }
}
