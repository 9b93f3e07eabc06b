//! Whether there is room for a request, decided before its body is read.
//!
//! Rule: the check is an early refusal. The producer decides for good when it accepts or refuses the event.

use crate::shapes::failure::Failure;
use crate::shapes::problem::Problem;

/// The state of the producer, at most a moment old.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct RoomSample {
    /// Bytes of memory in use for events.
    pub(crate) buffered: usize,
    /// The limit on that memory.
    pub(crate) buffer_limit: usize,
    /// Why the spool accepts no events, if it accepts none.
    pub(crate) spool_fault: Option<String>,
    /// Whether the producer is closed.
    pub(crate) is_closed: bool,
}

impl RoomSample {
    /// Checks that there is room for an event.
    ///
    /// # Errors
    ///
    /// The failure of each request.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if self.is_closed {
            return Err(Failure::new(Problem::Closing, "the service ends: send the request to another instance"));
        }
        if let Some(fault) = &self.spool_fault {
            return Err(Failure::new(Problem::SpoolFault, format!("the spool accepts no events: {fault}")));
        }
        if self.buffered >= self.buffer_limit {
            let why = format!("buffer_memory is full ({} bytes): Kafka takes events more slowly", self.buffer_limit);
            return Err(Failure::new(Problem::MemoryFull, why));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_named_in_order() {
        let room = RoomSample { buffered: 9, buffer_limit: 10, ..RoomSample::default() };
        assert_eq!(room.check(), Ok(()));
        let full = RoomSample { buffered: 10, ..room };
        assert_eq!(full.check().unwrap_err().problem, Problem::MemoryFull);
        let latched = RoomSample { spool_fault: Some("disk".to_owned()), ..full };
        assert_eq!(latched.check().unwrap_err().problem, Problem::SpoolFault);
        let closed = RoomSample { is_closed: true, ..latched };
        assert_eq!(closed.check().unwrap_err().problem, Problem::Closing);
    }
}
