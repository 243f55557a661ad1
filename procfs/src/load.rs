//! Load averages: `/proc/loadavg`.
//!
//! The kernel samples how many tasks run or wait, for the whole machine. Of a cgroup it tells how long its tasks have run, and how long
//! at least one of them waited for a processor (PSI): the sum of both per second is the load here. So it is right for what
//! runs, and counts many that wait as one. Between two readings the load is taken as even, so that no timer is needed.

/// Seconds that the averages go back, as proc_loadavg(5) has them.
const PERIODS: [f64; 3] = [60.0, 300.0, 900.0];
const MICROSECONDS: f64 = 1_000_000.0;

/// The averages at the last reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// When that was.
    at_us: u64,
    /// How busy the container had been by then.
    busy_us: u64,
    averages: [f64; 3],
}

impl Load {
    /// Of a container that starts at `at_us`.
    #[must_use]
    pub fn new(at_us: u64) -> Self {
        Self { at_us, busy_us: 0, averages: [0.0; 3] }
    }

    /// Brings the averages up to `now_us`, by which its tasks have run and waited for `busy_us`.
    pub fn update(&mut self, now_us: u64, busy_us: u64) {
        let seconds = microseconds(now_us.saturating_sub(self.at_us)) / MICROSECONDS;
        if seconds <= 0.0 {
            return;
        }
        let load = microseconds(busy_us.saturating_sub(self.busy_us)) / MICROSECONDS / seconds;
        for (average, period) in self.averages.iter_mut().zip(PERIODS) {
            let kept = (-seconds / period).exp();
            *average = *average * kept + load * (1.0 - kept);
        }
        (self.at_us, self.busy_us) = (now_us, busy_us);
    }

    /// The file, for a container with so many tasks. The kernel's last field is the newest process id of the machine: here it is
    /// the number of tasks again.
    #[must_use]
    pub fn text(&self, tasks: u64) -> String {
        let [one, five, fifteen] = self.averages;
        format!("{one:.2} {five:.2} {fifteen:.2} 1/{tasks} {tasks}\n")
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact for 285 years of processor time")]
fn microseconds(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_task_becomes_a_load_of_one_and_fades() {
        let mut load = Load::new(0);
        assert_eq!(load.text(3), "0.00 0.00 0.00 1/3 3\n");
        load.update(60_000_000, 60_000_000);
        assert_eq!(load.text(1), "0.63 0.18 0.06 1/1 1\n");
        load.update(3_600_000_000, 3_600_000_000);
        assert_eq!(load.text(1), "1.00 1.00 0.98 1/1 1\n");
        load.update(3_660_000_000, 3_600_000_000);
        assert_eq!(load.text(1), "0.37 0.82 0.92 1/1 1\n");
    }

    #[test]
    fn readings_between_change_nothing() {
        let (mut often, mut once) = (Load::new(0), Load::new(0));
        for second in 1..=100 {
            often.update(second * 1_000_000, second * 500_000);
        }
        once.update(100_000_000, 50_000_000);
        assert_eq!(often.text(1), once.text(1));
    }

    #[test]
    fn a_clock_that_stands_still_is_no_division_by_nothing() {
        let mut load = Load::new(5);
        load.update(5, 100);
        load.update(4, 100);
        assert_eq!(load, Load::new(5));
    }
}
