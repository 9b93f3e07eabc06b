//! Selects the cryptography provider, and checks that this CPU supports it.
//!
//! Rule: the CPU features that graviola needs are checked before its first use, because graviola panics without them.
//! ring replaces graviola if it was built in (feature `tls-ring`).

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

use super::setup_error::TlsSetupError;

/// Returns the provider for this CPU. The error names the missing features.
pub(in super::super) fn provider() -> Result<Arc<CryptoProvider>, TlsSetupError> {
    let missing = missing();
    preferred(&missing).or_else(fallback).map(Arc::new).ok_or(TlsSetupError::Cpu { missing })
}

#[cfg(feature = "tls-ring")]
fn fallback() -> Option<CryptoProvider> {
    Some(rustls::crypto::ring::default_provider())
}

#[cfg(not(feature = "tls-ring"))]
fn fallback() -> Option<CryptoProvider> {
    None
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
fn preferred(missing: &[&str]) -> Option<CryptoProvider> {
    missing.is_empty().then(rustls_graviola::default_provider)
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn preferred(_: &[&str]) -> Option<CryptoProvider> {
    None
}

/// Returns the missing features. graviola 0.4 checks for these, and panics without them.
#[cfg(target_arch = "x86_64")]
fn missing() -> Vec<&'static str> {
    let features = [
        ("adx", is_x86_feature_detected!("adx")),
        ("aes", is_x86_feature_detected!("aes")),
        ("avx", is_x86_feature_detected!("avx")),
        ("avx2", is_x86_feature_detected!("avx2")),
        ("bmi1", is_x86_feature_detected!("bmi1")),
        ("bmi2", is_x86_feature_detected!("bmi2")),
        ("pclmulqdq", is_x86_feature_detected!("pclmulqdq")),
        ("ssse3", is_x86_feature_detected!("ssse3")),
    ];
    features.into_iter().filter(|feature| !feature.1).map(|feature| feature.0).collect()
}

#[cfg(target_arch = "aarch64")]
fn missing() -> Vec<&'static str> {
    use std::arch::is_aarch64_feature_detected;
    let features = [
        ("aes", is_aarch64_feature_detected!("aes")),
        ("neon", is_aarch64_feature_detected!("neon")),
        ("pmull", is_aarch64_feature_detected!("pmull")),
        ("sha2", is_aarch64_feature_detected!("sha2")),
    ];
    features.into_iter().filter(|feature| !feature.1).map(|feature| feature.0).collect()
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn missing() -> Vec<&'static str> {
    vec!["x86_64 or aarch64"]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn feature_check_agrees_with_graviola() {
        assert_eq!(missing().is_empty(), graviola::util::is_cpu_supported());
    }

    #[test]
    fn missing_features_are_named() {
        let error = TlsSetupError::Cpu { missing: vec!["adx", "avx2"] }.to_string();
        assert!(error.contains("adx, avx2") && error.contains("tls-ring"), "{error}");
        assert!(preferred(&["adx"]).is_none());
    }
}
