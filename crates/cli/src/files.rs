//! The check that a command names no file twice.
//!
//! Rules:
//! - Files are compared by device and inode, and links are followed. A file that does not exist yet is compared by its
//!   folder and name.
//! - Terminals, pipes and devices are not compared: `/dev/null` may be named twice.
//! - Standard output and standard error may share a file. Files that settings name may be the same file.
//! - The check opens and creates no file.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use kafka_courier::{KafkaConfig, LoadedConfig, shown_file};

use crate::exit::{CommandError, Exit};

/// Files beside a dead-letter file: suffix and description.
const COMPANIONS: [(&str, &str); 3] = [(".lock", "lock"), (".sock", "socket"), (".publishers", "list of publishers")];
/// Links that are followed one after another. Linux has the same limit.
const LINKS_MAX: usize = 40;

/// Files of one group may be the same file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SharingGroup {
    /// No group: the file must differ from all others.
    Apart,
    /// Standard output and standard error: a shell may redirect both to one log.
    Streams,
    /// Files that settings name: one file may hold certificate and key, or the value of two options.
    Secrets,
}

/// The identity of a file on this machine.
#[derive(Clone, PartialEq, Eq, Debug)]
enum FileOnDisk {
    Existing(FileNode),
    /// The folder of a file that does not exist yet, if the folder exists, and the rest of the file's path.
    Absent(Option<FileNode>, OsString),
}

#[cfg(unix)]
type FileNode = (u64, u64);
#[cfg(not(unix))]
type FileNode = PathBuf;

#[derive(Debug)]
struct NamedFile {
    /// The name in messages, such as `--receipts x`.
    name: String,
    identity: FileOnDisk,
    group: SharingGroup,
}

/// The files of one command.
#[derive(Debug)]
pub(crate) struct CommandFiles {
    named: Vec<NamedFile>,
    /// The error for the first argument that is `-` and must be a file.
    nameless: Option<String>,
}

impl CommandFiles {
    /// Returns the standard streams, which every command has.
    pub(crate) fn new() -> Self {
        let mut files = Self { named: Vec::new(), nameless: None };
        files.push("standard output".to_owned(), stream(&io::stdout()), SharingGroup::Streams);
        files.push("standard error".to_owned(), stream(&io::stderr()), SharingGroup::Streams);
        files
    }

    /// Adds the input file. `-` is standard input.
    pub(crate) fn input(&mut self, path: &Path) {
        match path == Path::new("-") {
            true => self.push("standard input".to_owned(), stream(&io::stdin()), SharingGroup::Apart),
            false => self.add("the input", path, SharingGroup::Apart),
        }
    }

    /// Adds an output file. `-` is standard output, which [`new`](Self::new) adds.
    pub(crate) fn output(&mut self, what: &str, path: &Path) {
        if path != Path::new("-") {
            self.add(what, path, SharingGroup::Apart);
        }
    }

    /// Adds a settings file.
    pub(crate) fn settings(&mut self, path: Option<&Path>) {
        if let Some(path) = path {
            self.named_file("--config", path, SharingGroup::Apart);
        }
    }

    /// Adds the files that settings name: certificates, keys, tokens, and files that hold an option's value.
    pub(crate) fn named_by(&mut self, loaded: &LoadedConfig) {
        for (setting, path) in loaded.value_files() {
            self.add(setting, path, SharingGroup::Secrets);
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
            self.add(option, Path::new(path), SharingGroup::Secrets);
        }
    }

    /// Adds a dead-letter file, which `option` names, and the files beside it.
    pub(crate) fn dead_letters(&mut self, option: &str, path: &Path) {
        self.named_file(option, path, SharingGroup::Apart);
        // If the path is a link, they are beside the link's target.
        let resolved = resolve(path).ok().filter(|resolved| resolved != path);
        for (suffix, what) in COMPANIONS {
            let mut named = None;
            for place in std::iter::once(path).chain(resolved.as_deref()) {
                let mut beside = place.as_os_str().to_owned();
                beside.push(suffix);
                // The path and its target may lead to the same file.
                let found = identity(Path::new(&beside));
                if found != named {
                    let name = format!("the {what} of the dead letters, {}", shown_file(Path::new(&beside)));
                    self.push(name, found.clone(), SharingGroup::Apart);
                }
                named = found;
            }
        }
    }

    /// Fails if two files are the same, or if `-` is in place of a file.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        if let Some(why) = &self.nameless {
            return Err(CommandError(Exit::Usage, why.clone()));
        }
        for (index, one) in self.named.iter().enumerate() {
            let same = |other: &&NamedFile| {
                other.identity == one.identity && (one.group == SharingGroup::Apart || other.group != one.group)
            };
            if let Some(other) = self.named.iter().skip(index + 1).find(same) {
                let why = format!("{} and {} are the same file: name two different files", one.name, other.name);
                return Err(CommandError(Exit::Usage, why));
            }
        }
        Ok(())
    }

    fn named_file(&mut self, option: &str, path: &Path, group: SharingGroup) {
        if path == Path::new("-") {
            let why = format!("{option}: \"-\" is not a file here: name a file (write ./- for a file named -)");
            self.nameless.get_or_insert(why);
        }
        self.add(option, path, group);
    }

    fn add(&mut self, what: &str, path: &Path, group: SharingGroup) {
        self.push(format!("{what} {}", shown_file(path)), identity(path), group);
    }

    fn push(&mut self, name: String, identity: Option<FileOnDisk>, group: SharingGroup) {
        self.named.extend(identity.map(|identity| NamedFile { name, identity, group }));
    }
}

/// Returns the file that a path leads to after all links, even if the file does not exist yet. Links in the existing
/// folders of the path are resolved.
pub(crate) fn resolve(path: &Path) -> io::Result<PathBuf> {
    if path.exists() {
        // A pipe behind /dev/stdout has no other path.
        return Ok(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    }
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return resolve_folder(&path),
        }
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// Resolves the folder of a path whose last part is not a link.
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

/// Returns `None` if the file is not compared, or if its path leads nowhere. Opening the file reports such a path.
fn identity(path: &Path) -> Option<FileOnDisk> {
    match path.metadata() {
        Ok(metadata) => node(&metadata, path).map(FileOnDisk::Existing),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let resolved = resolve(path).ok()?;
            let folder = folder_of(&resolved);
            match folder.metadata().ok().and_then(|metadata| node(&metadata, folder)) {
                Some(node) => Some(FileOnDisk::Absent(Some(node), resolved.file_name()?.to_owned())),
                None => Some(FileOnDisk::Absent(None, resolved.into_os_string())),
            }
        }
        Err(_) => None,
    }
}

#[cfg(unix)]
fn node(metadata: &Metadata, _: &Path) -> Option<FileNode> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let kind = metadata.file_type();
    (!kind.is_char_device() && !kind.is_fifo()).then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn node(metadata: &Metadata, path: &Path) -> Option<FileNode> {
    (metadata.is_file() || metadata.is_dir()).then(|| path.canonicalize().ok()).flatten()
}

#[cfg(unix)]
fn stream(stream: &impl std::os::fd::AsFd) -> Option<FileOnDisk> {
    let file = fs::File::from(stream.as_fd().try_clone_to_owned().ok()?);
    let metadata = file.metadata().ok().filter(Metadata::is_file)?;
    node(&metadata, Path::new("")).map(FileOnDisk::Existing)
}

/// Windows does not name the file of a stream.
#[cfg(not(unix))]
fn stream<S>(_: &S) -> Option<FileOnDisk> {
    None
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn same(one: &Path, other: &Path) -> bool {
        let mut files = CommandFiles { named: Vec::new(), nameless: None };
        files.output("one", one);
        files.output("other", other);
        files.check().is_err()
    }

    #[test]
    fn links_are_followed() {
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
    fn absent_files_compare_by_path() {
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
            let mut files = CommandFiles { named: Vec::new(), nameless: None };
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
        let mut files = CommandFiles { named: Vec::new(), nameless: None };
        let mut config = KafkaConfig::default();
        config.ssl_certificate_location = path.display().to_string();
        config.ssl_key_location = path.display().to_string();
        files.secrets(&config);
        files.check().unwrap();
        files.output("--receipts", &path);
        assert!(files.check().unwrap_err().1.contains("ssl_certificate_location"));
    }
}
