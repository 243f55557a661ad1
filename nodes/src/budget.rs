//! How often a container is answered: each call costs the VM a few forks, which no limit of the container's counts.

/// Milliseconds that an answer costs: 200 a second go on for ever.
const COST_MS: u64 = 5;
/// Milliseconds that may be saved up: 400 answers at once. A root file system of a distribution has 20 nodes.
const MOST_MS: u64 = 2_000;

/// What one session may still spend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// The time up to which everything is spent; it lies in the future while the session has to wait.
    spent_until: u64,
}

impl Budget {
    /// Milliseconds from `now` until the next answer may be given.
    #[must_use]
    pub fn wait_ms(self, now: u64) -> u64 {
        self.spent_until.saturating_sub(now)
    }

    /// Takes note of an answer at `now`.
    pub fn spend(&mut self, now: u64) {
        self.spent_until = self.spent_until.max(now.saturating_sub(MOST_MS)) + COST_MS;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_answers_at_once_then_a_steady_rate() {
        let mut budget = Budget::default();
        let now = 100_000;
        let mut at_once = 0;
        while budget.wait_ms(now) == 0 {
            budget.spend(now);
            at_once += 1;
        }
        assert_eq!(at_once, MOST_MS / COST_MS + 1);
        assert_eq!(budget.wait_ms(now + COST_MS), 0);
        budget.spend(now + COST_MS);
        assert_eq!(budget.wait_ms(now + COST_MS), COST_MS);
    }

    #[test]
    fn no_more_than_so_much_is_saved_up() {
        let mut budget = Budget::default();
        budget.spend(10);
        budget.spend(1_000_000);
        assert_eq!(budget.spent_until, 1_000_000 - MOST_MS + COST_MS);
    }
}
