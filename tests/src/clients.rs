//! Clients of the engine, the same on every host: Docker's command line, its plugins and a registry, from the test flavour's lock; and those
//! of `tests/clients`, from PyPI and npm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use eci_contract::manifest::Architecture;

use crate::{command, image, pypi};

/// The packages, as `eci-test.toml` names them among its tools.
const PACKAGES: [&str; 4] = ["docker-cli", "docker-buildx", "docker-compose", "docker-registry"];

/// A folder with their `usr/`, unpacked from the cache that the build of the test flavour has filled.
///
/// # Errors
/// When the lock or the cache lacks one of them.
pub fn unpacked() -> Result<PathBuf> {
    let cache = image::cache()?;
    let locked = |package| locked_digest("test-packages.lock", package, host());
    let digests: Vec<_> = PACKAGES.into_iter().map(locked).collect::<Result<_>>()?;
    let place = cache
        .join("test-clients")
        .join(digests.iter().map(|digest| digest.get(..16).unwrap_or(digest)).collect::<Vec<_>>().join("-"));
    if place.exists() {
        return Ok(place);
    }
    fs::create_dir_all(place.parent().context("the place has a parent")?)?;
    let fresh = tempfile::tempdir_in(place.parent().context("the place has a parent")?)?;
    for digest in &digests {
        unpack(digest, fresh.path())
            .context("scripts/test builds the test flavour first, which fetches Docker's clients")?;
    }
    fs::rename(fresh.path(), &place).or_else(|error| if place.exists() { Ok(()) } else { Err(error) })?;
    Ok(place)
}

/// The folder of the plugins inside [`unpacked`].
#[must_use]
pub fn plugins(unpacked: &Path) -> PathBuf {
    unpacked.join("usr/libexec/docker/cli-plugins")
}

/// Folder of programs that speak to the engine by libraries from PyPI and npm, and of what pins these.
///
/// # Errors
/// When the repository is not found.
pub fn programs() -> Result<PathBuf> {
    Ok(image::repository()?.join("tests/clients"))
}

/// Python with those from PyPI, Node among them: its `bin`.
///
/// # Errors
/// When they cannot be installed.
pub fn python() -> Result<PathBuf> {
    Ok(pypi::environment(&programs()?, "clients")?.join("bin"))
}

/// A folder with `node_modules` from npm. Node finds libraries by where a program is, so the programs are copied there.
///
/// # Errors
/// When they cannot be installed.
pub fn node() -> Result<PathBuf> {
    let (from, bin) = (programs()?, python()?);
    let place = image::cache()?.join("clients-node").join(pypi::digest(&from.join("package-lock.json"))?);
    fs::create_dir_all(&place)?;
    let done = place.join("done");
    if !done.exists() {
        for name in ["package.json", "package-lock.json"] {
            fs::copy(from.join(name), place.join(name))?;
        }
        // Nothing of them is compiled: what is, they go without.
        let mut install = Command::new(bin.join("npm"));
        install.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"]).current_dir(&place);
        let path = std::env::var("PATH").unwrap_or_default();
        install.env("PATH", format!("{}:{path}", bin.display()));
        command::run(&mut install, &[])?.ok().context("scripts/test takes clients from npm")?;
        fs::write(&done, "")?;
    }
    for entry in fs::read_dir(&from)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "mjs") {
            fs::copy(entry.path(), place.join(entry.file_name()))?;
        }
    }
    Ok(place)
}

/// Unpacks a package of the cache.
pub(crate) fn unpack(digest: &str, to: &Path) -> Result<()> {
    let package = image::cache()?.join("packages").join(format!("{digest}.deb"));
    command::host("dpkg-deb", &["-x", &package.to_string_lossy(), &to.to_string_lossy()])?.ok().map(drop)
}

/// Debian's static busybox.
///
/// # Errors
/// As [`unpacked`].
pub fn busybox(architecture: Architecture) -> Result<Vec<u8>> {
    let digest = locked_digest("test-packages.lock", "busybox-static", architecture)?;
    let place = image::cache()?.join("test-clients").join(format!("busybox-{}", &digest[..16]));
    if !place.exists() {
        fs::create_dir_all(place.parent().context("the place has a parent")?)?;
        let fresh = tempfile::tempdir_in(place.parent().context("the place has a parent")?)?;
        unpack(&digest, fresh.path())
            .context("scripts/test builds the test flavour first, which fetches it")?;
        fs::rename(fresh.path().join("usr/bin/busybox"), &place)?;
    }
    fs::read(&place).with_context(|| format!("cannot read {}", place.display()))
}

/// The architecture that suites run on.
fn host() -> Architecture {
    if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 }
}

/// The digest of a package in a lock file.
pub(crate) fn locked_digest(lock: &str, package: &str, target: Architecture) -> Result<String> {
    let path = image::repository()?.join("rootfs").join(lock);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lock: toml::Table = text.parse().with_context(|| format!("cannot parse {}", path.display()))?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("the lock lists packages")?;
    let has = |entry: &toml::Value, key, value| entry.get(key).and_then(toml::Value::as_str) == Some(value);
    let entry =
        packages.iter().find(|entry| has(entry, "name", package) && has(entry, "target", target.as_str()));
    let digest = entry.and_then(|entry| entry.get("sha256")).and_then(toml::Value::as_str);
    digest.map(str::to_owned).with_context(|| format!("`{package}` is not locked for {}", target.as_str()))
}
