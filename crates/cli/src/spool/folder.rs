//! The folder of a command, and the settings.

use std::path::{Path, PathBuf};

use clap::Args;
use kafka_courier::spool::{SpoolView, SpoolViewError};
use kafka_courier::{KafkaConfig, shown_file};

use super::read_failed;
use crate::exit::{CommandError, Exit};
use crate::files::CommandFiles;
use crate::settings::SettingsArgs;

/// The folder of a spool on the command line, and the settings.
#[derive(Args, Debug)]
pub(super) struct FolderArgs {
    /// Use the spool in this folder [env: KAFKA_SPOOL_DIR]
    ///
    /// The default is the option spool_dir.
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingsArgs,
}

/// The folder of a spool, and the settings.
#[derive(Debug)]
pub(super) struct ChosenFolder {
    pub(super) dir: PathBuf,
    pub(super) config: KafkaConfig,
}

impl FolderArgs {
    /// Returns the folder and the settings.
    pub(super) fn choose(&self) -> Result<ChosenFolder, CommandError> {
        self.choose_beside(None)
    }

    /// Returns the folder and the settings, for a command that writes a file.
    pub(super) fn choose_beside(&self, output: Option<&Path>) -> Result<ChosenFolder, CommandError> {
        let mut files = CommandFiles::new();
        files.settings(self.settings.file());
        if let Some(output) = output {
            files.output("the exported file", output);
        }
        files.check()?;
        let loaded = self.settings.load().map_err(|errors| CommandError(Exit::Config, errors.to_string()))?;
        files.named_by(&loaded);
        files.check()?;
        let config = loaded.config;
        let set = Some(&config.spool_dir).filter(|dir| !dir.is_empty()).map(PathBuf::from);
        let dir = self.dir.clone().or(set).ok_or_else(|| {
            CommandError(
                Exit::Usage,
                "no spool is named: name its folder, or set spool_dir (KAFKA_SPOOL_DIR)".to_owned(),
            )
        })?;
        Ok(ChosenFolder { dir, config })
    }
}

impl ChosenFolder {
    /// Reads the spool.
    pub(super) fn read(&self) -> Result<SpoolView, CommandError> {
        SpoolView::read(&self.dir).map_err(|error| match error {
            // The path may be a secret that was pasted in its place.
            SpoolViewError::Missing { .. } => {
                let why = format!("{}: no spool: name the folder of spool_dir", self.shown());
                CommandError(Exit::Data, why)
            }
            error => read_failed(error),
        })
    }

    /// Fails if a process has the spool.
    pub(super) fn check_free(&self) -> Result<(), CommandError> {
        match SpoolView::holder_of(&self.dir).map_err(read_failed)? {
            Some(holder) => Err(super::held(&self.shown(), holder)),
            None => Ok(()),
        }
    }

    /// Returns the folder as messages show it.
    pub(super) fn shown(&self) -> String {
        shown_file(&self.dir)
    }
}
