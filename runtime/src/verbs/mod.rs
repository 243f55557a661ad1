//! What each command does.

pub mod create;
pub mod delete;
pub mod exec;
pub mod plain;
mod program;
pub mod version;

pub use program::{Error as ProgramError, pass};
