//! User and group ids: the first one outside of the container's range, and what files may bear.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use nix::unistd::{Gid, Uid, chown, setgid, setuid};
use rustix::fs::XattrFlags;

use crate::attempt::{At, Attempt, Failure, Verb, effective, scratch};

/// The last id of a container.
const LAST: u32 = 65_535;
/// The first of the next.
const BEYOND: u32 = 65_536;

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb { name: "setuid-last", why: "images use all 65,536 ids", run: |_| Ok(setuid(Uid::from_raw(LAST))?) },
    Verb {
        name: "setuid-beyond",
        why: "the next id belongs to another container",
        run: |_| Ok(setuid(Uid::from_raw(BEYOND))?),
    },
    Verb { name: "setgid-beyond", why: "the same for groups", run: |_| Ok(setgid(Gid::from_raw(BEYOND))?) },
    Verb {
        name: "setgroups-beyond",
        why: "the same for further groups",
        run: |_| Ok(nix::unistd::setgroups(&[Gid::from_raw(BEYOND)])?),
    },
    Verb { name: "chown-last", why: "files may have any id of the range", run: |_| give(LAST) },
    Verb { name: "chown-beyond", why: "a file of another container's user", run: |_| give(BEYOND) },
    Verb {
        name: "chown-foreign",
        why: "a file whose owner has no place in the map may not be taken over",
        run: |path| {
            chown(path, Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))?;
            effective(fs::metadata(path).at("stat")?.uid() == 0)
        },
    },
    Verb {
        name: "file-capabilities",
        why: "`setcap` of package installs",
        run: |_| set_capabilities(&version_2()),
    },
    Verb {
        name: "file-capabilities-foreign",
        why: "capabilities for another container's root",
        run: |_| {
            let mut bytes = version_2();
            bytes[3] = 3;
            bytes.extend(BEYOND.to_le_bytes());
            set_capabilities(&bytes)
        },
    },
    Verb {
        name: "trusted-attribute",
        why: "overlayfs keeps its secrets in `trusted.*`: a forged one redirects a layer",
        run: |_| Ok(rustix::fs::setxattr(file()?, "trusted.probe", b"x", XattrFlags::empty())?),
    },
    Verb {
        name: "overlay-attribute",
        why: "`trusted.overlay.redirect` in an upper layer that the VM mounts",
        run: |_| Ok(rustix::fs::setxattr(file()?, "trusted.overlay.redirect", b"/", XattrFlags::empty())?),
    },
];

fn file() -> Result<PathBuf, Failure> {
    let file = scratch()?.join("owned");
    fs::write(&file, "x").at("write")?;
    Ok(file)
}

fn give(id: u32) -> Attempt {
    let file = file()?;
    chown(&file, Some(Uid::from_raw(id)), Some(Gid::from_raw(id)))?;
    effective(fs::metadata(&file).at("stat")?.uid() == id)
}

/// `struct vfs_cap_data` of version 2 with `CAP_NET_RAW`, permitted and effective.
fn version_2() -> Vec<u8> {
    let words: [u32; 5] = [0x0200_0001, 1 << 13, 0, 0, 0];
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn set_capabilities(bytes: &[u8]) -> Attempt {
    let file = file()?;
    rustix::fs::setxattr(&file, "security.capability", bytes, XattrFlags::empty())?;
    let mut back = [0_u8; 64];
    let length = rustix::fs::getxattr(&file, "security.capability", &mut back).at("getxattr")?;
    effective(length >= 20)
}
