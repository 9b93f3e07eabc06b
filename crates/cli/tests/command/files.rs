//! A command that names a file twice ends with 64 and changes nothing.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::{self, CourierProcess, LOGIN, cluster, command};

/// A folder with an input and a linked folder.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("events"), LOGIN).unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        symlink(folder.path().join("inner"), folder.path().join("linked")).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Returns the path and content of everything in the folder.
    fn content(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        list(self.0.path(), &mut found);
        found.sort();
        found
    }

    /// Asserts that the command fails with these texts and changes nothing.
    async fn refused(&self, arguments: &[&str], texts: &[&str]) {
        let before = self.content();
        let settings = [("KAFKA_BROKERS", "127.0.0.1:1"), ("XDG_STATE_HOME", "/dev/null/none")];
        CourierProcess::start(command(arguments, &settings)).output_with_input("").await.expect(64, texts);
        assert_eq!(self.content(), before, "{arguments:?}");
    }
}

fn list(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            list(&path, found);
        }
        found.push((path.display().to_string(), fs::read(&path).unwrap_or_default()));
    }
}

#[tokio::test]
async fn receipts_and_dead_letters_differ() {
    let folder = Folder::new();
    let (events, there) = (folder.path("events"), folder.path("there"));
    fs::write(&there, "").unwrap();
    fs::hard_link(&there, folder.path("hard")).unwrap();
    symlink("there", folder.path("soft")).unwrap();
    symlink("inner/absent", folder.path("dangling")).unwrap();
    for (receipts, letters) in [
        ("there", "there"),
        ("hard", "there"),
        ("there", "soft"),
        ("absent", "absent"),
        ("absent.lock", "absent"),
        ("absent.sock", "absent"),
        ("absent.publishers", "absent"),
        ("linked/absent", "inner/absent"),
        ("dangling", "inner/absent"),
        ("inner/absent", "dangling"),
        ("none/absent", "none/absent"),
        ("inner/../absent", "absent"),
    ] {
        let (receipts, letters) = (folder.path(receipts), folder.path(letters));
        let arguments = ["publish", "--receipts", &receipts, "--dlq-file", &letters, &events];
        folder.refused(&arguments, &["--receipts", "same file", &receipts]).await;
    }
}

#[tokio::test]
async fn settings_and_input_are_never_overwritten() {
    let folder = Folder::new();
    let (events, settings) = (folder.path("events"), folder.path("settings.toml"));
    let key = folder.path("key.pem");
    fs::write(&key, "no key").unwrap();
    fs::write(
        &settings,
        format!("security_protocol = \"SSL\"\nssl_key_location = \"{key}\"\nssl_certificate_location = \"{key}\"\n"),
    )
    .unwrap();
    for written in [&settings, &key, &events] {
        let receipts = ["publish", "--config", &settings, "--receipts", written, &events];
        folder.refused(&receipts, &["same file", written]).await;
        let letters = ["publish", "--config", &settings, "--dlq-file", written, &events];
        folder.refused(&letters, &["same file", written]).await;
    }
    for written in [&settings, &key] {
        let export = ["dlq", "export", "--config", &settings, "--file", &folder.path("letters"), written];
        folder.refused(&export, &["same file", written]).await;
    }
}

#[tokio::test]
async fn dlq_commands_compare_files() {
    let folder = Folder::new();
    let letters = folder.path("letters");
    let import = ["dlq", "import", "--file", &letters, &folder.path("events")];
    CourierProcess::start(command(&["dlq", "import", "--file", &letters], &[]))
        .output_with_input("")
        .await
        .expect(0, &[]);
    for suffix in ["", ".lock"] {
        let own = format!("{letters}{suffix}");
        folder.refused(&["dlq", "export", "--file", &letters, &own], &["same file", &own]).await;
        folder.refused(&["dlq", "import", "--file", &letters, &own], &["same file", &own]).await;
        folder.refused(&["dlq", "list", "--file", &letters, "--config", &own], &["same file", &own]).await;
    }
    let same = [import[0], import[1], import[2], &folder.path("events"), &folder.path("events")];
    folder.refused(&same, &["same file"]).await;
}

#[tokio::test]
async fn output_never_overwrites_the_store() {
    let folder = Folder::new();
    let letters = folder.path("letters");
    CourierProcess::start(command(&["dlq", "import", "--file", &letters], &[]))
        .output_with_input("")
        .await
        .expect(0, &[]);
    let before = fs::read(&letters).unwrap();
    for arguments in [&["list"][..], &["stats"], &["export"], &["purge", "--all", "--yes"], &["replay", "--all"]] {
        let mut command = command(&[&["dlq"], arguments, &["--file", &letters]].concat(), &[]);
        command.stdout(fs::OpenOptions::new().append(true).open(&letters).unwrap());
        CourierProcess::start(command).output().await.expect(64, &["standard output", "same file"]);
        assert_eq!(fs::read(&letters).unwrap(), before, "{arguments:?}");
    }
    let mut command = command(&["config", "--config", &folder.path("settings.toml")], &[]);
    fs::write(folder.path("settings.toml"), "client_id = \"a\"\n").unwrap();
    command.stdout(fs::OpenOptions::new().append(true).open(folder.path("settings.toml")).unwrap());
    CourierProcess::start(command).output().await.expect(64, &["standard output", "same file"]);
}

#[tokio::test]
async fn option_files_are_compared() {
    let folder = Folder::new();
    let (value, settings) = (folder.path("value"), folder.path("settings.toml"));
    fs::write(&value, "secret\n").unwrap();
    fs::write(&settings, format!("client_id_file = {value:?}\n")).unwrap();
    let (letters, events) = (folder.path("letters"), folder.path("events"));
    CourierProcess::start(command(&["dlq", "import", "--file", &letters], &[]))
        .output_with_input("")
        .await
        .expect(0, &[]);
    let refused = ["client_id_file", "same file"];
    folder
        .refused(&["dlq", "export", "--config", &settings, "--file", &letters, "--limit", "1", &value], &refused)
        .await;
    folder.refused(&["publish", "--config", &settings, "--receipts", &value, &events], &refused).await;
    let set = format!("client_id_file={value}");
    folder.refused(&["publish", "--set", &set, "--receipts", &value, &events], &refused).await;
    folder.refused(&["publish", "--set", &set, "--dlq-file", &value, &events], &refused).await;
    fs::write(&value, "127.0.0.1:1").unwrap();
    let before = folder.content();
    let publish = command(&["publish", "--receipts", &value, &events], &[("KAFKA_BROKERS_FILE", &value)]);
    CourierProcess::start(publish).output_with_input("").await.expect(64, &["KAFKA_BROKERS_FILE", "same file"]);
    let mut config = command(&["config"], &[("KAFKA_BROKERS_FILE", &value)]);
    config.stdout(fs::OpenOptions::new().append(true).open(&value).unwrap());
    CourierProcess::start(config).output().await.expect(64, &["standard output", "KAFKA_BROKERS_FILE", "same file"]);
    assert_eq!(folder.content(), before);
}

#[tokio::test]
async fn export_follows_a_dangling_link() {
    let folder = Folder::new();
    let (letters, link) = (folder.path("letters"), folder.path("link"));
    CourierProcess::start(command(&["dlq", "import", "--file", &letters], &[]))
        .output_with_input("")
        .await
        .expect(0, &[]);
    symlink("inner/exported", &link).unwrap();
    CourierProcess::start(command(&["dlq", "export", "--file", &letters, &link], &[]))
        .output()
        .await
        .expect(0, &["0 dead letters"]);
    assert!(Path::new(&link).is_symlink());
    assert!(Path::new(&folder.path("inner/exported")).is_file());
}

#[tokio::test]
async fn devices_and_shared_logs_are_allowed() {
    let cluster = cluster().await;
    let folder = Folder::new();
    let log = fs::File::create(folder.path("log")).unwrap();
    let brokers = cluster.bootstrap();
    let arguments = ["publish", "--brokers", &brokers, "--receipts", "/dev/null", "--config", "/dev/null", "-"];
    let mut both = command(&arguments, &[]);
    both.stdout(log.try_clone().unwrap()).stderr(log);
    assert_eq!(support::code_after(both, &format!("{LOGIN}\n"), false).await, Some(0));
    let text = fs::read_to_string(folder.path("log")).unwrap();
    assert!(text.contains("1 read, 1 delivered"), "{text}");
}

#[tokio::test]
async fn dash_is_standard_output() {
    let cluster = cluster().await;
    let folder = Folder::new();
    let brokers = cluster.bootstrap();
    let mut command = command(&["publish", "--brokers", &brokers, "--receipts", "-"], &[]);
    command.current_dir(folder.0.path());
    let output = CourierProcess::start(command).output_with_input(&format!("{LOGIN}\n")).await;
    output.expect(0, &["1 read, 1 delivered"]);
    assert_eq!(support::receipts(&output.out).len(), 1);
    assert!(!Path::new(&folder.path("-")).exists());
    for option in ["--dlq-file", "--config"] {
        folder.refused(&["publish", option, "-", &folder.path("events")], &[option, "\"-\" is not a file"]).await;
    }
}
