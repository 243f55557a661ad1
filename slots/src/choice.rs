//! Choosing the slot to boot, by its boot counting bits.

use eci_contract::disk::{BootCount, Slot};

/// Picks the bootable slot of highest priority; of two equals the one that booted well before, then A.
#[must_use]
pub fn choose(slots: &[(Slot, BootCount)]) -> Option<(Slot, BootCount)> {
    let bootable = slots.iter().copied().filter(|(_, count)| count.bootable());
    bootable.max_by_key(|(slot, count)| (count.priority, count.successful, *slot == Slot::A))
}

/// What is written when the slot got the engine ready: from now on it is the one to boot, and the other one, if it did so
/// before, the one to fall back to.
#[must_use]
pub fn proven(other: BootCount) -> (BootCount, BootCount) {
    let other = if other.successful { BootCount::SECOND } else { BootCount::NEVER };
    (BootCount::PROVEN, other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(a: BootCount, b: BootCount) -> Option<Slot> {
        choose(&[(Slot::A, a), (Slot::B, b)]).map(|(slot, _)| slot)
    }

    #[test]
    fn a_version_on_trial_goes_first_until_its_tries_are_used_up() {
        let mut trial = BootCount::ON_TRIAL;
        while trial.tries_left > 0 {
            assert_eq!(chosen(BootCount::SECOND, trial), Some(Slot::B));
            trial = trial.after_a_boot();
        }
        assert_eq!(chosen(BootCount::SECOND, trial), Some(Slot::A));
    }

    #[test]
    fn a_version_that_was_proven_stays_and_the_old_one_is_second() {
        let (this, other) = proven(BootCount::PROVEN);
        assert_eq!(chosen(other, this), Some(Slot::B));
        assert!(other.bootable());
        let (_, other) = proven(BootCount { tries_left: 0, ..BootCount::ON_TRIAL });
        assert!(!other.bootable(), "what never booted well is no slot to fall back to");
    }

    #[test]
    fn of_two_equals_the_proven_one_wins_then_a() {
        let tried = BootCount { successful: false, ..BootCount::ON_TRIAL };
        assert_eq!(chosen(tried, BootCount::PROVEN), Some(Slot::B));
        assert_eq!(chosen(BootCount::PROVEN, BootCount::PROVEN), Some(Slot::A));
    }

    #[test]
    fn a_disk_may_have_no_slot_to_boot() {
        let used_up = BootCount { tries_left: 0, ..BootCount::ON_TRIAL };
        assert_eq!(chosen(BootCount::NEVER, used_up), None);
        assert_eq!(chosen(BootCount { successful: true, ..BootCount::NEVER }, used_up), None);
    }
}
