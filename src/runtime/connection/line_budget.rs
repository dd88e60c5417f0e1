//! Limits log lines that peers can cause to a number per second; one more line counts the rest.
//! Peers decide how often connections fail, and they must not be able to fill a disk.

use crate::config::LOG_LINES_PER_SECOND;
use std::time::{Duration, Instant};

/// The lines of one kind.
pub(crate) struct LineBudget {
    rest: &'static str,
    second: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LineBudget {
    /// A full budget; `rest` is what the line says that counts the others.
    pub(crate) fn new(rest: &'static str) -> Self {
        LineBudget { rest, second: None, written: 0, suppressed: 0 }
    }

    /// Writes the line that counts the others, if there are any.
    pub(crate) fn count_suppressed(&mut self) {
        if self.suppressed > 0 {
            tracing::warn!(connections = self.suppressed, "{}", self.rest);
        }
        self.suppressed = 0;
    }

    /// Whether a line may be written at `now`.
    pub(crate) fn allow(&mut self, now: Instant) -> bool {
        let fresh = self.second.is_none_or(|start| now - start >= Duration::from_secs(1));
        if fresh {
            self.count_suppressed();
            *self = LineBudget { second: Some(now), ..LineBudget::new(self.rest) };
        }
        let allowed = self.written < LOG_LINES_PER_SECOND;
        self.written += u32::from(allowed);
        self.suppressed += u64::from(!allowed);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_limited_per_second() {
        let mut budget = LineBudget::new("more");
        let start = Instant::now();
        let allowed = |budget: &mut LineBudget, at: Duration| {
            (0..100).filter(|_| budget.allow(start + at)).count()
        };
        assert_eq!(allowed(&mut budget, Duration::ZERO), LOG_LINES_PER_SECOND as usize);
        assert_eq!(budget.suppressed, 100 - u64::from(LOG_LINES_PER_SECOND));
        assert_eq!(allowed(&mut budget, Duration::from_millis(999)), 0);
        assert_eq!(
            allowed(&mut budget, Duration::from_millis(1000)),
            LOG_LINES_PER_SECOND as usize
        );
    }
}
