//! What to change in a bundle, without touching the system.
//!
//! Every module takes the specification, and facts that the caller gathered, and gives a decision or a changed
//! specification. Order does not matter but for mounts, which are planned last.

pub mod annotations;
pub mod devices;
pub mod hooks;
pub mod ids;
pub mod mountinfo;
pub mod mounts;
pub mod namespaces;
pub mod nodes;
pub mod place;
pub mod root;
pub mod settings;
pub mod syscalls;
pub mod sysctls;
pub mod views;
