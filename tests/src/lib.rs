//! What the suites share: the built image ([`image`]), one with other settings ([`built`]), a booted instance of it ([`vm`]), QEMU without our own `run` in
//! between ([`qemu`]), UEFI firmware ([`firmware`]), raw disks as other tools see them ([`disk`]), the other end of a machine's network cable ([`wire`]),
//! commands with everything they said ([`command`]), clients of the engine's API ([`clients`]), a registry ([`registry`]), a Debian to run whole
//! systems in ([`debian`]), attacks from inside of a container ([`attempts`]), scripts beside the engine in the test flavour
//! ([`workbench`]), verdicts of other projects' tests ([`conformance`]), validators of bills of materials ([`validators`]), programs from PyPI ([`pypi`]), a machine that does as WSL 2 does ([`wsl`]), and rows of assertions that share one boot
//! ([`suite`]).
//!
//! The suites are run by `scripts/test`, which sets `ECI_BUILDER`, `ECI_PROGRAMS` and `ECI_OUT`. Nothing here skips:
//! what is missing fails.

pub mod attempts;
pub mod built;
pub mod clients;
pub mod command;
pub mod conformance;
pub mod debian;
pub mod differences;
pub mod disk;
pub mod firmware;
pub mod image;
pub mod platform;
pub mod provenance;
pub mod pypi;
pub mod qemu;
pub mod registry;
pub mod suite;
pub mod validators;
pub mod vm;
pub mod web;
pub mod wire;
pub mod workbench;
pub mod wsl;
