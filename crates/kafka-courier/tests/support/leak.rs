//! Finds a secret in a text, in any encoding in which a program prints bytes.
//!
//! Rule: eight successive bytes are a leak, as text, hexadecimal, decimal or base64, with any separator between bytes.
#![allow(dead_code, reason = "each test binary uses a part of this module")]
use std::collections::HashSet;

/// The number of successive bytes of a secret that are a leak.
const WINDOW: usize = 8;

/// The number of base64 characters that hold at least [`WINDOW`] bytes.
const CODED: usize = 11;

/// Returns the encoding in which `output` shows eight bytes of `secret`, and the bytes.
pub(crate) fn find(secret: &[u8], output: &str) -> Option<(&'static str, String)> {
    let lower = output.to_ascii_lowercase();
    let bare = lower.replace("0x", " ").replace("\\x", " ");
    let hex: Vec<u8> = bare.bytes().filter(u8::is_ascii_hexdigit).collect();
    let numbers = numbers(output);
    let shown = |window: &[u8]| String::from_utf8_lossy(window).into_owned();
    let text: HashSet<&[u8]> = output.as_bytes().windows(WINDOW).collect();
    let hex: HashSet<&[u8]> = hex.windows(2 * WINDOW).collect();
    let decimal: HashSet<&[u8]> = numbers.windows(WINDOW).collect();
    for window in secret.windows(WINDOW).filter(|window| !is_plain(window)) {
        let coded: String = window.iter().map(|byte| format!("{byte:02x}")).collect();
        let ways = [
            ("text", text.contains(window)),
            ("hexadecimal", hex.contains(coded.as_bytes())),
            ("decimal", decimal.contains(window)),
        ];
        if let Some((way, _)) = ways.iter().find(|way| way.1) {
            return Some((way, shown(window)));
        }
    }
    let coded: HashSet<&[u8]> = output.as_bytes().windows(CODED).collect();
    for from in 0..3.min(secret.len()) {
        let standard = base64(&secret[from..]);
        let urls = standard.replace('+', "-").replace('/', "_");
        for text in [standard, urls] {
            if let Some(window) = text.as_bytes().windows(CODED).find(|window| coded.contains(window)) {
                return Some(("base64", shown(window)));
            }
        }
    }
    None
}

/// Returns whether the bytes are dashes or a repetition, which every PEM file has.
fn is_plain(window: &[u8]) -> bool {
    window.iter().all(|byte| *byte == window[0]) || window.contains(&b'-') && window.contains(&b' ')
}

/// Returns all numbers in the text. A number that is no byte counts as 0.
fn numbers(text: &str) -> Vec<u8> {
    let words = text.split(|c: char| !c.is_ascii_digit()).filter(|word| !word.is_empty());
    words.map(|word| word.parse().unwrap_or(0)).collect()
}

/// Encodes bytes as base64 without padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]));
        }
    }
    text
}

/// Returns an error's `Display`, both forms of its `Debug`, and the texts of its sources.
pub(crate) fn all_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = format!("{error}\n{error:?}\n{error:#?}\n");
    let mut next = error.source();
    while let Some(source) = next {
        text += &format!("{source}\n{source:?}\n");
        next = source.source();
    }
    text
}

#[test]
fn each_encoding_is_found() {
    let secret = b"k3y-0123456789-abcdefg";
    assert_eq!(find(secret, "nothing of k3y or 0123456"), None);
    let part = &secret[3..14];
    let spaced: Vec<String> = part.iter().map(|byte| format!("{byte:#04x}")).collect();
    for (way, text) in [
        ("text", String::from_utf8_lossy(part).into_owned()),
        ("decimal", format!("{part:?}")),
        ("decimal", format!("{part:#?}")),
        ("hexadecimal", format!("{part:02x?}")),
        ("hexadecimal", spaced.join(":")),
        ("base64", base64(part)),
        ("base64", format!("x{}", base64(&secret[4..]))),
    ] {
        assert_eq!(find(secret, &text).map(|found| found.0), Some(way), "{text}");
    }
}
