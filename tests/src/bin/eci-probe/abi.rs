//! The same calls by the numbers of x86-64's other two ABIs: a filter that knows one set only is passed by.

use eci_sys::raw::{self, Abi, Argument, Call};

use crate::attempt::{Attempt, Verb};

/// `CLONE_NEWUSER`.
const NEW_USER: i64 = 0x1000_0000;

/// The verbs; elsewhere than on x86-64 each gives `ENOSYS`.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "x32-keyctl",
        why: "x32 twin of a refused call",
        run: |_| numbers(Abi::X32, Call::Keyctl, &[0, -3, 0]),
    },
    Verb {
        name: "x32-bpf",
        why: "x32 twin of a refused call",
        run: |_| numbers(Abi::X32, Call::Bpf, &[5, 0, 0]),
    },
    Verb {
        name: "x32-unshare",
        why: "x32 twin of a refused call",
        run: |_| numbers(Abi::X32, Call::Unshare, &[NEW_USER]),
    },
    Verb {
        name: "x32-perf-event",
        why: "x32 twin of a refused call",
        run: |_| numbers(Abi::X32, Call::PerfEventOpen, &[0, 0, -1, -1, 0]),
    },
    Verb {
        name: "x32-io-uring",
        why: "x32 twin of a refused call",
        run: |_| numbers(Abi::X32, Call::IoUringSetup, &[1, 0]),
    },
    Verb {
        name: "x32-handle-open",
        why: "x32 twin of a refused call",
        run: |_| numbers(Abi::X32, Call::OpenByHandleAt, &[0, 0, 0]),
    },
    Verb {
        name: "i386-keyctl",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::Keyctl, &[0, -3, 0]),
    },
    Verb {
        name: "i386-bpf",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::Bpf, &[5, 0, 0]),
    },
    Verb {
        name: "i386-unshare",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::Unshare, &[NEW_USER]),
    },
    Verb {
        name: "i386-perf-event",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::PerfEventOpen, &[0, 0, -1, -1, 0]),
    },
    Verb {
        name: "i386-io-uring",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::IoUringSetup, &[1, 0]),
    },
    Verb {
        name: "i386-handle-open",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::OpenByHandleAt, &[0, 0, 0]),
    },
    Verb {
        name: "i386-userfaultfd",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::Userfaultfd, &[1]),
    },
    Verb {
        name: "i386-iopl",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::Iopl, &[3]),
    },
    Verb {
        name: "i386-reboot",
        why: "i386 twin of a refused call, its magic one off",
        run: |_| numbers(Abi::I386, Call::Reboot, &[0xfee1_deac, 672_274_793, 0x0123_4567]),
    },
    Verb {
        name: "i386-kexec",
        why: "i386 twin of a refused call",
        run: |_| numbers(Abi::I386, Call::KexecLoad, &[0, 0, 0, 0]),
    },
];

fn numbers(abi: Abi, call: Call, numbers: &[i64]) -> Attempt {
    let mut arguments: Vec<_> = numbers.iter().map(|number| Argument::Number(*number)).collect();
    raw::call(abi, call, &mut arguments)?;
    Ok(())
}
