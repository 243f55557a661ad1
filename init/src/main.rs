//! PID 1 of the appliance. What it is at a given start is decided in [`eci_init::role`].

#![deny(clippy::indexing_slicing)]

use eci_init::{Role, initramfs, measured, ps, role, system, wsl};

fn main() -> ! {
    match role() {
        Role::Initramfs => initramfs::run(),
        Role::Wsl => wsl::run(),
        Role::Systemctl(verb) => wsl::systemctl::run(verb),
        Role::System => system::run(),
        Role::Network => system::network::run(),
        Role::ReadAhead => system::read_ahead::run(),
        Role::Measure => measured::run(),
        Role::Attest => system::attest::run(),
        Role::PassDescriptors => system::services::passing::run(),
        Role::Ps => ps::run(&std::env::args().skip(1).collect::<Vec<_>>()),
        Role::Bystander => std::process::exit(64),
    }
}
