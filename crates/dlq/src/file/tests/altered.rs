//! Altered bytes cause no panic, and give no letter that was not written.

use super::disk::Disk;
use super::{letter, on_new_disk, open_disk, without_pause};
use crate::file::OpenError;
use crate::letter::Letter;
use crate::limits::Limits;
use crate::store::DeadLetterStore;

fn image() -> (Vec<u8>, Vec<Letter>) {
    let (disk, store) = on_new_disk(Limits::default());
    let letters: Vec<Letter> = (0..60).map(|n| letter(n, n * 20)).collect();
    letters.chunks(7).for_each(|chunk| _ = store.append(chunk).unwrap());
    drop(store);
    (disk.image(), letters)
}

/// Opens the image, and checks its letters. Returns whether it could be opened.
fn is_opened(image: Vec<u8>, letters: &[Letter], context: &str) -> bool {
    match open_disk(&Disk::of(image), without_pause()) {
        Ok(store) => {
            let page = store.scan(None, 1000).unwrap_or_default();
            assert!(page.iter().all(|held| letters.contains(&held.letter)), "{context}");
            let _ = store.append(&[letter("one more", 1)]);
            true
        }
        Err(error) => {
            let expected = matches!(
                error,
                OpenError::Damaged { .. }
                    | OpenError::NotAStore { .. }
                    | OpenError::Io { .. }
                    | OpenError::Version { .. }
            );
            assert!(expected, "{context}: {error}");
            false
        }
    }
}

#[test]
fn altered_file_gives_no_other_letters() {
    let (image, letters) = image();
    let mut refused = 0;
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut altered = image.clone();
        for _ in 0..random.usize(1..8) {
            // Half of the changes are in the header.
            let offset = if random.bool() { random.usize(..512) } else { random.usize(..altered.len()) };
            altered[offset] = random.u8(..);
        }
        refused += usize::from(!is_opened(altered, &letters, &format!("seed {seed}")));
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn truncated_file_gives_no_other_letters() {
    let (image, letters) = image();
    for length in (0..image.len()).step_by(image.len() / 97) {
        is_opened(image[..length].to_vec(), &letters, &format!("{length} bytes"));
    }
}

#[test]
fn open_store_survives_altered_bytes() {
    for seed in 0..40 {
        let disk = Disk::uncached();
        let store = open_disk(&disk, without_pause()).unwrap();
        let letters: Vec<Letter> = (0..400).map(|n| letter(n, 900)).collect();
        store.append(&letters).unwrap();
        disk.alter(seed);
        for _ in 0..3 {
            if let Ok(page) = store.scan(None, 1000) {
                assert!(page.iter().all(|held| letters.contains(&held.letter)), "seed {seed}");
            }
            let _ = store.append(&[letters[0].clone()]);
        }
    }
}
