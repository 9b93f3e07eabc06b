//! The records that are not settled, by partition and by the segment that holds them.
//!
//! Rule: no round looks at all records. The segments of each piece are kept in order beside the pieces.

use std::collections::{BTreeMap, BTreeSet};

use crate::core::entry::{Ordinal, Partition, Piece};
use crate::core::ids::SegmentNumber;

/// The key of a piece.
type PieceKey = (Partition, Ordinal);

/// Pieces, each with the segment that holds it.
#[derive(Debug, Default)]
pub(super) struct HeldPieces {
    pieces: BTreeMap<PieceKey, (Piece, SegmentNumber)>,
    by_segment: BTreeSet<(SegmentNumber, PieceKey)>,
}

impl HeldPieces {
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.by_segment.clear();
    }

    /// Adds a piece, or moves it to another segment.
    pub(super) fn insert(&mut self, piece: Piece, segment: SegmentNumber) {
        let key = (piece.partition, piece.first);
        if let Some((_, former)) = self.pieces.insert(key, (piece, segment)) {
            self.by_segment.remove(&(former, key));
        }
        self.by_segment.insert((segment, key));
    }

    /// Removes the pieces of a partition that end before `settled`.
    pub(super) fn drop_settled(&mut self, partition: Partition, settled: Ordinal) {
        while let Some((&key, &(_, segment))) = self
            .pieces
            .range((partition, Ordinal(0))..)
            .next()
            .filter(|((of, _), (piece, _))| *of == partition && piece.end() <= settled)
        {
            self.pieces.remove(&key);
            self.by_segment.remove(&(segment, key));
        }
    }

    /// Returns all pieces, by partition and ordinal.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.pieces.values().map(|(piece, _)| piece)
    }

    /// Returns the oldest segment that holds a piece.
    pub(super) fn oldest_segment(&self) -> Option<SegmentNumber> {
        self.by_segment.first().map(|(segment, _)| *segment)
    }

    /// Returns pieces of a segment, until they have `bytes` bytes.
    pub(super) fn some_of(&self, segment: SegmentNumber, bytes: usize) -> Vec<Piece> {
        let (mut some, mut total) = (Vec::new(), 0);
        let keys = self.by_segment.iter().skip_while(|(other, _)| *other < segment);
        for (_, key) in keys.take_while(|(other, _)| *other == segment) {
            let Some((piece, _)) = self.pieces.get(key).filter(|_| total < bytes) else { break };
            total += piece.records.len();
            some.push(piece.clone());
        }
        some
    }
}
