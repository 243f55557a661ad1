//! The kernel's keyrings, which no namespace but the user's parts.

use std::fs;

use eci_sys::raw::{self, Abi, Argument, Call, Page};

use crate::attempt::{At, Attempt, Failure, Verb};

/// `KEYCTL_GET_KEYRING_ID`.
const GET_ID: i64 = 0;
/// `KEYCTL_SEARCH`.
const SEARCH: i64 = 10;
/// `KEYCTL_READ`.
const READ: i64 = 11;
/// `KEY_SPEC_SESSION_KEYRING`.
const SESSION: i64 = -3;
/// `KEY_SPEC_USER_KEYRING`.
const USER: i64 = -4;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "keyctl-session",
        why: "the session keyring is inherited from whoever started the container: the VM",
        run: |_| call(&mut [GET_ID, SESSION, 0].map(Argument::Number)),
    },
    Verb {
        name: "keyctl-user",
        why: "keyrings of a user are counted and kept by the kernel for all containers together",
        run: |_| call(&mut [GET_ID, USER, 1].map(Argument::Number)),
    },
    Verb {
        name: "keyctl-search",
        why: "a secret that somebody else left in the user's keyring",
        run: |_| {
            call(&mut [
                Argument::Number(SEARCH),
                Argument::Number(USER),
                Argument::Text(c"user"),
                Argument::Text(c"probe"),
                Argument::Number(0),
            ])
        },
    },
    Verb {
        name: "keyctl-read-foreign",
        why: "keys that /proc/keys tells of and that no user of the container owns: the VM's, another container's",
        run: read_foreign,
    },
    Verb {
        name: "add-key",
        why: "memory of the kernel that no limit of a container counts",
        run: |_| {
            let mut payload = Page::of_words(&[0x6563_6900]);
            raw::call(
                Abi::Native,
                Call::AddKey,
                &mut [
                    Argument::Text(c"user"),
                    Argument::Text(c"probe"),
                    Argument::Page(&mut payload),
                    Argument::Number(4),
                    // KEY_SPEC_PROCESS_KEYRING: gone with this process.
                    Argument::Number(-2),
                ],
            )?;
            Ok(())
        },
    },
];

fn call(arguments: &mut [Argument<'_>]) -> Attempt {
    raw::call(Abi::Native, Call::Keyctl, arguments)?;
    Ok(())
}

fn read_foreign(_: &str) -> Attempt {
    /// What an owner outside of the map is shown as; the sixth field of a line (proc_keys(5)).
    const NOBODY: &str = "65534";
    let keys = fs::read_to_string("/proc/keys").at("open")?;
    let mut outcome = Err(Failure::NothingThere);
    let foreign = keys.lines().filter(|line| line.split_whitespace().nth(5) == Some(NOBODY));
    for serial in foreign.filter_map(|line| i64::from_str_radix(line.split(' ').next()?, 16).ok()) {
        let mut page = Box::<Page>::default();
        outcome = call(&mut [
            Argument::Number(READ),
            Argument::Number(serial),
            Argument::Page(&mut page),
            Argument::Number(raw::PAGE as i64),
        ]);
        if outcome.is_ok() {
            eprintln!("read key {serial:x} of:\n{keys}");
            return outcome;
        }
    }
    outcome
}
