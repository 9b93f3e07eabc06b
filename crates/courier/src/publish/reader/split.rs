//! What the bytes of the input are: an array's elements, or lines.
//!
//! Rules: an array is what begins with `[` and then `{` or `]`, whatever white space there is and however the bytes come
//! in; all else is lines, so that a log line before the events costs no event.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};

use super::array::ArrayElements;
use super::{Giver, Place, Position, parse, reject};

/// The longest event that is read at all, in bytes; Kafka takes far less.
const MAX_EVENT: usize = 64 << 20;
/// Bytes that are read at once, at most.
const BUFFER: usize = 256 << 10;

/// An input, and how many of its bytes were consumed.
pub(super) struct Counted<R> {
    input: R,
    consumed: u64,
}

impl<R: BufRead> Counted<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, consumed: 0 }
    }

    /// The offset of the next byte.
    pub(super) fn offset(&self) -> u64 {
        self.consumed
    }
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.consumed += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.consumed += amount as u64;
        self.input.consume(amount);
    }
}

/// Takes all of the input apart. Ends early, with or without an error, once nothing more is wanted.
pub(super) fn read_all(input: impl Read, giver: &RefCell<Giver>) -> io::Result<()> {
    let mut input = Counted::new(BufReader::with_capacity(BUFFER, input));
    skip_mark(&mut input)?;
    let mut number = 1 + skip_space(&mut input)?;
    let mut begun = Vec::new();
    let start = input.offset();
    if next(&mut input)? == Some(b'[') {
        input.consume(1);
        let end = input.offset();
        let lines = skip_space(&mut input)?;
        if matches!(next(&mut input)?, Some(b'{' | b']') | None) {
            return read_array(input, giver);
        }
        if lines == 0 {
            begun.push(b'[');
        } else if !parse(giver, Position { place: Place::Line(number), start, end }, b"[") {
            return Ok(());
        }
        number += lines;
    }
    let start = if begun.is_empty() { input.offset() } else { start };
    read_lines(input, Begun { number, text: begun, start }, giver)
}

/// The first line, as far as it was read.
struct Begun {
    number: u64,
    text: Vec<u8>,
    /// The offset of its first byte.
    start: u64,
}

/// The byte that comes next.
fn next(input: &mut impl BufRead) -> io::Result<Option<u8>> {
    Ok(input.fill_buf()?.first().copied())
}

/// Passes over a byte order mark.
fn skip_mark(input: &mut impl BufRead) -> io::Result<()> {
    // Writers put it out whole; in parts it is passed over where the event is read.
    if input.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        input.consume(3);
    }
    Ok(())
}

/// Passes over white space. Returns how many lines end in it.
fn skip_space(input: &mut impl BufRead) -> io::Result<u64> {
    let mut lines = 0;
    while let Some(byte) = next(input)?.filter(u8::is_ascii_whitespace) {
        lines += u64::from(byte == b'\n');
        input.consume(1);
    }
    Ok(lines)
}

/// Reads lines, the first of which has begun like this.
fn read_lines<R: BufRead>(mut input: Counted<R>, begun: Begun, giver: &RefCell<Giver>) -> io::Result<()> {
    let Begun { number: first, text: mut line, mut start } = begun;
    for number in first.. {
        let read = (&mut input).take(MAX_EVENT as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 && line.is_empty() {
            return Ok(());
        }
        let is_too_long = line.len() > MAX_EVENT && line.last() != Some(&b'\n');
        if is_too_long {
            skip_line(&mut input)?;
        }
        let position = Position { place: Place::Line(number), start, end: input.offset() };
        let text = line.trim_ascii();
        let wanted = if is_too_long {
            reject(giver, position, format!("longer than {MAX_EVENT} bytes"))
        } else {
            text.is_empty() || parse(giver, position, text)
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

/// Reads the elements of an array behind its `[`.
fn read_array<R: BufRead>(input: Counted<R>, giver: &RefCell<Giver>) -> io::Result<()> {
    let mut elements = ArrayElements::new(input, MAX_EVENT);
    for number in 1.. {
        let start = elements.input().offset();
        let element = match elements.next_element()? {
            None => return Ok(()),
            Some(element) => element,
        };
        let position = Position { place: Place::Element(number), start, end: elements.input().offset() };
        let wanted = match element {
            Ok(()) => parse(giver, position, elements.text()),
            Err(why) => reject(giver, position, why),
        };
        if !wanted {
            return Ok(());
        }
    }
    Ok(())
}
