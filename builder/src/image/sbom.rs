//! The bill of materials: SPDX 2.3 in JSON, every package and every file of the image, the same bytes every time.
//!
//! Format: <https://spdx.github.io/spdx-spec/v2.3/>. The date that the format insists on is the epoch, as no clock is
//! read; the document's name space carries the root hash instead.

use std::collections::BTreeMap;
use std::fs::File as HostFile;
use std::io::{self, Read};
use std::path::Path;

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use serde_json::{Value, json};

use super::digest::{Sha256, to_hex};

/// File name of the bill of materials.
pub const FILE: &str = "sbom.spdx.json";
/// Code name of the Debian release that packages come from; vulnerability scanners match on it.
const SUITE: &str = "trixie";
const CREATED: &str = "1970-01-01T00:00:00Z";
const IMAGE_ID: &str = "SPDXRef-Image";
const UNKNOWN: &str = "NOASSERTION";
/// Bytes read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// A Debian package that something in the image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Binary package name.
    pub name: String,
    /// Version, epoch included.
    pub version: String,
    /// Debian architecture.
    pub architecture: String,
    /// Source package name.
    pub source: String,
    /// SHA-256 of the package file.
    pub sha256: Sha256,
}

/// A regular file in the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Absolute path in the image.
    pub path: String,
    /// Name of the package it comes from; `None` for a file of this project.
    pub package: Option<String>,
    /// SHA-1, which the format requires; 40 hexadecimal digits.
    pub sha1: String,
    /// SHA-256.
    pub sha256: Sha256,
}

impl File {
    /// A file by its content.
    ///
    /// # Errors
    /// What reading gave.
    pub fn read(path: &str, package: Option<&str>, mut content: impl Read) -> io::Result<Self> {
        let (mut sha1, mut sha256) = (Context::new(&SHA1_FOR_LEGACY_USE_ONLY), Context::new(&SHA256));
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let count = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            sha1.update(&buffer[..count]);
            sha256.update(&buffer[..count]);
        }
        let sha256 = sha256.finish();
        Ok(Self {
            path: path.to_owned(),
            package: package.map(str::to_owned),
            sha1: to_hex(sha1.finish().as_ref()),
            sha256: Sha256(sha256.as_ref().try_into().expect("SHA-256 gives 32 bytes")),
        })
    }

    /// A file that lies at `host` on this machine.
    ///
    /// # Errors
    /// What opening or reading gave.
    pub fn of_host_file(path: &str, package: Option<&str>, host: &Path) -> io::Result<Self> {
        Self::read(path, package, HostFile::open(host)?)
    }
}

/// Everything in an image.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Packages, the kernel's source included.
    pub packages: Vec<Package>,
    /// Regular files of the root file system.
    pub files: Vec<File>,
}

/// The bill of materials of the image `name` `version` with this root hash.
#[must_use]
pub fn to_bytes(name: &str, version: &str, root_hash: Sha256, contents: &Contents) -> Vec<u8> {
    let mut packages: Vec<_> = contents.packages.iter().collect();
    packages.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
    let mut files: Vec<_> = contents.files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let ids: BTreeMap<_, _> =
        packages.iter().map(|package| (package.name.as_str(), package_id(package))).collect();
    let owner =
        |file: &File| file.package.as_deref().and_then(|name| ids.get(name)).map_or(IMAGE_ID, String::as_str);

    let mut relationships = vec![relationship("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE_ID)];
    relationships
        .extend(packages.iter().map(|package| relationship(IMAGE_ID, "CONTAINS", &package_id(package))));
    relationships.extend(files.iter().map(|file| relationship(owner(file), "CONTAINS", &file_id(file))));
    let described =
        |id: &str| -> Vec<&File> { files.iter().copied().filter(|file| owner(file) == id).collect() };
    let mut entries = vec![image_entry(name, version, &described(IMAGE_ID))];
    entries.extend(packages.iter().map(|package| package_entry(package, &described(&package_id(package)))));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{version}-{root_hash}"),
        "creationInfo": {
            "created": CREATED,
            "creators": [format!("Tool: eci-builder-{}", env!("CARGO_PKG_VERSION"))],
            "comment": "No clock is read in a build, so the date is the epoch.",
        },
        "packages": entries,
        "files": files.into_iter().map(file_entry).collect::<Vec<_>>(),
        "relationships": relationships,
    });
    let mut bytes = serde_json::to_vec_pretty(&document).expect("a JSON value has string keys only");
    bytes.push(b'\n');
    bytes
}

fn image_entry(name: &str, version: &str, files: &[&File]) -> Value {
    with_files(
        json!({
            "SPDXID": IMAGE_ID,
            "name": name,
            "versionInfo": version,
            "primaryPackagePurpose": "OPERATING-SYSTEM",
            "supplier": UNKNOWN,
            "downloadLocation": UNKNOWN,
            "licenseConcluded": UNKNOWN,
            "licenseDeclared": "Apache-2.0",
            "copyrightText": UNKNOWN,
        }),
        files,
    )
}

fn package_entry(package: &Package, files: &[&File]) -> Value {
    with_files(
        json!({
            "SPDXID": package_id(package),
            "name": package.name,
            "versionInfo": package.version,
            "supplier": "Organization: Debian",
            "downloadLocation": UNKNOWN,
            "licenseConcluded": UNKNOWN,
            "licenseDeclared": UNKNOWN,
            "copyrightText": UNKNOWN,
            "sourceInfo": format!("built from the source package {}", package.source),
            "checksums": [checksum("SHA256", &package.sha256.to_string())],
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": purl(package),
            }],
        }),
        files,
    )
}

/// Adds what the format wants of a package whose files are listed, or says that none are.
fn with_files(mut entry: Value, files: &[&File]) -> Value {
    entry["filesAnalyzed"] = json!(!files.is_empty());
    if !files.is_empty() {
        let mut digests: Vec<_> = files.iter().map(|file| file.sha1.as_str()).collect();
        digests.sort_unstable();
        let code = ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, digests.concat().as_bytes());
        entry["packageVerificationCode"] = json!({ "packageVerificationCodeValue": to_hex(code.as_ref()) });
    }
    entry
}

fn file_entry(file: &File) -> Value {
    json!({
        "SPDXID": file_id(file),
        "fileName": format!(".{}", file.path),
        "checksums": [checksum("SHA1", &file.sha1), checksum("SHA256", &file.sha256.to_string())],
        "licenseConcluded": UNKNOWN,
        "copyrightText": UNKNOWN,
    })
}

fn checksum(algorithm: &str, value: &str) -> Value {
    json!({ "algorithm": algorithm, "checksumValue": value })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// Identifiers are letters, digits, `.` and `-`; of what Debian allows in names only `+` is not.
fn package_id(package: &Package) -> String {
    format!("SPDXRef-Package-{}", package.name.replace('+', ".plus."))
}

fn file_id(file: &File) -> String {
    format!("SPDXRef-File-{}", to_hex(&Sha256::of(&[file.path.as_bytes()]).0[..16]))
}

fn purl(package: &Package) -> String {
    let (name, version) = (percent_encode(&package.name), percent_encode(&package.version));
    format!("pkg:deb/debian/{name}@{version}?arch={}&distro={SUITE}", package.architecture)
}

fn percent_encode(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str) -> Package {
        Package {
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: "amd64".to_owned(),
            source: name.to_owned(),
            sha256: Sha256::of(&[name.as_bytes()]),
        }
    }

    fn contents() -> Contents {
        let file = |path, package| File::read(path, package, path.as_bytes()).expect("a slice reads");
        Contents {
            packages: vec![package("libstdc++6", "1:14.2~rc1+b1-2"), package("crun", "1.21-1")],
            files: vec![file("/usr/sbin/init", None), file("/usr/libexec/eci/crun", Some("crun"))],
        }
    }

    fn document(contents: &Contents) -> Value {
        let bytes = to_bytes("eci", "0.1.0", Sha256::of(&[b"root"]), contents);
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn the_order_of_the_input_does_not_show() {
        let mut other = contents();
        other.packages.reverse();
        other.files.reverse();
        assert_eq!(document(&contents()), document(&other));
    }

    #[test]
    fn packages_have_a_package_url_with_everything_encoded() {
        let document = document(&contents());
        assert_eq!(document["packages"][2]["SPDXID"], "SPDXRef-Package-libstdc.plus..plus.6");
        assert_eq!(
            document["packages"][2]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2~rc1%2Bb1-2?arch=amd64&distro=trixie"
        );
    }

    #[test]
    fn files_belong_to_their_package_or_to_the_image() {
        let document = document(&contents());
        let relationships = document["relationships"].as_array().expect("an array");
        let owner = |path: &str| {
            let id = file_id(&contents().files.into_iter().find(|file| file.path == path).expect("listed"));
            let held = relationships.iter().find(|entry| entry["relatedSpdxElement"] == id.as_str());
            held.expect("every file is held")["spdxElementId"].clone()
        };
        assert_eq!(owner("/usr/libexec/eci/crun"), "SPDXRef-Package-crun");
        assert_eq!(owner("/usr/sbin/init"), IMAGE_ID);
        assert_eq!(document["packages"][1]["filesAnalyzed"], true);
        assert_eq!(document["packages"][2]["filesAnalyzed"], false);
    }

    #[test]
    fn the_verification_code_is_the_digest_of_the_sorted_digests() {
        let file = File::read("/a", None, &b"abc"[..]).expect("a slice reads");
        assert_eq!(file.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
        let document = document(&Contents { packages: Vec::new(), files: vec![file.clone()] });
        let code = ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, file.sha1.as_bytes());
        assert_eq!(
            document["packages"][0]["packageVerificationCode"]["packageVerificationCodeValue"],
            to_hex(code.as_ref())
        );
    }
}
