//! Parts of the kernel with a history of holes that no container needs.

use std::fs;

use eci_sys::raw::{self, Abi, Argument, Call, Page};

use crate::attempt::{At, Attempt, Failure, Verb};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "bpf-prog-load",
        why: "the verifier is the kernel's largest parser of hostile input",
        run: |_| Ok(raw::load_bpf_program()?),
    },
    Verb {
        name: "bpf-map-create",
        why: "memory of the kernel, and the first half of most bpf exploits",
        run: |_| Ok(raw::create_bpf_map()?),
    },
    Verb {
        name: "io-uring-setup",
        why: "makes calls that no seccomp filter sees; half of all kernel exploits of 2022 and 2023",
        run: |_| {
            let mut parameters = Box::<Page>::default();
            raw::call(
                Abi::Native,
                Call::IoUringSetup,
                &mut [Argument::Number(4), Argument::Page(&mut parameters)],
            )?;
            Ok(())
        },
    },
    Verb {
        name: "userfaultfd",
        why: "stops the kernel in the middle of a copy: makes races certain",
        // Without and with UFFD_USER_MODE_ONLY, which needs no privilege.
        run: |_| {
            one_of(&[0, 1], |flags| raw::call(Abi::Native, Call::Userfaultfd, &mut [Argument::Number(flags)]))
        },
    },
    Verb {
        name: "perf-event-self",
        why: "a large parser of hostile input, and timings of the kernel",
        run: |_| perf(0, -1),
    },
    Verb { name: "perf-event-cpu", why: "what every process of the VM does", run: |_| perf(-1, 0) },
    Verb {
        name: "syslog-read",
        why: "the kernel's log has addresses and other containers' business",
        run: |_| {
            let mut page = Box::<Page>::default();
            let arguments =
                &mut [Argument::Number(3), Argument::Page(&mut page), Argument::Number(raw::PAGE as i64)];
            raw::call(Abi::Native, Call::Syslog, arguments)?;
            Ok(())
        },
    },
    Verb {
        name: "init-module",
        why: "code in the kernel",
        run: |_| Ok(nix::kmod::init_module(b"\x7fELF", c"")?),
    },
    Verb {
        name: "finit-module",
        why: "code in the kernel, from a file",
        run: |_| {
            let file = fs::File::open("/proc/self/exe").at("open")?;
            Ok(nix::kmod::finit_module(&file, c"", nix::kmod::ModuleInitFlags::empty())?)
        },
    },
    Verb {
        name: "delete-module",
        why: "a filter that is a module could be taken out",
        run: |_| Ok(nix::kmod::delete_module(c"probe", nix::kmod::DeleteModuleFlags::O_NONBLOCK)?),
    },
    Verb {
        name: "kexec-load",
        why: "another kernel",
        // No segments: the kernel checks the right to it first, and then has nothing to load.
        run: |_| {
            let arguments =
                &mut [Argument::Number(0), Argument::Number(0), Argument::Null, Argument::Number(0)];
            raw::call(Abi::Native, Call::KexecLoad, arguments)?;
            Ok(())
        },
    },
];

fn one_of(flags: &[i64], call: impl Fn(i64) -> std::io::Result<i64>) -> Attempt {
    let mut outcome = Err(Failure::NothingThere);
    for flags in flags {
        outcome = call(*flags).map(drop).map_err(Failure::from);
        if outcome.is_ok() {
            break;
        }
    }
    outcome
}

/// Counts the software clock: no counter of the processor is needed, which QEMU does not emulate.
fn perf(process: i64, processor: i64) -> Attempt {
    const SOFTWARE: u32 = 1;
    const ATTRIBUTES: u32 = 64;
    /// `exclude_kernel` and `exclude_hv`: what the kernel lets users ask for, if anything.
    const USER_ONLY: u32 = 0x60;
    let mut attributes = Page::of_words(&[SOFTWARE, ATTRIBUTES, 0, 0, 0, 0, 0, 0, 0, 0, USER_ONLY]);
    raw::call(
        Abi::Native,
        Call::PerfEventOpen,
        &mut [
            Argument::Page(&mut attributes),
            Argument::Number(process),
            Argument::Number(processor),
            Argument::Number(-1),
            Argument::Number(0),
        ],
    )?;
    Ok(())
}
