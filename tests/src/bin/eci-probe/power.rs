//! Stopping the machine.

use eci_sys::child;
use eci_sys::raw::{self, Abi, Argument, Call};
use nix::sched::CloneFlags;
use rustix::system::{RebootCommand, reboot};

use crate::attempt::{At, Attempt, Failure, Verb, wait_for};

/// `LINUX_REBOOT_MAGIC1`, one bit off.
const WRONG_MAGIC: i64 = 0xfee1_dead ^ 1;
/// `LINUX_REBOOT_MAGIC2`.
const MAGIC: i64 = 672_274_793;
/// `LINUX_REBOOT_CMD_RESTART2`.
const RESTART_WITH_WORDS: i64 = 0xa1b2_c3d4;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "reboot-wrong-magic",
        why: "shows whether the call would be heard, without the harm: EINVAL is too far",
        run: |_| {
            let numbers = [WRONG_MAGIC, MAGIC, RESTART_WITH_WORDS];
            let arguments = numbers.map(Argument::Number);
            let [first, second, third] = arguments;
            raw::call(Abi::Native, Call::Reboot, &mut [first, second, third, Argument::Null])?;
            Ok(())
        },
    },
    Verb {
        name: "reboot",
        why: "in a pid namespace it stops that namespace: its init is ended, nothing else",
        run: reboot_nested,
    },
];

/// The one place that makes the true call: in the init of a new pid namespace, after a look that it is that.
fn reboot_nested(_: &str) -> Attempt {
    nix::sched::unshare(CloneFlags::CLONE_NEWPID).at("unshare")?;
    let child = child::start(|| {
        if nix::unistd::getpid().as_raw() != 1 {
            return 1;
        }
        match reboot(RebootCommand::Restart) {
            Ok(()) => 0,
            Err(errno) => errno.raw_os_error(),
        }
    })
    .at("fork")?;
    let status = wait_for(child).at("wait")?;
    match (status.terminating_signal(), status.exit_status()) {
        // SIGHUP, by which the kernel tells a namespace's parent of a restart.
        (Some(1), _) => Ok(()),
        (_, Some(errno)) if errno > 1 => Err(Failure::Refused(nix::errno::Errno::from_raw(errno))),
        _ => Err(Failure::NotUnderstood("how the nested init ended")),
    }
}
