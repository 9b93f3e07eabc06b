//! The modules of a crate import each other in one direction.
//!
//! Checked are the modules at the top of each crate, and the siblings within each folder. A folder's own module and its
//! children are one room: they may use each other.
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The path of a module within its crate. The crate's root is empty.
type Module = Vec<String>;
type Graph = BTreeMap<Module, BTreeSet<Module>>;

/// Returns every module below `src`, with its file. Tests and the root are left out.
fn modules(src: &Path) -> BTreeMap<Module, PathBuf> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![src.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let relative = path.strip_prefix(src).unwrap().with_extension("");
            let mut module: Module = relative.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
            module.pop_if(|last| last == "mod");
            let is_root = module == ["lib"] || module == ["main"] || module.first().is_some_and(|first| first == "bin");
            if !is_root && !module.iter().any(|part| part.contains("test")) {
                found.insert(module, path);
            }
        }
    }
    found
}

/// Returns the source without comments, texts and what follows the first inline module of tests.
fn code(source: &str) -> String {
    let end = source.find("\n#[cfg(test)]\nmod tests {").unwrap_or(source.len());
    let (mut rest, mut code) = (&source[..end], String::new());
    while let Some(next) = rest.chars().next() {
        let skipped = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => text_len(rest),
            '\'' if rest.starts_with("'\"'") => 3,
            _ => 0,
        };
        if skipped == 0 {
            code.push(next);
        }
        rest = &rest[skipped.max(next.len_utf8())..];
    }
    code
}

/// Returns the length of the text that begins with a quotation mark here, with both marks.
fn text_len(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.char_indices().skip(1).find(|(_, character)| {
        let is_end = *character == '"' && !is_escaped;
        is_escaped = *character == '\\' && !is_escaped;
        is_end
    });
    end.map_or(text.len(), |(at, _)| at + 1)
}

/// Splits the tree of a `use` declaration into its paths.
fn paths(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let (mut depth, mut from) = (0, 0);
    let mut parts = Vec::new();
    for (at, character) in tree.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&tree[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[from..]);
    for part in parts.into_iter().map(str::trim).filter(|part| !part.is_empty()) {
        match (part.find('{'), part.rfind('}')) {
            (Some(open), Some(close)) => paths(&format!("{prefix}{}", &part[..open]), &part[open + 1..close], found),
            _ => found.push(format!("{prefix}{}", part.split(" as ").next().unwrap_or(part))),
        }
    }
}

/// Returns every path that the code names, such as `super::wire::Reader`.
fn named_paths(code: &str) -> Vec<String> {
    let (mut found, mut rest) = (Vec::new(), String::new());
    for statement in code.split_inclusive(';') {
        match statement.rfind("use ") {
            Some(at) if statement[..at].ends_with(['\n', ' ', '(', ')']) || at == 0 => {
                rest.push_str(&statement[..at]);
                paths("", statement[at + 4..].trim_end_matches(';').trim(), &mut found);
            }
            _ => rest.push_str(statement),
        }
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    found.extend(rest.split(|c| !is_path(c)).filter(|word| word.contains("::")).map(str::to_owned));
    found
}

/// Returns the module that a path within `module` leads to.
fn target(path: &str, module: &Module, modules: &BTreeMap<Module, PathBuf>) -> Option<Module> {
    let mut segments = path.split("::").map(str::trim).peekable();
    let mut at = module.clone();
    match *segments.peek()? {
        "crate" => {
            segments.next();
            at.clear();
        }
        "self" => _ = segments.next(),
        "super" => {
            while segments.next_if(|segment| *segment == "super").is_some() {
                at.pop();
            }
        }
        first => {
            at.push(first.to_owned());
            modules.get(&at)?;
            segments.next();
        }
    }
    for segment in segments {
        at.push(segment.to_owned());
        if !modules.contains_key(&at) {
            at.pop();
            break;
        }
    }
    Some(at).filter(|at| modules.contains_key(at) && at != module)
}

fn imports(src: &Path) -> Graph {
    let modules = modules(src);
    let of = |(module, file): (&Module, &PathBuf)| {
        let code = code(&std::fs::read_to_string(file).unwrap());
        let targets = named_paths(&code).iter().filter_map(|path| target(path, module, &modules)).collect();
        (module.clone(), targets)
    };
    modules.iter().map(of).collect()
}

/// Returns the imports between the modules right below `folder`, each with all that is in it.
fn siblings(imports: &Graph, folder: &[String]) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let below = |module: &Module| module.strip_prefix(folder)?.first().cloned();
    for (module, targets) in imports {
        let Some(from) = below(module) else { continue };
        let to = targets.iter().filter_map(below).filter(|to| *to != from);
        found.entry(from.clone()).or_default().extend(to.collect::<Vec<_>>());
    }
    found
}

/// Removes modules that import none of the others, until no more are left or only circles and what leads to them.
fn circle(mut graph: BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    loop {
        let present: BTreeSet<String> = graph.keys().cloned().collect();
        let before = graph.len();
        graph.retain(|_, targets| targets.iter().any(|target| present.contains(target)));
        if graph.len() == before {
            return graph.into_keys().collect();
        }
    }
}

#[test]
fn modules_import_without_circles() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut checked = 0;
    for package in std::fs::read_dir(crates).unwrap() {
        let package = package.unwrap().path();
        let imports = imports(&package.join("src"));
        let parents = imports.keys().map(|module| module[..module.len() - 1].to_vec());
        for folder in parents.collect::<BTreeSet<Module>>() {
            let circle = circle(siblings(&imports, &folder));
            assert!(circle.is_empty(), "{}, {folder:?}: a circle among {circle:?}", package.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} folders have modules");
}

#[test]
fn known_imports_are_read() {
    let imports = imports(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/producer/src"));
    let module = |name: &str| vec![name.to_owned()];
    assert!(imports[&module("engine")].contains(&module("intake")), "{imports:?}");
    assert!(!imports[&module("intake")].contains(&module("engine")), "{imports:?}");
}

#[test]
fn circles_are_found() {
    let graph = |edges: &[(&str, &str)]| {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in edges {
            graph.entry((*from).to_owned()).or_default().insert((*to).to_owned());
        }
        graph
    };
    assert_eq!(circle(graph(&[("a", "b"), ("b", "c"), ("c", "b")])), ["a", "b", "c"]);
    assert!(circle(graph(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
}

#[test]
fn paths_of_imports_are_named() {
    let source =
        "//! doc\npub(crate) use crate::wire::{self, fetch::Fetch, list::{List as L}};\nlet x = super::ids::Id(1);";
    let expected = ["crate::wire::self", "crate::wire::fetch::Fetch", "crate::wire::list::List", "super::ids::Id"];
    assert_eq!(named_paths(&code(source)), expected);
}
