//! The last two calls of every boot, whatever ended it.

use std::sync::mpsc;
use std::time::Duration;

use rustix::system::{RebootCommand, reboot};

use crate::kmsg;

/// How long dirty data may take to reach the disk at the end. A slow disk under emulation wrote 1 GiB in 15 s.
const SYNC_DEADLINE: Duration = Duration::from_secs(20);

/// Writes dirty data out, but not for ever, and cuts the power.
pub fn off() -> ! {
    end("power off", RebootCommand::PowerOff)
}

/// Writes dirty data out, but not for ever, and restarts the machine.
pub fn restart() -> ! {
    end("restart", RebootCommand::Restart)
}

fn end(what: &str, command: RebootCommand) -> ! {
    sync_with_deadline();
    loop {
        kmsg::best_effort(what, reboot(command).map_err(std::io::Error::from));
        // A platform without a power switch: a halted machine beats a panic that reboots.
        kmsg::best_effort("halt", reboot(RebootCommand::Halt).map_err(std::io::Error::from));
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// Makes a panic of PID 1 end like every other failure, where the kernel would panic and restart for ever.
pub fn install_panic_hook() {
    std::panic::set_hook(Box::new(|panic| {
        kmsg::error(&format!("PID 1 failed: {panic}"));
        off();
    }));
}

fn sync_with_deadline() {
    let (done, wait) = mpsc::channel();
    // A thread, because sync(2) cannot be interrupted. It is the only one this program ever starts, and nothing
    // is forked after it.
    let thread = std::thread::Builder::new().spawn(move || {
        rustix::fs::sync();
        // Nobody listens any more when the deadline has passed.
        let _late = done.send(());
    });
    if thread.is_err() {
        rustix::fs::sync();
    } else if wait.recv_timeout(SYNC_DEADLINE).is_err() {
        kmsg::error("disks did not take all data in time: ending without them");
    }
}

/// Why ctrl-alt-del still restarts.
#[derive(Debug, thiserror::Error)]
#[error("reboot(2) refused `CAD_OFF`")]
pub struct KeysError(#[from] rustix::io::Errno);

/// Makes the kernel send ctrl-alt-del to PID 1 as SIGINT instead of restarting at once.
///
/// # Errors
/// When the kernel refuses.
pub fn keep_ctrl_alt_del() -> Result<(), KeysError> {
    Ok(reboot(RebootCommand::CadOff)?)
}
