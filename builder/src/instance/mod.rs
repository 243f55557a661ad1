//! Instances: a built appliance that runs under QEMU on this host.
//!
//! Invariants: an instance's sockets have mode 0600 in a folder of mode 0700; QEMU never outlives its supervisor; nothing
//! boots whose kernel or initrd is not what the manifest beside it says.
//!
//! In reading order: [`home`] (the state folder, names, lock), [`artifacts`] (what is booted), [`own_disk`] (the two slots of an
//! instance that was updated), [`update`] (bringing in a new version), [`reset`] (as a new instance), [`machine`] (QEMU's command
//! line, planned and pure), [`tpm`] (machines whose boot is measured), [`shares`] (folders of this host), [`accel`] (whether KVM really works here), [`context`] (Docker's context),
//! [`console`] (what the guest said last), [`supervise`] (start to end of one run), [`link`] (the host's end of the
//! link), [`client`] (what other commands ask of a running instance), [`engine`] (what is asked of its engine) and [`timed`] (how long that
//! may take).

pub mod accel;
pub mod artifacts;
pub mod choice;
pub mod client;
pub mod console;
pub mod context;
pub mod engine;
pub mod home;
pub mod link;
pub mod machine;
pub mod own_disk;
pub mod reset;
pub mod shares;
pub mod supervise;
pub mod timed;
pub mod tpm;
pub mod update;
