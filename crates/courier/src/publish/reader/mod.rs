//! The reader: a file or standard input as NDJSON, or as one JSON array.
//!
//! Rules: memory is bounded whatever comes in; an item that is no event is reported with its place and reason, and what
//! follows it is read all the same; reading and parsing have a thread of their own; lines that are complete are handed over
//! before the input is waited for.

mod array;
mod split;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kafka_courier_event_model::{AnyEvent, ParseError};

use super::lines::{Giver, Line, Lines, hand_over};
use super::position::{Place, Position};

/// Bytes of what people are told of an item that is no event, about.
const LONGEST_COMPLAINT: usize = 500;

/// Opens the input. `-` is standard input. The error names the file.
pub(crate) fn open(name: &str) -> Result<Box<dyn Read + Send>, String> {
    if name == "-" {
        return Ok(Box::new(io::stdin()));
    }
    let path = Path::new(name);
    if path.is_dir() {
        return Err(format!("{name} is a directory; name a file of events, or - for standard input"));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(format!("{}: {error}", kafka_courier::shown_file(path))),
    }
}

/// Reads an input on a thread of its own, and hands its lines over.
pub(crate) fn start(input: Box<dyn Read + Send>) -> io::Result<Lines> {
    let (giver, lines) = hand_over();
    std::thread::Builder::new().name("courier-input".to_owned()).spawn(move || {
        let giver = RefCell::new(giver);
        let result = split::read_all(Source { input, giver: &giver }, &giver);
        giver.into_inner().end(result);
    })?;
    Ok(lines)
}

/// Takes an item's text in. Returns whether more is wanted.
fn parse(giver: &RefCell<Giver>, position: Position, text: &[u8]) -> bool {
    let event = AnyEvent::from_json(text).map_err(|error| complaint(position.place, &error));
    giver.borrow_mut().add(Line { position, event }, text.len())
}

/// Takes an item in that is no event. Returns whether more is wanted.
fn reject(giver: &RefCell<Giver>, position: Position, why: String) -> bool {
    giver.borrow_mut().add(Line { position, event: Err(why) }, 0)
}

/// The input itself: before the reader waits for more of it, lines that are complete are handed over.
struct Source<'a> {
    input: Box<dyn Read + Send>,
    giver: &'a RefCell<Giver>,
}

impl Read for Source<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut giver = self.giver.borrow_mut();
        if !giver.give() {
            return Err(io::Error::other("nothing more is wanted"));
        }
        giver.wait();
        let read = self.input.read(buffer);
        if giver.resume() { read } else { Err(io::Error::other("nothing more is wanted")) }
    }
}

/// What people are told of text that is no event.
fn complaint(place: Place, error: &ParseError) -> String {
    let mut text = error.to_string();
    // The text is one line, but not that of the input.
    if let Some(at) = text.rfind(" at line 1 column ") {
        text.replace_range(at.." at line 1".len() + at, " at");
    }
    if let Some((end, _)) = text.char_indices().find(|(at, _)| *at >= LONGEST_COMPLAINT) {
        text.replace_range(end.., "...");
    }
    if let (Place::Line(_), ParseError::Syntax { is_truncated: true, .. }) = (place, error) {
        text.push_str("; one event per line; `jq -c` makes it so");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::lines::Handed;
    use super::*;

    /// Hands its text out byte by byte.
    struct Slow(io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    /// All lines up to the input's end, each with the bytes that its position names.
    fn all(mut lines: Lines) -> Vec<(Line, (u64, u64))> {
        let mut seen = Vec::new();
        loop {
            match lines.blocking_next().unwrap() {
                Handed::Lines(lines) => seen.extend(lines.into_iter().map(|line| {
                    let Position { start, end, .. } = line.position;
                    (line, (start, end))
                })),
                Handed::End => return seen,
                Handed::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// Reads `text`, whole and byte by byte, and says for each item its place and whether it was an event.
    fn read(text: &[u8]) -> Vec<(String, bool)> {
        let input = io::Cursor::new(text.to_vec());
        let told = |lines: &[(Line, (u64, u64))]| -> Vec<_> {
            lines.iter().map(|(line, (_, end))| (line.position.place.to_string(), line.event.is_ok(), *end)).collect()
        };
        let seen = all(start(Box::new(input.clone())).unwrap());
        assert_eq!(told(&all(start(Box::new(Slow(input))).unwrap())), told(&seen), "byte by byte");
        for (line, (start, end)) in &seen {
            let part = &text[usize::try_from(*start).unwrap()..usize::try_from(*end).unwrap()];
            let part = part.trim_ascii().trim_ascii_end();
            let part = part.strip_suffix(b",").or(part.strip_suffix(b"]")).unwrap_or(part);
            let part = part.strip_prefix(b"\xef\xbb\xbf").unwrap_or(part).trim_ascii();
            // The event of exactly these bytes, but for the id and time that it was given.
            assert_eq!(line.event.is_ok(), AnyEvent::from_json(part).is_ok(), "{:?}", String::from_utf8_lossy(part));
        }
        seen.iter().map(|(line, _)| (line.position.place.to_string(), line.event.is_ok())).collect()
    }

    fn seen(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        expected.iter().map(|(place, is_event)| ((*place).to_owned(), *is_event)).collect()
    }

    #[test]
    fn lines_are_numbered_as_an_editor_numbers_them() {
        let text = b"\xef\xbb\xbf{\"type\":\"a\"}\n\n  \ngarbage\r\n{\"type\":\"b\"}";
        assert_eq!(read(text), seen(&[("line 1", true), ("line 4", false), ("line 5", true)]));
        assert_eq!(read(b"\n \n {\"type\":\"a\"}"), seen(&[("line 3", true)]));
    }

    #[test]
    fn an_array_is_read_element_by_element() {
        let text = b" \n[\n {\"type\":\"a\"}, 7,\n{\"type\":\"]b,\"} ]\n";
        assert_eq!(read(text), seen(&[("element 1", true), ("element 2", false), ("element 3", true)]));
    }

    #[test]
    fn the_last_element_is_read_whatever_follows_it() {
        let expected = seen(&[("element 1", true), ("element 2", false)]);
        assert_eq!(read(b"[{\"type\":\"a\"}] x {}"), expected);
        assert_eq!(read(b"[{\"type\":\"a\"},]"), expected);
        assert_eq!(read(b"[{\"type\":\"a\"}, {"), expected);
    }

    #[test]
    fn a_bracket_that_begins_no_array_of_objects_costs_no_event_after_it() {
        for text in ["[INFO] starting\n\n{\"type\":\"a\"}", "[1, 2]\n\n{\"type\":\"a\"}", "[\n7\n{\"type\":\"a\"}"] {
            let found = read(text.as_bytes());
            assert_eq!(found.last(), Some(&("line 3".to_owned(), true)), "{text}");
            assert_eq!(found[0], ("line 1".to_owned(), false), "{text}");
        }
    }

    #[test]
    fn nothing_is_no_event() {
        assert!(read(b"").is_empty());
        assert!(read(b"\n \n").is_empty());
        assert!(read(b"[]").is_empty());
        assert!(read(b"\n[ \n ]\n").is_empty());
    }

    #[test]
    fn every_item_of_a_long_input_arrives_in_order() {
        let text = "{\"type\":\"a\"}\n".repeat(5000);
        let found = read(text.as_bytes());
        assert_eq!(found.len(), 5000);
        assert_eq!(found[4999].0, "line 5000");
    }

    #[tokio::test]
    async fn what_was_read_before_a_stop_is_there_and_nothing_is_waited_for() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut lines = start(Box::new(reader)).unwrap();
        io::Write::write_all(&mut writer, b"{\"type\":\"a\"}\nx\n{\"type\":").unwrap();
        assert_eq!(taken(lines.next().await).unwrap().len(), 2);
        assert!(lines.rest().await.is_none());
    }

    #[tokio::test]
    async fn a_stop_loses_nothing_of_what_waits() {
        let mut lines = start(Box::new(io::Cursor::new("{\"type\":\"a\"}\n".repeat(100_000)))).unwrap();
        let mut found = taken(lines.next().await).unwrap();
        while let Some(more) = taken(lines.rest().await) {
            found.extend(more);
        }
        let places: Vec<_> = found.iter().map(|line| line.position.place).collect();
        assert_eq!(places, (1..=found.len() as u64).map(Place::Line).collect::<Vec<_>>());
        assert!(found.len() < 100_000);
    }

    /// None: nothing more was handed over, and the input's end neither.
    fn taken(handed: Option<Handed>) -> Option<Vec<Line>> {
        match handed? {
            Handed::Lines(lines) => Some(lines),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn the_end_survives_a_stop() {
        let mut lines = start(Box::new(io::Cursor::new("{\"type\":\"a\"}\n"))).unwrap();
        assert_eq!(taken(lines.next().await).unwrap().len(), 1);
        // What the reader has come to by then it hands over, the end too.
        let end = lines.next().await;
        assert!(matches!(end, Some(Handed::End)), "{end:?}");
        assert!(lines.rest().await.is_none());
    }

    #[test]
    fn complaints_name_columns_only_and_are_short() {
        let tell = |place, text: &[u8]| complaint(place, &AnyEvent::from_json(text).unwrap_err());
        assert!(tell(Place::Line(9), b"{\"type\":}").ends_with(" at column 9"));
        assert!(tell(Place::Line(9), b"{\"type\":").ends_with(" at column 8; one event per line; `jq -c` makes it so"));
        assert!(tell(Place::Element(9), b"{\"type\":").ends_with(" at column 8"));
        let error = ParseError::Syntax { reason: "\u{20ac}".repeat(5000), is_truncated: false };
        assert!(complaint(Place::Line(1), &error).len() < LONGEST_COMPLAINT + 10);
    }
}
