//! Makes the device nodes of `policy`'s table for containers: the kernel lets nobody make one from inside of a user namespace.
//!
//! `eci-runc` has the seccomp filter hand `mknod` of character devices over, and crun sends a listener for each process that it
//! starts. A call is answered from one copy of what its caller asked for, and by what the caller itself could do: its folder
//! is looked up and its permissions are asked for by a process with the caller's ids and capabilities, in the caller's root.
//!
//! Invariants: no answer lets a call go on in the kernel; nothing is made outside of the root filesystem that `eci-runc` mounted
//! for the container, and nothing but a row of the table. Whatever can be held up by a container (its memory, its folders) is
//! touched in a child that only this container waits for. No thread is ever started, and no async: ids and capabilities
//! belong to the thread.
//!
//! In reading order: [`serve`] (the loop), [`receive`] (listeners from crun), [`session`] (a listener, and its share of the
//! machine), [`notification`] (what is asked), [`caller`] (who asks), [`make`] (doing it); [`store`] and [`slots`] are what
//! outlives this process, so that the next one serves the same containers; [`path`], [`credentials`] and [`budget`] are pure;
//! [`confine`] is what this program keeps.

#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::convert::Infallible;

pub mod budget;
pub mod caller;
pub mod confine;
pub mod credentials;
pub mod make;
pub mod notification;
pub mod path;
pub mod receive;
pub mod serve;
pub mod session;
pub mod slots;
pub mod store;

pub use serve::Error;

/// Serves for ever.
///
/// # Errors
/// When it cannot start, or poll(2) fails.
pub fn run() -> Result<Infallible, Error> {
    serve::run()
}
