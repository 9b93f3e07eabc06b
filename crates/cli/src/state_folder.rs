//! The default path of the dead-letter file.

use std::path::PathBuf;

/// Returns the path of `dead-letters.redb` in `$XDG_STATE_HOME/kafka-courier`, which is `~/.local/state/kafka-courier` by
/// default. Returns `None` if there is neither a state folder nor a home folder.
pub(crate) fn dead_letters() -> Option<PathBuf> {
    dead_letters_of(|name| std::env::var_os(name).map(PathBuf::from))
}

fn dead_letters_of(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG specification says to ignore relative paths.
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let home = || absolute("HOME").map(|home| home.join(".local").join("state"));
    let local = || absolute("LOCALAPPDATA");
    let state = absolute("XDG_STATE_HOME").or_else(home).or_else(local)?;
    Some(state.join("kafka-courier").join("dead-letters.redb"))
}

#[cfg(all(test, unix))]
mod tests {
    use std::path::Path;

    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<PathBuf> {
        let find = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        dead_letters_of(find)
    }

    #[test]
    fn xdg_precedes_home() {
        let file = |folder: &str| Some(Path::new(folder).join("kafka-courier/dead-letters.redb"));
        assert_eq!(of(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]), file("/s"));
        assert_eq!(of(&[("XDG_STATE_HOME", "s"), ("HOME", "/h")]), file("/h/.local/state"));
        assert_eq!(of(&[("XDG_STATE_HOME", ""), ("HOME", "/h")]), file("/h/.local/state"));
        assert_eq!(of(&[]), None);
    }
}
