//! The elements of a JSON array, one after the other, without holding the array.
//!
//! Rules: only strings and nesting are understood, enough to find where an element ends; whether it is an
//! event is its reader's business. What is wrong with the array itself is reported as an element of its own.

use std::io::{self, BufRead};

pub(super) struct ArrayElements<R> {
    input: R,
    max: usize,
    text: Vec<u8>,
    place: Where,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Where {
    /// Behind the `[`.
    First,
    /// Behind a comma.
    Next,
    /// Behind the `]`.
    Behind,
    /// Nothing more is read.
    End,
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
    /// Reads on behind the `[`.
    pub(super) fn new(input: R, max: usize) -> Self {
        Self { input, max, text: Vec::new(), place: Where::First }
    }

    /// The input, as far as it was read.
    pub(super) fn input(&self) -> &R {
        &self.input
    }

    /// The text of the element that was read last.
    pub(super) fn text(&self) -> &[u8] {
        self.text.trim_ascii()
    }

    /// Reads the next element, whose [`text`](Self::text) is there then, or says what is wrong with the array.
    pub(super) fn next_element(&mut self) -> io::Result<Option<Result<(), String>>> {
        match self.place {
            Where::First | Where::Next => self.element(),
            Where::Behind => self.end(),
            Where::End => Ok(None),
        }
    }

    fn element(&mut self) -> io::Result<Option<Result<(), String>>> {
        self.text.clear();
        let mut nesting = Nesting::default();
        loop {
            let Some(byte) = self.byte()? else {
                self.place = Where::End;
                return Ok(Some(Err("the input ends inside the array".to_owned())));
            };
            if nesting.ends_before(byte) {
                return self.finish(byte);
            }
            if self.text.len() == self.max {
                self.place = Where::End;
                return Ok(Some(Err(format!("longer than {} bytes; what follows it is not read", self.max))));
            }
            self.text.push(byte);
        }
    }

    fn finish(&mut self, end: u8) -> io::Result<Option<Result<(), String>>> {
        let is_first = self.place == Where::First;
        self.place = if end == b']' { Where::Behind } else { Where::Next };
        if !self.text.trim_ascii().is_empty() {
            return Ok(Some(Ok(())));
        }
        if is_first && end == b']' { self.end() } else { Ok(Some(Err("nothing stands beside a comma".to_owned()))) }
    }

    fn end(&mut self) -> io::Result<Option<Result<(), String>>> {
        self.place = Where::End;
        let rest = self.after_space()?;
        Ok(rest.map(|byte| Err(format!("{:?} follows the array; nothing from there on is read", char::from(byte)))))
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
        let mut elements = ArrayElements::new(text.strip_prefix('[').unwrap().as_bytes(), 20);
        let mut seen = Vec::new();
        while let Some(element) = elements.next_element().unwrap() {
            seen.push(element.map(|()| String::from_utf8_lossy(elements.text()).into_owned()));
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
    fn an_empty_place_beside_a_comma_is_an_element_that_is_wrong() {
        let empty = || Err("nothing stands beside a comma".to_owned());
        assert_eq!(elements("[1,,2]"), [ok("1"), empty(), ok("2")]);
        assert_eq!(elements("[1,]"), [ok("1"), empty()]);
        assert_eq!(elements("[,]"), [empty(), empty()]);
        assert_eq!(elements("[ ]"), []);
    }

    #[test]
    fn what_follows_the_array_is_an_element_of_its_own_that_is_wrong() {
        for text in ["[1] x", "[] x"] {
            let mut seen = elements(text);
            assert!(seen.pop().unwrap().unwrap_err().contains("'x' follows the array"));
            assert_eq!(seen, elements(text.trim_end_matches('x')));
        }
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
