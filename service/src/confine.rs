//! What a service gives up before it hears of any container.

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// A capability that is kept, with why.
pub type Kept = (CapabilitySet, &'static str);

/// Highest number of a capability that is asked about; those that the kernel does not know are none.
const HIGHEST: u32 = 63;

/// Gives up every capability but `kept` for good, and cannot be dumped or looked into. Capabilities belong to the thread: to be
/// called before any other is started.
///
/// # Errors
/// When the kernel does not let it.
pub fn confine(kept: &[Kept]) -> Result<(), Errno> {
    let kept = kept.iter().fold(CapabilitySet::empty(), |all, (one, _)| all | *one);
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
