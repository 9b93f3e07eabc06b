//! Events from a file or standard input: NDJSON, or one JSON array.
//!
//! Rules: memory is bounded whatever comes in; what is no event is reported with its place and reason, and
//! what follows it is read all the same; reading and parsing have a thread of their own; what is complete is
//! handed over before the input is waited for; what was parsed is not lost when reading is stopped.

mod array;
mod reader;

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use kafka_courier_event_model::{AnyEvent, ParseError};
use tokio::sync::{mpsc, watch};

/// Items that are handed over at once.
const CHUNK: usize = 256;
/// Bytes of events that are handed over at once, about.
const CHUNK_BYTES: usize = 512 << 10;
/// Chunks that may wait.
const WAITING: usize = 4;
/// Bytes of what people are told of an item that is no event, about.
const LONGEST_COMPLAINT: usize = 500;

/// One event of the input, or why it is none.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its place, as it is named to people: the line, or the element of the array, from 1.
    pub(crate) place: Place,
    pub(crate) event: Result<AnyEvent, String>,
}

/// Where in the input something stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    Line(u64),
    Element(u64),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Line(number) => write!(f, "line {number}"),
            Self::Element(number) => write!(f, "element {number}"),
        }
    }
}

/// What the reader hands over.
pub(crate) type Chunk = Result<Vec<Item>, io::Error>;

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
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// How it stands between the thread that reads and whoever wants its items.
#[derive(Clone, Copy, Default)]
struct Standing {
    /// Nothing more is to be read.
    stopped: bool,
    /// All that was read was handed over, and the input has nothing more at the moment.
    waiting: bool,
}

/// The items of an input that is read on a thread of its own.
pub(crate) struct Items {
    chunks: mpsc::Receiver<Chunk>,
    standing: watch::Receiver<Standing>,
    control: watch::Sender<Standing>,
}

impl Items {
    /// Starts reading.
    pub(crate) fn read(input: Box<dyn Read + Send>) -> io::Result<Self> {
        let (sender, chunks) = mpsc::channel(WAITING);
        let (control, standing) = watch::channel(Standing::default());
        let theirs = control.clone();
        std::thread::Builder::new().name("courier-input".to_owned()).spawn(move || {
            let chunks = RefCell::new(Chunks { sender: &sender, control: &theirs, items: Vec::new(), bytes: 0 });
            let result = reader::read_all(Source { input, chunks: &chunks }, &chunks);
            chunks.borrow_mut().hand_over();
            if let Err(error) = result
                && !theirs.borrow().stopped
            {
                // Whoever reads may have gone.
                let _ = sender.blocking_send(Err(error));
            }
        })?;
        Ok(Self { chunks, standing, control })
    }

    /// The next items; none at the input's end. An error is the last.
    ///
    /// Cancel safety: nothing is lost.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        self.chunks.recv().await
    }

    /// Stops reading; the next items that were read before, none once there are no more. Waits for nothing that is not
    /// there yet.
    ///
    /// Cancel safety: nothing is lost.
    pub(crate) async fn rest(&mut self) -> Option<Chunk> {
        self.control.send_modify(|standing| standing.stopped = true);
        tokio::select! {
            biased;
            chunk = self.chunks.recv() => chunk,
            _ = self.standing.wait_for(|standing| standing.waiting) => self.chunks.try_recv().ok(),
        }
    }
}

/// Items on their way to whoever wants them.
struct Chunks<'a> {
    sender: &'a mpsc::Sender<Chunk>,
    control: &'a watch::Sender<Standing>,
    items: Vec<Item>,
    bytes: usize,
}

impl Chunks<'_> {
    /// Takes an event's text in. Returns whether more is wanted.
    fn push(&mut self, place: Place, text: &[u8]) -> bool {
        let event = AnyEvent::from_json(text).map_err(|error| complaint(place, &error));
        self.add(place, event, text.len())
    }

    fn add(&mut self, place: Place, event: Result<AnyEvent, String>, bytes: usize) -> bool {
        self.items.push(Item { place, event });
        self.bytes += bytes;
        if self.items.len() >= CHUNK || self.bytes >= CHUNK_BYTES { self.hand_over() } else { true }
    }

    /// Hands over what there is. Returns whether more is wanted.
    fn hand_over(&mut self) -> bool {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        let taken = items.is_empty() || self.sender.blocking_send(Ok(items)).is_ok();
        taken && !self.control.borrow().stopped
    }
}

/// The input itself: before it is waited for, what is complete is handed over.
struct Source<'a, 'b> {
    input: Box<dyn Read + Send>,
    chunks: &'a RefCell<Chunks<'b>>,
}

impl Read for Source<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut chunks = self.chunks.borrow_mut();
        if !chunks.hand_over() {
            return Err(io::Error::other("nobody wants more"));
        }
        chunks.control.send_modify(|standing| standing.waiting = true);
        let read = self.input.read(buffer);
        let mut stopped = false;
        // In one step: whoever stops the reading sees either that it waits, or that it ends by itself.
        chunks.control.send_modify(|standing| {
            standing.waiting = standing.stopped;
            stopped = standing.stopped;
        });
        if stopped { Err(io::Error::other("nobody wants more")) } else { read }
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
    if let (Place::Line(_), ParseError::Syntax { reason }) = (place, error)
        && reason.starts_with("EOF while parsing")
    {
        text.push_str("; one event per line; `jq -c` makes it so");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands its text out byte by byte.
    struct Slow(io::Cursor<Vec<u8>>);

    impl Read for Slow {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = buffer.len().min(1);
            self.0.read(&mut buffer[..length])
        }
    }

    fn all(mut items: Items) -> Vec<(String, bool)> {
        let mut seen = Vec::new();
        while let Some(chunk) = items.chunks.blocking_recv() {
            seen.extend(chunk.unwrap().iter().map(|item| (item.place.to_string(), item.event.is_ok())));
        }
        seen
    }

    /// Reads `text`, whole and byte by byte, and says for each item its place and whether it was an event.
    fn read(text: &[u8]) -> Vec<(String, bool)> {
        let text = io::Cursor::new(text.to_vec());
        let seen = all(Items::read(Box::new(text.clone())).unwrap());
        assert_eq!(all(Items::read(Box::new(Slow(text))).unwrap()), seen, "byte by byte");
        seen
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
        let mut items = Items::read(Box::new(reader)).unwrap();
        io::Write::write_all(&mut writer, b"{\"type\":\"a\"}\nx\n{\"type\":").unwrap();
        assert_eq!(items.next().await.unwrap().unwrap().len(), 2);
        assert!(items.rest().await.is_none());
    }

    #[tokio::test]
    async fn a_stop_loses_nothing_of_what_waits() {
        let mut items = Items::read(Box::new(io::Cursor::new("{\"type\":\"a\"}\n".repeat(100_000)))).unwrap();
        let mut found = items.next().await.unwrap().unwrap();
        while let Some(chunk) = items.rest().await {
            found.extend(chunk.unwrap());
        }
        let places: Vec<_> = found.iter().map(|item| item.place).collect();
        assert_eq!(places, (1..=found.len() as u64).map(Place::Line).collect::<Vec<_>>());
        assert!(found.len() < 100_000);
    }

    #[test]
    fn complaints_name_columns_only_and_are_short() {
        let tell = |place, text: &[u8]| complaint(place, &AnyEvent::from_json(text).unwrap_err());
        assert!(tell(Place::Line(9), b"{\"type\":}").ends_with(" at column 9"));
        assert!(tell(Place::Line(9), b"{\"type\":").ends_with(" at column 8; one event per line; `jq -c` makes it so"));
        assert!(tell(Place::Element(9), b"{\"type\":").ends_with(" at column 8"));
        let error = ParseError::Syntax { reason: "\u{20ac}".repeat(5000) };
        assert!(complaint(Place::Line(1), &error).len() < LONGEST_COMPLAINT + 10);
    }
}
