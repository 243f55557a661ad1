//! The bill of materials as CycloneDX 1.6 in JSON. The format may leave the date out, and so it is.
//!
//! Format: <https://cyclonedx.org/docs/1.6/json/>.

use serde_json::{Value, json};

use super::super::content_uuid;
use super::super::digest::Sha256;
use super::licence::Licence;
use super::{Built, Contents, File, OUR_LICENCE, Package, Source, Subject, file_name};

/// File name of the bill of materials.
pub const FILE: &str = "sbom.cdx.json";
/// What the document's serial number is derived for.
const SERIAL: &str = "CycloneDX serial number";
const IMAGE_REF: &str = "image";

/// The bill of materials of an image.
#[must_use]
pub fn to_bytes(subject: &Subject<'_>, contents: &Contents) -> Vec<u8> {
    let contents = &contents.clone().sorted();
    let mut image =
        component("operating-system", IMAGE_REF, subject.name, Some(&Licence::known(OUR_LICENCE)));
    image["version"] = json!(subject.version);
    let mut components: Vec<_> =
        contents.packages.iter().map(|package| package_entry(package, contents)).collect();
    components.extend(contents.built.iter().map(|built| built_entry(built, contents)));
    components.extend(contents.files_of(None).map(file_entry));
    let document = json!({
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": content_uuid(SERIAL, &subject.root_hash.0).urn().to_string(),
        "version": 1,
        "metadata": {
            "tools": { "components": [{
                "type": "application",
                "name": "eci-builder",
                "version": env!("CARGO_PKG_VERSION"),
            }] },
            "component": image,
        },
        "components": components,
        "dependencies": dependencies(contents),
    });
    let mut bytes = serde_json::to_vec_pretty(&document).expect("a JSON value has string keys only");
    bytes.push(b'\n');
    bytes
}

fn package_entry(package: &Package, contents: &Contents) -> Value {
    let mut entry = component("library", &package.name, &package.name, package.licence.as_ref());
    entry["version"] = json!(package.version);
    entry["purl"] = json!(package.url());
    entry["hashes"] = json!([sha256(package.sha256)]);
    entry["supplier"] = json!({ "name": "Debian" });
    entry["pedigree"] = json!({ "ancestors": [source_entry(&package.source)] });
    with_files(entry, contents.files_of(Some(&package.name)))
}

fn built_entry(built: &Built, contents: &Contents) -> Value {
    let mut entry = component("application", &built.name, &built.name, built.licence.as_ref());
    if let Some(version) = &built.version {
        entry["version"] = json!(version);
    }
    entry["hashes"] = json!([sha256(built.sha256)]);
    with_files(entry, contents.files_of(Some(&built.name)))
}

fn source_entry(source: &Source) -> Value {
    json!({
        "type": "library",
        "name": source.name,
        "version": source.version,
        "purl": source.url(),
    })
}

fn file_entry(file: &File) -> Value {
    let mut entry = component("file", &format!("file-{}", file_name(file)), &file.path, None);
    entry["hashes"] = json!([{ "alg": "SHA-1", "content": file.sha1 }, sha256(file.sha256)]);
    entry
}

fn component(kind: &str, reference: &str, name: &str, licence: Option<&Licence>) -> Value {
    let mut entry = json!({ "type": kind, "bom-ref": reference, "name": name });
    if let Some(licence) = licence {
        entry["licenses"] = json!([{ "expression": licence.expression, "acknowledgement": "declared" }]);
    }
    entry
}

fn with_files<'a>(mut entry: Value, files: impl Iterator<Item = &'a File>) -> Value {
    let files: Vec<_> = files.map(file_entry).collect();
    if !files.is_empty() {
        entry["components"] = json!(files);
    }
    entry
}

/// The image is made of everything, and the kernel of the package with its source.
fn dependencies(contents: &Contents) -> Vec<Value> {
    let names = contents.packages.iter().map(|package| package.name.as_str());
    let names: Vec<_> = names.chain(contents.built.iter().map(|built| built.name.as_str())).collect();
    let from = contents.built.iter().filter_map(|built| Some((built.name.as_str(), built.from.as_deref()?)));
    let mut all = vec![json!({ "ref": IMAGE_REF, "dependsOn": names })];
    all.extend(from.map(|(name, from)| json!({ "ref": name, "dependsOn": [from] })));
    all
}

fn sha256(value: Sha256) -> Value {
    json!({ "alg": "SHA-256", "content": value.to_string() })
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
    fn the_serial_number_is_the_root_hash_s() {
        let serial = |root: &[u8]| {
            let subject = Subject { root_hash: Sha256::of(&[root]), ..subject() };
            let bytes = to_bytes(&subject, &contents());
            let document: Value = serde_json::from_slice(&bytes).expect("JSON");
            document["serialNumber"].as_str().map(str::to_owned).expect("text")
        };
        assert!(serial(b"a").starts_with("urn:uuid:"));
        assert_eq!(serial(b"a"), serial(b"a"));
        assert_ne!(serial(b"a"), serial(b"b"));
    }

    #[test]
    fn files_stand_below_what_they_are_from_and_the_image_s_beside() {
        let document = document(&contents());
        let names: Vec<_> = document["components"].as_array().expect("an array").iter().collect();
        let names: Vec<_> = names.iter().map(|entry| entry["name"].as_str().expect("a name")).collect();
        assert_eq!(names, ["crun", "libstdc++6", "eci-init", "linux", "/etc/hosts"]);
        assert_eq!(document["components"][0]["components"][0]["name"], "/usr/libexec/eci/crun");
        assert_eq!(document["components"][2]["components"][0]["name"], "/usr/sbin/init");
        let source = &document["components"][1]["pedigree"]["ancestors"][0];
        assert_eq!(source["purl"], "pkg:deb/debian/gcc-14@14.2-2?arch=source&distro=trixie");
        assert_eq!(document["dependencies"][1]["dependsOn"], json!(["crun"]));
    }
}
