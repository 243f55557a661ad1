//! Every `unsafe` of the project, one system call a function.
//!
//! Invariant: functions here take borrowed descriptors and give owned ones, decide nothing, and log nothing. What
//! rustix or nix offers safely is not here.

pub mod block;
pub mod dm;
pub mod interface;
pub mod packet;
pub mod spawn;
