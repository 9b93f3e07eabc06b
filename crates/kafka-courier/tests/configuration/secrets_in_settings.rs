//! Damaged secrets in settings, variables, arguments and files. No message shows any part of a secret.

use std::path::PathBuf;

use crate::support::captured_log::CapturedLog;
use crate::support::{Producer, leak};
use kafka_courier::{ConfigLoader, KafkaConfig, LoadedConfig, SaslMechanism, Secret, SecurityProtocol};

/// A text of which no message contains eight characters by accident.
const SECRET: &str = "Zq7xVr2mKw9pLt4nHs6bJd8fQc3gYy5eXu1aRv0o";

struct SecretFolder(tempfile::TempDir);

impl SecretFolder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

fn utf16(text: &str) -> Vec<u8> {
    format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// Returns damaged forms of a secret, as a variable, an argument or a file may hold them.
fn damaged() -> Vec<(&'static str, String)> {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----\n");
    vec![
        ("as it is", SECRET.to_owned()),
        ("with a line end", format!("{SECRET}\r\n")),
        ("with a mark", format!("\u{feff}{SECRET}")),
        ("with a NUL", format!("{SECRET}\0")),
        ("with control characters", format!("\u{1}{SECRET}\u{1b}[31m")),
        ("in quotes", format!("\"{SECRET}\"")),
        ("in nested quotes", format!("'\"{SECRET}\"'")),
        ("unclosed quotes", format!("\"{SECRET}")),
        ("escaped", SECRET.replace('m', "\\n")),
        ("a PEM file", pem.clone()),
        ("a PEM file with escapes", pem.replace('\n', "\\n")),
        ("a PEM file in one line", pem.replace('\n', " ")),
        ("a PEM file without its end", pem[..pem.len() / 2 + 20].to_owned()),
        ("a URL", format!("https://me:{SECRET}@kafka/")),
        ("JSON", format!("{{\"password\": \"{SECRET}\"}}")),
        ("an assignment", format!("sasl_password={SECRET}")),
        ("base64", leak::base64(SECRET.as_bytes())),
        ("a list", format!("{SECRET},{SECRET}")),
        ("with spaces", format!("  {SECRET} x ")),
        ("a token", format!("eyJhbGciOiJub25lIn0.{SECRET}.{SECRET}")),
        ("a path", format!("/{SECRET}")),
        ("a name with an extension in a folder", format!("{SECRET}/x")),
        ("huge", SECRET.repeat(30_000)),
        ("nothing", String::new()),
    ]
}

fn assert_hidden(output: &str, what: &str) {
    let base64 = leak::base64(SECRET.as_bytes());
    for secret in [SECRET, &base64] {
        assert_eq!(leak::find(secret.as_bytes(), output), None, "{what}: {output}");
    }
}

fn output(loaded: Result<LoadedConfig, kafka_courier::ConfigErrors>) -> String {
    match loaded {
        Ok(loaded) => format!("{loaded:?} {:?} {:#?}", loaded.effective(), loaded.config),
        Err(errors) => leak::all_of(&errors) + &data_of(&errors),
    }
}

/// Returns everything that a program can read about problems and warnings.
fn data_of(errors: &kafka_courier::ConfigErrors) -> String {
    let data = errors.problems().iter().map(|problem| {
        let (option, value, allowed) = (problem.option(), problem.value(), problem.allowed());
        format!("{option:?} {value:?} {allowed:?} {:?} {:?}\n", problem.origin(), problem.related_option())
    });
    data.collect::<String>() + &format!("{:?}", errors.warnings())
}

/// Options that may hold a secret by intention or mistake, and the option with the path of the secret's file.
const NAMES: [&str; 10] = [
    "sasl_password",
    "sasl.password",
    "sasl_password_file",
    "sasl_pasword",
    "ssl_key_location",
    "ssl.ca.location",
    "sasl_oauthbearer_token_location",
    "ssl_key_password",
    "ssl.key.pem",
    "sasl.jaas.config",
];

#[test]
fn variables_and_arguments_hide_secrets() {
    let (log, _guard) = CapturedLog::capture();
    for (what, text) in damaged() {
        for name in NAMES {
            let sasl = [("security_protocol", "SASL_SSL"), ("sasl_mechanism", "PLAIN"), ("sasl_username", "me")];
            let base = sasl.iter().fold(ConfigLoader::new(), |loader, (name, value)| loader.set(name, value));
            let variable = format!("KAFKA_{}", name.replace('.', "_").to_uppercase());
            let loaders = [
                base.clone().variables([(variable, text.clone())]),
                base.clone().set(name, &text),
                base.clone().argument(&format!("--set {name}"), name, &text),
                base.clone().argument(&format!("--set {text}"), &text, name),
            ];
            for loader in loaders {
                let shown = format!("{loader:?}");
                assert_hidden(&(output(loader.load()) + &shown + &log.text()), &format!("{what} as {name}"));
            }
        }
    }
}

#[test]
fn files_that_variables_name_hide_secrets() {
    let folder = SecretFolder::new();
    for (what, text) in damaged() {
        for bytes in [text.clone().into_bytes(), utf16(&text), [text.as_bytes(), b"\xff\xfe"].concat()] {
            let path = folder.file("password", &bytes).display().to_string();
            let loader = ConfigLoader::new()
                .variables([("KAFKA_SASL_PASSWORD_FILE".to_owned(), path.clone())])
                .set("security_protocol", "SASL_SSL")
                .set("sasl_mechanism", "SCRAM-SHA-256")
                .set("sasl_username", "me");
            assert_hidden(&output(loader.load()), what);
        }
    }
}

/// Returns settings files in which the line with the secret is damaged.
fn damaged_files() -> Vec<(&'static str, String)> {
    let toml = [
        "sasl_password = @",
        "sasl_password = \"@",
        "sasl_password = '@",
        "sasl_password = \"@\\q\"",
        "sasl_password = \"\"\"@\"\"\"@\"\"\"",
        "sasl_password = \"a\"@\"b\"",
        "sasl_password = '\"@'\"",
        "sasl_password \"@\"",
        "sasl_password = '@' @",
        "sasl_password = [[\"@\"]]",
        "sasl_password = [{ is = \"@\" }]",
        "sasl_password = { @ = 1 }",
        "sasl_password.@ = 1",
        "[sasl_password]\n@ = true",
        "[sasl_password.@]\nx = 1",
        "sasl_password = \"@\"\nsasl_password = \"@\"",
        "sasl_password = \"@\nand more\"",
        "ssl_key_location = \"\"\"-----BEGIN PRIVATE KEY-----\n@\n-----END PRIVATE KEY-----\"\"\"",
        "ssl_key_location = -----BEGIN PRIVATE KEY-----\n@\n-----END PRIVATE KEY-----",
        "ssl_key_location = \"-----BEGIN PRIVATE KEY-----\n@\n-----END PRIVATE KEY-----\"",
        "ssl.key.pem = '''\n@\n'''",
        "@ = \"sasl_password\"",
        "\"@\" = 1\n\"@\" = 2",
        "@",
        "[@]",
        "[[@]]\n[@]",
        "sasl_password = 1@",
        "sasl_password = 2026-@",
        "sasl_password = \"\u{1}@\"",
        "sasl_password = \"\\u@\"",
    ];
    let json = [
        "{\"sasl_password\": @}",
        "{\"sasl_password\": \"@}",
        "{\"sasl_password\": '@'}",
        "{\"sasl_password\": \"@\" \"@\"}",
        "{\"sasl_password\": \"a\"@\"b\"}",
        "{\"sasl_password\": \"@\\q\"}",
        "{\"sasl_password\": \"\n@\"}",
        "{\"sasl_password\": [[\"@\"]]}",
        "{\"sasl_password\": {\"@\": 1}}",
        "{\"sasl_password\": {\"@\": null}}",
        "{\"sasl_password\": {\"x\": {\"@\": []}}}",
        "{\"sasl_password\": 1@}",
        "{\"sasl_password\": \"@\", \"sasl_password\": \"@\"}",
        "{\"sasl_password\": \"@\",}",
        "{\"@\": \"sasl_password\"}",
        "{\"@\": [[]]}",
        "{\"@\": null}",
        "{\"ssl_key_location\": \"-----BEGIN PRIVATE KEY-----\\n@\\n-----END\"}",
        "{\"sasl.jaas.config\": \"password=@\"}",
        "\"@\"",
        "[\"@\"]",
        "@",
        "{@: 1}",
    ];
    let files = toml.iter().map(|text| ("c.toml", text)).chain(json.iter().map(|text| ("c.json", text)));
    files.map(|(name, text)| (name, text.replace('@', SECRET))).collect()
}

#[test]
fn settings_files_hide_secrets() {
    let (log, _guard) = CapturedLog::capture();
    let folder = SecretFolder::new();
    for (name, text) in damaged_files() {
        let whole = text.clone().into_bytes();
        let forms = [
            ("as it is", whole.clone()),
            ("CRLF", text.replace('\n', "\r\n").into()),
            ("with a mark", format!("\u{feff}{text}").into()),
            ("UTF-16", utf16(&text)),
            ("cut off", whole[..whole.len() - 3].to_vec()),
            ("binary", [&whole[..], b"\xff\0\x80"].concat()),
        ];
        for (what, bytes) in forms {
            let path = folder.file(name, &bytes);
            let messages = output(ConfigLoader::new().file(&path).load()) + &log.text();
            assert_hidden(&messages, &format!("{text} {what}"));
        }
    }
    let huge = format!("sasl_password = \"{}", SECRET.repeat(30_000));
    assert_hidden(&output(ConfigLoader::new().file(folder.file("c.toml", huge.as_bytes())).load()), "huge");
}

#[test]
fn marks_before_a_password_are_skipped() {
    let folder = SecretFolder::new();
    let path = folder.file("password", format!("\u{feff}{SECRET}\r\n").as_bytes()).display().to_string();
    let loader = ConfigLoader::new().set("security_protocol", "SASL_SSL").set("sasl_mechanism", "PLAIN");
    let loaded = loader.set("sasl_username", "me").set("sasl_password_file", &path).load().unwrap();
    assert_eq!(loaded.config.sasl_password.unwrap().expose(), SECRET);
}

#[test]
fn secret_given_as_path_is_named() {
    let sasl = [("KAFKA_SASL_PASSWORD_FILE".to_owned(), SECRET.to_owned())];
    let error = KafkaConfig::from_variables(sasl).unwrap_err();
    assert!(error.to_string().starts_with("KAFKA_SASL_PASSWORD_FILE: the value is not the path"), "{error}");
    let location = [("KAFKA_SSL_KEY_LOCATION".to_owned(), format!("-----BEGIN PRIVATE KEY-----\\n{SECRET}"))];
    let error = KafkaConfig::from_variables(location).unwrap_err();
    assert!(error.to_string().contains("the path of a file") && !error.to_string().contains("BEGIN"), "{error}");
    let variable = [("KAFKA_SSL_KEY_PASSWORD".to_owned(), SECRET.to_owned())];
    let warnings = ConfigLoader::new().variables(variable).load().unwrap().warnings;
    assert!(warnings[0].to_string().contains("decrypt it"), "{warnings:?}");
}

#[test]
fn rejected_setting_is_not_called_unset() {
    let key = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}");
    for (settings, expected) in [
        (
            &[("SECURITY_PROTOCOL", "SSL"), ("SSL_CERTIFICATE_LOCATION", "a.pem"), ("SSL_KEY_LOCATION", &*key)][..],
            "KAFKA_SSL_KEY_LOCATION (ssl_key_location) is ***",
        ),
        (
            &[("SECURITY_PROTOCOL", "SASL_SSL"), ("SASL_MECHANISM", "NONE")],
            "KAFKA_SASL_MECHANISM (sasl_mechanism) is \"NONE\"",
        ),
        (
            &[("SECURITY_PROTOCOL", "SLL"), ("SSL_CA_LOCATION", "a.pem")],
            "KAFKA_SECURITY_PROTOCOL (security_protocol) is \"SLL\"",
        ),
    ] {
        let variables = settings.iter().map(|(name, value)| (format!("KAFKA_{name}"), (*value).to_owned()));
        let errors = KafkaConfig::from_variables(variables).unwrap_err();
        assert_eq!(errors.problems().len(), 1, "{errors}");
        assert!(errors.to_string().starts_with(expected), "{errors}");
    }
}

#[test]
fn every_option_file_hides_content() {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----");
    for option in KafkaConfig::options() {
        for text in [SECRET, &pem, &pem.replace('\n', " ")] {
            let variable = (format!("{}_FILE", option.variable), text.to_owned());
            let error = KafkaConfig::from_variables([variable.clone()]).unwrap_err();
            assert_hidden(&leak::all_of(&error), &variable.0);
            assert!(error.to_string().starts_with(&format!("{}: the value is not the path", variable.0)), "{error}");
            assert_hidden(&output(ConfigLoader::new().set(&format!("{}_file", option.name), text).load()), option.name);
        }
    }
    assert_hidden(&output(ConfigLoader::new().file(SECRET).load()), "a file of settings");
    assert_hidden(&output(ConfigLoader::new().file(&pem).load()), "a file of settings");
    for path in ["none.toml", "settings", "./none/settings.json"] {
        let error = KafkaConfig::from_file(path).unwrap_err();
        assert!(error.to_string().starts_with(path), "{error}");
    }
    let error = KafkaConfig::from_variables([("KAFKA_BROKERS_FILE".to_owned(), "/tmp/none/brokers".to_owned())]);
    assert!(error.unwrap_err().to_string().contains("/tmp/none/brokers: "));
}

#[tokio::test]
async fn built_producers_hide_misplaced_secrets() {
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----");
    let token = format!("eyJhbGciOiJub25lIn0.{SECRET}.x");
    for text in [&pem, &token, SECRET, &pem.replace('\n', "\\n"), &leak::base64(pem.as_bytes())] {
        let mut config = KafkaConfig::default();
        config.security_protocol = SecurityProtocol::SaslSsl;
        config.sasl_mechanism = Some(SaslMechanism::OAuthBearer);
        config.sasl_oauthbearer_token_location = text.to_owned();
        config.ssl_key_location = text.to_owned();
        config.ssl_certificate_location = text.to_owned();
        let (shown, built) = (format!("{config:?}"), Producer::build(config.clone()));
        // The secret alone may be a path, and `Debug` shows paths that the application sets.
        let shown = if text == SECRET { String::new() } else { shown };
        assert_hidden(&(leak::all_of(&built.unwrap_err()) + &shown), text);
        config.sasl_mechanism = Some(SaslMechanism::Plain);
        config.sasl_password = Some(Secret::new(text));
        config.ssl_certificate_location = String::new();
        assert_hidden(&leak::all_of(&Producer::build(config).unwrap_err()), text);
    }
}
