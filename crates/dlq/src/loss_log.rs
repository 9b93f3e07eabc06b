//! Logs letters that a store drops. The log has each letter whole, so that no data is lost silently.

use crate::letter::Letter;

/// Logs letters that were dropped to make room.
pub(crate) fn dropped<'l>(store: &str, letters: impl IntoIterator<Item = &'l Letter>) {
    log(store, letters, "dead letter dropped to make room");
}

/// Logs letters that were dropped because of their age.
pub(crate) fn expired<'l>(store: &str, letters: impl IntoIterator<Item = &'l Letter>) {
    log(store, letters, "dead letter dropped because of its age");
}

fn log<'l>(store: &str, letters: impl IntoIterator<Item = &'l Letter>, message: &str) {
    for letter in letters {
        tracing::error!(store, id = %letter.id, topic = letter.topic, letter = letter_text(letter), "{message}");
    }
}

/// Returns the whole letter for a log line.
pub(crate) fn letter_text(letter: &Letter) -> String {
    match letter.to_json() {
        Ok(json) => String::from_utf8_lossy(&json).into_owned(),
        Err(error) => format!("{letter:?} ({error})"),
    }
}
