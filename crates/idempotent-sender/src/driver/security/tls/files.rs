//! The PEM files that TLS is set up from.
//!
//! Rules: an error names the option, the file and the remedy; private keys are overwritten once they were taken in.

use std::path::Path;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use super::super::{ClientCertificate, Roots, TlsSettings};

/// What the files hold.
pub(super) struct Files {
    pub(super) roots: RootCertStore,
    pub(super) client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

/// The state of the files: another state, other contents.
#[derive(PartialEq, Eq)]
pub(super) struct Stamp(Vec<Option<(SystemTime, u64, u64)>>);

impl Stamp {
    pub(super) fn of(settings: &TlsSettings) -> Self {
        let roots = match &settings.roots {
            Roots::File(path) => Some(path),
            Roots::CompiledIn | Roots::System => None,
        };
        let client = settings.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        Self(roots.into_iter().chain(client).map(|path| state_of(path)).collect())
    }
}

/// When it was changed, its length, and which file it is: a file that takes another's place may be older.
fn state_of(path: &Path) -> Option<(SystemTime, u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), number(&metadata)))
}

#[cfg(unix)]
fn number(metadata: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
fn number(_: &std::fs::Metadata) -> u64 {
    0
}

impl Files {
    /// Reads them all. Errors: everything that is wrong.
    pub(super) fn read(settings: &TlsSettings) -> Result<Self, Vec<String>> {
        let roots = roots(&settings.roots);
        let client = settings.client.as_ref().map(client).transpose();
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
            let (taken, _) = store.add_parsable_certificates(found.certs);
            if taken == 0 {
                let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(format!(
                    "ssl_roots is system, but this system has no certificate authorities{why}: set ssl_ca_location, or \
                     ssl_roots to compiled-in"
                ));
            }
        }
        Roots::File(path) => {
            for certificate in certificates("ssl_ca_location", path)? {
                store.add(certificate).map_err(|error| {
                    format!("ssl_ca_location: {} holds a certificate that can't be trusted: {error}", path.display())
                })?;
            }
        }
    }
    Ok(store)
}

fn client(client: &ClientCertificate) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    Ok((certificates("ssl_certificate_location", &client.certificate)?, private_key(&client.key)?))
}

fn read(option: &str, path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| format!("{option}: {}: {error}", path.display()))
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = read(option, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match found {
        Ok(list) if list.is_empty() => Err(format!("{option}: {} holds no certificate (PEM)", path.display())),
        Ok(list) => Ok(list),
        Err(error) => Err(format!("{option}: {} is no PEM file of certificates: {error}", path.display())),
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    let text = read("ssl_key_location", path)?;
    let name = path.display();
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        _ if is_encrypted(&text) => {
            format!("ssl_key_location: the key in {name} is encrypted: decrypt it (openssl pkey -in {name} -out ..)")
        }
        PemError::NoItemsFound => {
            format!("ssl_key_location: {name} holds no private key (PEM: PKCS#8, PKCS#1 or SEC1)")
        }
        error => format!("ssl_key_location: {name} is no PEM file of a private key: {error}"),
    })
}

fn is_encrypted(pem: &[u8]) -> bool {
    let holds = |words: &[u8]| pem.windows(words.len()).any(|window| window == words);
    holds(b"BEGIN ENCRYPTED PRIVATE KEY") || holds(b"Proc-Type: 4,ENCRYPTED")
}
