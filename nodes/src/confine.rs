//! What this program keeps of root's power, for good, before it hears of any container.

use eci_service::confine::Kept;
use rustix::thread::CapabilitySet;

/// The capabilities, each with why.
pub const KEPT: &[Kept] = &[
    (CapabilitySet::DAC_OVERRIDE, "a caller that has it in its container makes nodes in any folder of that"),
    (CapabilitySet::DAC_READ_SEARCH, "the same for looking folders up"),
    (CapabilitySet::MKNOD, "to make the node"),
    (CapabilitySet::SETGID, "to be the caller's groups"),
    (CapabilitySet::SETPCAP, "to keep capabilities while being the caller"),
    (CapabilitySet::SETUID, "to be the caller"),
    (CapabilitySet::SYS_ADMIN, "to enter the caller's user namespace"),
    (CapabilitySet::SYS_CHROOT, "to look paths up in the caller's root"),
    (CapabilitySet::SYS_PTRACE, "to read the caller's path, root and descriptors"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_says_why_and_loads_no_code() {
        assert!(KEPT.iter().all(|(_, why)| !why.is_empty()));
        let kept = KEPT.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
        assert!(!kept.intersects(
            CapabilitySet::SYS_MODULE
                | CapabilitySet::SYS_RAWIO
                | CapabilitySet::NET_ADMIN
                | CapabilitySet::BPF
        ));
    }
}
