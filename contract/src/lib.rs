//! What two programs of the appliance share, and nothing else.
//!
//! Invariant: types and constants only. No I/O, no clock, no cryptography; the only dependency is serde.
//! Read in this order: [`paths`] (where things are in the image), [`manifest`] (what is signed),
//! [`disk`] (how the disk is laid out), [`link`] (what host and VM say to each other), [`status`] (what the VM says
//! of itself).

pub mod disk;
pub mod link;
pub mod manifest;
pub mod paths;
pub mod status;
