//! Where a run continues with an input that earlier runs may have published, in whole or in part.
//!
//! Rules:
//! - The code does no IO beside reading.
//! - An input is known by its name. A file without a known name is a renamed one if an input whose file is gone has its
//!   first items. Otherwise the file is a new input: files may share lines.
//! - An item that is dealt with is not published again, unless the whole file is.

use std::cell::RefCell;
use std::io::{self, Read};

use kafka_courier::spool::SpooledInput;

use super::item_error::ItemError;
use super::known_items::check_of;
use super::position::InputPosition;
use super::reader::{ItemSink, read_items};

/// An input of the spool, beside a file that may be the same.
#[derive(Clone, Debug)]
struct Candidate {
    input: SpooledInput,
    /// Items of the file that are dealt with, and the sum of their checks.
    found: u64,
    sum: u64,
    /// The first item of the file that is not dealt with.
    next: Option<InputPosition>,
}

impl Candidate {
    fn new(input: SpooledInput) -> Self {
        Self { input, found: 0, sum: 0, next: None }
    }

    fn add(&mut self, position: InputPosition, text: &[u8]) {
        if self.input.has(position.place.number()) {
            self.found += 1;
            self.sum = self.sum.wrapping_add(check_of(position.place, text));
        } else {
            self.next.get_or_insert(position);
        }
    }

    fn is_same(&self) -> bool {
        (self.found, self.sum) == (self.input.count(), self.input.check())
    }

    /// Whether later items can't change the result.
    fn is_decided(&self, position: InputPosition) -> bool {
        self.next.is_some() && self.input.last().is_none_or(|last| position.place.number() >= last)
    }
}

/// Compares the items of a file with all inputs of a spool.
struct Scan(RefCell<Vec<Candidate>>);

impl ItemSink for Scan {
    fn text(&self, position: InputPosition, text: &[u8]) -> bool {
        let mut candidates = self.0.borrow_mut();
        candidates.iter_mut().for_each(|candidate| candidate.add(position, text));
        !candidates.iter().all(|candidate| candidate.is_decided(position))
    }

    fn rejected(&self, position: InputPosition, text: &[u8], _: ItemError) -> bool {
        self.text(position, text)
    }
}

/// Where a run continues with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum InputStart {
    /// The file is published from its start.
    New,
    /// The file is published from this item on, apart from later items that are dealt with.
    Continue { input: SpooledInput, at: InputPosition },
    /// Every item is dealt with.
    Finished { input: SpooledInput },
}

/// Whether a file is published from its start although earlier runs have published it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Again {
    No,
    /// If it has changed. A run whose events are not delivered yet is not over.
    IfChanged,
    /// If it has changed, or was published to its end.
    Yes,
}

/// Why a run can't go on with a file: items that are dealt with have changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum ChangedInput {
    #[error("the file is shorter than before: {found} of {count} items that were published are there")]
    Shorter { found: u64, count: u64 },
    #[error("some of its first {last} items are not the ones that were published")]
    Other { last: u64 },
}

/// Reads a file, and compares it with the inputs of a spool. `is_gone` says whether no file has an input's name.
///
/// # Errors
/// The error of the file, or the change.
pub(super) fn start_of(
    file: impl Read,
    name: &str,
    inputs: Vec<SpooledInput>,
    is_gone: impl Fn(&str) -> bool,
    again: Again,
) -> io::Result<Result<InputStart, ChangedInput>> {
    let named = inputs.iter().any(|input| &**input.name() == name);
    let may_be = |known: &str| if named { known == name } else { is_gone(known) };
    let compared = |input: &SpooledInput| input.count() > 0 && may_be(input.name());
    let candidates: Vec<_> = inputs.iter().filter(|input| compared(input)).cloned().map(Candidate::new).collect();
    if candidates.is_empty() {
        return Ok(Ok(InputStart::New));
    }
    let scan = Scan(RefCell::new(candidates));
    read_items(file, &scan)?;
    Ok(decide(scan.0.into_inner(), named, again))
}

fn decide(candidates: Vec<Candidate>, named: bool, again: Again) -> Result<InputStart, ChangedInput> {
    let changed = candidates.first().map(|first| match (first.found, first.input.count()) {
        (found, count) if found < count => ChangedInput::Shorter { found, count },
        (_, count) => ChangedInput::Other { last: first.input.last().unwrap_or(count) },
    });
    let same = candidates.into_iter().filter(Candidate::is_same).max_by_key(|candidate| candidate.input.count());
    match (same, changed) {
        (Some(Candidate { input, next: Some(at), .. }), _) => Ok(InputStart::Continue { input, at }),
        (Some(_), _) if again == Again::Yes => Ok(InputStart::New),
        (Some(Candidate { input, .. }), _) => Ok(InputStart::Finished { input }),
        (None, Some(changed)) if named && again == Again::No => Err(changed),
        (None, _) => Ok(InputStart::New),
    }
}
