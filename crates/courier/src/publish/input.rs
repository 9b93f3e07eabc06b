//! Events from a file or standard input: NDJSON, or one JSON array.
//!
//! Rules: memory is bounded whatever comes in; what is no event is reported with its place and reason, and
//! what follows it is read all the same; reading and parsing have a thread of their own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use kafka_courier_event_model::AnyEvent;
use tokio::sync::mpsc;

use super::array::ArrayElements;

/// The longest event that is read at all; Kafka takes far less.
const MAX_EVENT: usize = 64 << 20;
/// Items that are handed over at once.
const CHUNK: usize = 256;
/// Bytes of events that are handed over at once, about.
const CHUNK_BYTES: usize = 512 << 10;
/// Chunks that may wait.
const WAITING: usize = 4;

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

/// Reads on a thread of its own. The channel ends with the input; an error is its last item.
pub(crate) fn start(input: Box<dyn Read + Send>) -> io::Result<mpsc::Receiver<Chunk>> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::Builder::new().name("courier-input".to_owned()).spawn(move || {
        let mut chunks = Chunks { sender: &sender, items: Vec::new(), bytes: 0 };
        let result = read_all(BufReader::with_capacity(256 << 10, input), &mut chunks);
        chunks.hand_over();
        if let Err(error) = result {
            // Whoever reads may have stopped.
            let _ = sender.blocking_send(Err(error));
        }
    })?;
    Ok(receiver)
}

struct Chunks<'a> {
    sender: &'a mpsc::Sender<Chunk>,
    items: Vec<Item>,
    bytes: usize,
}

impl Chunks<'_> {
    /// Takes an event's text in. Returns whether anybody still wants more.
    fn push(&mut self, place: Place, text: &[u8]) -> bool {
        let event = AnyEvent::from_json(text).map_err(|error| error.to_string());
        self.add(place, event, text.len())
    }

    fn add(&mut self, place: Place, event: Result<AnyEvent, String>, bytes: usize) -> bool {
        self.items.push(Item { place, event });
        self.bytes += bytes;
        if self.items.len() >= CHUNK || self.bytes >= CHUNK_BYTES { self.hand_over() } else { true }
    }

    fn hand_over(&mut self) -> bool {
        self.bytes = 0;
        let items = std::mem::take(&mut self.items);
        items.is_empty() || self.sender.blocking_send(Ok(items)).is_ok()
    }
}

fn read_all<R: Read>(mut input: BufReader<R>, chunks: &mut Chunks<'_>) -> io::Result<()> {
    if starts_with_bracket(&mut input)? { read_array(input, chunks) } else { read_lines(input, chunks) }
}

/// Passes over white space and a byte order mark, and looks whether a `[` follows.
fn starts_with_bracket(input: &mut impl BufRead) -> io::Result<bool> {
    let head = input.fill_buf()?;
    let marked = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    Ok(marked.trim_ascii_start().first() == Some(&b'['))
}

fn read_lines<R: Read>(mut input: BufReader<R>, chunks: &mut Chunks<'_>) -> io::Result<()> {
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let read = (&mut input).take(MAX_EVENT as u64 + 1).read_until(b'\n', &mut line)?;
        if read == 0 {
            return Ok(());
        }
        let place = Place::Line(number);
        let wanted = if line.len() > MAX_EVENT && line.last() != Some(&b'\n') {
            skip_line(&mut input)?;
            chunks.add(place, Err(format!("longer than {MAX_EVENT} bytes")), 0)
        } else if line.trim_ascii().is_empty() {
            true
        } else {
            chunks.push(place, line.trim_ascii())
        };
        if !wanted {
            return Ok(());
        }
        // What was read is not held back while a slow writer makes the next line.
        if input.buffer().is_empty() && !chunks.hand_over() {
            return Ok(());
        }
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

fn read_array(input: impl BufRead, chunks: &mut Chunks<'_>) -> io::Result<()> {
    let mut elements = ArrayElements::new(input, MAX_EVENT);
    for number in 1.. {
        let wanted = match elements.next_element()? {
            None => return Ok(()),
            Some(Ok(text)) => chunks.push(Place::Element(number), text),
            Some(Err(why)) => chunks.add(Place::Element(number), Err(why), 0),
        };
        if !wanted {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads `text` and says for each item its place and whether it was an event.
    fn read(text: &[u8]) -> Vec<(String, bool)> {
        let mut receiver = start(Box::new(io::Cursor::new(text.to_vec()))).unwrap();
        let mut seen = Vec::new();
        while let Some(chunk) = receiver.blocking_recv() {
            seen.extend(chunk.unwrap().iter().map(|item| (item.place.to_string(), item.event.is_ok())));
        }
        seen
    }

    #[test]
    fn lines_are_numbered_as_an_editor_numbers_them() {
        let seen = read(b"{\"type\":\"a\"}\n\n  \ngarbage\r\n{\"type\":\"b\"}");
        assert_eq!(seen, [("line 1".to_owned(), true), ("line 4".to_owned(), false), ("line 5".to_owned(), true)]);
    }

    #[test]
    fn an_array_is_read_element_by_element() {
        let seen = read(b" \n[ {\"type\":\"a\"}, 7,\n{\"type\":\"]b,\"} ]\n");
        assert_eq!(
            seen,
            [("element 1".to_owned(), true), ("element 2".to_owned(), false), ("element 3".to_owned(), true)]
        );
    }

    #[test]
    fn nothing_is_no_event() {
        assert!(read(b"").is_empty());
        assert!(read(b"\n \n").is_empty());
        assert!(read(b"[]").is_empty());
    }

    #[test]
    fn every_item_of_a_long_input_arrives_in_order() {
        let text = "{\"type\":\"a\"}\n".repeat(5000);
        let seen = read(text.as_bytes());
        assert_eq!(seen.len(), 5000);
        assert_eq!(seen[4999].0, "line 5000");
    }
}
