//! The bill of materials as SPDX 2.3 in JSON.
//!
//! Format: <https://spdx.github.io/spdx-spec/v2.3/>.

use std::collections::BTreeMap;

use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::{Value, json};

use super::super::digest::{Sha256, to_hex};
use super::licence::Licence;
use super::{Built, Contents, File, OUR_LICENCE, Package, Source, Subject, file_name};

/// File name of the bill of materials.
pub const FILE: &str = "sbom.spdx.json";
/// The format insists on a date.
const CREATED: &str = "1970-01-01T00:00:00Z";
const DOCUMENT_ID: &str = "SPDXRef-DOCUMENT";
const IMAGE_ID: &str = "SPDXRef-Image";
const UNKNOWN: &str = "NOASSERTION";

/// The bill of materials of an image.
#[must_use]
pub fn to_bytes(subject: &Subject<'_>, contents: &Contents) -> Vec<u8> {
    let contents = &contents.clone().sorted();
    let Subject { name, version, root_hash } = subject;
    let mut entries = vec![image_entry(subject)];
    entries.extend(contents.packages.iter().map(package_entry));
    entries.extend(contents.built.iter().map(built_entry));
    for entry in &mut entries {
        let owner = entry["name"].as_str().filter(|_| entry["SPDXID"] != IMAGE_ID).map(str::to_owned);
        list_files(entry, contents.files_of(owner.as_deref()));
    }
    entries.extend(contents.sources().into_iter().map(source_entry));
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": DOCUMENT_ID,
        "name": format!("{name}-{version}"),
        "documentNamespace": format!("https://spdx.org/spdxdocs/{name}-{version}-{root_hash}"),
        "creationInfo": {
            "created": CREATED,
            "creators": [format!("Tool: eci-builder-{}", env!("CARGO_PKG_VERSION"))],
            "comment": "No clock is read in a build, so the date is the epoch.",
        },
        "packages": entries,
        "files": contents.files.iter().map(file_entry).collect::<Vec<_>>(),
        "hasExtractedLicensingInfos": licence_entries(contents),
        "relationships": relationships(contents),
    });
    let mut bytes = serde_json::to_vec_pretty(&document).expect("a JSON value has string keys only");
    bytes.push(b'\n');
    bytes
}

fn image_entry(subject: &Subject<'_>) -> Value {
    json!({
        "SPDXID": IMAGE_ID,
        "name": subject.name,
        "versionInfo": subject.version,
        "primaryPackagePurpose": "OPERATING-SYSTEM",
        "supplier": UNKNOWN,
        "downloadLocation": UNKNOWN,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": OUR_LICENCE,
        "copyrightText": UNKNOWN,
    })
}

fn package_entry(package: &Package) -> Value {
    let mut entry = entry(&package_id(&package.name), &package.name, package.licence.as_ref());
    entry["versionInfo"] = json!(package.version);
    entry["supplier"] = json!("Organization: Debian");
    entry["checksums"] = json!([sha256(package.sha256)]);
    entry["externalRefs"] = json!([package_url(&package.url())]);
    entry
}

fn built_entry(built: &Built) -> Value {
    let mut entry = entry(&package_id(&built.name), &built.name, built.licence.as_ref());
    if let Some(version) = &built.version {
        entry["versionInfo"] = json!(version);
    }
    entry["primaryPackagePurpose"] = json!("APPLICATION");
    entry["supplier"] = json!(UNKNOWN);
    entry["checksums"] = json!([sha256(built.sha256)]);
    entry
}

fn source_entry(source: &Source) -> Value {
    let mut entry = entry(&source_id(source), &source.name, None);
    entry["versionInfo"] = json!(source.version);
    entry["primaryPackagePurpose"] = json!("SOURCE");
    entry["supplier"] = json!("Organization: Debian");
    entry["filesAnalyzed"] = json!(false);
    entry["externalRefs"] = json!([package_url(&source.url())]);
    entry
}

/// What every entry but the image's has in common.
fn entry(id: &str, name: &str, licence: Option<&Licence>) -> Value {
    json!({
        "SPDXID": id,
        "name": name,
        "downloadLocation": UNKNOWN,
        "licenseConcluded": UNKNOWN,
        "licenseDeclared": licence.map_or(UNKNOWN, |licence| &licence.expression),
        "copyrightText": UNKNOWN,
    })
}

/// Adds what the format wants of a package whose files are listed, or says that none are.
fn list_files<'a>(entry: &mut Value, files: impl Iterator<Item = &'a File>) {
    let mut digests: Vec<_> = files.map(|file| file.sha1.as_str()).collect();
    entry["filesAnalyzed"] = json!(!digests.is_empty());
    if !digests.is_empty() {
        digests.sort_unstable();
        let code = digest(&SHA1_FOR_LEGACY_USE_ONLY, digests.concat().as_bytes());
        entry["packageVerificationCode"] = json!({ "packageVerificationCodeValue": to_hex(code.as_ref()) });
    }
}

fn file_entry(file: &File) -> Value {
    json!({
        "SPDXID": file_id(file),
        "fileName": format!(".{}", file.path),
        "checksums": [{ "algorithm": "SHA1", "checksumValue": file.sha1 }, sha256(file.sha256)],
        "licenseConcluded": UNKNOWN,
        "copyrightText": UNKNOWN,
    })
}

/// Licences that SPDX has no name for, each with its text.
fn licence_entries(contents: &Contents) -> Vec<Value> {
    let licences = contents.packages.iter().map(|package| &package.licence);
    let licences = licences.chain(contents.built.iter().map(|built| &built.licence)).flatten();
    let texts: BTreeMap<_, _> = licences.flat_map(|licence| &licence.texts).collect();
    let entry = |(id, text): (&String, &super::licence::Text)| json!({ "licenseId": id, "name": text.name, "extractedText": text.text });
    texts.into_iter().map(entry).collect()
}

fn relationships(contents: &Contents) -> Vec<Value> {
    let mut all = vec![relationship(DOCUMENT_ID, "DESCRIBES", IMAGE_ID)];
    let names = contents.packages.iter().map(|package| &package.name);
    let names = names.chain(contents.built.iter().map(|built| &built.name));
    all.extend(names.map(|name| relationship(IMAGE_ID, "CONTAINS", &package_id(name))));
    for package in &contents.packages {
        let (id, source) = (package_id(&package.name), source_id(&package.source));
        all.push(relationship(&id, "GENERATED_FROM", &source));
    }
    for built in &contents.built {
        let id = package_id(&built.name);
        all.extend(built.from.iter().map(|from| relationship(&id, "GENERATED_FROM", &package_id(from))));
    }
    let owner = |file| contents.owner(file).map_or(IMAGE_ID.to_owned(), package_id);
    all.extend(contents.files.iter().map(|file| relationship(&owner(file), "CONTAINS", &file_id(file))));
    all
}

fn sha256(value: Sha256) -> Value {
    json!({ "algorithm": "SHA256", "checksumValue": value.to_string() })
}

fn package_url(url: &str) -> Value {
    json!({ "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": url })
}

fn relationship(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

fn package_id(name: &str) -> String {
    format!("SPDXRef-Package-{}", plain(name))
}

fn source_id(source: &Source) -> String {
    format!("SPDXRef-Source-{}-{}", plain(&source.name), plain(&source.version))
}

/// Identifiers are letters, digits, `.` and `-`; of what Debian allows in names and versions `+`, `~` and `:` are not.
fn plain(text: &str) -> String {
    text.replace('+', ".plus.").replace('~', ".tilde.").replace(':', ".colon.")
}

fn file_id(file: &File) -> String {
    format!("SPDXRef-File-{}", file_name(file))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{contents, reversed, subject};
    use super::*;

    fn document(contents: &Contents) -> Value {
        serde_json::from_slice(&to_bytes(&subject(), contents)).expect("JSON")
    }

    #[test]
    fn the_order_of_the_input_does_not_show() {
        assert_eq!(document(&contents()), document(&reversed()));
    }

    #[test]
    fn packages_have_a_package_url_with_everything_encoded() {
        let document = document(&contents());
        assert_eq!(document["packages"][2]["SPDXID"], "SPDXRef-Package-libstdc.plus..plus.6");
        assert_eq!(
            document["packages"][2]["externalRefs"][0]["referenceLocator"],
            "pkg:deb/debian/libstdc%2B%2B6@1%3A14.2~rc1%2Bb1-2?arch=amd64&distro=trixie&upstream=gcc-14%4014.2-2"
        );
    }

    fn related<'a>(document: &'a Value, kind: &str, to: &str) -> Vec<&'a str> {
        let all = document["relationships"].as_array().expect("an array");
        let found =
            all.iter().filter(|one| one["relationshipType"] == kind && one["relatedSpdxElement"] == to);
        found.filter_map(|one| one["spdxElementId"].as_str()).collect()
    }

    #[test]
    fn every_file_belongs_to_its_package_its_program_or_the_image() {
        let document = document(&contents());
        let owners = |path: &str| {
            let file = contents().files.into_iter().find(|file| file.path == path).expect("listed");
            related(&document, "CONTAINS", &file_id(&file)).join(" ")
        };
        assert_eq!(owners("/usr/libexec/eci/crun"), "SPDXRef-Package-crun");
        assert_eq!(owners("/usr/sbin/init"), "SPDXRef-Package-eci-init");
        assert_eq!(owners("/etc/hosts"), IMAGE_ID);
        let analyzed: Vec<_> = document["packages"].as_array().expect("an array").iter().collect();
        let analyzed = analyzed.iter().filter(|entry| entry["filesAnalyzed"] == true);
        let names: Vec<_> = analyzed.map(|entry| entry["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["eci", "crun", "eci-init"]);
    }

    #[test]
    fn packages_are_generated_from_their_source_and_the_kernel_from_its_package() {
        let document = document(&contents());
        assert_eq!(
            related(&document, "GENERATED_FROM", "SPDXRef-Source-gcc-14-14.2-2"),
            ["SPDXRef-Package-libstdc.plus..plus.6"]
        );
        assert_eq!(related(&document, "GENERATED_FROM", "SPDXRef-Package-crun"), ["SPDXRef-Package-linux"]);
    }

    #[test]
    fn licences_without_a_name_in_spdx_come_with_their_text() {
        let document = document(&contents());
        assert_eq!(document["packages"][1]["licenseDeclared"], "LicenseRef-Debian-crun-own");
        assert_eq!(document["packages"][2]["licenseDeclared"], UNKNOWN);
        let texts = &document["hasExtractedLicensingInfos"];
        assert_eq!(texts[0]["licenseId"], "LicenseRef-Debian-crun-own");
        assert_eq!(texts[0]["extractedText"], "Do what you like.\n");
    }

    #[test]
    fn the_verification_code_is_the_digest_of_the_sorted_digests() {
        let file = File::read("/a", None, &b"abc"[..]).expect("a slice reads");
        assert_eq!(file.sha1, "a9993e364706816aba3e25717850c26c9cd0d89d");
        let document = document(&Contents { files: vec![file.clone()], ..Contents::default() });
        let code = digest(&SHA1_FOR_LEGACY_USE_ONLY, file.sha1.as_bytes());
        assert_eq!(
            document["packages"][0]["packageVerificationCode"]["packageVerificationCodeValue"],
            to_hex(code.as_ref())
        );
    }
}
