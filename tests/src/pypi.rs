//! Programs from PyPI, as a file of pinned versions names them. Each such set is a Python environment in the cache, under the digest of the file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::{command, image};

/// The environment with what `requirements.txt` in this folder names, `name` among those in the cache.
///
/// # Errors
/// When it cannot be installed.
pub fn environment(folder: &Path, name: &str) -> Result<PathBuf> {
    let requirements = folder.join("requirements.txt");
    let place = image::cache()?.join(name).join(digest(&requirements)?);
    let done = place.join("done");
    if !done.exists() {
        // Its programs name their own folder, so it is made where it stays.
        command::host("python3", &["-m", "venv", "--clear", &place.to_string_lossy()])?.ok()?;
        let pip = place.join("bin/pip").to_string_lossy().into_owned();
        let from = requirements.to_string_lossy();
        command::host(&pip, &["install", "--quiet", "--disable-pip-version-check", "--requirement", &from])?
            .ok()
            .with_context(|| format!("scripts/test takes {name} from PyPI"))?;
        fs::write(&done, "")?;
    }
    Ok(place)
}

/// By what a set is known in the cache.
pub(crate) fn digest(file: &Path) -> Result<String> {
    let text = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Sha256::digest(text).iter().take(10).map(|byte| format!("{byte:02x}")).collect())
}
