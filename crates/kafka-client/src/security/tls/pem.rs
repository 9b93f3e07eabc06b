//! PEM files (RFC 7468), and the errors of invalid ones.
//!
//! Rules:
//! - Pure: bytes in, sections or an error out.
//! - An error contains none of the file's text. Any file may hold a private key, whatever option names it.
//! - A damaged section is an error even if other sections are valid. A byte order mark is skipped.

use rustls::pki_types::pem::PemObject;
use zeroize::Zeroizing;

const BEGIN: &[u8] = b"-----BEGIN ";
const END: &[u8] = b"-----END ";
const DASHES: &[u8] = b"-----";
const UTF8_MARK: &[u8] = b"\xef\xbb\xbf";

/// One section: its label, and its normalized text.
pub(super) struct Section<'a> {
    label: &'a [u8],
    text: Zeroizing<Vec<u8>>,
}

/// Why a file is not a valid PEM file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(in super::super) enum PemError {
    #[error("the file is empty")]
    Empty,
    #[error("the file is UTF-16 text: save it as UTF-8")]
    Utf16,
    #[error("the file is DER or other binary data, not PEM: convert it with openssl (-inform DER)")]
    Binary,
    #[error("line breaks are written as \\n: replace each with a real line break, as printf '%b' does")]
    EscapedBreaks,
    #[error("it is all in one line: put the BEGIN line, the base64 and the END line on separate lines")]
    OneLine,
    #[error("no BEGIN line: copy the whole file again, from -----BEGIN to -----END and with both lines")]
    NoBegin,
    #[error("a BEGIN line is damaged: it starts the line and ends with five dashes; copy the file again")]
    BadBegin,
    #[error("no END line with the same label as the BEGIN line: the file is cut off or damaged, copy it again")]
    NoEnd,
    #[error("the base64 between BEGIN and END is damaged or cut off: copy the file again")]
    Base64,
    #[error("the key is encrypted: decrypt it with openssl pkey -in FILE -out NEW_FILE, and name the new file")]
    Encrypted,
    #[error("it holds {0}")]
    Other(&'static str),
}

/// Known labels, each with a description and the remedy when another kind is wanted.
const KNOWN: &[(&[u8], &str)] = &[
    (b"CERTIFICATE", "a certificate: name the file of the key, which has PRIVATE KEY in its BEGIN line"),
    (b"PRIVATE KEY", "a private key: name the file that has CERTIFICATE in its BEGIN line"),
    (b"RSA PRIVATE KEY", "a private key: name the file that has CERTIFICATE in its BEGIN line"),
    (b"EC PRIVATE KEY", "a private key: name the file that has CERTIFICATE in its BEGIN line"),
    (b"ENCRYPTED PRIVATE KEY", "a private key: name the file that has CERTIFICATE in its BEGIN line"),
    (b"PUBLIC KEY", "a public key"),
    (b"CERTIFICATE REQUEST", "a request for a certificate: have it signed, and name the signed certificate"),
    (b"OPENSSH PRIVATE KEY", "a key of OpenSSH: convert it with ssh-keygen -p -m PKCS8 -f FILE"),
    (b"DSA PRIVATE KEY", "a DSA key: use RSA, ECDSA on P-256 or P-384, or Ed25519"),
];

/// Returns all sections of a file.
pub(super) fn sections(file: &[u8]) -> Result<Vec<Section<'_>>, PemError> {
    if file.iter().all(u8::is_ascii_whitespace) {
        return Err(PemError::Empty);
    }
    if is_utf16(file) {
        return Err(PemError::Utf16);
    }
    let mut found = Vec::new();
    let mut open: Option<Section<'_>> = None;
    for line in file.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let line = line.strip_prefix(UTF8_MARK).unwrap_or(line).trim_ascii();
        if contains(line, BEGIN) {
            if open.is_some() {
                return Err(PemError::NoEnd);
            }
            open = Some(Section::begin(line)?);
        } else if let Some(rest) = line.strip_prefix(END) {
            let section = open.take().ok_or(PemError::NoBegin)?;
            found.push(section.end(rest)?);
        } else if let Some(section) = &mut open {
            section.push(line);
        }
    }
    match (open, found.is_empty()) {
        (Some(_), _) => Err(PemError::NoEnd),
        (None, false) => Ok(found),
        (None, true) => Err(if is_binary(file) { PemError::Binary } else { PemError::NoBegin }),
    }
}

impl<'a> Section<'a> {
    fn begin(line: &'a [u8]) -> Result<Self, PemError> {
        if contains(line, b"\\n") {
            return Err(PemError::EscapedBreaks);
        }
        let rest = line.strip_prefix(BEGIN);
        match rest.and_then(|rest| rest.strip_suffix(DASHES)).filter(|label| !contains(label, DASHES)) {
            Some(label) => Ok(Self { label, text: Zeroizing::new([line, b"\n"].concat()) }),
            // The base64 follows in the same line, after the label and its dashes.
            None if contains(line, END) || rest.is_some_and(|rest| contains(rest, DASHES)) => Err(PemError::OneLine),
            None => Err(PemError::BadBegin),
        }
    }

    fn push(&mut self, line: &[u8]) {
        self.text.extend_from_slice(line);
        self.text.push(b'\n');
    }

    /// Closes the section. `rest` is the part of the END line after the word END.
    fn end(mut self, rest: &[u8]) -> Result<Self, PemError> {
        if rest.strip_suffix(DASHES) != Some(self.label) {
            return Err(PemError::NoEnd);
        }
        self.text.extend_from_slice(END);
        self.push(rest);
        Ok(self)
    }

    fn is_encrypted(&self) -> bool {
        self.label == b"ENCRYPTED PRIVATE KEY" || contains(&self.text, b"Proc-Type: 4,ENCRYPTED")
    }

    /// Returns the object in this section, if it is of kind `T`.
    fn object<T: PemObject>(&self) -> Result<Option<T>, PemError> {
        // The parser's error is dropped, because it contains the file's bytes.
        T::pem_slice_iter(&self.text).next().transpose().map_err(|_| PemError::Base64)
    }
}

/// Returns all objects of kind `T` in a file, at least one.
pub(super) fn objects<T: PemObject>(file: &[u8], wants_key: bool) -> Result<Vec<T>, PemError> {
    let sections = sections(file)?;
    if wants_key && sections.iter().any(Section::is_encrypted) {
        return Err(PemError::Encrypted);
    }
    let found: Result<Vec<Option<T>>, PemError> = sections.iter().map(Section::object).collect();
    let found: Vec<T> = found?.into_iter().flatten().collect();
    if found.is_empty() { Err(PemError::Other(named(&sections))) } else { Ok(found) }
}

/// Describes the first known section of a file that holds no wanted section.
fn named(sections: &[Section<'_>]) -> &'static str {
    let known = sections.iter().find_map(|section| KNOWN.iter().find(|(label, _)| *label == section.label));
    known.map_or("sections of other kinds: name another file", |(_, what)| what)
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// Returns whether the text begins with a UTF-16 byte order mark, or has a NUL beside each character.
fn is_utf16(file: &[u8]) -> bool {
    file.starts_with(b"\xff\xfe")
        || file.starts_with(b"\xfe\xff")
        || contains(file, b"B\0E\0G\0I\0N")
        || contains(file, b"\0-\0-\0-")
}

fn is_binary(file: &[u8]) -> bool {
    std::str::from_utf8(file).is_err() || file.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(file: &[u8]) -> Option<PemError> {
        sections(file).err()
    }

    #[test]
    fn damage_is_named_by_kind() {
        for (file, expected) in [
            (&b""[..], PemError::Empty),
            (b" \r\n", PemError::Empty),
            (b"\xff\xfe-\0-\0", PemError::Utf16),
            (b"\0-\0-\0-\0-\0-\0B", PemError::Utf16),
            (b"0\x82\x01\x00\xff", PemError::Binary),
            (b"MIIB", PemError::NoBegin),
            (b"-----END A-----", PemError::NoBegin),
            (b"-----BEGIN A-----\\nMIIB\\n-----END A-----", PemError::EscapedBreaks),
            (b"-----BEGIN A-----MIIB-----END A-----", PemError::OneLine),
            (b"-----BEGIN A----- MIIB", PemError::OneLine),
            (b"-----BEGIN A----\nMIIB\n-----END A-----", PemError::BadBegin),
            (b"x -----BEGIN A-----\nMIIB\n-----END A-----", PemError::BadBegin),
            (b"-----BEGIN A-----\nMIIB\n", PemError::NoEnd),
            (b"-----BEGIN A-----\nMIIB\n-----END B-----", PemError::NoEnd),
            (b"-----BEGIN A-----\nMIIB\n-----BEGIN A-----\n", PemError::NoEnd),
        ] {
            assert_eq!(error(file), Some(expected), "{}", String::from_utf8_lossy(file));
        }
    }

    #[test]
    fn marks_and_indents_are_skipped() {
        for file in [
            "\u{feff}-----BEGIN A-----\nMIIB\n-----END A-----\n",
            "words\r\n  -----BEGIN A-----  \r\n  MIIB\r\n-----END A-----",
            "-----BEGIN A-----\rMIIB\r-----END A-----\r",
        ] {
            assert_eq!(sections(file.as_bytes()).map(|found| found.len()), Ok(1), "{file}");
        }
    }
}
