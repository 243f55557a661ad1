//! The host's apt client in a state folder of our own: it fetches and authenticates Debian's indexes and says what is
//! in them. The host's installed packages, sources and preferences play no part; its proxies do.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;

use super::mirror::Mirror;
use crate::cache::{self, Cache};
use crate::plan::lock::{Archive, debian_architecture};
use crate::tool::{self, Tool};
use crate::ui::Ui;

/// The keys that Debian signs its archives with, from the package `debian-archive-keyring`.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Suites that packages come from, each with its archive.
const SUITES: [(&str, Archive); 3] = [
    ("trixie", Archive::Debian),
    ("trixie-updates", Archive::Debian),
    ("trixie-security", Archive::DebianSecurity),
];

/// Why apt could not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder for apt's state.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The keyring is not installed.
    #[error("`{KEYRING}` is missing; install the package debian-archive-keyring")]
    NoKeyring,
    /// apt's state folder cannot be written.
    #[error("cannot write `{}`", .path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Indexes could not be fetched or authenticated.
    #[error("cannot fetch Debian's package indexes")]
    Update(#[source] tool::Error),
    /// The indexes cannot be asked.
    #[error("cannot ask apt for packages")]
    Query(#[source] tool::Error),
}

/// A private apt with fetched, authenticated indexes.
#[derive(Debug)]
pub struct Apt {
    options: Vec<String>,
}

/// What an index says of one version of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// Binary package name.
    pub name: String,
    /// Version, epoch included.
    pub version: String,
    /// Debian architecture, or `all`.
    pub architecture: String,
    /// Path under the archive's root.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Source package.
    pub source: String,
    /// Version of the source package.
    pub source_version: String,
}

impl Apt {
    /// Fetches the indexes of the suites in `SUITES` from `mirror` and lets apt check their signatures. Packages are for
    /// `architecture`; those for a `foreign` one go by name, `:` and its Debian name.
    ///
    /// # Errors
    /// All of [`Error`] but the query.
    pub fn update(
        mirror: &Mirror,
        architecture: Architecture,
        foreign: Option<Architecture>,
        cache: &Cache,
        ui: &Ui,
    ) -> Result<Self, Error> {
        if !Path::new(KEYRING).exists() {
            return Err(Error::NoKeyring);
        }
        let architectures: Vec<_> =
            [Some(architecture), foreign].into_iter().flatten().map(debian_architecture).collect();
        let name = format!("apt-{}", architectures.join("-"));
        let folder = cache.folder(&name)?;
        for within in ["state/lists/partial", "cache/archives/partial"] {
            cache.folder(&format!("{name}/{within}"))?;
        }
        write(&folder.join("sources.list"), &sources(mirror))?;
        write(&folder.join("status"), "")?;
        let apt = Self { options: options(&folder, &architectures) };
        let update = apt.tool("apt-get").args(["-q", "--error-on=any", "update"]);
        update.run(ui).map_err(Error::Update)?;
        Ok(apt)
    }

    /// Addresses of the newest version of each package. An unknown name is apt's error.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub fn candidates(&self, names: &[&str], ui: &Ui) -> Result<Vec<String>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let query = self.tool("apt-get").args(["download", "--print-uris", "-qq"]).args(names);
        let output = query.output(ui).map_err(Error::Query)?;
        Ok(quoted_words(&String::from_utf8_lossy(&output)))
    }

    /// Addresses of the newest version of each package and of all that they depend on. An unknown name, or one that cannot be
    /// installed beside the others, is apt's error.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub fn closure(&self, names: &[&str], ui: &Ui) -> Result<Vec<String>, Error> {
        let query =
            self.tool("apt-get").args(["install", "--print-uris", "-qq", "-y", "--no-install-recommends"]);
        let output = query.args(names).output(ui).map_err(Error::Query)?;
        Ok(quoted_words(&String::from_utf8_lossy(&output)))
    }

    /// What the indexes say of these packages, all versions.
    ///
    /// # Errors
    /// [`Error::Query`].
    pub fn stanzas(&self, names: &[&str], ui: &Ui) -> Result<Vec<Stanza>, Error> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let query = self.tool("apt-cache").args(["show", "--all-versions"]).args(names);
        let output = query.output(ui).map_err(Error::Query)?;
        let text = String::from_utf8_lossy(&output);
        Ok(text.split("\n\n").filter_map(parse_stanza).collect())
    }

    fn tool(&self, program: &str) -> Tool {
        Tool::new(program).args(self.options.iter().flat_map(|option| ["-o", option]))
    }
}

fn sources(mirror: &Mirror) -> String {
    SUITES
        .iter()
        .map(|(suite, archive)| format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror.root(*archive)))
        .collect()
}

fn options(folder: &Path, architectures: &[&str]) -> Vec<String> {
    let folder = folder.display();
    vec![
        format!("Dir::State={folder}/state"),
        format!("Dir::State::status={folder}/status"),
        format!("Dir::Cache={folder}/cache"),
        format!("Dir::Etc::sourcelist={folder}/sources.list"),
        "Dir::Etc::sourceparts=-".to_owned(),
        "Dir::Etc::preferences=-".to_owned(),
        "Dir::Etc::preferencesparts=-".to_owned(),
        format!("APT::Architecture={}", architectures.first().expect("at least one")),
        format!("APT::Architectures={}", architectures.join(",")),
        "APT::Default-Release=".to_owned(),
        "Acquire::Languages=none".to_owned(),
        "Acquire::AllowInsecureRepositories=false".to_owned(),
        // As root, apt would drop to a user that cannot reach the cache of the one who builds.
        "APT::Sandbox::User=root".to_owned(),
    ]
}

/// The words in single quotes at the start of each line, as `--print-uris` writes addresses.
fn quoted_words(output: &str) -> Vec<String> {
    output.lines().filter_map(|line| Some(line.strip_prefix('\'')?.split_once('\'')?.0.to_owned())).collect()
}

fn parse_stanza(text: &str) -> Option<Stanza> {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter(|line| !line.starts_with(char::is_whitespace))
        .filter_map(|line| line.split_once(':'))
        .map(|(key, value)| (key, value.trim()))
        .collect();
    let field = |key: &str| fields.get(key).map(|value| (*value).to_owned());
    let (name, version) = (field("Package")?, field("Version")?);
    let (source, source_version) = split_source(fields.get("Source").copied(), &name, &version);
    Some(Stanza {
        architecture: field("Architecture")?,
        path: field("Filename")?,
        size: field("Size")?.parse().ok()?,
        sha256: field("SHA256")?,
        name,
        version,
        source,
        source_version,
    })
}

/// `Source: name (version)`; the version is left out where it is the package's own, the line where the name is, too.
fn split_source(source: Option<&str>, name: &str, version: &str) -> (String, String) {
    match source.map(|source| source.split_once(" (").unwrap_or((source, ""))) {
        None => (name.to_owned(), version.to_owned()),
        Some((source, "")) => (source.to_owned(), version.to_owned()),
        Some((source, rest)) => (source.to_owned(), rest.trim_end_matches(')').to_owned()),
    }
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STANZA: &str = "\
        Package: docker.io\nSource: docker.io (26.1.5+dfsg1-9)\nVersion: 26.1.5+dfsg1-9+b1\nArchitecture: amd64\n\
        Description: Linux container runtime\n Size: not a field\nFilename: pool/main/d/docker.io_26.deb\n\
        Size: 23036836\nSHA256: 53ae\n";

    #[test]
    fn a_stanza_is_read_and_its_continuation_lines_are_not_fields() {
        let stanza = parse_stanza(STANZA).expect("complete");
        assert_eq!((stanza.size, stanza.sha256.as_str()), (23_036_836, "53ae"));
        assert_eq!(stanza.source_version, "26.1.5+dfsg1-9");
    }

    #[test]
    fn a_stanza_without_digest_is_no_stanza() {
        assert_eq!(parse_stanza(&STANZA.replace("SHA256", "MD5sum")), None);
    }

    #[test]
    fn a_package_without_a_source_line_is_its_own_source() {
        assert_eq!(split_source(None, "crun", "1.21-1"), ("crun".to_owned(), "1.21-1".to_owned()));
        assert_eq!(split_source(Some("glibc"), "libc6", "2.41"), ("glibc".to_owned(), "2.41".to_owned()));
    }

    #[test]
    fn addresses_are_the_quoted_words() {
        let output = "'http://m.invalid/a%2b.deb' a+.deb 10 SHA256:aa\nnoise\n";
        assert_eq!(quoted_words(output), ["http://m.invalid/a%2b.deb"]);
    }
}
