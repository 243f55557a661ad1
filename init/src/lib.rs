//! PID 1 of the appliance, in stages that are one static program.
//!
//! [`initramfs`] finds the disk, checks the signed manifest, activates dm-verity and switches to the verified root.
//! [`wsl`] does so where WSL 2 starts this program in a distro. [`system`] mounts, checks, starts and supervises there, and is
//! the one way out. [`boots`] counts boots, [`measured`] tells the TPM what boots, [`kmsg`] is how all speak.
//!
//! Invariant: nothing outside the signed image steers this program. It reads no kernel command line, no argument
//! and no environment while it is PID 1, never reads the console, and starts no program that the service table or
//! [`system::data`] does not name. Whatever fails before the engine may start ends in power-off, never in a prompt.

#![deny(clippy::indexing_slicing)]

pub mod boots;
pub mod clock;
pub mod handover;
pub mod initramfs;
pub mod kernel_log;
pub mod kmsg;
pub mod measured;
pub mod power;
pub mod ps;
pub mod system;
pub mod tpm;
pub mod wsl;

use rustix::fs::statfs;

/// What this process is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// PID 1 of the initramfs.
    Initramfs,
    /// PID 1 of a distro of WSL 2, before the root is verified.
    Wsl,
    /// PID 1 of the verified root.
    System,
    /// The DHCP client, a service that PID 1 starts.
    Network,
    /// The helper that reads programs into memory, started by PID 1.
    ReadAhead,
    /// The helper that passes descriptors to a service, started by PID 1.
    PassDescriptors,
    /// The helper that measures into the TPM, started by PID 1.
    Measure,
    /// The helper that asks the TPM for a quote, started by PID 1.
    Attest,
    /// What WSL asks of a distro with systemd.
    Systemctl(wsl::systemctl::Verb),
    /// `ps`, which the engine runs.
    Ps,
    /// Started by someone else: does nothing.
    Bystander,
}

/// `f_type` of ramfs and tmpfs, which an initramfs is unpacked into (`linux/magic.h`).
const RAM_ROOTS: [i64; 2] = [0x8584_58f6, 0x0102_1994];
/// `f_type` of ext2 to ext4: WSL keeps a distro on such a file system. The verified root is EROFS.
const EXT4: i64 = 0xef53;

/// Decides by facts that nobody outside can give: the process id and the type of the root file system. The kernel
/// hands unknown words of its command line to PID 1 as arguments and environment, so neither is looked at there.
#[must_use]
pub fn role() -> Role {
    let root = statfs("/").map_or(0, |root| root.f_type);
    let words: Vec<_> = std::env::args().collect();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let (program, arguments) = words.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    choose_role(std::process::id(), root, program, arguments)
}

fn choose_role(pid: u32, root_type: i64, program: &str, arguments: &[&str]) -> Role {
    if root_type == EXT4 && pid != 1 {
        return Role::Systemctl(wsl::systemctl::Verb::of(arguments));
    }
    match (pid, arguments.first().copied()) {
        (1, _) if RAM_ROOTS.contains(&root_type) => Role::Initramfs,
        (1, _) if root_type == EXT4 => Role::Wsl,
        (1, _) => Role::System,
        _ if program.rsplit('/').next() == Some("ps") => Role::Ps,
        (_, Some("network")) => Role::Network,
        (_, Some(system::read_ahead::ROLE)) => Role::ReadAhead,
        (_, Some(measured::ROLE)) => Role::Measure,
        (_, Some(system::attest::ROLE)) => Role::Attest,
        (_, Some(system::services::passing::ROLE)) => Role::PassDescriptors,
        _ => Role::Bystander,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TMPFS: i64 = 0x0102_1994;
    const EROFS: i64 = 0xe0f5_e1e2;

    #[test]
    fn arguments_cannot_change_what_pid_1_is() {
        assert_eq!(choose_role(1, TMPFS, "/init", &["network"]), Role::Initramfs);
        assert_eq!(choose_role(1, 0x8584_58f6, "/init", &["single"]), Role::Initramfs);
        assert_eq!(choose_role(1, EROFS, "/init", &["init=/bin/sh"]), Role::System);
        assert_eq!(choose_role(1, EROFS, "/init", &["pass-descriptors"]), Role::System);
        assert_eq!(choose_role(1, EXT4, "/init", &["is-system-running"]), Role::Wsl);
    }

    #[test]
    fn others_get_the_network_client_or_nothing() {
        assert_eq!(choose_role(77, EROFS, "/init", &["network"]), Role::Network);
        assert_eq!(choose_role(77, EROFS, "/init", &[]), Role::Bystander);
        assert_eq!(choose_role(77, EROFS, "/init", &["poweroff"]), Role::Bystander);
    }

    #[test]
    fn under_its_name_it_is_what_the_engine_runs_for_docker_top() {
        assert_eq!(choose_role(77, EROFS, "ps", &["network"]), Role::Ps);
        assert_eq!(choose_role(77, EROFS, "/usr/bin/ps", &[]), Role::Ps);
        assert_eq!(choose_role(1, EROFS, "ps", &[]), Role::System);
        assert_eq!(choose_role(77, EROFS, "/usr/bin/cps", &[]), Role::Bystander);
    }

    #[test]
    fn only_in_a_distro_it_answers_for_systemctl() {
        assert_eq!(
            choose_role(77, EXT4, "/init", &["poweroff"]),
            Role::Systemctl(wsl::systemctl::Verb::Poweroff)
        );
        assert_eq!(
            choose_role(77, EXT4, "/init", &["network"]),
            Role::Systemctl(wsl::systemctl::Verb::Unknown)
        );
    }
}
