//! Builds, signs, verifies, inspects and runs the appliance.
//!
//! Invariant: nothing is built from anything but a `Plan<Locked>`, nothing is fetched without a sha256 from a lock
//! file, no byte of an artifact is a clock's, and an artifact only ever replaces an older one whole.
//!
//! In the order of a build: [`plan`] (what to build, from `eci.toml` and the locks), [`packages`] (fetch and
//! unpack), [`rootfs`] (rules, closure, EROFS), [`kernel`] (fragments, check, build), [`image`] (verity, manifest,
//! signature, disk). Then [`instance`] runs what was built, [`dashboard`] shows it, and [`attest`] holds
//! what its TPM says against it. [`cli`] has a file a subcommand; [`ui`], [`tool`],
//! [`staging`] and [`cache`] serve them all; [`checkout`] knows the commit that a build is of, [`settings`] reads the
//! administrator's.

pub mod attest;
pub mod cache;
pub mod checkout;
pub mod cli;
pub mod dashboard;
pub mod image;
pub mod instance;
pub mod kernel;
pub mod packages;
pub mod plan;
pub mod rootfs;
pub mod settings;
pub mod staging;
pub mod tool;
pub mod toolchain;
pub mod ui;
