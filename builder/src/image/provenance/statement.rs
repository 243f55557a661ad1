//! The statement: SLSA's provenance v1 about the artifacts of an image. What its parameters are ARCHITECTURE.md tells.
//!
//! Format: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>, <https://slsa.dev/spec/v1.0/provenance>.

use std::collections::BTreeMap;
use std::fmt;

use eci_contract::manifest::Manifest;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::super::digest::{Sha256, to_hex};
use super::super::disk::Sizes;
use super::super::sbom;
use super::super::signature::PublicKey;
use super::Origin;

const KIND: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What makes images, as a package URL: there is no address that would outlive a repository's.
const BUILDER: &str = "pkg:generic/eci-builder";
/// How it makes them. The file that the URL ends with documents the parameters; the number changes with their meaning.
const BUILD_TYPE: &str = "pkg:generic/eci-builder?build-type=1#ARCHITECTURE.md";
/// Name of the material that is the project's checkout.
const CHECKOUT: &str = "checkout";
/// Algorithm of in-toto for a commit.
const GIT_COMMIT: &str = "gitCommit";

/// Why a payload is no provenance of ours.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not JSON of the statement's form.
    #[error("it is no SLSA provenance")]
    Form(#[from] serde_json::Error),
    /// A field has a value that no provenance of ours has.
    #[error("its {field} is `{found}`, not `{wanted}`")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it says.
        found: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// A statement about the artifacts of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Resource>,
    predicate_type: String,
    predicate: Predicate,
}

/// Something that is named by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// What it is called here.
    pub name: String,
    /// Its package URL, if it is a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digests.
    pub digest: Digests,
}

/// Digests by algorithm, in hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digests(pub BTreeMap<String, String>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Predicate {
    build_definition: BuildDefinition,
    run_details: RunDetails,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BuildDefinition {
    build_type: String,
    external_parameters: Value,
    #[serde(default)]
    internal_parameters: Value,
    #[serde(default)]
    resolved_dependencies: Vec<Resource>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct RunDetails {
    builder: Builder,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Builder {
    id: String,
    #[serde(default)]
    version: BTreeMap<String, String>,
}

impl Digests {
    fn one(algorithm: &str, value: String) -> Self {
        Self(BTreeMap::from([(algorithm.to_owned(), value)]))
    }

    /// Of a file.
    #[must_use]
    pub fn sha256(digest: Sha256) -> Self {
        Self::one("sha256", digest.to_string())
    }

    /// Of a unified kernel image, whatever its own signature: the manifest's field of this name.
    #[must_use]
    pub fn authenticode(digest: Sha256) -> Self {
        Self::one("authenticodeSha256", digest.to_string())
    }

    /// Of a root file system: the manifest's field of this name.
    #[must_use]
    pub fn root_hash(root_hash: &str) -> Self {
        Self::one("rootHash", root_hash.to_owned())
    }
}

impl fmt::Display for Digests {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<_> = self.0.iter().map(|(algorithm, value)| format!("{algorithm} {value}")).collect();
        formatter.write_str(&each.join(", "))
    }
}

impl fmt::Display for Resource {
    /// Version, where it is a package, and digests.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.uri.as_deref().and_then(sbom::version_of);
        version.map_or(Ok(()), |version| write!(formatter, "{version}, "))?;
        write!(formatter, "{}", self.digest)
    }
}

impl Resource {
    /// A file that is not from a package.
    #[must_use]
    pub fn file(name: &str, digest: Sha256) -> Self {
        Self { name: name.to_owned(), uri: None, digest: Digests::sha256(digest) }
    }

    /// The project's checkout at a commit.
    #[must_use]
    pub fn checkout(commit: String) -> Self {
        Self { name: CHECKOUT.to_owned(), uri: None, digest: Digests::one(GIT_COMMIT, commit) }
    }
}

impl Statement {
    /// The provenance of an image.
    #[must_use]
    pub fn new(
        subjects: BTreeMap<String, Digests>,
        manifest: &Manifest,
        key: &PublicKey,
        sizes: Sizes,
        origin: &Origin,
    ) -> Self {
        let mut materials = origin.materials.clone();
        materials.sort_by(|a, b| (&a.name, &a.uri).cmp(&(&b.name, &b.uri)));
        let subject = |(name, digest)| Resource { name, uri: None, digest };
        Self {
            kind: KIND.to_owned(),
            subject: subjects.into_iter().map(subject).collect(),
            predicate_type: PREDICATE.to_owned(),
            predicate: Predicate {
                build_definition: BuildDefinition {
                    build_type: BUILD_TYPE.to_owned(),
                    external_parameters: json!({
                        "name": manifest.name,
                        "version": manifest.version,
                        "architecture": manifest.architecture,
                        "flavour": manifest.flavour,
                        "key": to_hex(&key.0),
                        "partitionBytes": { "esp": sizes.esp, "root": sizes.root, "data": sizes.data },
                    }),
                    internal_parameters: json!({ "toolchain": origin.toolchain }),
                    resolved_dependencies: materials,
                },
                run_details: RunDetails {
                    builder: Builder {
                        id: BUILDER.to_owned(),
                        version: BTreeMap::from([(
                            env!("CARGO_PKG_NAME").to_owned(),
                            env!("CARGO_PKG_VERSION").to_owned(),
                        )]),
                    },
                },
            },
        }
    }

    /// The bytes that an envelope carries: indented JSON, as who signs them elsewhere may want to read them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec_pretty(self).expect("a statement has string keys only");
        bytes.push(b'\n');
        bytes
    }

    /// Reads a statement. Fields that it does not know are left alone, as the format wants it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let statement: Self = serde_json::from_slice(bytes)?;
        for (field, found, wanted) in [
            ("type", &statement.kind, KIND),
            ("predicate type", &statement.predicate_type, PREDICATE),
            ("build type", &statement.predicate.build_definition.build_type, BUILD_TYPE),
        ] {
            if found != wanted {
                return Err(Error::Field { field, found: found.clone(), wanted });
            }
        }
        Ok(statement)
    }

    /// What it is about.
    #[must_use]
    pub fn subjects(&self) -> &[Resource] {
        &self.subject
    }

    /// What went into the image or was used on it.
    #[must_use]
    pub fn materials(&self) -> &[Resource] {
        &self.predicate.build_definition.resolved_dependencies
    }

    /// The builder with its version.
    #[must_use]
    pub fn builder(&self) -> String {
        let Builder { id, version } = &self.predicate.run_details.builder;
        let versions = version.iter().map(|(name, version)| format!(" {name} {version}"));
        format!("{id}{}", versions.collect::<String>())
    }

    /// The commit of the project's checkout, where the build could vouch for one.
    #[must_use]
    pub fn commit(&self) -> Option<&str> {
        let checkout = self.materials().iter().find(|material| material.name == CHECKOUT)?;
        checkout.digest.0.get(GIT_COMMIT).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::manifest::tests::example;
    use super::*;

    fn statement() -> Statement {
        let digest = Sha256::of(&[b"abc"]);
        let package = Resource {
            name: "crun:amd64".to_owned(),
            uri: Some("pkg:deb/debian/crun@1.21-1?arch=amd64".to_owned()),
            digest: Digests::sha256(digest),
        };
        let origin = Origin {
            materials: vec![
                Resource::file("eci-init", digest),
                package,
                Resource::checkout("c0ffee".to_owned()),
            ],
            toolchain: BTreeMap::from([("gcc".to_owned(), "14.2".to_owned())]),
        };
        let subjects = BTreeMap::from([("vmlinuz".to_owned(), Digests::sha256(digest))]);
        Statement::new(subjects, &example(), &PublicKey([7; 32]), Sizes { esp: 1, root: 2, data: 3 }, &origin)
    }

    #[test]
    fn it_reads_back_what_it_wrote() {
        let bytes = statement().to_bytes();
        let read = Statement::parse(&bytes).expect("our own");
        assert_eq!(read, statement());
        assert_eq!(read.to_bytes(), bytes);
        assert_eq!(read.commit(), Some("c0ffee"));
        assert_eq!(
            read.builder(),
            format!("pkg:generic/eci-builder eci-builder {}", env!("CARGO_PKG_VERSION"))
        );
        let names: Vec<_> = read.materials().iter().map(|material| material.name.as_str()).collect();
        assert_eq!(names, ["checkout", "crun:amd64", "eci-init"]);
        let digest = Sha256::of(&[b"abc"]);
        let shown: Vec<_> = read.materials().iter().map(ToString::to_string).collect();
        let wanted =
            ["gitCommit c0ffee".to_owned(), format!("1.21-1, sha256 {digest}"), format!("sha256 {digest}")];
        assert_eq!(shown, wanted);
    }

    #[test]
    fn it_has_the_fields_of_its_format_and_tells_no_time() {
        let value: Value = serde_json::from_slice(&statement().to_bytes()).expect("JSON");
        let definition = &value["predicate"]["buildDefinition"];
        assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(value["subject"][0]["digest"]["sha256"], Sha256::of(&[b"abc"]).to_string());
        assert_eq!(definition["externalParameters"]["architecture"], "x86_64");
        assert_eq!(definition["internalParameters"]["toolchain"]["gcc"], "14.2");
        assert_eq!(definition["resolvedDependencies"][0]["digest"]["gitCommit"], "c0ffee");
        assert!(value["predicate"]["runDetails"]["metadata"].is_null());
    }

    #[test]
    fn a_statement_of_another_kind_is_named() {
        let said = |from: &str, to: &str| {
            let text = String::from_utf8(statement().to_bytes()).expect("JSON").replacen(from, to, 1);
            Statement::parse(text.as_bytes()).expect_err(from).to_string()
        };
        assert_eq!(
            said("Statement/v1", "Statement/v0.1"),
            "its type is `https://in-toto.io/Statement/v0.1`, not `https://in-toto.io/Statement/v1`"
        );
        assert!(said("provenance/v1", "provenance/v0.2").starts_with("its predicate type is `"));
        assert!(said("build-type=1", "build-type=2").starts_with("its build type is `"));
        assert_eq!(said("\"subject\"", "\"subjects\""), "it is no SLSA provenance");
    }

    #[test]
    fn fields_of_later_versions_are_left_alone() {
        let text = String::from_utf8(statement().to_bytes()).expect("JSON");
        let text = text.replacen("\"runDetails\": {", "\"runDetails\": { \"metadata\": {}, ", 1);
        assert_eq!(Statement::parse(text.as_bytes()).expect("a later one"), statement());
    }
}
