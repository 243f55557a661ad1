//! Time as PID 1 needs it: milliseconds since power-on, as the kernel counts them.

use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since power-on, sleep included (`CLOCK_BOOTTIME`).
#[must_use]
pub fn boot_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    seconds * 1000 + millis
}
