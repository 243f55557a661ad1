//! Pure decisions over what a container may be.
//!
//! Invariant: no I/O, no clock, no global state. Callers gather facts (what a path really opens, who owns a
//! namespace); [`rules`] answers with a [`Verdict`]. What a rule does not understand it denies.

pub mod rules;
pub mod verdict;

pub use verdict::Verdict;
