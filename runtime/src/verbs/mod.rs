//! What each command does.

pub mod create;
pub mod delete;
pub mod exec;
mod program;
pub mod version;

pub use program::{Error as ProgramError, pass};
