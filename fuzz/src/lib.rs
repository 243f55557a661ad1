//! What `eci-runc`, `eci-nodes`, the gate's rule for requests, the reader of an administrator's settings and that of a TPM's evidence promise of any input, as functions that take bytes and panic when a promise is broken.
//!
//! Invariant: a promise is written down here a second time, on its own tables and its own reading of what crun does,
//! and asks the code under test for nothing but its result. A target in `targets/` hands libFuzzer's bytes to one of
//! these functions, and the test in `tests/` the files of `corpus/`.
//!
//! In order of what is at stake: [`bundle`] (the whole plan), [`seccomp`] with its [`profile`] interpreter, [`mounts`],
//! [`arguments`], [`notification`] (what a container asks the VM to make), [`request`] (what a client asks the engine),
//! [`settings`] (what an administrator sets), [`evidence`] (what a machine says that it booted).

pub mod arguments;
pub mod bundle;
pub mod evidence;
pub mod mounts;
pub mod notification;
pub mod profile;
pub mod request;
pub mod seccomp;
pub mod settings;
