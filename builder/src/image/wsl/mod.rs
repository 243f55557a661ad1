//! The image as a distro of WSL 2: a tar, compressed with gzip, for `wsl --install --from-file` and `wsl --import`.
//!
//! It holds PID 1, the key, and the signed root with its tree; [`members`] is the list. [`archive`] writes and reads it. Nothing but
//! PID 1 and the key is believed by what boots from it, and those two are what the initrd has: the manifest has its digest.

pub mod archive;
pub mod members;

pub use archive::{Error, MAGIC, Opened, open, write};
pub use members::Parts;
