//! What two programs of the appliance share, and nothing else.
//!
//! Invariant: types, constants and their written form only. No I/O, no clock, no cryptography; the only dependency is serde.
//! Read in this order: [`paths`] (where things are in the image), [`manifest`] (what is signed),
//! [`disk`] (how the disk is laid out), [`link`] (what host and VM say to each other), [`status`] (what the VM says
//! of itself), [`nodes`], [`procfs`] and [`ports`] (what is told about a container to the services that serve it), [`wsl`] (what
//! a distro of WSL 2 holds), [`audit`] (what was refused), [`ranges`] (which ids containers have), [`config_disk`] (an administrator's settings beside an image), [`shares`] (folders
//! of the host), [`json_disk`] (the disks that name both), [`socket`] (containers that have the engine's), [`registries`] (what the
//! engine may reach), [`errors`] (how an error is told
//! on one line), [`version`] (which of two is the older), [`attest`] (what is measured into a TPM).

pub mod attest;
pub mod audit;
pub mod choice;
pub mod config_disk;
pub mod disk;
pub mod errors;
pub mod json_disk;
pub mod link;
pub mod manifest;
pub mod nodes;
pub mod paths;
pub mod ports;
pub mod procfs;
pub mod ranges;
pub mod registries;
pub mod shares;
pub mod socket;
pub mod status;
pub mod version;
pub mod wsl;
