//! A Debian to run whole systems in: engines, systemd, what a Kubernetes node has.
//!
//! `scripts/debian-root` makes it, once: the tar is kept in the cache under the digest of that script and of [`PACKAGES`].
//! Versions of packages are not in the name; delete the file to get today's.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::vm::Vm;
use crate::{command, image};

/// What is installed beyond Debian's minimum.
pub const PACKAGES: [&str; 15] = [
    "containerd",
    "crun",
    "dbus",
    "docker-buildx",
    "docker-cli",
    "docker.io",
    "fuse-overlayfs",
    "iptables",
    "kmod",
    "libcap2-bin",
    "netavark",
    "passt",
    "podman",
    "systemd-sysv",
    "uidmap",
];

/// A user of the image with 50,000 ids from 10,000 on.
pub const WORKER: &str = "worker";

/// Imports it as `debian`, with the stop signal of systemd.
///
/// # Errors
/// When it cannot be made, or the engine does not take it.
pub fn import(vm: &Vm) -> Result<()> {
    let root = root()?;
    let arguments = ["import", "--change", "STOPSIGNAL SIGRTMIN+3", &root.to_string_lossy(), "debian"];
    vm.docker(&arguments)?.ok().map(drop)
}

fn root() -> Result<PathBuf> {
    let script = image::repository()?.join("scripts/debian-root");
    let text = fs::read(&script).with_context(|| format!("cannot read {}", script.display()))?;
    let mut digest = Sha256::new_with_prefix(text);
    digest.update(PACKAGES.join(" "));
    let key: String = digest.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
    let folder = image::cache()?.join("debian-roots");
    let place = folder.join(format!("{key}.tar"));
    if !place.exists() {
        fs::create_dir_all(&folder)?;
        let file = place.to_string_lossy();
        let arguments: Vec<&str> = [&*file].into_iter().chain(PACKAGES).collect();
        command::host(&script.to_string_lossy(), &arguments)?.ok()?;
    }
    Ok(place)
}
