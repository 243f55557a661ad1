//! When the guest's clock has to be stepped: after a connect, when the host slept, when the host's clock was set.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// A step smaller than this is left to the guest's own time keeping.
const TOLERANCE_NS: i128 = 500_000_000;

/// How the host's clocks stood to each other at one moment, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Wall clock since the Unix epoch.
    pub real: i128,
    /// Time that the host was awake.
    pub awake: i128,
}

impl Sample {
    /// Reads the clocks.
    #[must_use]
    pub fn now() -> Self {
        Self {
            real: nanoseconds(clock_gettime(ClockId::Realtime)),
            awake: nanoseconds(clock_gettime(ClockId::Monotonic)),
        }
    }

    /// Whether the wall clock moved otherwise than awake time did: the host slept, or its clock was set.
    #[must_use]
    pub fn jumped_since(self, earlier: Self) -> bool {
        ((self.real - earlier.real) - (self.awake - earlier.awake)).abs() > TOLERANCE_NS
    }

    /// The wall clock as the link carries it; a time beyond the year 2262 stays at its end.
    #[must_use]
    pub fn unix_ns(self) -> i64 {
        i64::try_from(self.real).unwrap_or(i64::MAX)
    }
}

fn nanoseconds(time: Timespec) -> i128 {
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i128 = 1_000_000_000;

    #[test]
    fn sleep_and_a_set_clock_are_jumps_and_slow_drift_is_not() {
        let start = Sample { real: 100 * SECOND, awake: 10 * SECOND };
        let later = |real, awake| Sample { real: start.real + real, awake: start.awake + awake };
        assert!(!later(5 * SECOND, 5 * SECOND).jumped_since(start));
        assert!(!later(5 * SECOND + TOLERANCE_NS, 5 * SECOND).jumped_since(start));
        assert!(later(3600 * SECOND, 5 * SECOND).jumped_since(start), "slept");
        assert!(later(-60 * SECOND, 5 * SECOND).jumped_since(start), "set back");
    }
}
