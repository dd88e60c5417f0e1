//! When the messages of an open loop are due. Pure arithmetic without a clock.

const SECOND_NS: u128 = 1_000_000_000;

/// Spaces messages evenly and deals them out to connections in turn: message `n` belongs to lane
/// `n % lanes`. The messages of each connection are therefore evenly spaced as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    start_ns: u64,
    rate: u64,
    lanes: u64,
}

impl Schedule {
    /// `rate` messages per second over `lanes` connections, the first at `start_ns`.
    ///
    /// # Panics
    /// If `rate` or `lanes` is 0.
    pub fn new(start_ns: u64, rate: u64, lanes: u64) -> Self {
        assert!(rate > 0 && lanes > 0, "rate and lanes are not 0");
        Schedule { start_ns, rate, lanes }
    }

    /// When message `message` of lane `lane` is due, both counted from 0, in nanoseconds on the
    /// clock of `start_ns`. Each time is rounded down independently, so that errors do not add up.
    #[inline]
    pub fn due_ns(&self, lane: u64, message: u64) -> u64 {
        let n = u128::from(message) * u128::from(self.lanes) + u128::from(lane);
        let after = n * SECOND_NS / u128::from(self.rate);
        u64::try_from(after).unwrap_or(u64::MAX).saturating_add(self.start_ns)
    }

    /// How many messages of lane `lane` are due before `end_ns`.
    pub fn due_before(&self, lane: u64, end_ns: u64) -> u64 {
        let time_ns = u128::from(end_ns.saturating_sub(self.start_ns));
        // Messages of all lanes: the first that is not counted is due at that time or later.
        let all = (time_ns * u128::from(self.rate)).div_ceil(SECOND_NS);
        let of_lane = all.saturating_sub(u128::from(lane)).div_ceil(u128::from(self.lanes));
        u64::try_from(of_lane).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_go_round_at_equal_distances() {
        let schedule = Schedule::new(1000, 4, 2);
        let due: Vec<u64> =
            [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)].map(|(l, m)| schedule.due_ns(l, m)).into();
        let quarter = 250_000_000;
        assert_eq!(
            due,
            [1000, 1000 + quarter, 1000 + 2 * quarter, 1000 + 3 * quarter, 1000 + 4 * quarter]
        );
    }

    #[test]
    fn messages_due_before_a_time_are_counted() {
        for (start, rate, lanes) in [(0, 3, 2), (1000, 7, 3), (5, 999_999_937, 4), (0, 1, 1)] {
            let schedule = Schedule::new(start, rate, lanes);
            for lane in 0..lanes {
                for end in [0, start, start + 1, start + 999, start + 3_000_000_001] {
                    let count = schedule.due_before(lane, end);
                    let due = |message| schedule.due_ns(lane, message);
                    assert!(due(count) >= end, "{schedule:?}, lane {lane}, {end}: {count}");
                    assert!(count == 0 || due(count - 1) < end, "{schedule:?}, {lane}, {end}");
                }
            }
        }
        assert_eq!(Schedule::new(0, 1_000_000_000, 1).due_before(0, u64::MAX), u64::MAX);
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_does_not_drift() {
        let schedule = Schedule::new(0, 3_333_333, 7);
        // The last message of an hour.
        let (lane, message) = (3_333_333 * 3600 % 7, 3_333_333 * 3600 / 7);
        assert_eq!(schedule.due_ns(lane, message), 3600 * 1_000_000_000);
        assert_eq!(schedule.due_ns(0, u64::MAX), u64::MAX);
    }
}
