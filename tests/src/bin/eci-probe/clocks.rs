//! Clocks, names of the machine, accounting and swap: settings that belong to the VM or to the container.

use std::fs;
use std::time::{Duration, SystemTime};

use eci_sys::raw::{self, Abi, Argument, Call, Page};
use nix::sys::quota::{QuotaFmt, QuotaType, quotactl_on};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use crate::attempt::{At, Attempt, Failure, Verb, effective};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "clock-settime",
        why: "the VM's clock is everybody's",
        run: |_| {
            let now = clock_gettime(ClockId::Realtime);
            let later = Timespec { tv_sec: now.tv_sec + 86_400, ..now };
            clock_settime(ClockId::Realtime, later)?;
            effective(clock_gettime(ClockId::Realtime).tv_sec >= later.tv_sec)
        },
    },
    Verb {
        name: "settimeofday",
        why: "the same through the older call",
        run: |_| {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let later = (now.as_secs() + 86_400) as u32;
            let mut time = Page::of_words(&[later, 0, 0, 0]);
            raw::call(Abi::Native, Call::Settimeofday, &mut [Argument::Page(&mut time), Argument::Null])?;
            Ok(())
        },
    },
    Verb {
        name: "adjtimex",
        why: "a clock that runs too fast",
        // Frequency, as found in the first word's flag; `ADJ_FREQUENCY`.
        run: |_| {
            let mut time = Page::of_words(&[2, 0, 0, 0, 65_536, 0]);
            raw::call(Abi::Native, Call::Adjtimex, &mut [Argument::Page(&mut time)])?;
            Ok(())
        },
    },
    Verb {
        name: "adjtimex-read",
        why: "reading the clock's state is everybody's right",
        run: |_| {
            let mut time = Box::<Page>::default();
            raw::call(Abi::Native, Call::Adjtimex, &mut [Argument::Page(&mut time)])?;
            Ok(())
        },
    },
    Verb {
        name: "sethostname",
        why: "the container's own name",
        run: |_| {
            rustix::system::sethostname(b"probed")?;
            effective(fs::read_to_string("/proc/sys/kernel/hostname").at("read")?.trim() == "probed")
        },
    },
    Verb {
        name: "setdomainname",
        why: "the container's own domain",
        run: |_| Ok(rustix::system::setdomainname(b"probed")?),
    },
    Verb {
        name: "swapon",
        why: "memory of the VM written to a file of a container, and read back as it likes; takes a path",
        run: |path| {
            let path = std::ffi::CString::new(path).map_err(|_| Failure::NotUnderstood("a path with NUL"))?;
            raw::call(Abi::Native, Call::Swapon, &mut [Argument::Text(&path), Argument::Number(0)])?;
            Ok(())
        },
    },
    Verb {
        name: "acct",
        why: "a record of every process of the VM",
        run: |_| {
            let file = crate::attempt::scratch()?.join("acct");
            fs::write(&file, "").at("write")?;
            nix::unistd::acct::enable(&file)?;
            nix::unistd::acct::disable().at("disabling")
        },
    },
    Verb { name: "quotactl", why: "quotas of the data disk; takes a device", run: quota },
];

fn quota(device: &str) -> Attempt {
    Ok(quotactl_on(QuotaType::USRQUOTA, device, QuotaFmt::QFMT_VFS_V1, "/probe-quota")?)
}
