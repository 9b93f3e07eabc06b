//! Bytes that were altered: never a panic, never a letter that was not written.

use super::disk::Disk;
use super::{eager, letter, on, on_new_disk};
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

/// Whether it could be opened.
fn tried(image: Vec<u8>, letters: &[Letter], context: &str) -> bool {
    match on(&Disk::of(image), eager()) {
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
fn altered_bytes_give_an_error_or_letters_that_were_written() {
    let (image, letters) = image();
    let mut refused = 0;
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut altered = image.clone();
        for _ in 0..random.usize(1..8) {
            // Half of them where the header is.
            let offset = if random.bool() { random.usize(..512) } else { random.usize(..altered.len()) };
            altered[offset] = random.u8(..);
        }
        refused += usize::from(!tried(altered, &letters, &format!("seed {seed}")));
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_file_that_is_cut_off_is_refused_or_read_as_far_as_it_goes() {
    let (image, letters) = image();
    for length in (0..image.len()).step_by(image.len() / 97) {
        tried(image[..length].to_vec(), &letters, &format!("{length} bytes"));
    }
}

#[test]
fn bytes_altered_under_an_open_store_are_an_error_and_the_store_goes_on() {
    for seed in 0..40 {
        let disk = Disk::uncached();
        let store = on(&disk, eager()).unwrap();
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
