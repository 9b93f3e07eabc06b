//! The topic names that requests may choose.
//!
//! Rule: the producer keeps the state of each name, also of a topic that the cluster does not have. The number of names is therefore
//! bounded, and a known name is always accepted.

use std::collections::HashSet;

use crate::shapes::failure::Failure;
use crate::shapes::problem::Problem;

/// The names until now.
#[derive(Debug)]
pub(crate) struct TopicNames {
    known: HashSet<Box<str>>,
    max: usize,
}

impl TopicNames {
    pub(crate) fn new(max: usize) -> Self {
        Self { known: HashSet::new(), max }
    }

    /// Notes the name of a request.
    ///
    /// # Errors
    ///
    /// [`Problem::TooManyTopics`] for a new name, if there is no room.
    pub(crate) fn admit(&mut self, name: &str) -> Result<(), Failure> {
        if self.known.contains(name) {
            return Ok(());
        }
        if self.known.len() >= self.max {
            let why = format!(
                "requests have named {} topics since the service started: use one of them, or raise max_topics",
                self.max
            );
            return Err(Failure::new(Problem::TooManyTopics, why));
        }
        self.known.insert(name.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_stay_accepted() {
        let mut names = TopicNames::new(2);
        assert!(names.admit("a").is_ok() && names.admit("b").is_ok());
        assert_eq!(names.admit("c").unwrap_err().problem, Problem::TooManyTopics);
        assert!(names.admit("a").is_ok() && names.admit("b").is_ok());
    }
}
