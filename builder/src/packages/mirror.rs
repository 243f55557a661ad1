//! Where Debian's archives are. The repository names no host: the mirror is the one that `eci.toml` or `ECI_MIRROR`
//! gives, else the one that this machine's own apt uses.

use std::env;

use crate::plan::lock::Archive;
use crate::tool::{self, Tool};
use crate::ui::Ui;

/// The environment variable that names the root of a mirror.
pub const VARIABLE: &str = "ECI_MIRROR";

/// Roots of Debian's archives, each ending in `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    debian: String,
    security: String,
}

/// Why no mirror is known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// apt cannot be asked.
    #[error("cannot ask apt for this machine's mirror")]
    Apt(#[from] tool::Error),
    /// This machine uses no Debian archive.
    #[error(
        "this machine's apt uses no Debian archive; set `mirror` in eci.toml or {VARIABLE} to the root of a mirror"
    )]
    NoDebian,
}

impl Mirror {
    /// The mirror to use: `configured`, else the environment's, else this machine's.
    ///
    /// # Errors
    /// Both variants of [`Error`].
    pub fn find(configured: Option<&str>, ui: &Ui) -> Result<Self, Error> {
        let given = env::var(VARIABLE).ok().filter(|value| !value.is_empty());
        if let Some(root) = configured.map(str::to_owned).or(given) {
            return Ok(Self::at(&root));
        }
        let format = "$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)";
        let output = Tool::new("apt-get")
            .args(["indextargets", "--format", format, "Created-By: Packages"])
            .output(ui)?;
        Self::from_targets(&String::from_utf8_lossy(&output)).ok_or(Error::NoDebian)
    }

    /// The mirror whose archives are `ROOT/debian` and `ROOT/debian-security`.
    #[must_use]
    pub fn at(root: &str) -> Self {
        let root = root.trim_end_matches('/');
        Self { debian: format!("{root}/debian/"), security: format!("{root}/debian-security/") }
    }

    /// Root of an archive, ending in `/`.
    #[must_use]
    pub fn root(&self, archive: Archive) -> &str {
        match archive {
            Archive::Debian => &self.debian,
            Archive::DebianSecurity => &self.security,
        }
    }

    /// Which archive an address is in, and its path there.
    #[must_use]
    pub fn split<'a>(&self, uri: &'a str) -> Option<(Archive, &'a str)> {
        let inside = |archive| uri.strip_prefix(self.root(archive)).map(|path| (archive, path));
        inside(Archive::Debian).or_else(|| inside(Archive::DebianSecurity))
    }

    /// Reads lines of origin, suite, component and root. The origin is only known where indexes were fetched; a machine
    /// that never did so is judged by the name of the archive's folder. A wrong guess is harmless: apt checks
    /// signatures, and the lock has digests.
    fn from_targets(lines: &str) -> Option<Self> {
        let mut debian = None;
        let mut security = None;
        for line in lines.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            let &[origin, suite, component, root] = fields.as_slice() else { continue };
            let known = origin == "Debian" || (origin.is_empty() || origin.starts_with('$'));
            if !known || component != "main" {
                continue;
            }
            let root = format!("{}/", root.trim_end_matches('/'));
            if suite.ends_with("-security") && root.ends_with("/debian-security/") {
                security.get_or_insert(root);
            } else if !suite.ends_with("-security") && (origin == "Debian" || root.ends_with("/debian/")) {
                debian.get_or_insert(root);
            }
        }
        let debian = debian?;
        // Mirrors that carry both have them side by side.
        let security =
            security.or_else(|| Some(format!("{}debian-security/", debian.strip_suffix("debian/")?)))?;
        Some(Self { debian, security })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_s_debian_archives_are_found_among_others() {
        let targets = "\
            Docker|bookworm|stable|https://a.invalid/linux/debian/\n\
            $(ORIGIN)|nodistro|main|https://b.invalid/node/\n\
            Debian|bookworm|main|http://m.invalid/debian/\n\
            Debian|bookworm-security|main|http://s.invalid/debian-security/\n";
        let mirror = Mirror::from_targets(targets).expect("two Debian archives");
        assert_eq!(mirror.root(Archive::Debian), "http://m.invalid/debian/");
        assert_eq!(mirror.root(Archive::DebianSecurity), "http://s.invalid/debian-security/");
    }

    #[test]
    fn a_machine_without_a_security_archive_gets_the_one_beside_it() {
        let mirror = Mirror::from_targets("|trixie|main|http://m.invalid/debian/\n").expect("an archive");
        assert_eq!(mirror.root(Archive::DebianSecurity), "http://m.invalid/debian-security/");
    }

    #[test]
    fn ubuntu_is_not_debian() {
        let targets =
            "Ubuntu|noble|main|http://u.invalid/ubuntu/\n|noble-security|main|http://u.invalid/ubuntu/\n";
        assert_eq!(Mirror::from_targets(targets), None);
    }

    #[test]
    fn an_address_splits_into_archive_and_path() {
        let mirror = Mirror::at("http://m.invalid/");
        assert_eq!(
            mirror.split("http://m.invalid/debian-security/pool/a.deb"),
            Some((Archive::DebianSecurity, "pool/a.deb"))
        );
        assert_eq!(mirror.split("http://other.invalid/debian/pool/a.deb"), None);
    }
}
