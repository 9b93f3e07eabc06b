//! The opening of a command's input: a file, or standard input.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kafka_courier::shown_file;

/// Why the input can't be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenInputError {
    #[error("{file} is a directory: name a file of {content}, or - for standard input")]
    Directory { file: String, content: &'static str },
    #[error("cannot open {file}: {error}")]
    Io { file: String, error: io::Error },
}

/// Opens the input. `-` is standard input. `content` names the items of the input in the error of a directory.
pub(crate) fn open(path: &Path, content: &'static str) -> Result<Box<dyn Read + Send>, OpenInputError> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    if path.is_dir() {
        return Err(OpenInputError::Directory { file: shown_file(path), content });
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(OpenInputError::Io { file: shown_file(path), error }),
    }
}
