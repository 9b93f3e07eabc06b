//! The elements of a JSON array, one after the other, without holding the array.
//!
//! Rules: only strings and nesting are understood, enough to find where an element ends; whether it is an
//! event is its reader's business. What is wrong with the array itself is reported as an element, once, and
//! ends it.

use std::io::{self, BufRead};

pub(super) struct ArrayElements<R> {
    input: R,
    max: usize,
    text: Vec<u8>,
    place: Where,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    Before,
    Between,
    After,
}

/// What the bytes so far have opened.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Takes a byte in. Returns whether it ends the element without belonging to it.
    fn ends_before(&mut self, byte: u8) -> bool {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return false;
        }
        match byte {
            b',' | b']' if self.depth == 0 => return true,
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        false
    }
}

impl<R: BufRead> ArrayElements<R> {
    pub(super) fn new(input: R, max: usize) -> Self {
        Self { input, max, text: Vec::new(), place: Where::Before }
    }

    /// The next element's text, or what is wrong with the array.
    pub(super) fn next_element(&mut self) -> io::Result<Option<Result<&[u8], String>>> {
        if self.place == Where::Before {
            self.open()?;
        }
        if self.place == Where::After {
            return Ok(None);
        }
        self.text.clear();
        let mut nesting = Nesting::default();
        loop {
            let Some(byte) = self.byte()? else {
                self.place = Where::After;
                return Ok(Some(Err("the input ends inside the array".to_owned())));
            };
            if nesting.ends_before(byte) {
                return self.finish(byte);
            }
            if self.text.len() == self.max {
                self.place = Where::After;
                return Ok(Some(Err(format!("longer than {} bytes; what follows it is not read", self.max))));
            }
            self.text.push(byte);
        }
    }

    fn finish(&mut self, end: u8) -> io::Result<Option<Result<&[u8], String>>> {
        let first_and_last = self.place == Where::Between && end == b']' && self.text.trim_ascii().is_empty();
        if end == b']' {
            self.place = Where::After;
            if let Some(byte) = self.after_space()? {
                return Ok(Some(Err(format!("{:?} follows the array", char::from(byte)))));
            }
        }
        if first_and_last {
            return Ok(None);
        }
        Ok(Some(Ok(self.text.trim_ascii())))
    }

    /// Passes over everything up to and with the `[` that the caller has seen coming.
    fn open(&mut self) -> io::Result<()> {
        while self.byte()?.is_some_and(|byte| byte != b'[') {}
        self.place = Where::Between;
        Ok(())
    }

    fn after_space(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                other => return Ok(other),
            }
        }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.input.fill_buf()?.first().copied();
        self.input.consume(usize::from(byte.is_some()));
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(text: &str) -> Vec<Result<String, String>> {
        let mut elements = ArrayElements::new(text.as_bytes(), 20);
        let mut seen = Vec::new();
        while let Some(element) = elements.next_element().unwrap() {
            seen.push(element.map(|text| String::from_utf8_lossy(text).into_owned()));
        }
        seen
    }

    fn ok(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    #[test]
    fn strings_and_nesting_hide_what_looks_like_an_end() {
        assert_eq!(elements(r#"[{"a":"],\"}"}, [1,[2]] ,"x"]"#), [ok(r#"{"a":"],\"}"}"#), ok("[1,[2]]"), ok("\"x\"")]);
    }

    #[test]
    fn an_empty_place_between_commas_is_an_element_that_will_be_no_event() {
        assert_eq!(elements("[1,,2]"), [ok("1"), ok(""), ok("2")]);
    }

    #[test]
    fn what_follows_the_array_is_reported() {
        assert_eq!(elements("[1] x").len(), 1);
        assert!(elements("[1] x")[0].as_ref().unwrap_err().contains("follows the array"));
    }

    #[test]
    fn an_array_that_does_not_end_is_reported() {
        assert!(elements("[1, {\"a\"")[1].as_ref().unwrap_err().contains("ends inside"));
    }

    #[test]
    fn an_element_beyond_the_limit_is_reported_and_not_held() {
        assert!(elements(&format!("[\"{}\"]", "x".repeat(50)))[0].as_ref().unwrap_err().contains("longer than 20"));
    }
}
