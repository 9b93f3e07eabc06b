//! The split of the input into elements of an array, or lines.
//!
//! Rules:
//! - An input that begins with `[` and then `{` or `]`, with any white space, is an array.
//! - Any other input is lines, so a log line before the events loses no event.
//! - The result does not depend on the sizes of the reads.

use std::io::{self, BufRead, BufReader, Read};

use super::array::ArrayElements;
use super::{InputPlace, InputPosition, ItemError, ItemSink};

/// Longest event that is read, in bytes. Kafka's limit is far lower.
const MAX_EVENT: usize = 64 << 20;
/// Size of the read buffer in bytes.
const BUFFER: usize = 256 << 10;

/// An input with the number of its consumed bytes.
pub(super) struct CountingReader<R> {
    input: R,
    consumed: u64,
}

impl<R: BufRead> CountingReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, consumed: 0 }
    }

    /// Returns the offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.consumed
    }
}

impl<R: BufRead> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.consumed += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for CountingReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.consumed += amount as u64;
        self.input.consume(amount);
    }
}

/// Reads all items of the input. Ends early, with or without an error, if the publisher stops the reader.
pub(super) fn read_all(input: impl Read, sink: &impl ItemSink) -> io::Result<()> {
    let mut input = CountingReader::new(BufReader::with_capacity(BUFFER, input));
    skip_mark(&mut input)?;
    let mut number = 1 + skip_space(&mut input)?;
    let mut begun = Vec::new();
    let start = input.offset();
    if next(&mut input)? == Some(b'[') {
        input.consume(1);
        let end = input.offset();
        let lines = skip_space(&mut input)?;
        if matches!(next(&mut input)?, Some(b'{' | b']') | None) {
            return read_array(input, sink);
        }
        if lines == 0 {
            begun.push(b'[');
        } else if !sink.text(InputPosition { place: InputPlace::Line(number), start, end }, b"[") {
            return Ok(());
        }
        number += lines;
    }
    let start = if begun.is_empty() { input.offset() } else { start };
    read_lines(input, FirstLine { number, text: begun, start }, sink)
}

/// Reads the lines of an input that begins at the line `number`, whose first byte has the offset `start`.
pub(super) fn read_from(input: impl Read, number: u64, start: u64, sink: &impl ItemSink) -> io::Result<()> {
    let mut input = CountingReader::new(BufReader::with_capacity(BUFFER, input));
    input.consumed = start;
    read_lines(input, FirstLine { number, text: Vec::new(), start }, sink)
}

/// The part of the first line that was read.
struct FirstLine {
    number: u64,
    text: Vec<u8>,
    /// The offset of the first byte.
    start: u64,
}

/// Returns the next byte without consuming it.
fn next(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    Ok(input.fill_buf()?.first().copied())
}

/// Skips a byte order mark.
fn skip_mark(input: &mut impl BufRead) -> io::Result<()> {
    // Writers write the mark in one piece. The event parser skips a mark that arrives in parts.
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(())
}

/// Skips white space. Returns the number of line ends in it.
fn skip_space(input: &mut impl BufRead) -> io::Result<u64> {
    let mut lines = 0;
    while let Some(byte) = next(input)?.filter(u8::is_ascii_whitespace) {
        lines += u64::from(byte == b'\n');
        input.consume(1);
    }
    Ok(lines)
}

/// Reads lines. `begun` is the part of the first line that was read.
fn read_lines<R: BufRead>(mut input: CountingReader<R>, begun: FirstLine, sink: &impl ItemSink) -> io::Result<()> {
    let FirstLine { number: first, text: mut line, mut start } = begun;
    for number in first.. {
        let read = (&mut input).take(MAX_EVENT as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 && line.is_empty() {
            return Ok(());
        }
        let is_too_long = line.len() > MAX_EVENT && line.last() != Some(&b'\n');
        if is_too_long {
            skip_line(&mut input)?;
        }
        let position = InputPosition { place: InputPlace::Line(number), start, end: input.offset() };
        let text = line.trim_ascii();
        let wanted = if is_too_long {
            sink.rejected(position, text, ItemError::LineTooLong { max: MAX_EVENT })
        } else {
            text.is_empty() || sink.text(position, text)
        };
        if !wanted {
            return Ok(());
        }
        line.clear();
        start = position.end;
    }
    Ok(())
}

fn skip_line(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let buffer = input.fill_buf()?;
        let (used, done) = match buffer.iter().position(|byte| *byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (buffer.len(), buffer.is_empty()),
        };
        input.consume(used);
        if done {
            return Ok(());
        }
    }
}

/// Reads the elements of an array after its `[`.
fn read_array<R: BufRead>(input: CountingReader<R>, sink: &impl ItemSink) -> io::Result<()> {
    let mut elements = ArrayElements::new(input, MAX_EVENT);
    for number in 1.. {
        let start = elements.input().offset();
        let element = match elements.next_element()? {
            None => return Ok(()),
            Some(element) => element,
        };
        let position = InputPosition { place: InputPlace::Element(number), start, end: elements.input().offset() };
        let wanted = match element {
            Ok(()) => sink.text(position, elements.text()),
            Err(error) => sink.rejected(position, elements.text(), ItemError::Array(error)),
        };
        if !wanted {
            return Ok(());
        }
    }
    Ok(())
}
