//! Builds batches without an accumulator: of one record, as halves of a batch, or without some of a batch's records.
//!
//! Rules:
//!  - Records keep their order, timestamps and content.
//!  - The halves of a stamped batch keep their records' sequence numbers. The leader then accepts either the whole
//!    batch or its halves, as with the Java client's `ProducerBatch.split`.
//!  - A batch without some of its records has no stamp.

use crate::accumulator::PushError;
use crate::buffer_pool::BufferPool;
use crate::decode::BatchView;
use crate::decode_error::DecodeError;
use crate::encoded::EncodedBatch;
use crate::header::HEADER_LEN;
use crate::limits::{Compression, MAX_BYTES};
use crate::raw::RawBatch;
use crate::record::Record;
use crate::records::DecodedRecord;

impl EncodedBatch {
    /// Encodes one record as an uncompressed batch without a stamp.
    ///
    /// # Errors
    /// Returns [`PushError::TooLarge`] if no batch can hold the record.
    pub fn single(record: &Record<'_>) -> Result<Self, PushError> {
        let mut batch = RawBatch::new(Vec::new());
        let layout = batch.layout(record.payload_len(), record.timestamp);
        let size = HEADER_LEN.saturating_add(layout.len());
        if size > MAX_BYTES {
            return Err(PushError::TooLarge { size, limit: MAX_BYTES });
        }
        batch.append(record, layout);
        Ok(finish(batch, Compression::None))
    }

    /// Splits the batch into two of about the same uncompressed size and the same compression. Returns `None` for a
    /// batch of one record. The halves of a stamped batch are stamped, and each record keeps its sequence number. The
    /// halves together hold one header more than the whole, before compression.
    ///
    /// # Errors
    /// Returns an error if the batch cannot be decoded, which is a defect of this crate.
    pub fn split(&self) -> Result<Option<(Self, Self)>, DecodeError> {
        if self.record_count() < 2 {
            return Ok(None);
        }
        let last = self.record_count() - 1;
        let half = self.uncompressed_len().midpoint(HEADER_LEN);
        self.split_where(|index, front_len, back_records| {
            index == 0 || (index < last && back_records == 0 && front_len < half)
        })
        .map(Some)
    }

    /// Splits the batch before the record at `index`, as [`split`](Self::split) does. Returns `None` if one part would be
    /// empty.
    ///
    /// # Errors
    /// Returns an error if the batch cannot be decoded, which is a defect of this crate.
    pub fn split_at(&self, index: u32) -> Result<Option<(Self, Self)>, DecodeError> {
        if index == 0 || index >= self.record_count() {
            return Ok(None);
        }
        self.split_where(|at, _, _| at < index).map(Some)
    }

    /// Splits the batch. `to_front` gets a record's index, the bytes of the first part, and the records of the second.
    fn split_where(&self, to_front: impl Fn(u32, usize, u32) -> bool) -> Result<(Self, Self), DecodeError> {
        let mut front = RawBatch::new(Vec::new());
        let mut back = RawBatch::new(Vec::new());
        self.each_record(|index, record| {
            let is_first = to_front(index, front.len(), back.records());
            append(if is_first { &mut front } else { &mut back }, record);
        })?;
        let moved = front.records();
        let mut front = finish(front, self.compression()).with_moved_ms(self.moved_ms());
        let mut back = finish(back, self.compression()).with_moved_ms(self.moved_ms());
        if let Some(stamp) = self.current_stamp() {
            front.stamp(stamp);
            back.stamp(stamp.advance(moved));
        }
        Ok((front, back))
    }

    /// Returns the batch without the records at these rising indexes, which the leader rejected (KIP-467). The new
    /// batch has the same compression and no stamp. Returns `None` if no record is left.
    ///
    /// # Errors
    /// Returns an error if the batch cannot be decoded, which is a defect of this crate.
    pub fn without(&self, rejected: &[u32]) -> Result<Option<Self>, DecodeError> {
        let mut kept = RawBatch::new(Vec::new());
        self.each_record(|index, record| {
            if rejected.binary_search(&index).is_err() {
                append(&mut kept, record);
            }
        })?;
        Ok((kept.records() > 0).then(|| finish(kept, self.compression()).with_moved_ms(self.moved_ms())))
    }

    fn each_record(&self, mut visit: impl FnMut(u32, &DecodedRecord<'_>)) -> Result<(), DecodeError> {
        let (view, _) = BatchView::parse(self.as_bytes())?;
        let records = view.records(self.uncompressed_len())?;
        for (index, record) in (0_u32..).zip(&records) {
            visit(index, &record?);
        }
        Ok(())
    }
}

fn append(batch: &mut RawBatch, record: &DecodedRecord<'_>) {
    let record = record.as_record();
    let layout = batch.layout(record.payload_len(), record.timestamp);
    batch.append(&record, layout);
}

fn finish(raw: RawBatch, compression: Compression) -> EncodedBatch {
    let mut batch = raw.finish(compression, &BufferPool::new(0));
    batch.shrink_to_fit();
    batch
}
