//! The names in a client's certificate.
//!
//! Rules:
//! - The certificate was verified before: its names are those that its authority has signed.
//! - The subject is read with a small reader of DER, because no library in use has its common name. It fails on every length that
//!   does not fit.

use rustls::pki_types::CertificateDer;

/// The object identifier of a common name, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const OBJECT_IDENTIFIER: u8 = 0x06;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// UTF8String, PrintableString, TeletexString and IA5String.
const TEXTS: [u8; 4] = [0x0c, 0x13, 0x14, 0x16];

/// The names in a client's certificate: DNS names and URIs of the subject alternative name, then common names of the subject.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateNames(Vec<String>);

impl CertificateNames {
    /// Reads the names of a verified certificate. `None` if it has none.
    pub fn read(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
        let alternatives = parsed.valid_dns_names().chain(parsed.valid_uri_names()).map(str::to_owned);
        Self::new(alternatives.chain(common_names(parsed.subject()).unwrap_or_default()))
    }

    fn new(names: impl Iterator<Item = String>) -> Option<Self> {
        let names: Vec<String> = names.filter(|name| !name.is_empty()).collect();
        (!names.is_empty()).then_some(Self(names))
    }

    /// Returns whether the certificate has this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// Returns the first name.
    pub fn first(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }
}

/// Returns the common names of a subject, which is the content of its outer sequence. `None` if the subject is not DER.
fn common_names(mut subject: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !subject.is_empty() {
        let mut attributes;
        (attributes, subject) = element(subject, SET)?;
        while !attributes.is_empty() {
            let attribute;
            (attribute, attributes) = element(attributes, SEQUENCE)?;
            let (identifier, value) = element(attribute, OBJECT_IDENTIFIER)?;
            let (tag, text, _) = any_element(value)?;
            if identifier == COMMON_NAME && TEXTS.contains(&tag) {
                names.extend(std::str::from_utf8(text).ok().map(str::to_owned));
            }
        }
    }
    Some(names)
}

/// Returns the content of the first element, which must have this tag, and the rest.
fn element(input: &[u8], expected: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = any_element(input)?;
    (tag == expected).then_some((content, rest))
}

/// Returns tag and content of the first element, and the rest.
fn any_element(input: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = input.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // Up to three bytes of length: no subject is longer.
        0x81..=0x83 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::pem::PemObject;

    use super::*;

    fn pem(name: &str) -> CertificateDer<'static> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../kafka-courier/tests/tls/");
        CertificateDer::from_pem_file(format!("{folder}{name}")).unwrap()
    }

    #[test]
    fn names_of_certificates_are_read() {
        let client = CertificateNames::read(&pem("client.pem")).unwrap();
        assert_eq!(client.first(), "client");
        let server = CertificateNames::read(&pem("server.pem")).unwrap();
        assert_eq!(server.first(), "localhost", "alternative names precede the common name");
        assert!(server.has("server") && !server.has("127.0.0.1"));
    }

    #[test]
    fn several_attributes_are_read() {
        // O=x, CN=a + CN=b as one set, and a CN of another string type.
        let subject = [
            &[0x31, 10, 0x30, 8, 6, 3, 0x55, 4, 10, 0x0c, 1, b'x'][..],
            &[0x31, 20, 0x30, 8, 6, 3, 0x55, 4, 3, 0x0c, 1, b'a', 0x30, 8, 6, 3, 0x55, 4, 3, 0x13, 1, b'b'],
            &[0x31, 0x81, 11, 0x30, 9, 6, 3, 0x55, 4, 3, 0x1e, 2, 0, b'c'],
        ]
        .concat();
        assert_eq!(common_names(&subject), Some(vec!["a".to_owned(), "b".to_owned()]));
        for cut in 1..subject.len() {
            let cut = common_names(&subject[..cut]);
            assert!(cut.is_none_or(|names| names.len() <= 2));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(subject in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = common_names(&subject);
        }
    }
}
