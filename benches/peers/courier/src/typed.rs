//! Typed events whose JSON is as large as the other clients' raw values.
//!
//! Rules: an event's text has the same alphabet as a raw value, so that both compress alike. A size below the smallest
//! event's JSON is refused. An event borrows its texts, as the other clients' records borrow their values.

use std::fmt::Write;

use kafka_courier::events::{Envelope, Event, EventBuilder, event_data};

#[derive(serde::Serialize)]
pub struct Click<'a> {
    id: u64,
    user_id: &'a str,
    data: &'a str,
}
event_data!(Click<'_>, "bench.click", key = user_id);

/// Builds the events.
pub struct Clicks {
    builder: EventBuilder,
    /// One text for each value of the pool.
    texts: Vec<String>,
    users: Vec<String>,
}

impl Clicks {
    /// Builds events of `size` bytes of JSON, apart from the digits of their ids.
    pub fn new(size: usize, values: Vec<Vec<u8>>, keys: &[Vec<u8>]) -> Result<Self, String> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut clicks = Self {
            builder: EventBuilder::new("bench", "1"),
            texts: Vec::with_capacity(values.len()),
            users: keys.iter().map(|key| text(key)).collect(),
        };
        let bare = clicks.bare(values.len())?;
        let letters = size
            .checked_sub(bare)
            .ok_or_else(|| format!("--size {size}: an event's JSON takes {bare} bytes: raise it"))?;
        // Each text replaces its value, so that never both are in memory.
        for (index, mut value) in values.into_iter().enumerate() {
            value.retain(u8::is_ascii_alphanumeric);
            value.drain(..value.len().saturating_sub(letters));
            let mut data = String::from_utf8(value).map_err(|error| error.to_string())?;
            while data.len() < letters {
                write!(data, "{index}").map_err(|error| error.to_string())?;
            }
            data.truncate(letters);
            clicks.texts.push(data);
        }
        Ok(clicks)
    }

    /// Returns the bytes of an event without its text.
    fn bare(&self, of: usize) -> Result<usize, String> {
        let mut json = Vec::new();
        let middle = self.users.len() / 2;
        let user_id = self.users.get(middle).map_or("", String::as_str);
        let click = Click { id: of as u64, user_id, data: "" };
        self.builder.custom(click).encode_into(&mut json).map_err(|error| error.to_string())?;
        Ok(json.len())
    }

    /// Builds event `i` with the text of one of the pool's values.
    pub fn click(&self, i: u64, value: usize) -> Envelope<Click<'_>> {
        let user_id = &self.users[(i % self.users.len() as u64) as usize];
        self.builder.custom(Click { id: i, user_id, data: &self.texts[value] })
    }
}
