//! Every `unsafe` of the project, one system call a function.
//!
//! Invariant: functions here take borrowed descriptors and give owned ones, decide nothing, and log nothing. What
//! rustix or nix offers safely is not here.

pub mod block;
pub mod cgroup_program;
pub mod child;
pub mod descriptors;
pub mod dm;
pub mod fsuid;
pub mod interface;
pub mod loop_device;
pub mod mounts;
pub mod notifications;
pub mod packet;
#[cfg(feature = "probe")]
pub mod raw;
pub mod seccomp;
pub mod sha256;
pub mod spawn;
pub mod timens;
pub mod user_key;
pub mod userns;
