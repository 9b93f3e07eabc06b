//! The part of the summary about a spool, and the exit code of a run with one.
//!
//! Rules:
//! - 75 means that the same command completes the work later: events are left in the spool, or lines in the file.
//! - Events that are left take precedence over events that failed, as the next run delivers the former.

use indicatif::HumanCount;

use super::counts::InputCounts;
use super::monitor::StopReason;
use super::summary::SpoolEnd;
use crate::exit::Exit;

impl SpoolEnd {
    /// Returns why a later run of the same command is needed, if it is.
    pub(super) fn try_again(&self, end: StopReason) -> Option<&'static str> {
        if self.left > 0 {
            Some("events_left")
        } else if end == StopReason::Deadline {
            Some("input_not_read")
        } else {
            None
        }
    }

    /// Returns the sentence about the spool.
    pub(super) fn sentence(&self) -> String {
        let mut text = format!("{} delivered", HumanCount(self.delivered));
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", HumanCount(self.failed)));
        }
        text.push_str(&match self.left {
            0 => format!(", none left in {}", self.dir),
            left => {
                let left = HumanCount(left);
                format!(
                    ", {left} left in {}: run the command again, or `courier spool drain`, to deliver them",
                    self.dir
                )
            }
        });
        text
    }

    /// Returns the line about input that was not read, if there is some.
    pub(super) fn unread(&self, end: StopReason) -> Option<&'static str> {
        match end {
            StopReason::InputEnded | StopReason::Strict => None,
            _ if self.is_file => {
                Some("the input was not published to its end: run the command again, and it continues there")
            }
            _ => Some("the input was not read to its end: what was read is in the spool, or a dead letter"),
        }
    }

    /// Returns the exit code of a run that no signal interrupted.
    pub(super) fn exit_code(&self, counts: &InputCounts, end: StopReason, receipts_failed: bool) -> Exit {
        let refused_all = counts.refusals > 0 && counts.refusals == counts.failed();
        match &self.fault {
            Some((exit, _)) => *exit,
            None if receipts_failed => Exit::Io,
            None if self.try_again(end).is_some() => Exit::Busy,
            None if refused_all && self.failed == 0 => Exit::Refused,
            None if counts.failed() > 0 || self.failed > 0 => Exit::SomeFailed,
            None if counts.bad > 0 || end == StopReason::Strict => Exit::Data,
            None if matches!(end, StopReason::InputFailed | StopReason::SpoolFailed) => Exit::Io,
            None => Exit::Ok,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(left: u64, failed: u64) -> SpoolEnd {
        SpoolEnd { dir: "/s".to_owned(), delivered: 5, failed, left, is_file: true, fault: None }
    }

    #[test]
    fn left_events_need_another_run() {
        let (none, bad) = (InputCounts::default(), InputCounts { bad: 1, ..InputCounts::default() });
        let ended = StopReason::InputEnded;
        assert_eq!(end(0, 0).exit_code(&none, ended, false), Exit::Ok);
        assert_eq!(end(0, 0).exit_code(&bad, ended, false), Exit::Data);
        assert_eq!(end(3, 2).exit_code(&bad, ended, false), Exit::Busy);
        assert_eq!(end(0, 2).exit_code(&bad, ended, false), Exit::SomeFailed);
        assert_eq!(end(0, 0).exit_code(&none, StopReason::Deadline, false), Exit::Busy);
        assert_eq!(end(3, 0).exit_code(&none, ended, true), Exit::Io);
        let fault = SpoolEnd { fault: Some((Exit::Config, "another cluster".to_owned())), ..end(3, 0) };
        assert_eq!(fault.exit_code(&none, ended, false), Exit::Config);
    }

    #[test]
    fn sentence_names_left_events() {
        assert_eq!(end(0, 0).sentence(), "5 delivered, none left in /s");
        let text = end(1200, 1).sentence();
        assert!(text.starts_with("5 delivered, 1 failed, 1,200 left in /s: run the command again"), "{text}");
    }
}
