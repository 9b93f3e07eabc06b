//! The kind of key in a private key or a certificate (RFC 5280, 5480, 5915, 5958, 8017). Errors name it.
//!
//! Rules: pure. Nothing here decides about trust. Input that is not understood is `None`, and is left to rustls.

use std::fmt;

use rustls::pki_types::PrivateKeyDer;

/// The RSA key sizes, in bits, whose signatures can be verified.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// The supported keys, for errors.
pub(super) const USABLE: &str = "RSA of 2048, 3072 or 4096 bits, ECDSA on P-256 or P-384, or Ed25519";

/// A kind of key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in super::super) enum KeyKind {
    /// RSA, with the modulus size in bits.
    Rsa(usize),
    /// Any other kind, by name.
    Named(&'static str),
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rsa(bits) => write!(f, "RSA of {bits} bits"),
            Self::Named(name) => f.write_str(name),
        }
    }
}

const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";

/// Object identifiers of curves, and of key types that name a curve themselves.
const CURVES: &[(&[u8], &str)] = &[
    (b"\x2a\x86\x48\xce\x3d\x03\x01\x07", "ECDSA on P-256"),
    (b"\x2b\x81\x04\x00\x22", "ECDSA on P-384"),
    (b"\x2b\x81\x04\x00\x23", "ECDSA on P-521"),
    (b"\x2b\x81\x04\x00\x0a", "ECDSA on secp256k1"),
    (b"\x2b\x65\x70", "Ed25519"),
    (b"\x2b\x65\x71", "Ed448"),
    (b"\x2a\x86\x48\xce\x38\x04\x01", "DSA"),
];

impl KeyKind {
    /// Returns the kind of a private key.
    pub(super) fn of_private(key: &PrivateKeyDer<'_>) -> Option<Self> {
        match key {
            PrivateKeyDer::Pkcs1(key) => rsa(key.secret_pkcs1_der(), 1),
            PrivateKeyDer::Sec1(key) => {
                let mut fields = DerFields(DerFields(key.secret_sec1_der()).next()?);
                let (_, _) = (fields.next()?, fields.next()?);
                curve(DerFields(fields.next()?).next()?)
            }
            PrivateKeyDer::Pkcs8(key) => {
                let mut fields = DerFields(DerFields(key.secret_pkcs8_der()).next()?);
                let (_, algorithm, key) = (fields.next()?, fields.next()?, fields.next()?);
                of_algorithm(algorithm, || rsa(key, 1))
            }
            _ => None,
        }
    }

    /// Returns the kind of a certificate's public key.
    pub(super) fn of_certificate(certificate: &[u8]) -> Option<Self> {
        let mut fields = DerFields(DerFields(DerFields(certificate).next()?).next()?);
        // Certificates of version 1 leave out the version field.
        let skipped = if fields.0.first() == Some(&0xa0) { 6 } else { 5 };
        for _ in 0..skipped {
            fields.next()?;
        }
        let mut key = DerFields(fields.next()?);
        let (algorithm, bits) = (key.next()?, key.next()?);
        of_algorithm(algorithm, || rsa(bits.get(1..)?, 0))
    }

    /// Returns whether signatures of this kind of key can be verified.
    pub(super) fn is_verifiable(self) -> bool {
        match self {
            Self::Rsa(bits) => RSA_BITS.contains(&bits),
            Self::Named(name) => matches!(name, "ECDSA on P-256" | "ECDSA on P-384" | "Ed25519"),
        }
    }
}

fn of_algorithm(algorithm: &[u8], rsa: impl FnOnce() -> Option<KeyKind>) -> Option<KeyKind> {
    let mut fields = DerFields(algorithm);
    match fields.next()? {
        RSA => rsa(),
        EC => curve(fields.next()?),
        other => curve(other),
    }
}

fn curve(identifier: &[u8]) -> Option<KeyKind> {
    CURVES.iter().find(|known| known.0 == identifier).map(|known| KeyKind::Named(known.1))
}

/// Returns the size of the modulus, which follows `before` fields in an RSA key.
fn rsa(key: &[u8], before: usize) -> Option<KeyKind> {
    let mut fields = DerFields(DerFields(key).next()?);
    for _ in 0..before {
        fields.next()?;
    }
    let modulus = fields.next()?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    Some(KeyKind::Rsa((modulus.len() - zeros) * 8 - first.leading_zeros() as usize))
}

/// The contents of consecutive DER values.
struct DerFields<'a>(&'a [u8]);

impl<'a> Iterator for DerFields<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (_, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x84 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};

    use super::*;

    fn file(name: &str) -> String {
        format!("{}/../kafka-courier/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
    }

    #[test]
    fn keys_and_certificates_agree() {
        for (certificate, key, expected) in [
            ("client.pem", "client-pkcs8.pem", KeyKind::Named("ECDSA on P-256")),
            ("client.pem", "client-sec1.pem", KeyKind::Named("ECDSA on P-256")),
            ("client-rsa.pem", "client-rsa-pkcs1.pem", KeyKind::Rsa(2048)),
            ("client-rsa1024.pem", "client-rsa1024-key.pem", KeyKind::Rsa(1024)),
            ("client-rsa2200.pem", "client-rsa2200-key.pem", KeyKind::Rsa(2200)),
            ("client-p521.pem", "client-p521-key.pem", KeyKind::Named("ECDSA on P-521")),
        ] {
            let der = CertificateDer::from_pem_file(file(certificate)).unwrap();
            assert_eq!(KeyKind::of_certificate(&der), Some(expected), "{certificate}");
            let der = PrivateKeyDer::from_pem_file(file(key)).unwrap();
            assert_eq!(KeyKind::of_private(&der), Some(expected), "{key}");
        }
    }

    #[test]
    fn invalid_der_has_no_kind() {
        let der = CertificateDer::from_pem_file(file("client.pem")).unwrap();
        for length in 0..der.len() {
            let _ = KeyKind::of_certificate(&der[..length]);
        }
        assert_eq!(KeyKind::of_certificate(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
        assert_eq!(KeyKind::of_private(&PrivateKeyDer::Pkcs8(vec![0x30; 40].into())), None);
    }
}
