//! Decompression of a body that arrives in parts.
//!
//! Rule: a step reads at most 1 KiB and yields at most about a MiB (gzip's ratio is at most 1032), so the caller's limit is
//! exceeded by no more than that.

use std::io::{self, Write as _};

use flate2::write::MultiGzDecoder;

/// The compressed bytes of one step.
const STEP: usize = 1024;

/// Decompresses gzip (RFC 1952), members one after another.
pub(crate) struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    has_input: bool,
}

impl std::fmt::Debug for Gunzip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gunzip").finish_non_exhaustive()
    }
}

impl Gunzip {
    pub(crate) fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), has_input: false }
    }

    /// Splits compressed bytes into steps.
    pub(crate) fn steps(compressed: &[u8]) -> impl Iterator<Item = &[u8]> {
        compressed.chunks(STEP)
    }

    /// Decompresses one step, and returns the bytes that became known.
    ///
    /// # Errors
    ///
    /// The bytes are not gzip.
    pub(crate) fn push(&mut self, step: &[u8]) -> io::Result<Vec<u8>> {
        self.has_input |= !step.is_empty();
        self.decoder.write_all(step)?;
        Ok(std::mem::take(self.decoder.get_mut()))
    }

    /// Ends the body, and returns the last bytes.
    ///
    /// # Errors
    ///
    /// The body ends within a member.
    pub(crate) fn end(&mut self) -> io::Result<Vec<u8>> {
        if !self.has_input {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.decoder.try_finish()?;
        Ok(std::mem::take(self.decoder.get_mut()))
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn gunzip(compressed: &[u8]) -> io::Result<Vec<u8>> {
        let (mut gunzip, mut all) = (Gunzip::new(), Vec::new());
        for step in Gunzip::steps(compressed) {
            all.extend(gunzip.push(step)?);
        }
        all.extend(gunzip.end()?);
        Ok(all)
    }

    #[test]
    fn members_are_joined() {
        let mut both = gzip(b"one ");
        both.extend(gzip(b"two"));
        assert_eq!(gunzip(&both).unwrap(), b"one two");
    }

    #[test]
    fn damaged_bodies_are_refused() {
        let whole = gzip(&b"text ".repeat(1000));
        assert!(gunzip(&whole[..whole.len() - 1]).is_err());
        assert!(gunzip(b"plain text").is_err() && gunzip(b"").is_err());
    }

    #[test]
    fn step_is_bounded() {
        let bomb = gzip(&vec![0; 64 << 20]);
        let mut gunzip = Gunzip::new();
        let largest = Gunzip::steps(&bomb).map(|step| gunzip.push(step).unwrap().len()).max();
        assert!(largest < Some(2 << 20), "{largest:?}");
    }
}
