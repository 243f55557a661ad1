//! Two versions on one disk: which to boot, and how its boots are counted.
//!
//! [`choice`] decides (pure), [`table`] reads and changes the partition table. The initramfs counts a boot before anything of
//! the slot is used; PID 1 says that it went well; `eci-builder update` puts the next version on trial.
//!
//! Invariant: whatever moment a change is cut off at, one of the two copies of the table is whole, and says either what
//! stood there before or what was to stand there.

pub mod choice;
pub mod table;

pub use choice::choose;
pub use table::{Error, Table};
