//! The PEM files of TLS.
//!
//! Rules:
//! - An error names the option, the file and the remedy. It contains no parser's error, because those show the file's
//!   bytes.
//! - Private keys are overwritten in memory after use.
//! - A key signs once when it is read. A key that can't sign fails then, not at each handshake.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error as TlsError, InconsistentKeys, RootCertStore};
use zeroize::Zeroizing;

use super::keys::KeyKind;
use super::pem;
use super::setup_error::{TlsFileProblem, TlsSetupError};
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
    pub(super) fn read(settings: &TlsSettings, provider: &CryptoProvider) -> Result<Self, Vec<TlsSetupError>> {
        let roots = roots(&settings.roots);
        let client = settings.client.as_ref().map(|files| client(files, provider)).transpose();
        match (roots, client) {
            (Ok(roots), Ok(client)) => Ok(Self { roots, client }),
            (roots, client) => Err(roots.err().into_iter().chain(client.err().into_iter().flatten()).collect()),
        }
    }
}

fn roots(roots: &Roots) -> Result<RootCertStore, TlsSetupError> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::CompiledIn => store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Roots::System => {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = store.add_parsable_certificates(found.certs);
            if added == 0 {
                return Err(TlsSetupError::NoSystemRoots { reason: found.errors.first().map(native_roots_error) });
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
        ErrorKind::Io { inner, path } => format!("{}: {inner}: {}", error.context, shown_path(path)),
        _ => error.context.to_owned(),
    }
}

fn unreadable(option: &'static str, path: &Path) -> TlsSetupError {
    TlsSetupError::File { option, problem: TlsFileProblem::Certificate { path: shown_path(path) } }
}

fn key_error(problem: TlsFileProblem) -> TlsSetupError {
    TlsSetupError::File { option: "ssl_key_location", problem }
}

fn client(client: &ClientCertificate, provider: &CryptoProvider) -> Result<CertifiedKey, Vec<TlsSetupError>> {
    let chain = certificates("ssl_certificate_location", &client.certificate);
    match (chain, signing_key(&client.key, provider)) {
        (Ok(chain), Ok(key)) => certified(client, chain, key).map_err(|error| vec![error]),
        (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
    }
}

fn signing_key(file: &Path, provider: &CryptoProvider) -> Result<Arc<dyn SigningKey>, TlsSetupError> {
    let key = private_key(file)?;
    let path = || shown_path(file);
    let kind = KeyKind::of_private(&key);
    let key = provider.key_provider.load_private_key(key).map_err(|_| {
        key_error(match kind.filter(|kind| kind.is_verifiable()) {
            Some(kind) => TlsFileProblem::DamagedKey { path: path(), kind },
            None => TlsFileProblem::UnusableKey { path: path(), kind },
        })
    })?;
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let signed = key.choose_scheme(&schemes).is_some_and(|signer| signer.sign(b"kafka-courier").is_ok());
    if !signed {
        return Err(key_error(TlsFileProblem::UnableToSign { path: path(), kind }));
    }
    Ok(key)
}

/// Checks that the key belongs to the first certificate.
fn certified(
    client: &ClientCertificate,
    chain: Vec<CertificateDer<'static>>,
    key: Arc<dyn SigningKey>,
) -> Result<CertifiedKey, TlsSetupError> {
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(TlsError::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        Err(TlsError::InconsistentKeys(_)) => Err(mismatch(client, &certified)),
        Err(_) => Err(unreadable("ssl_certificate_location", &client.certificate)),
    }
}

/// Returns the error of a key that does not belong to the first certificate. The right certificate is further down, or
/// in another file.
fn mismatch(client: &ClientCertificate, certified: &CertifiedKey) -> TlsSetupError {
    let (key, file) = (shown_path(&client.key), shown_path(&client.certificate));
    let is_of_key = |certificate: &CertificateDer<'static>| {
        CertifiedKey::new(vec![certificate.clone()], certified.key.clone()).keys_match().is_ok()
    };
    match certified.cert.iter().position(is_of_key) {
        Some(index) => TlsSetupError::File {
            option: "ssl_certificate_location",
            problem: TlsFileProblem::WrongOrder { path: file, key, number: index + 1 },
        },
        None => key_error(TlsFileProblem::OtherKey { path: key, certificate: file }),
    }
}

fn read(option: &'static str, path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsSetupError> {
    let failed = |error: std::io::Error| TlsSetupError::unreadable(option, shown_path(path), &error);
    let file = std::fs::File::open(path).map_err(failed)?;
    // The buffer has room for the whole file. A buffer that grows leaves copies behind.
    let length = file.metadata().map_err(failed)?.len().min(LARGEST);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 64));
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST {
        let problem = TlsFileProblem::TooLarge { path: shown_path(path), max: LARGEST };
        return Err(TlsSetupError::File { option, problem });
    }
    Ok(bytes)
}

fn certificates(option: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsSetupError> {
    objects(option, path, false)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsSetupError> {
    let keys = objects("ssl_key_location", path, true)?;
    keys.into_iter().next().ok_or_else(|| key_error(TlsFileProblem::NoKey { path: shown_path(path) }))
}

fn objects<T: PemObject>(option: &'static str, path: &Path, wants_key: bool) -> Result<Vec<T>, TlsSetupError> {
    let file = read(option, path)?;
    pem::objects(&file, wants_key).map_err(|error| {
        let problem = TlsFileProblem::Pem { path: shown_path(path), wants_key, error };
        TlsSetupError::File { option, problem }
    })
}
