//! The imports within the core point one way, so that no two modules import each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn core() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/core")
}

/// Returns the source files of a module of the core, tests excluded.
fn files(module: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![core().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let is_test = path.file_stem().is_some_and(|stem| stem == "tests");
            match path.is_dir() {
                _ if is_test => {}
                true => folders.push(path),
                false => found.push(path),
            }
        }
    }
    found.extend(Some(core().join(format!("{module}.rs"))).filter(|path| path.is_file()));
    found
}

/// Returns the first names of the imports that start with `prefix`.
fn imports(file: &Path, prefix: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(file).unwrap();
    let start = |line: &str| {
        let rest = line.trim_start_matches("pub(crate) ").strip_prefix("use ")?.strip_prefix(prefix)?;
        Some(rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?.to_owned())
    };
    text.lines().filter_map(start).filter(|name| name != "super").collect()
}

/// Returns the modules in the order of the list above `core`: none imports a later one.
fn order() -> Vec<String> {
    let text = fs::read_to_string(core().join("mod.rs")).unwrap();
    let listed = text.lines().filter(|line| line.starts_with("//! ") && line.contains(". `"));
    let head = |line: &str| line.split_once(": ").unwrap().0.to_owned();
    let names = |line: String| line.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    listed.map(head).flat_map(names).collect()
}

#[test]
fn list_names_every_module() {
    let text = fs::read_to_string(core().join("mod.rs")).unwrap();
    let declared = text.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    let declared: BTreeSet<&str> = declared.filter(|name| *name != "directions").collect();
    assert_eq!(declared, order().iter().map(String::as_str).collect());
}

#[test]
fn modules_import_earlier_ones() {
    let order = order();
    for (position, module) in order.iter().enumerate() {
        for file in files(module) {
            let depth = file.strip_prefix(core()).unwrap().components().count() - usize::from(file.ends_with("mod.rs"));
            let found = imports(&file, &"super::".repeat(depth));
            let later: Vec<_> = found.iter().filter(|name| !order[..position].contains(name)).collect();
            assert!(later.is_empty(), "{} imports {later:?}", file.display());
        }
    }
}

#[test]
fn states_know_no_partition() {
    let text = fs::read_to_string(core().join("partition/mod.rs")).unwrap();
    let states = imports(&core().join("partition/mod.rs"), "self::");
    assert_eq!(states.len(), 5, "{states:?}");
    for state in &states {
        assert!(text.contains(&format!("mod {state};")), "{state}");
        let found = imports(&core().join(format!("partition/{state}.rs")), "super::");
        assert!(found.is_empty(), "{state} imports {found:?}");
    }
    for file in files("partition").iter().filter(|file| !file.ends_with("mod.rs")) {
        let found = imports(file, "super::");
        let others: Vec<_> = found
            .iter()
            .filter(|name| !states.contains(*name) && !["PartitionSender", "OutgoingBatch"].contains(&name.as_str()))
            .collect();
        assert!(others.is_empty(), "{} imports {others:?}", file.display());
    }
}

#[test]
fn sender_imports_no_part_of_itself() {
    assert!(imports(&core().join("sender/mod.rs"), "self::").is_empty());
    for file in files("sender").iter().filter(|file| !file.ends_with("mod.rs")) {
        let found = imports(file, "super::");
        assert_eq!(found, BTreeSet::from(["Sender".to_owned()]), "{}", file.display());
    }
}
