//! What this program gives up before it hears of any container.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// The capabilities that are kept, each with why.
const KEPT: &[(CapabilitySet, &str)] = &[
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

/// Highest number of a capability that this program asks about; those that the kernel does not know are none.
const HIGHEST: u32 = 63;

/// Gives up every other capability for good, and cannot be dumped or looked into.
///
/// # Errors
/// When the kernel does not let it.
pub fn confine() -> Result<(), Errno> {
    let kept = KEPT.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    set_no_new_privs(true)?;
    for number in 0..=HIGHEST {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(capability) {
            continue;
        }
        match remove_capability_from_bounding_set(capability) {
            // The kernel knows no such capability.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno),
        }
    }
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )
}

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
