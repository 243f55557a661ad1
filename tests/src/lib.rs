//! What the suites share: the built image ([`image`]), a booted instance of it ([`vm`]), QEMU without our own `run` in
//! between ([`qemu`]), and rows of assertions that share one boot ([`suite`]).
//!
//! The suites are run by `scripts/test`, which sets `ECI_BUILDER`, `ECI_PROGRAMS` and `ECI_OUT`. Nothing here skips:
//! what is missing fails.

pub mod clients;
pub mod command;
pub mod image;
pub mod qemu;
pub mod suite;
pub mod vm;
