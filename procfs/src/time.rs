//! Processor time: `/proc/stat`, as proc_stat(5) has it.
//!
//! A cgroup's time is not told for each processor: each gets an even share. What only the machine has (interrupts, context
//! switches) is nought.

use std::fmt::Write;

use crate::cpus::Cpus;

/// Microseconds of a clock tick: `USER_HZ` is 100 on every architecture that we build for.
const TICK_US: u64 = 10_000;

/// What a container has used and not used, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Time {
    user: u64,
    system: u64,
    idle: u64,
}

impl Time {
    /// Takes over what `user_us` and `system_us` have become in the `uptime_us` of a container with `cpus` processors. Idle time
    /// never runs backwards, as when a limit was lowered.
    pub fn update(&mut self, user_us: u64, system_us: u64, uptime_us: u64, cpus: &Cpus) {
        let (user, system) = (user_us / TICK_US, system_us / TICK_US);
        let all = (uptime_us / TICK_US).saturating_mul(count(cpus));
        let idle = all.saturating_sub(user + system).max(self.idle);
        *self = Self { user, system, idle };
    }

    /// The file, for a container that was started at `started` (seconds since 1970) and has so many tasks.
    #[must_use]
    pub fn text(&self, cpus: &Cpus, started: u64, tasks: u64) -> String {
        let mut text = self.line("cpu ", |all| all);
        let count = count(cpus);
        for (number, cpu) in (0..).zip(&cpus.0) {
            // The first ones get what cannot be divided.
            let share = |all: u64| all / count + u64::from(number < all % count);
            text += &self.line(&format!("cpu{cpu}"), share);
        }
        // Writing to a string cannot fail.
        let _written = write!(
            text,
            "intr 0\nctxt 0\nbtime {started}\nprocesses {tasks}\nprocs_running 1\nprocs_blocked 0\nsoftirq 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        text
    }

    fn line(&self, name: &str, share: impl Fn(u64) -> u64) -> String {
        let Self { user, system, idle } = *self;
        format!("{name} {} 0 {} {} 0 0 0 0 0 0\n", share(user), share(system), share(idle))
    }
}

fn count(cpus: &Cpus) -> u64 {
    u64::try_from(cpus.0.len()).unwrap_or(1).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_out_evenly_and_adds_up() {
        let cpus = Cpus(vec![0, 2]);
        let mut time = Time::default();
        time.update(50_000, 30_000, 1_000_000, &cpus);
        let text = time.text(&cpus, 1_700_000_000, 4);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "cpu  5 0 3 192 0 0 0 0 0 0");
        assert_eq!(lines[1], "cpu0 3 0 2 96 0 0 0 0 0 0");
        assert_eq!(lines[2], "cpu2 2 0 1 96 0 0 0 0 0 0");
        assert_eq!(lines[5], "btime 1700000000");
        assert_eq!(lines[6], "processes 4");
    }

    #[test]
    fn idle_time_never_runs_backwards() {
        let mut time = Time::default();
        time.update(0, 0, 1_000_000, &Cpus(vec![0, 1]));
        time.update(0, 0, 1_100_000, &Cpus(vec![0]));
        assert_eq!(time.idle, 200);
    }
}
