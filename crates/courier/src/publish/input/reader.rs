//! What the bytes of the input are: an array's elements, or lines.
//!
//! Rules: an array is what begins with `[` and then `{` or `]`, whatever white space there is and however the bytes come
//! in; all else is lines, so that a log line before the events costs no event.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};

use super::array::ArrayElements;
use super::{Chunks, Place};

/// The longest event that is read at all, in bytes; Kafka takes far less.
const MAX_EVENT: usize = 64 << 20;
/// Bytes that are read at once, at most.
const BUFFER: usize = 256 << 10;

/// Takes all of the input apart. Ends early, with or without an error, once nobody wants more.
pub(super) fn read_all(input: impl Read, chunks: &RefCell<Chunks<'_>>) -> io::Result<()> {
    let mut input = BufReader::with_capacity(BUFFER, input);
    skip_mark(&mut input)?;
    let mut number = 1 + skip_space(&mut input)?;
    let mut begun = Vec::new();
    if next(&mut input)? == Some(b'[') {
        input.consume(1);
        let lines = skip_space(&mut input)?;
        if matches!(next(&mut input)?, Some(b'{' | b']') | None) {
            return read_array(input, chunks);
        }
        if lines == 0 {
            begun.push(b'[');
        } else if !chunks.borrow_mut().push(Place::Line(number), b"[") {
            return Ok(());
        }
        number += lines;
    }
    read_lines(input, number, begun, chunks)
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

/// Reads lines from this number on, the first of which has begun like this.
fn read_lines(mut input: impl BufRead, first: u64, begun: Vec<u8>, chunks: &RefCell<Chunks<'_>>) -> io::Result<()> {
    let mut line = begun;
    for number in first.. {
        let read = (&mut input).take(MAX_EVENT as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 && line.is_empty() {
            return Ok(());
        }
        let place = Place::Line(number);
        let wanted = if line.len() > MAX_EVENT && line.last() != Some(&b'\n') {
            skip_line(&mut input)?;
            chunks.borrow_mut().add(place, Err(format!("longer than {MAX_EVENT} bytes")), 0)
        } else if line.trim_ascii().is_empty() {
            true
        } else {
            chunks.borrow_mut().push(place, line.trim_ascii())
        };
        if !wanted {
            return Ok(());
        }
        line.clear();
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
fn read_array(input: impl BufRead, chunks: &RefCell<Chunks<'_>>) -> io::Result<()> {
    let mut elements = ArrayElements::new(input, MAX_EVENT);
    for number in 1.. {
        let place = Place::Element(number);
        let wanted = match elements.next_element()? {
            None => return Ok(()),
            Some(Ok(text)) => chunks.borrow_mut().push(place, text),
            Some(Err(why)) => chunks.borrow_mut().add(place, Err(why), 0),
        };
        if !wanted {
            return Ok(());
        }
    }
    Ok(())
}
