//! Lines of a body that arrives in parts.
//!
//! Rules:
//! - Memory is bounded by the longest line and one part of the body.
//! - Empty lines are no events, and up to the bytes of the longest line may follow each other. The last line needs no line end.

use super::failure::Failure;
use super::problem::Problem;

/// Splits a body into lines.
#[derive(Debug)]
pub struct Lines {
    buffer: Vec<u8>,
    /// The first byte that no line has taken.
    start: usize,
    /// All bytes before this one are known to contain no line end.
    searched: usize,
    max_line: usize,
    is_ended: bool,
    /// The number of the last line, empty ones included.
    number: usize,
    /// The bytes of empty lines since the last line that is not empty.
    empty: usize,
}

impl Lines {
    /// Creates a splitter for lines of at most `max_line` bytes.
    pub fn new(max_line: usize) -> Self {
        Self { buffer: Vec::new(), start: 0, searched: 0, max_line, is_ended: false, number: 0, empty: 0 }
    }

    /// Adds the next part of the body.
    pub fn push(&mut self, part: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(part);
    }

    /// Notes the end of the body. The rest is the last line.
    pub fn end(&mut self) {
        self.is_ended = true;
    }

    /// Returns the number of bytes that wait for a line end.
    pub fn waiting(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Returns the number of the last line, from 1. Empty lines count.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Returns the next whole line that is not empty, without its line end.
    ///
    /// # Errors
    ///
    /// [`Problem::BodyTooLarge`] if a line is too long, or if empty lines together are. No further line is readable then.
    pub fn next_line(&mut self) -> Result<Option<&[u8]>, Failure> {
        loop {
            let found = self.buffer[self.searched..].iter().position(|byte| *byte == b'\n');
            let (end, next) = match found {
                Some(at) => (self.searched + at, self.searched + at + 1),
                None if self.is_ended && self.waiting() > 0 => (self.buffer.len(), self.buffer.len()),
                None => {
                    self.searched = self.buffer.len();
                    return if self.waiting() > self.max_line { Err(self.too_long()) } else { Ok(None) };
                }
            };
            if end - self.start > self.max_line {
                return Err(self.too_long());
            }
            let line = self.start..end;
            let bytes = next - self.start;
            (self.start, self.searched) = (next, next);
            self.number += 1;
            if self.buffer[line.clone()].trim_ascii().is_empty() {
                self.empty += bytes;
                if self.empty > self.max_line {
                    return Err(self.too_long());
                }
            } else {
                self.empty = 0;
                return Ok(Some(&self.buffer[line]));
            }
        }
    }

    fn too_long(&self) -> Failure {
        let why = format!(
            "a line, or empty lines together, are longer than {} bytes: make the event smaller, or raise max_body_bytes",
            self.max_line
        );
        Failure::new(Problem::BodyTooLarge, why)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn drain(lines: &mut Lines) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(line) = lines.next_line().unwrap() {
            all.push(String::from_utf8(line.to_vec()).unwrap());
        }
        all
    }

    #[test]
    fn long_lines_are_refused_early() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\n12345");
        assert_eq!(lines.next_line().unwrap(), Some(&b"1234"[..]));
        assert_eq!(lines.next_line().unwrap_err().problem, Problem::BodyTooLarge);
        let mut whole = Lines::new(4);
        whole.push(b"12345\n");
        assert!(whole.next_line().is_err());
        let mut empty = Lines::new(4);
        empty.push(b"\n\na\n\n\n\n\n\n");
        assert_eq!(empty.next_line().unwrap(), Some(&b"a"[..]));
        assert_eq!(empty.number(), 3);
        assert!(empty.next_line().is_err(), "empty lines without end");
    }

    proptest! {
        #[test]
        fn cuts_change_no_line(text in "[a\r\n ]{0,60}", cuts in proptest::collection::vec(0_usize..60, 0..5)) {
            let mut whole = Lines::new(100);
            whole.push(text.as_bytes());
            whole.end();
            let expected = drain(&mut whole);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut lines, mut found) = (Lines::new(100), Vec::new());
            for cut in cuts.windows(2) {
                lines.push(&text.as_bytes()[cut[0]..cut[1]]);
                found.extend(drain(&mut lines));
            }
            lines.end();
            found.extend(drain(&mut lines));
            prop_assert_eq!(&found, &expected);
            let all: Vec<&str> = text.split('\n').filter(|line| !line.trim().is_empty()).collect();
            prop_assert_eq!(found, all);
        }
    }
}
