//! What the system stage leaves out in a distro of WSL 2, and why: the one place that says so. Status tells each row.

use crate::handover::Platform;

/// A part of the system stage, by its name in the table that it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A step of the boot.
    Step(&'a str),
    /// A mount, by its target.
    Mount(&'a str),
    /// A promise of the self-check.
    Promise(&'a str),
    /// A service.
    Service(&'a str),
    /// A request to PID 1.
    Request(&'a str),
}

/// A part that is left out.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Which.
    pub part: Part<'static>,
    /// Why it cannot be, and what is there instead.
    pub why: &'static str,
}

const fn leave_out(part: Part<'static>, why: &'static str) -> Choice {
    Choice { part, why }
}

/// All of them.
pub const LEFT_OUT: &[Choice] = &[
    leave_out(
        Part::Step("sysctls"),
        "kernel settings are those of all distros; WSL's user sets them in .wslconfig",
    ),
    leave_out(Part::Step("hidden paths"), "the mode of a file there is that of all distros"),
    leave_out(
        Part::Step("ctrl-alt-del"),
        "WSL has no keys; reboot(2) in a process namespace does not know the call",
    ),
    leave_out(Part::Step("hostname"), "WSL names the distro after the Windows machine"),
    leave_out(Part::Step("loopback"), "the network namespace is that of all distros, and WSL sets it up"),
    leave_out(
        Part::Step("firewall"),
        "rules would be those of all distros; WSL's own network address translation stays",
    ),
    leave_out(Part::Step("firewall in force"), "as above"),
    leave_out(
        Part::Step("apparmor"),
        "Microsoft's kernel has none, nor do services run under any; profiles would be those of all distros",
    ),
    leave_out(
        Part::Step("data disk"),
        "the distro's own disk has it, in /var/lib/docker: the first stage mounted that",
    ),
    leave_out(Part::Step("tpm"), "a distro has no TPM"),
    leave_out(Part::Step("measure settings"), "a distro has no TPM"),
    leave_out(Part::Step("measure sysinit"), "a distro has no TPM"),
    leave_out(
        Part::Step("socket list"),
        "whoever is root in a distro has the engine's socket; no container gets it there",
    ),
    leave_out(
        Part::Step("shares"),
        "hypervisors share folders with all of WSL, which has Windows' drives for that",
    ),
    leave_out(Part::Step("rosetta"), "interpreters are registered for all distros, and Windows is no Mac"),
    leave_out(Part::Mount("/sys/kernel/security"), "nothing is read there without lockdown and AppArmor"),
    leave_out(
        Part::Promise("verity-panics"),
        "a panic would end the machine of all distros: a corrupt block gives an error",
    ),
    leave_out(Part::Promise("root-signed"), "a distro has no firmware; Microsoft's kernel has no keys"),
    leave_out(Part::Promise("lockdown"), "Microsoft's kernel is not locked down"),
    leave_out(Part::Promise("sysctls"), "kernel settings are those of all distros"),
    leave_out(
        Part::Promise("no-kernel-doors"),
        "Microsoft's kernel has modules and debug interfaces; containers get none",
    ),
    leave_out(Part::Promise("hidden-paths"), "as the step: containers have masks"),
    leave_out(Part::Promise("no-core-helper"), "WSL collects crashes of all distros by a program of its own"),
    leave_out(Part::Promise("apparmor"), "Microsoft's kernel has none"),
    leave_out(Part::Promise("no-tcp-listener"), "the network namespace is that of all distros"),
    leave_out(Part::Promise("no-udp-listener"), "the network namespace is that of all distros"),
    leave_out(
        Part::Promise("console-unread"),
        "WSL's own processes are in the same process namespace, with terminals",
    ),
    leave_out(Part::Service("network"), "WSL gets the address, and writes the resolver's file"),
    leave_out(Part::Request("clock"), "WSL sets the clock of all distros"),
];

/// Why a part is left out on this platform; `None` when it is not.
#[must_use]
pub fn left_out(platform: Platform, part: Part<'_>) -> Option<&'static str> {
    let row = LEFT_OUT.iter().find(|choice| choice.part == part);
    row.filter(|_| platform == Platform::Wsl).map(|choice| choice.why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_leaves_nothing_out() {
        for choice in LEFT_OUT {
            assert_eq!(left_out(Platform::Machine, choice.part), None);
            assert!(left_out(Platform::Wsl, choice.part).is_some_and(|why| !why.is_empty()));
        }
    }

    #[test]
    fn what_makes_the_root_what_was_signed_stays() {
        for id in ["root-verity", "root-read-only", "mount-flags"] {
            assert_eq!(left_out(Platform::Wsl, Part::Promise(id)), None, "{id}");
        }
        for name in ["console", "mounts", "integrity", "cgroups", "console closed", "services", "self-check"]
        {
            assert_eq!(left_out(Platform::Wsl, Part::Step(name)), None, "{name}");
        }
    }
}
