//! Letters that leave a store for good without having been sent again: said whole in the log, so that nothing is lost
//! in silence.

use crate::letter::Letter;

/// Said of letters that were dropped to make room.
pub(crate) fn dropped<'l>(store: &str, letters: impl IntoIterator<Item = &'l Letter>) {
    say(store, letters, "a dead letter was dropped to make room");
}

/// Said of letters that were dropped because of their age.
pub(crate) fn expired<'l>(store: &str, letters: impl IntoIterator<Item = &'l Letter>) {
    say(store, letters, "a dead letter was dropped because of its age");
}

fn say<'l>(store: &str, letters: impl IntoIterator<Item = &'l Letter>, what: &str) {
    for letter in letters {
        tracing::error!(store, id = %letter.id, topic = letter.topic, letter = whole(letter), "{what}");
    }
}

/// The whole letter for a log line.
pub(crate) fn whole(letter: &Letter) -> String {
    match letter.to_json() {
        Ok(json) => String::from_utf8_lossy(&json).into_owned(),
        Err(error) => format!("{letter:?} ({error})"),
    }
}
