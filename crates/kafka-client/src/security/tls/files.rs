//! The PEM files of TLS.
//!
//! Rules:
//! - An error names the option, the file and the remedy. It contains no parser's error, because those show the file's
//!   bytes.
//! - Private keys are overwritten in memory after use.
//! - A key signs once when it is read. A key that can't sign fails then, not at each handshake.

use std::io::Read as _;
use std::path::Path;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use super::keys::{KeyKind, USABLE};
use super::pem::{self, PemError};
use crate::secret::shown_path;
use crate::security::settings::{ClientCertificate, Roots, TlsSettings};

/// The largest file of certificates or of a key, in bytes.
const LARGEST: u64 = 8 << 20;

/// The contents of the files.
pub(super) struct TlsFiles {
    pub(super) roots: RootCertStore,
    pub(super) client: Option<CertifiedKey>,
}

/// The state of the files on disk. Another state means other contents.
#[derive(PartialEq, Eq)]
pub(super) struct FileStates(Vec<Option<(SystemTime, u64, u64)>>);

impl FileStates {
    pub(super) fn of(settings: &TlsSettings) -> Self {
        let roots = match &settings.roots {
            Roots::File(path) => Some(path),
            Roots::CompiledIn | Roots::System => None,
        };
        let client = settings.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        Self(roots.into_iter().chain(client).map(|path| file_state(path)).collect())
    }
}

/// Returns the modification time, the length and the inode. A file that replaces another one may be older.
fn file_state(path: &Path) -> Option<(SystemTime, u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), inode(&metadata)))
}

#[cfg(unix)]
fn inode(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

impl TlsFiles {
    /// Reads all files.
    ///
    /// # Errors
    ///
    /// Returns each error.
    pub(super) fn read(settings: &TlsSettings, provider: &CryptoProvider) -> Result<Self, Vec<String>> {
        let roots = roots(&settings.roots);
        let client = settings.client.as_ref().map(|files| client(files, provider)).transpose();
        match (roots, client) {
            (Ok(roots), Ok(client)) => Ok(Self { roots, client }),
            (roots, client) => Err(roots.err().into_iter().chain(client.err()).collect()),
        }
    }
}

fn roots(roots: &Roots) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::CompiledIn => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                let why = found.errors.first().map(native_roots_error).unwrap_or_default();
                return Err(format!(
                    "ssl_roots is system, but this system has no certificate authorities{why}: set ssl_ca_location, \
                     or ssl_roots to compiled-in"
                ));
            }
        }
        Roots::File(path) => {
            for certificate in certificates("ssl_ca_location", path)? {
                store.add(certificate).map_err(|_| unreadable("ssl_ca_location", path))?;
            }
        }
    }
    Ok(store)
}

/// Describes why the system's authorities are missing. The parser's error is left out, because the file may hold a
/// key.
fn native_roots_error(error: &rustls_native_certs::Error) -> String {
    use rustls_native_certs::ErrorKind;
    match &error.kind {
        ErrorKind::Io { inner, path } => format!(" ({}: {inner}: {})", error.context, shown_path(path)),
        _ => format!(" ({})", error.context),
    }
}

fn unreadable(option: &str, path: &Path) -> String {
    format!("{option}: {} holds a certificate that can't be read: copy the file again", shown_path(path))
}

fn client(client: &ClientCertificate, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = certificates("ssl_certificate_location", &client.certificate)?;
    let key = private_key(&client.key)?;
    let name = shown_path(&client.key);
    let kind = KeyKind::of_private(&key);
    let named = kind.map_or_else(|| "of an unknown kind".to_owned(), |kind| kind.to_string());
    let key =
        provider.key_provider.load_private_key(key).map_err(|_| match kind.filter(|kind| kind.is_verifiable()) {
            Some(kind) => format!("ssl_key_location: the key in {name} ({kind}) is damaged: copy the file again"),
            None => format!("ssl_key_location: the key in {name} is {named}, which can't be used: use {USABLE}"),
        })?;
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let signed = key.choose_scheme(&schemes).is_some_and(|signer| signer.sign(b"kafka-courier").is_ok());
    if !signed {
        return Err(format!("ssl_key_location: the key in {name} is {named}, which can't sign here: use {USABLE}"));
    }
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(TlsError::InconsistentKeys(_)) => Err(mismatch(client, &certified)),
        Err(_) => Err(unreadable("ssl_certificate_location", &client.certificate)),
    }
}

/// Describes a key that does not belong to the first certificate. The right certificate is further down, or in
/// another file.
fn mismatch(client: &ClientCertificate, certified: &CertifiedKey) -> String {
    let (key, file) = (shown_path(&client.key), shown_path(&client.certificate));
    let is_of_key = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], certified.key.clone()).keys_match().is_ok()
    };
    match certified.cert.iter().position(is_of_key) {
        Some(place) => format!(
            "ssl_certificate_location: the certificates in {file} are in the wrong order: the certificate of the key \
             {key} is number {}: put it first, then its issuer's, and so on",
            place + 1
        ),
        None => format!(
            "ssl_key_location: {key} is not the key of the certificate in {file}: name that certificate's key, or \
             the key's certificate"
        ),
    }
}

fn read(option: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let failed = |error: std::io::Error| format!("{option}: {}: {error}", shown_path(path));
    let file = std::fs::File::open(path).map_err(failed)?;
    // The buffer has room for the whole file. A buffer that grows leaves copies behind.
    let length = file.metadata().map_err(failed)?.len().min(LARGEST);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 64));
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        return Err(format!("{option}: {} is larger than {LARGEST} bytes: name a PEM file", shown_path(path)));
    }
    Ok(bytes)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    objects(option, path, "certificate", false)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let keys = objects("ssl_key_location", path, "private key", true)?;
    keys.into_iter().next().ok_or_else(|| format!("ssl_key_location: {} holds no private key", shown_path(path)))
}

fn objects<T: PemObject>(option: &str, path: &Path, what: &str, wants_key: bool) -> Result<Vec<T>, String> {
    let file = read(option, path)?;
    pem::objects(&file, wants_key).map_err(|error| {
        let lead =
            if error == PemError::Encrypted { "no private key that can be used" } else { &*format!("no {what}") };
        format!("{option}: {} holds {lead}: {error}", shown_path(path))
    })
}
