//! Acting on file systems as another user while keeping every capability.
//!
//! overlayfs remembers its mounter's file system ids and makes its work folders as that user; ids outside the map
//! of an id-mapped upper layer fail with `EOVERFLOW`. `SECBIT_NO_SETUID_FIXUP` keeps the capabilities.

use std::io;

const KEEP_CAPABILITIES: libc::c_int = libc::SECBIT_NO_SETUID_FIXUP;

/// File system ids of this thread, put back to root's when dropped.
#[derive(Debug)]
pub struct FilesystemIds {
    securebits: libc::c_int,
}

impl FilesystemIds {
    /// Takes on `uid` and `gid` for file system checks.
    ///
    /// # Errors
    /// `EPERM` when this thread may not change its ids or its securebits.
    #[expect(unsafe_code, reason = "goes with setfsuid")]
    pub fn assume(uid: u32, gid: u32) -> io::Result<Self> {
        // SAFETY: this prctl takes no pointers.
        let securebits = unsafe { libc::prctl(libc::PR_GET_SECUREBITS) };
        if securebits < 0 {
            return Err(io::Error::last_os_error());
        }
        set_securebits(securebits | KEEP_CAPABILITIES)?;
        let held = Self { securebits };
        set_ids(uid, gid);
        if current_ids() == (uid, gid) { Ok(held) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
    }
}

impl Drop for FilesystemIds {
    fn drop(&mut self) {
        set_ids(0, 0);
        set_securebits(self.securebits).expect("securebits that were in force can be set again");
    }
}

#[expect(unsafe_code, reason = "rustix has no setfsuid")]
fn set_ids(uid: u32, gid: u32) {
    // SAFETY: neither call takes pointers; both change this thread alone and cannot fail, only do nothing.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}

#[expect(unsafe_code, reason = "rustix has no setfsuid")]
fn current_ids() -> (u32, u32) {
    // SAFETY: as in `set_ids`; the id -1 is invalid, so nothing changes and the present one is returned.
    let (uid, gid) = unsafe { (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX)) };
    (u32::from_ne_bytes(uid.to_ne_bytes()), u32::from_ne_bytes(gid.to_ne_bytes()))
}

#[expect(unsafe_code, reason = "goes with setfsuid")]
fn set_securebits(bits: libc::c_int) -> io::Result<()> {
    // SAFETY: this prctl takes no pointers.
    if unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits) } == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
