//! Known vulnerabilities of source packages, from the data of Debian's security tracker. Pure, but for the reading.
//!
//! Format: <https://security-tracker.debian.org/tracker/data/json>, without a specification. It is an object of source packages, each an
//! object of vulnerabilities, each with a state a release:
//! `{"linux": {"CVE-2025-1": {"description": "…", "releases": {"trixie": {"status": "resolved", "fixed_version": "6.12.48-1", …}}}}}`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::sbom::Source;
use crate::packages::version;

/// A fixed version that says "never affected".
const NEVER_AFFECTED: &str = "0";
/// Bytes read at a time; the file has 90 MB.
const BUFFER_BYTES: usize = 256 * 1024;

/// Why the tracker's data cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has another form.
    #[error("`{}` is not the data of Debian's security tracker", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// Where and why not.
        source: serde_json::Error,
    },
    /// None of the packages is named with the release, so an empty list would prove nothing.
    #[error("`{}` says nothing of Debian {release} for any package of the image", .path.display())]
    Release {
        /// The file.
        path: PathBuf,
        /// The image's Debian release.
        release: String,
    },
}

/// A vulnerability that concerns a source package of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Vulnerability {
    /// Name of the source package.
    pub source: String,
    /// Its version in the image.
    pub version: String,
    /// Name of the vulnerability, `CVE-…` or one of the tracker's own.
    pub name: String,
    /// How it stands in the release.
    pub status: Status,
    /// First version of the release that does not have it.
    pub fixed_version: Option<String>,
    /// How urgent Debian takes it to be: `unimportant` up to `high`, or `not yet assigned`.
    pub urgency: Option<String>,
    /// Why Debian makes no advisory of it.
    pub no_advisory: Option<String>,
    /// A line about it.
    pub description: Option<String>,
}

/// How a vulnerability stands in a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// The release has no fixed version.
    Open,
    /// The release has a fixed version.
    Resolved,
    /// Debian has not looked yet.
    Undetermined,
}

impl Status {
    /// As the tracker has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Resolved => "resolved",
            Self::Undetermined => "undetermined",
        }
    }
}

/// The tracker's record of a vulnerability in a source package, as far as it is of use.
#[derive(Deserialize)]
struct Record {
    description: Option<String>,
    #[serde(default)]
    releases: BTreeMap<String, State>,
}

#[derive(Deserialize)]
struct State {
    status: Status,
    fixed_version: Option<String>,
    urgency: Option<String>,
    nodsa: Option<String>,
}

/// Vulnerabilities of the release that concern these versions, by package and name.
///
/// # Errors
/// [`Error`].
pub fn read(path: &Path, release: &str, sources: &BTreeSet<Source>) -> Result<Vec<Vulnerability>, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let file = BufReader::with_capacity(BUFFER_BYTES, File::open(path).map_err(read)?);
    let found = parse(file, release, sources).map_err(|error| match error.io_error_kind() {
        Some(kind) => read(kind.into()),
        None => Error::Form { path: path.to_owned(), source: error },
    })?;
    found.ok_or_else(|| Error::Release { path: path.to_owned(), release: release.to_owned() })
}

/// `None` where the release is not named once.
fn parse(
    from: impl io::Read,
    release: &str,
    sources: &BTreeSet<Source>,
) -> serde_json::Result<Option<Vec<Vulnerability>>> {
    let mut search = Search { release, sources, named: false, found: Vec::new() };
    let mut json = serde_json::Deserializer::from_reader(from);
    Packages(&mut search).deserialize(&mut json)?;
    json.end()?;
    search.found.sort_by(|one, other| (&one.source, &one.version).cmp(&(&other.source, &other.version)));
    Ok(search.named.then_some(search.found))
}

/// What is looked for, and what there is of it so far.
struct Search<'a> {
    release: &'a str,
    sources: &'a BTreeSet<Source>,
    named: bool,
    found: Vec<Vulnerability>,
}

impl Search<'_> {
    fn take(&mut self, package: &str, records: &BTreeMap<String, Record>) {
        for source in self.sources.iter().filter(|source| source.name == package) {
            for (name, record) in records {
                let Some(state) = record.releases.get(self.release) else { continue };
                self.named = true;
                if concerns(state, &source.version) {
                    self.found.push(Vulnerability {
                        source: source.name.clone(),
                        version: source.version.clone(),
                        name: name.clone(),
                        status: state.status,
                        fixed_version: state.fixed_version.clone(),
                        urgency: state.urgency.clone(),
                        no_advisory: state.nodsa.clone(),
                        description: record.description.clone(),
                    });
                }
            }
        }
    }
}

/// Whether a version is one that has the vulnerability, or may have it.
fn concerns(state: &State, version: &str) -> bool {
    match state.fixed_version.as_deref() {
        Some(NEVER_AFFECTED) => false,
        Some(fixed) => version::compare(version, fixed).is_lt(),
        None => true,
    }
}

/// The outer object: packages that are not looked for are read over, one at a time.
struct Packages<'a, 'b>(&'a mut Search<'b>);

impl<'de> DeserializeSeed<'de> for Packages<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Packages<'_, '_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of source packages")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(package) = map.next_key::<String>()? {
            if self.0.sources.iter().all(|source| source.name != package) {
                map.next_value::<ReadOver>()?;
                continue;
            }
            let records = map.next_value()?;
            self.0.take(&package, &records);
            if !seen.insert(package.clone()) {
                return Err(A::Error::custom(format!("`{package}` is there twice")));
            }
        }
        Ok(())
    }
}

/// An object of anything: what is no object shows that the file is another one.
struct ReadOver;

impl<'de> Deserialize<'de> for ReadOver {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for ReadOver {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of vulnerabilities")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use eci_contract::errors::chain;

    use super::*;

    const DATA: &str = r#"{
        "aaa": { "CVE-1": { "releases": { "trixie": { "status": "open" } } } },
        "linux": {
            "CVE-2025-1": { "description": "fixed before", "scope": "local", "releases": {
                "trixie": { "status": "resolved", "repositories": { "trixie": "6.12.48-1" },
                            "fixed_version": "6.12.9-1", "urgency": "not yet assigned" } } },
            "CVE-2025-2": { "description": "fixed just there", "releases": {
                "trixie": { "status": "resolved", "fixed_version": "6.12.48-1" } } },
            "CVE-2025-3": { "description": "fixed since", "releases": {
                "trixie": { "status": "resolved", "fixed_version": "6.12.48-2", "urgency": "high" } } },
            "CVE-2025-4": { "releases": {
                "trixie": { "status": "open", "urgency": "unimportant", "nodsa": "Minor issue",
                            "nodsa_reason": "", "repositories": {} } } },
            "CVE-2025-5": { "releases": { "bookworm": { "status": "open", "urgency": "low" } } },
            "CVE-2025-6": { "releases": { "trixie": { "status": "undetermined" } } },
            "CVE-2025-7": { "releases": { "trixie": { "status": "resolved", "fixed_version": "0" } } }
        },
        "crun": { "TEMP-1": { "releases": { "trixie": { "status": "open" } } } }
    }"#;

    fn sources() -> BTreeSet<Source> {
        let source = |(name, version): (&str, &str)| Source { name: name.into(), version: version.into() };
        [("linux", "6.12.48-1"), ("crun", "1.21-1"), ("zlib", "1")].map(source).into()
    }

    fn names(data: &str, release: &str) -> Option<Vec<String>> {
        let found = parse(data.as_bytes(), release, &sources()).expect("sound");
        Some(found?.into_iter().map(|found| format!("{} {}", found.source, found.name)).collect())
    }

    #[test]
    fn what_is_open_unknown_or_fixed_later_concerns_a_version() {
        let wanted = ["crun TEMP-1", "linux CVE-2025-3", "linux CVE-2025-4", "linux CVE-2025-6"];
        assert_eq!(names(DATA, "trixie").expect("named"), wanted);
        assert_eq!(names(DATA, "bookworm").expect("named"), ["linux CVE-2025-5"]);
        assert_eq!(names(DATA, "forky"), None);
    }

    #[test]
    fn what_the_tracker_says_comes_along() {
        let found = parse(DATA.as_bytes(), "trixie", &sources()).expect("sound").expect("named");
        let open = found.iter().find(|found| found.name == "CVE-2025-4").expect("listed");
        assert_eq!((open.status, open.version.as_str()), (Status::Open, "6.12.48-1"));
        assert_eq!(open.no_advisory.as_deref(), Some("Minor issue"));
        let fixed = found.iter().find(|found| found.name == "CVE-2025-3").expect("listed");
        assert_eq!(fixed.fixed_version.as_deref(), Some("6.12.48-2"));
        assert_eq!(fixed.description.as_deref(), Some("fixed since"));
    }

    #[test]
    fn another_file_says_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("data");
        let said = |text: &str| {
            std::fs::write(&path, text).expect("written");
            let error = chain(&read(&path, "trixie", &sources()).expect_err(text));
            error.replace(&format!("{}/", folder.path().display()), "")
        };
        let form = "`data` is not the data of Debian's security tracker: ";
        for (text, reason) in [
            ("[]", "invalid type: sequence, expected an object of source packages at line 1"),
            (
                "{\"spdxVersion\": \"SPDX-2.3\"}",
                "invalid type: string \"SPDX-2.3\", expected an object of vuln",
            ),
            (
                "{\"linux\": {\"CVE-1\": {\"releases\": {\"trixie\": {\"status\": \"closed\"}}}}}",
                "unknown variant `closed`",
            ),
            ("{\"aaa\": {}", "EOF while parsing an object"),
            ("{} {}", "trailing characters"),
            ("{\"crun\": {}, \"crun\": {}}", "`crun` is there twice"),
        ] {
            let said = said(text);
            assert!(said.starts_with(&format!("{form}{reason}")), "{said}");
        }
        let nothing = "`data` says nothing of Debian trixie for any package of the image";
        assert_eq!(said("{}"), nothing);
        assert_eq!(
            said("{\"aaa\": {\"CVE-1\": {\"releases\": {\"trixie\": {\"status\": \"open\"}}}}}"),
            nothing
        );
        let error = read(&folder.path().join("none"), "trixie", &sources()).expect_err("not there");
        assert!(error.to_string().ends_with("/none`"), "{error}");
    }
}
