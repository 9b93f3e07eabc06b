//! The reader of a file or standard input: NDJSON, or one JSON array.
//!
//! Rules:
//! - Memory is bounded for any input.
//! - An item that is not an event is reported with its place and reason, and reading continues.
//! - Reading and parsing have a separate thread.
//! - Complete lines are sent to the publisher before the reader waits for input.

mod array;
mod split;

use std::cell::RefCell;
use std::io::{self, Read};

use kafka_courier_event_model::AnyEvent;

use super::item_error::ItemError;
use super::known_items::KnownItems;
use super::line_channel::{InputLine, LineReceiver, LineSender, line_channel};
use super::position::{InputPlace, InputPosition};

/// An opened input.
pub(crate) struct Source {
    pub(crate) input: Box<dyn Read + Send>,
    /// The number of the line at which `input` begins, and the offset of its first byte. `None`: `input` is whole.
    pub(crate) first: Option<(u64, u64)>,
    /// The items that need no work, for an input with a durable position.
    pub(crate) items: Option<KnownItems>,
}

impl Source {
    /// Returns a whole input without a durable position.
    pub(crate) fn of(input: Box<dyn Read + Send>) -> Self {
        Self { input, first: None, items: None }
    }
}

/// Takes the items of an input, in input order.
pub(crate) trait ItemSink {
    /// Takes an item. Returns whether the reader must continue.
    fn text(&self, position: InputPosition, text: &[u8]) -> bool;
    /// Takes an item that is not an event, with the part of its text that was read. Returns whether the reader must continue.
    fn rejected(&self, position: InputPosition, text: &[u8], error: ItemError) -> bool;
}

/// Reads the input on a separate thread, and sends its lines.
pub(crate) fn start(source: Source) -> io::Result<LineReceiver> {
    let Source { input, first, items } = source;
    let (sender, lines) = line_channel();
    std::thread::Builder::new().name("courier-input".to_owned()).spawn(move || {
        let sink = HandoverSink { sender: RefCell::new(sender), items };
        let input = HandoverInput { input, sender: &sink.sender };
        let result = match first {
            Some((number, start)) => split::read_from(input, number, start, &sink),
            None => split::read_all(input, &sink),
        };
        sink.sender.into_inner().end(result);
    })?;
    Ok(lines)
}

/// Reads all items of an input on this thread.
pub(crate) fn read_items(input: impl Read, sink: &impl ItemSink) -> io::Result<()> {
    split::read_all(input, sink)
}

/// Sends items to the publisher, apart from those that need no work.
struct HandoverSink {
    sender: RefCell<LineSender>,
    items: Option<KnownItems>,
}

impl HandoverSink {
    /// Returns the check of an item, or `None` if the item needs no work.
    fn check(&self, position: InputPosition, text: &[u8]) -> Option<u64> {
        self.items.as_ref().map_or(Some(0), |items| items.check(position.place, text))
    }
}

impl ItemSink for HandoverSink {
    fn text(&self, position: InputPosition, text: &[u8]) -> bool {
        let Some(check) = self.check(position, text) else { return true };
        let event = AnyEvent::from_json(text).map_err(|error| ItemError::Parse { place: position.place, error });
        self.sender.borrow_mut().add(InputLine { position, check, event }, text.len())
    }

    fn rejected(&self, position: InputPosition, text: &[u8], error: ItemError) -> bool {
        let Some(check) = self.check(position, text) else { return true };
        self.sender.borrow_mut().add(InputLine { position, check, event: Err(error) }, 0)
    }
}

/// An input that sends all complete lines to the publisher before each read.
struct HandoverInput<'a> {
    input: Box<dyn Read + Send>,
    sender: &'a RefCell<LineSender>,
}

impl Read for HandoverInput<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut sender = self.sender.borrow_mut();
        if !sender.flush() {
            return Err(io::Error::other("the publisher has ended"));
        }
        sender.wait();
        let read = self.input.read(buffer);
        if sender.resume() { read } else { Err(io::Error::other("the publisher has ended")) }
    }
}

#[cfg(test)]
mod tests {
    use kafka_courier_event_model::ParseError;

    use super::super::item_error::{LONGEST_ERROR, describe_error};
    use super::super::line_channel::Handover;
    use super::*;

    /// A reader that returns its text byte by byte.
    struct Slow(io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn start_whole(input: Box<dyn Read + Send>) -> io::Result<LineReceiver> {
        start(Source::of(input))
    }

    /// Returns all lines, each with the start and end of its position.
    fn all(mut lines: LineReceiver) -> Vec<(InputLine, (u64, u64))> {
        let mut seen = Vec::new();
        loop {
            match lines.blocking_next().unwrap() {
                Handover::Lines(lines) => seen.extend(lines.into_iter().map(|line| {
                    let InputPosition { start, end, .. } = line.position;
                    (line, (start, end))
                })),
                Handover::End => return seen,
                Handover::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// Reads `text` in one piece and byte by byte. Returns the place of each item, and whether the item is an event.
    fn read(text: &[u8]) -> Vec<(String, bool)> {
        let input = io::Cursor::new(text.to_vec());
        let summary = |lines: &[(InputLine, (u64, u64))]| -> Vec<_> {
            lines.iter().map(|(line, (_, end))| (line.position.place.to_string(), line.event.is_ok(), *end)).collect()
        };
        let seen = all(start_whole(Box::new(input.clone())).unwrap());
        assert_eq!(summary(&all(start_whole(Box::new(Slow(input))).unwrap())), summary(&seen), "byte by byte");
        for (line, (start, end)) in &seen {
            let part = &text[usize::try_from(*start).unwrap()..usize::try_from(*end).unwrap()];
            let part = part.trim_ascii().trim_ascii_end();
            let part = part.strip_suffix(b",").or(part.strip_suffix(b"]")).unwrap_or(part);
            let part = part.strip_prefix(b"\xef\xbb\xbf").unwrap_or(part).trim_ascii();
            // The item has exactly these bytes.
            assert_eq!(line.event.is_ok(), AnyEvent::from_json(part).is_ok(), "{:?}", String::from_utf8_lossy(part));
        }
        seen.iter().map(|(line, _)| (line.position.place.to_string(), line.event.is_ok())).collect()
    }

    fn seen(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        expected.iter().map(|(place, is_event)| ((*place).to_owned(), *is_event)).collect()
    }

    #[test]
    fn line_numbers_count_all_lines() {
        let text = b"\xef\xbb\xbf{\"type\":\"a\"}\n\n  \ngarbage\r\n{\"type\":\"b\"}";
        assert_eq!(read(text), seen(&[("line 1", true), ("line 4", false), ("line 5", true)]));
        assert_eq!(read(b"\n \n {\"type\":\"a\"}"), seen(&[("line 3", true)]));
    }

    #[test]
    fn array_is_read_by_element() {
        let text = b" \n[\n {\"type\":\"a\"}, 7,\n{\"type\":\"]b,\"} ]\n";
        assert_eq!(read(text), seen(&[("element 1", true), ("element 2", false), ("element 3", true)]));
    }

    #[test]
    fn text_after_array_loses_no_element() {
        let expected = seen(&[("element 1", true), ("element 2", false)]);
        assert_eq!(read(b"[{\"type\":\"a\"}] x {}"), expected);
        assert_eq!(read(b"[{\"type\":\"a\"},]"), expected);
        assert_eq!(read(b"[{\"type\":\"a\"}, {"), expected);
    }

    #[test]
    fn bracket_of_log_line_loses_nothing() {
        for text in ["[INFO] starting\n\n{\"type\":\"a\"}", "[1, 2]\n\n{\"type\":\"a\"}", "[\n7\n{\"type\":\"a\"}"] {
            let found = read(text.as_bytes());
            assert_eq!(found.last(), Some(&("line 3".to_owned(), true)), "{text}");
            assert_eq!(found[0], ("line 1".to_owned(), false), "{text}");
        }
    }

    #[test]
    fn empty_input_has_no_events() {
        assert!(read(b"").is_empty());
        assert!(read(b"\n \n").is_empty());
        assert!(read(b"[]").is_empty());
        assert!(read(b"\n[ \n ]\n").is_empty());
    }

    #[test]
    fn long_input_stays_in_order() {
        let text = "{\"type\":\"a\"}\n".repeat(5000);
        let found = read(text.as_bytes());
        assert_eq!(found.len(), 5000);
        assert_eq!(found[4999].0, "line 5000");
    }

    #[tokio::test]
    async fn stop_does_not_wait_for_input() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut lines = start_whole(Box::new(reader)).unwrap();
        io::Write::write_all(&mut writer, b"{\"type\":\"a\"}\nx\n{\"type\":").unwrap();
        assert_eq!(taken(lines.next().await).unwrap().len(), 2);
        assert!(lines.rest().await.is_none());
    }

    #[tokio::test]
    async fn stop_loses_no_parsed_line() {
        let mut lines = start_whole(Box::new(io::Cursor::new("{\"type\":\"a\"}\n".repeat(100_000)))).unwrap();
        let mut found = taken(lines.next().await).unwrap();
        while let Some(more) = taken(lines.rest().await) {
            found.extend(more);
        }
        let places: Vec<_> = found.iter().map(|line| line.position.place).collect();
        assert_eq!(places, (1..=found.len() as u64).map(InputPlace::Line).collect::<Vec<_>>());
        assert!(found.len() < 100_000);
    }

    /// Returns the lines of a message. Returns `None` if there is no message.
    fn taken(handed: Option<Handover>) -> Option<Vec<InputLine>> {
        match handed? {
            Handover::Lines(lines) => Some(lines),
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn end_is_received_before_stop() {
        let mut lines = start_whole(Box::new(io::Cursor::new("{\"type\":\"a\"}\n"))).unwrap();
        assert_eq!(taken(lines.next().await).unwrap().len(), 1);
        // The reader has reached the end and sends it.
        let end = lines.next().await;
        assert!(matches!(end, Some(Handover::End)), "{end:?}");
        assert!(lines.rest().await.is_none());
    }

    #[test]
    fn errors_name_columns_and_are_short() {
        let error_of = |place, text: &[u8]| describe_error(place, &AnyEvent::from_json(text).unwrap_err());
        assert!(error_of(InputPlace::Line(9), b"{\"type\":}").ends_with(" at column 9"));
        assert!(
            error_of(InputPlace::Line(9), b"{\"type\":")
                .ends_with(" at column 8: write one event per line (`jq -c` does)")
        );
        assert!(error_of(InputPlace::Element(9), b"{\"type\":").ends_with(" at column 8"));
        let error = ParseError::Syntax { reason: "\u{20ac}".repeat(5000), is_truncated: false };
        assert!(describe_error(InputPlace::Line(1), &error).len() < LONGEST_ERROR + 10);
    }
}
