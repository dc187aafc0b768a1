//! Whether something that others are to move still gets on.

use std::time::{Duration, Instant};

/// Where it was seen last, and since when.
pub(crate) struct Standstill<T> {
    seen: Option<(T, Instant)>,
}

impl<T: PartialEq> Standstill<T> {
    pub(crate) fn new() -> Self {
        Self { seen: None }
    }

    /// For how long it has stood where it is seen now: not at all where it has moved since it was seen last.
    pub(crate) fn lasts(&mut self, place: T) -> Duration {
        if let Some((seen, since)) = &self.seen
            && *seen == place
        {
            return since.elapsed();
        }
        self.seen = Some((place, Instant::now()));
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_moved_since_it_was_seen_does_not_stand_still() {
        let mut standstill = Standstill::new();
        assert_eq!(standstill.lasts(1), Duration::ZERO);
        while standstill.lasts(1).is_zero() {}
        assert_eq!(standstill.lasts(2), Duration::ZERO);
        assert_eq!(standstill.lasts(1), Duration::ZERO);
    }
}
