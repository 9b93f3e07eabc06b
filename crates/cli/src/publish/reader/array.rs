//! Streaming of the elements of a JSON array.
//!
//! Rules:
//! - Only one element is in memory.
//! - The scanner knows strings and nesting, enough to find the end of an element. The caller parses the element.
//! - An error of the array itself is reported as a separate element.

use std::io::{self, BufRead};

use super::super::item_error::ArrayError;

pub(super) struct ArrayElements<R> {
    input: R,
    max: usize,
    text: Vec<u8>,
    place: ArrayState,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ArrayState {
    /// After the `[`.
    First,
    /// After a comma.
    Next,
    /// After the `]`.
    Closed,
    /// Reading has ended.
    End,
}

/// The open strings, objects and arrays of an element.
#[derive(Default)]
struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Adds a byte. Returns whether the byte follows the end of the element.
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
    /// Creates a reader of the elements after the `[`.
    pub(super) fn new(input: R, max: usize) -> Self {
        Self { input, max, text: Vec::new(), place: ArrayState::First }
    }

    /// Returns the input at its current position.
    pub(super) fn input(&self) -> &R {
        &self.input
    }

    /// Returns the text of the last element.
    pub(super) fn text(&self) -> &[u8] {
        self.text.trim_ascii()
    }

    /// Reads the next element into [`text`](Self::text), or returns the error of the array.
    pub(super) fn next_element(&mut self) -> io::Result<Option<Result<(), ArrayError>>> {
        match self.place {
            ArrayState::First | ArrayState::Next => self.element(),
            ArrayState::Closed => self.end(),
            ArrayState::End => Ok(None),
        }
    }

    fn element(&mut self) -> io::Result<Option<Result<(), ArrayError>>> {
        self.text.clear();
        let mut nesting = Nesting::default();
        loop {
            let Some(byte) = self.byte()? else {
                self.place = ArrayState::End;
                return Ok(Some(Err(ArrayError::NoEnd)));
            };
            if nesting.ends_before(byte) {
                return self.finish(byte);
            }
            if self.text.len() == self.max {
                self.place = ArrayState::End;
                return Ok(Some(Err(ArrayError::TooLong { max: self.max })));
            }
            self.text.push(byte);
        }
    }

    fn finish(&mut self, end: u8) -> io::Result<Option<Result<(), ArrayError>>> {
        let is_first = self.place == ArrayState::First;
        self.place = if end == b']' { ArrayState::Closed } else { ArrayState::Next };
        if !self.text.trim_ascii().is_empty() {
            return Ok(Some(Ok(())));
        }
        if is_first && end == b']' { self.end() } else { Ok(Some(Err(ArrayError::NoElement))) }
    }

    fn end(&mut self) -> io::Result<Option<Result<(), ArrayError>>> {
        self.place = ArrayState::End;
        let rest = self.after_space()?;
        Ok(rest.map(|byte| Err(ArrayError::TextAfterEnd(byte.into()))))
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

    fn elements(text: &str) -> Vec<Result<String, ArrayError>> {
        let mut elements = ArrayElements::new(text.strip_prefix('[').unwrap().as_bytes(), 20);
        let mut seen = Vec::new();
        while let Some(element) = elements.next_element().unwrap() {
            seen.push(element.map(|()| String::from_utf8_lossy(elements.text()).into_owned()));
        }
        seen
    }

    fn ok(text: &str) -> Result<String, ArrayError> {
        Ok(text.to_owned())
    }

    #[test]
    fn strings_and_nesting_hide_ends() {
        assert_eq!(elements(r#"[{"a":"],\"}"}, [1,[2]] ,"x"]"#), [ok(r#"{"a":"],\"}"}"#), ok("[1,[2]]"), ok("\"x\"")]);
    }

    #[test]
    fn missing_element_is_an_error() {
        let empty = || Err(ArrayError::NoElement);
        assert_eq!(elements("[1,,2]"), [ok("1"), empty(), ok("2")]);
        assert_eq!(elements("[1,]"), [ok("1"), empty()]);
        assert_eq!(elements("[,]"), [empty(), empty()]);
        assert_eq!(elements("[ ]"), []);
    }

    #[test]
    fn text_after_array_is_an_error() {
        for text in ["[1] x", "[] x"] {
            let mut seen = elements(text);
            assert_eq!(seen.pop().unwrap(), Err(ArrayError::TextAfterEnd('x')));
            assert_eq!(seen, elements(text.trim_end_matches('x')));
        }
    }

    #[test]
    fn unclosed_array_is_an_error() {
        assert_eq!(elements("[1, {\"a\"")[1], Err(ArrayError::NoEnd));
    }

    #[test]
    fn overlong_element_is_an_error() {
        assert_eq!(elements(&format!("[\"{}\"]", "x".repeat(50)))[0], Err(ArrayError::TooLong { max: 20 }));
    }
}
