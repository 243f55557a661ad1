//! Volumes are a mount of their own on which no link is followed, by the engine and by whoever else is root in the VM.
//!
//! Why: the engine fills a new volume with what the image has at its place, as root and by names, while a container that has the volume
//! too may put links in its way. Containers follow links in their volumes as everywhere: the runtime takes this off what they get.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;

use eci_contract::paths::ENGINE_VOLUMES;
use eci_sys::mounts::{MountAttributes, NO_LINKS, PRIVATE, SHARED, set_attributes};
use rustix::mount::mount_bind;

/// As the engine makes it.
const MODE: u32 = 0o701;

/// Why links in volumes would be followed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} `{ENGINE_VOLUMES}`")]
pub struct Error {
    operation: &'static str,
    source: io::Error,
}

/// Mounts the folder on itself. The data disk is there.
///
/// # Errors
/// When the folder cannot be made, or mounted so.
pub fn follow_no_links() -> Result<(), Error> {
    let failed = |operation| move |source| Error { operation, source };
    let made = fs::DirBuilder::new().mode(MODE).recursive(true).create(ENGINE_VOLUMES);
    made.map_err(failed("make the folder"))?;
    mount_bind(ENGINE_VOLUMES, ENGINE_VOLUMES).map_err(io::Error::from).map_err(failed("mount"))?;
    let root = File::open(ENGINE_VOLUMES).map_err(failed("open"))?;
    // With peers of its own: what is mounted here must not be mounted on what it covers as well.
    for propagation in [PRIVATE, SHARED] {
        let attributes = MountAttributes { set: NO_LINKS, propagation, ..MountAttributes::default() };
        set_attributes(root.as_fd(), &attributes).map_err(failed("follow no links in"))?;
    }
    Ok(())
}
