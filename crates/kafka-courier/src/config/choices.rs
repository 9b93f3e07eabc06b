//! Options with a fixed set of values.
//!
//! Rule: each value has one text, which is read in upper or lower case.

use std::fmt;

/// An option with a fixed set of names.
macro_rules! choice {
    ($(#[$meta:meta])+ $name:ident { $($(#[$item_meta:meta])+ $item:ident = $text:literal,)+ }) => {
        $(#[$meta])+
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$item_meta])+ $item,)+
        }

        impl $name {
            /// The text of each value.
            pub(super) const TEXTS: &'static [&'static str] = &[$($text),+];

            /// Returns the value with this text, in upper or lower case.
            pub(super) fn with_text(text: &str) -> Option<Self> {
                let mut known = [$(($text, Self::$item)),+].into_iter();
                known.find(|known| known.0.eq_ignore_ascii_case(text)).map(|known| known.1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$item => $text,)+
                })
            }
        }
    };
}

choice! {
    /// The protocol of connections to brokers.
    SecurityProtocol {
        /// Neither encryption nor authentication.
        Plaintext = "PLAINTEXT",
        /// TLS.
        Ssl = "SSL",
        /// SASL without encryption.
        SaslPlaintext = "SASL_PLAINTEXT",
        /// SASL over TLS.
        SaslSsl = "SASL_SSL",
    }
}

choice! {
    /// The SASL mechanism.
    SaslMechanism {
        /// The client sends the password itself. Only suitable over TLS.
        Plain = "PLAIN",
        /// SCRAM with SHA-256: both sides prove knowledge of the password.
        ScramSha256 = "SCRAM-SHA-256",
        /// SCRAM with SHA-512: both sides prove knowledge of the password.
        ScramSha512 = "SCRAM-SHA-512",
        /// The client sends a token.
        OAuthBearer = "OAUTHBEARER",
    }
}

choice! {
    /// The trusted certificate authorities if `ssl_ca_location` is empty.
    SslRoots {
        /// Mozilla's authorities at the time of the build.
        CompiledIn = "compiled-in",
        /// The authorities of the operating system.
        System = "system",
    }
}

choice! {
    /// The behaviour of a full spool.
    #[derive(Default)]
    SpoolFull {
        /// Publishing fails before the event is accepted.
        #[default]
        Refuse = "refuse",
        /// Publishing waits for room, up to `max_block`.
        Block = "block",
    }
}

choice! {
    /// The timestamps of events that have waited in a spool for long.
    #[derive(Default)]
    SpoolOldTimestamps {
        /// The events get the time at which they are sent.
        #[default]
        Renew = "renew",
        /// The events keep their timestamps.
        Keep = "keep",
    }
}

choice! {
    /// The fate of events of a spool of which nothing can show whether Kafka has them.
    #[derive(Default)]
    SpoolDoubt {
        /// They become dead letters with the outcome unknown.
        #[default]
        DeadLetter = "dead_letter",
        /// Their partition waits until something shows it.
        Hold = "hold",
        /// They are sent again, and may be in the log twice.
        Resend = "resend",
    }
}

choice! {
    /// The compression of batches.
    #[derive(Default)]
    Compression {
        /// No compression.
        None = "none",
        /// Snappy.
        #[default]
        Snappy = "snappy",
    }
}

impl SecurityProtocol {
    pub(super) const fn has_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    pub(super) const fn has_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}
