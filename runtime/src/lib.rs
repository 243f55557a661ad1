//! The OCI runtime that the engine calls: it plans a container's isolation, makes its mounts, and becomes crun.
//!
//! Invariant: a container is started with a user namespace and an id range of its own (or those of a container that
//! it joins), on mounts that were made before that namespace existed, or it is not started. What is not understood
//! is refused. No thread is ever started: namespaces and file system ids belong to the thread.
//!
//! Read in this order: [`arguments`], [`verbs`] (what a command does; [`verbs::create`] is the way through),
//! [`bundle`], [`plan`] (pure), [`apply`] (system calls in order), [`container`], [`image`], [`ranges`],
//! [`leftovers`], [`processes`], [`audit`], and [`switch`]: whether any of it is done.

pub mod apply;
pub mod arguments;
pub mod audit;
pub mod bundle;
pub mod container;
pub mod image;
pub mod leftovers;
pub mod log;
pub mod plan;
pub mod processes;
pub mod ranges;
pub mod switch;
pub mod verbs;
