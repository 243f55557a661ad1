//! AppArmor: loads the profiles of the image, which were compiled when it was built.

use std::fs;
use std::io;
use std::path::PathBuf;

use eci_contract::paths::APPARMOR_DIR;

/// Takes one compiled profile a write, and puts it in the place of an earlier one of its name (apparmorfs).
const LOAD: &str = "/sys/kernel/security/apparmor/.replace";

/// Why the profiles are not in force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder or a profile cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The kernel does not take a profile.
    #[error("cannot load the AppArmor profile `{}`", .path.display())]
    Load {
        /// The compiled profile.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Loads every profile.
///
/// # Errors
/// At the first that cannot be read or loaded.
pub fn load() -> Result<(), Error> {
    let read = |path: &str| {
        let path = PathBuf::from(path);
        move |source| Error::Read { path, source }
    };
    for entry in fs::read_dir(APPARMOR_DIR).map_err(read(APPARMOR_DIR))? {
        let path = entry.map_err(read(APPARMOR_DIR))?.path();
        let policy = fs::read(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
        fs::write(LOAD, policy).map_err(|source| Error::Load { path, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_profile() {
        let error =
            Error::Load { path: "/x/docker-default".into(), source: io::ErrorKind::InvalidInput.into() };
        assert_eq!(error.to_string(), "cannot load the AppArmor profile `/x/docker-default`");
    }
}
