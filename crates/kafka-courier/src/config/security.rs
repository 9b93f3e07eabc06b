//! The security of connections: the checks of the options, and the security settings of the driver.
//!
//! Rules: an option without effect is an error and never ignored. Otherwise an operator who sets a password or a
//! certificate would learn too late that it is unused. A dangerous combination causes a warning.

use std::path::PathBuf;

use kafka_courier_client::security::{
    ClientCertificate, ConnectionSecurity, Roots, SaslSettings, ScramHash, TlsSettings, TokenSource,
};

use kafka_courier_client::{HIDDEN, shown_path};

use super::cause::{ConfigProblemKind, ProblemCause};
use super::choices::{SaslMechanism, SecurityProtocol, SslRoots};
use super::problem::ConfigProblem;
use super::source::{read_text, unreadable_value};
use super::warning::ConfigWarning;
use super::{ConfigErrors, KafkaConfig, is_misplaced};

fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

impl KafkaConfig {
    /// Returns the options that name files.
    fn locations(&self) -> [(&'static str, &str); 4] {
        [
            ("ssl_ca_location", &self.ssl_ca_location),
            ("ssl_certificate_location", &self.ssl_certificate_location),
            ("ssl_key_location", &self.ssl_key_location),
            ("sasl_oauthbearer_token_location", &self.sasl_oauthbearer_token_location),
        ]
    }

    pub(super) fn security_problems(&self, problems: &mut Vec<ProblemCause>) {
        let misplaced = self.locations().into_iter().filter(|(name, text)| is_misplaced(name, text));
        let allowed = "the path of a file: write the present value to a file";
        problems.extend(misplaced.map(|(option, _)| ProblemCause::OutOfBounds {
            option,
            value: HIDDEN.to_owned(),
            allowed,
        }));
        if self.security_protocol.has_tls() {
            self.tls_problems(problems);
        } else {
            let set = [
                ("ssl_ca_location", !self.ssl_ca_location.is_empty()),
                ("ssl_roots", self.ssl_roots != Self::default().ssl_roots),
                ("ssl_certificate_location", !self.ssl_certificate_location.is_empty()),
                ("ssl_key_location", !self.ssl_key_location.is_empty()),
                ("insecure_skip_verify", self.insecure_skip_verify),
            ];
            self.without_effect(&set, ("TLS", "set it to SSL or SASL_SSL"), problems);
        }
        if self.security_protocol.has_sasl() {
            self.sasl_problems(problems);
        } else {
            let set = [
                ("sasl_mechanism", self.sasl_mechanism.is_some()),
                ("sasl_username", !self.sasl_username.is_empty()),
                ("sasl_password", self.sasl_password.is_some()),
                ("sasl_oauthbearer_token_location", !self.sasl_oauthbearer_token_location.is_empty()),
            ];
            self.without_effect(&set, ("SASL", "set it to SASL_SSL or SASL_PLAINTEXT"), problems);
        }
    }

    fn without_effect(
        &self,
        options: &[(&'static str, bool)],
        (feature, remedy): (&'static str, &'static str),
        problems: &mut Vec<ProblemCause>,
    ) {
        let set = options.iter().filter(|option| option.1).map(|option| option.0);
        problems.extend(set.map(|option| ProblemCause::WithoutEffect {
            option,
            protocol: self.security_protocol,
            feature,
            remedy,
        }));
    }

    /// Returns warnings about options that weaken security.
    pub(super) fn security_warnings(&self) -> impl Iterator<Item = ConfigWarning> {
        let is_readable = self.security_protocol == SecurityProtocol::SaslPlaintext
            && self.sasl_mechanism == Some(SaslMechanism::Plain);
        let unverified = self.insecure_skip_verify.then_some(ConfigWarning::UnverifiedBrokers);
        unverified.into_iter().chain(is_readable.then_some(ConfigWarning::ReadablePassword))
    }

    fn tls_problems(&self, problems: &mut Vec<ProblemCause>) {
        if !self.ssl_ca_location.is_empty() && self.ssl_roots != Self::default().ssl_roots {
            let file = shown_path(self.ssl_ca_location.as_ref());
            problems.push(ProblemCause::TwoRoots { roots: self.ssl_roots, file });
        }
        let (certificate, key) = (&self.ssl_certificate_location, &self.ssl_key_location);
        if certificate.is_empty() != key.is_empty() {
            let (option, file, missing) = match key.is_empty() {
                true => ("ssl_certificate_location", certificate, "ssl_key_location"),
                false => ("ssl_key_location", key, "ssl_certificate_location"),
            };
            problems.push(ProblemCause::HalfCertificate { option, file: shown_path(file.as_ref()), missing });
        }
    }

    fn sasl_problems(&self, problems: &mut Vec<ProblemCause>) {
        let unused = |option, mechanism: SaslMechanism, credential| ProblemCause::UnusedCredential {
            option,
            mechanism,
            credential,
        };
        match self.sasl_mechanism {
            None => problems.push(ProblemCause::NoMechanism { protocol: self.security_protocol }),
            Some(mechanism @ SaslMechanism::OAuthBearer) => {
                let set = [
                    ("sasl_username", !self.sasl_username.is_empty()),
                    ("sasl_password", self.sasl_password.is_some()),
                ];
                let set = set.iter().filter(|option| option.1).map(|option| option.0);
                problems.extend(set.map(|option| unused(option, mechanism, "token")));
            }
            Some(mechanism) => {
                if self.sasl_username.is_empty() || self.sasl_username.contains('\0') {
                    problems.push(ProblemCause::NoUsername { username: self.sasl_username.clone(), mechanism });
                }
                match self.sasl_password.as_ref().map(|it| it.expose()).unwrap_or_default() {
                    "" => problems.push(ProblemCause::NoPassword { mechanism }),
                    text if text.contains('\0') => problems.push(ProblemCause::PasswordWithNul),
                    _ => {}
                }
                if !self.sasl_oauthbearer_token_location.is_empty() {
                    problems.push(unused("sasl_oauthbearer_token_location", mechanism, "password"));
                }
            }
        }
    }

    /// Loads the certificates, keys and credentials of connections.
    ///
    /// # Errors
    /// Returns all problems with files, and an unsupported CPU.
    pub(crate) fn security(&self, tokens: Option<TokenSource>) -> Result<ConnectionSecurity, ConfigErrors> {
        let unused_source = tokens.as_ref().and_then(|_| self.token_source_problem());
        let mut problems: Vec<_> = unused_source.into_iter().map(ConfigProblem::from).collect();
        let tls = self.security_protocol.has_tls().then(|| self.tls());
        let mechanism = self.sasl_mechanism.filter(|_| self.security_protocol.has_sasl());
        let sasl = mechanism.and_then(|mechanism| match self.sasl(mechanism, tokens) {
            Ok(sasl) => Some(sasl),
            Err(problem) => {
                problems.push(problem.into());
                None
            }
        });
        match ConnectionSecurity::new(tls, sasl) {
            Ok(security) if problems.is_empty() => Ok(security),
            secured => {
                problems.extend(secured.err().into_iter().flatten().map(ConfigProblem::from));
                Err(problems.into())
            }
        }
    }

    /// Returns the problems of the files of TLS and SASL.
    pub(super) fn file_problems(&self) -> impl Iterator<Item = ConfigProblem> {
        let problems = self.security(None).err().into_iter().flatten();
        // Without a token file the application may give a token source.
        problems.filter(|problem| problem.kind() == ConfigProblemKind::UnreadableFile)
    }

    /// Returns the problem if the configuration never uses a `token_source`.
    fn token_source_problem(&self) -> Option<ProblemCause> {
        let location = &self.sasl_oauthbearer_token_location;
        if !self.security_protocol.has_sasl() {
            Some(ProblemCause::TokensWithoutSasl { protocol: self.security_protocol })
        } else if self.sasl_mechanism != Some(SaslMechanism::OAuthBearer) {
            Some(ProblemCause::TokensWithoutMechanism)
        } else if !location.is_empty() {
            Some(ProblemCause::TwoTokenSources { file: shown_path(location.as_ref()) })
        } else {
            None
        }
    }

    fn tls(&self) -> TlsSettings {
        let roots = match (path(&self.ssl_ca_location), self.ssl_roots) {
            (Some(file), _) => Roots::File(file),
            (None, SslRoots::CompiledIn) => Roots::CompiledIn,
            (None, SslRoots::System) => Roots::System,
        };
        let files = path(&self.ssl_certificate_location).zip(path(&self.ssl_key_location));
        let client = files.map(|(certificate, key)| ClientCertificate { certificate, key });
        TlsSettings { roots, client, insecure_skip_verify: self.insecure_skip_verify }
    }

    fn sasl(&self, mechanism: SaslMechanism, tokens: Option<TokenSource>) -> Result<SaslSettings, ProblemCause> {
        let username = self.sasl_username.clone();
        let password = self.sasl_password.clone().unwrap_or_else(|| "".into());
        let scram = |hash| SaslSettings::Scram { hash, username: username.clone(), password: password.clone() };
        match mechanism {
            SaslMechanism::ScramSha256 => Ok(scram(ScramHash::Sha256)),
            SaslMechanism::ScramSha512 => Ok(scram(ScramHash::Sha512)),
            SaslMechanism::Plain => Ok(SaslSettings::Plain { username, password }),
            SaslMechanism::OAuthBearer => self.tokens(tokens).map(SaslSettings::OAuthBearer),
        }
    }

    fn tokens(&self, tokens: Option<TokenSource>) -> Result<TokenSource, ProblemCause> {
        if let Some(tokens) = tokens {
            return Ok(tokens);
        }
        let file = path(&self.sasl_oauthbearer_token_location).ok_or(ProblemCause::NoToken)?;
        // Each connection reads the file again. A missing file is reported now.
        read_text(&file).map_err(|error| {
            let error = unreadable_value("the token", &file, error);
            ProblemCause::NoValue { option: "sasl_oauthbearer_token_location", error }
        })?;
        Ok(TokenSource::file(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;

    fn problems(change: impl FnOnce(&mut KafkaConfig)) -> Vec<String> {
        let mut config = KafkaConfig::default();
        change(&mut config);
        let mut problems = Vec::new();
        config.security_problems(&mut problems);
        problems.into_iter().map(|cause| ConfigProblem::from(cause).to_string()).collect()
    }

    #[test]
    fn options_without_effect_are_errors() {
        let found = problems(|config| {
            config.ssl_ca_location = "ca.pem".into();
            config.insecure_skip_verify = true;
            config.sasl_password = Some(Secret::new("hunter2"));
        });
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("ssl_ca_location is set, but security_protocol is PLAINTEXT"), "{found:?}");
        assert!(!format!("{found:?}").contains("hunter2"));
    }

    #[test]
    fn mechanisms_require_their_credentials() {
        let need = |mechanism| {
            problems(|config| {
                config.security_protocol = SecurityProtocol::SaslSsl;
                config.sasl_mechanism = mechanism;
            })
        };
        assert_eq!(need(None).len(), 1);
        assert_eq!(need(Some(SaslMechanism::ScramSha512)).len(), 2);
        assert_eq!(need(Some(SaslMechanism::OAuthBearer)), Vec::<String>::new());
    }

    #[test]
    fn unset_and_invalid_passwords_differ() {
        let problems_with = |password: &str| {
            problems(|config| {
                config.security_protocol = SecurityProtocol::SaslSsl;
                config.sasl_mechanism = Some(SaslMechanism::Plain);
                config.sasl_username = "alice".to_owned();
                config.sasl_password = Some(Secret::new(password));
            })
        };
        assert!(problems_with("")[0].contains("sasl_password is unset or empty"));
        assert!(problems_with("hunter2\0")[0].contains("sasl_password contains a NUL"));
        assert_eq!(problems_with("hunter2"), Vec::<String>::new());
    }

    #[test]
    fn certificates_require_their_keys() {
        let found = problems(|config| {
            config.security_protocol = SecurityProtocol::Ssl;
            config.ssl_certificate_location = "me.pem".into();
        });
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("ssl_key_location is not set"), "{found:?}");
    }
}
