//! Pure decisions over what a container may be, and over what an administrator set.
//!
//! Invariant: no I/O, no clock, no global state. Callers gather facts (what a path really opens, who owns a
//! namespace); [`rules`] answers with a [`Verdict`]. What a rule does not understand it denies. [`settings`] reads the
//! administrator's file, and refuses what this version does not enforce. [`json`] is how both read.

pub mod json;
pub mod rules;
pub mod settings;
pub mod verdict;

pub use verdict::Verdict;
