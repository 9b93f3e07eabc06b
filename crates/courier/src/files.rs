//! The files of one command: no two of them may be the same.
//!
//! Rules:
//! - Files are compared by device and inode, links followed. A file that does not exist yet is compared by its folder and name.
//! - Terminals, pipes and devices are not compared: `/dev/null` may be named twice.
//! - Standard output and standard error may share a file, and so may the files that settings name.
//! - A check opens and creates no file.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use kafka_courier::{KafkaConfig, LoadedConfig, shown_file};

use crate::exit::{Exit, Refusal};

/// What stands beside a file of dead letters.
const COMPANIONS: [(&str, &str); 3] = [(".lock", "lock"), (".sock", "socket"), (".publishers", "list of publishers")];
/// Links that are followed one after another, as Linux does.
const LINKS_MAX: usize = 40;

/// Which files may be the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Group {
    /// None.
    Apart,
    /// Standard output and standard error: a shell may send both into one log.
    Streams,
    /// What settings name: one file may hold certificate and key, or the value of two options.
    Secrets,
}

/// What tells one file from another.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Identity {
    There(Node),
    /// The folder that it will be in, if that exists, and the rest of its path.
    Absent(Option<Node>, OsString),
}

#[cfg(unix)]
type Node = (u64, u64);
#[cfg(not(unix))]
type Node = PathBuf;

#[derive(Debug)]
struct Named {
    /// How a message names it, such as `--receipts x`.
    name: String,
    identity: Identity,
    group: Group,
}

/// The files of one command.
#[derive(Debug)]
pub(crate) struct Files {
    named: Vec<Named>,
    /// The first that is no name of a file.
    nameless: Option<String>,
}

impl Files {
    /// The streams that every command has.
    pub(crate) fn new() -> Self {
        let mut files = Self { named: Vec::new(), nameless: None };
        files.push("standard output".to_owned(), stream(&io::stdout()), Group::Streams);
        files.push("standard error".to_owned(), stream(&io::stderr()), Group::Streams);
        files
    }

    /// Adds the file that events or letters are read from; `-` is standard input.
    pub(crate) fn input(&mut self, path: &Path) {
        match path == Path::new("-") {
            true => self.push("standard input".to_owned(), stream(&io::stdin()), Group::Apart),
            false => self.add("the input", path, Group::Apart),
        }
    }

    /// Adds a file that is written; `-` is standard output, which is there already.
    pub(crate) fn output(&mut self, what: &str, path: &Path) {
        if path != Path::new("-") {
            self.add(what, path, Group::Apart);
        }
    }

    /// Adds a file of settings.
    pub(crate) fn settings(&mut self, path: Option<&Path>) {
        if let Some(path) = path {
            self.named_file("--config", path, Group::Apart);
        }
    }

    /// Adds the files that settings name: those of certificates, keys and tokens, and those that hold an option's value.
    pub(crate) fn named_by(&mut self, loaded: &LoadedConfig) {
        for (setting, path) in loaded.value_files() {
            self.add(setting, path, Group::Secrets);
        }
        self.secrets(&loaded.config);
    }

    fn secrets(&mut self, config: &KafkaConfig) {
        let options = [
            ("ssl_ca_location", &config.ssl_ca_location),
            ("ssl_certificate_location", &config.ssl_certificate_location),
            ("ssl_key_location", &config.ssl_key_location),
            ("sasl_oauthbearer_token_location", &config.sasl_oauthbearer_token_location),
        ];
        for (option, path) in options.into_iter().filter(|(_, path)| !path.is_empty()) {
            self.add(option, Path::new(path), Group::Secrets);
        }
    }

    /// Adds a file of dead letters, and what stands beside it. `option` names it.
    pub(crate) fn dead_letters(&mut self, option: &str, path: &Path) {
        self.named_file(option, path, Group::Apart);
        // Where the path is a link they stand beside the file that it leads to.
        let resolved = resolve(path).ok().filter(|resolved| resolved != path);
        for (suffix, what) in COMPANIONS {
            let mut named = None;
            for place in std::iter::once(path).chain(resolved.as_deref()) {
                let mut beside = place.as_os_str().to_owned();
                beside.push(suffix);
                // By the path and by what it resolves to it may be one file.
                let found = identity(Path::new(&beside));
                if found != named {
                    let name = format!("the {what} of the dead letters, {}", shown_file(Path::new(&beside)));
                    self.push(name, found.clone(), Group::Apart);
                }
                named = found;
            }
        }
    }

    /// Fails if two of them are the same, or one has no name.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        if let Some(why) = &self.nameless {
            return Err(Refusal(Exit::Usage, why.clone()));
        }
        for (index, one) in self.named.iter().enumerate() {
            let same = |other: &&Named| {
                other.identity == one.identity && (one.group == Group::Apart || other.group != one.group)
            };
            if let Some(other) = self.named.iter().skip(index + 1).find(same) {
                let why = format!("{} and {} are the same file: name two files", one.name, other.name);
                return Err(Refusal(Exit::Usage, why));
            }
        }
        Ok(())
    }

    fn named_file(&mut self, option: &str, path: &Path, group: Group) {
        if path == Path::new("-") {
            let why = format!("{option}: \"-\" is no file here: name one (./- is a file of that name)");
            self.nameless.get_or_insert(why);
        }
        self.add(option, path, group);
    }

    fn add(&mut self, what: &str, path: &Path, group: Group) {
        self.push(format!("{what} {}", shown_file(path)), identity(path), group);
    }

    fn push(&mut self, name: String, identity: Option<Identity>, group: Group) {
        self.named.extend(identity.map(|identity| Named { name, identity, group }));
    }
}

/// The file that a path leads to, links followed, also where it does not exist yet. The folders that exist are named without
/// links.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    if path.exists() {
        // A pipe behind /dev/stdout has no path of its own.
        return Ok(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return resolve_folder(&path),
        }
    }
    Err(io::Error::other("too many links, one to the next"))
}

/// A path whose last part is no link, with its folder resolved.
fn resolve_folder(path: &Path) -> io::Result<PathBuf> {
    let Some(name) = path.file_name() else { return path.canonicalize() };
    let folder = folder_of(path);
    match folder.canonicalize() {
        Ok(folder) => Ok(folder.join(name)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(resolve(folder)?.join(name)),
        Err(error) => Err(error),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns `None` if this is no file to compare, or if its path leads nowhere; opening the file reports that.
fn identity(path: &Path) -> Option<Identity> {
    match path.metadata() {
        Ok(metadata) => node(&metadata, path).map(Identity::There),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let resolved = resolve(path).ok()?;
            let folder = folder_of(&resolved);
            match folder.metadata().ok().and_then(|metadata| node(&metadata, folder)) {
                Some(node) => Some(Identity::Absent(Some(node), resolved.file_name()?.to_owned())),
                None => Some(Identity::Absent(None, resolved.into_os_string())),
            }
        }
        Err(_) => None,
    }
}

#[cfg(unix)]
fn node(metadata: &Metadata, _: &Path) -> Option<Node> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let kind = metadata.file_type();
    (!kind.is_char_device() && !kind.is_fifo()).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn node(metadata: &Metadata, path: &Path) -> Option<Node> {
    (metadata.is_file() || metadata.is_dir()).then(|| path.canonicalize().ok()).flatten()
}

#[cfg(unix)]
fn stream(stream: &impl std::os::fd::AsFd) -> Option<Identity> {
    let file = fs::File::from(stream.as_fd().try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    node(&metadata, Path::new("")).map(Identity::There)
}

/// Windows gives a stream's file no name.
#[cfg(not(unix))]
fn stream<S>(_: &S) -> Option<Identity> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn same(one: &Path, other: &Path) -> bool {
        let mut files = Files { named: Vec::new(), nameless: None };
        files.output("one", one);
        files.output("other", other);
        files.check().is_err()
    }

    #[test]
    fn links_are_followed_to_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink("b", at("a")).unwrap();
        symlink(at("c"), at("b")).unwrap();
        assert!(same(&at("a"), &at("c")) && !same(&at("a"), &at("d")));
        assert_eq!(resolve(&at("a")).unwrap(), folder.path().canonicalize().unwrap().join("c"));
        symlink("loop", at("loop")).unwrap();
        assert!(resolve(&at("loop")).is_err());
    }

    #[test]
    fn absent_files_differ_by_folder_and_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("in")).unwrap();
        assert!(same(&at("x"), &at("in/../x")) && same(&at("no/no/x"), &at("in/../no/no/x")));
        assert!(!same(&at("x"), &at("in/x")) && !same(&at("no/x"), &at("no/y")));
    }

    #[test]
    fn any_path_names_one_store() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("in")).unwrap();
        let check = |path: &str, receipts: &str| {
            let mut files = Files { named: Vec::new(), nameless: None };
            files.dead_letters("--dlq-file", &at(path));
            files.output("--receipts", &at(receipts));
            files.check()
        };
        symlink("letters", at("link")).unwrap();
        for exists in [false, true] {
            for path in ["letters", "in/../letters", "link"] {
                check(path, "receipts").unwrap();
                for same in ["letters", "letters.lock", "in/../letters.sock"] {
                    check(path, same).unwrap_err();
                }
            }
            check("link", "link.lock").unwrap_err();
            (!exists).then(|| fs::write(at("letters"), "").and_then(|()| fs::write(at("letters.lock"), "")));
        }
    }

    #[test]
    fn devices_may_be_named_twice() {
        assert!(!same(Path::new("/dev/null"), Path::new("/dev/null")));
    }

    #[test]
    fn certificate_and_key_may_share() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("both.pem");
        fs::write(&path, "").unwrap();
        let mut files = Files { named: Vec::new(), nameless: None };
        let mut config = KafkaConfig::default();
        config.ssl_certificate_location = path.display().to_string();
        config.ssl_key_location = path.display().to_string();
        files.secrets(&config);
        files.check().unwrap();
        files.output("--receipts", &path);
        assert!(files.check().unwrap_err().1.contains("ssl_certificate_location"));
    }
}
