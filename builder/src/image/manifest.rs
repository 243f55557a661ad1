//! The signed manifest: made in one canonical form, read strictly.

use std::collections::BTreeMap;

use eci_contract::manifest::{
    Architecture, Artifact, Flavour, MAX_BYTES, Manifest, Measured, SCHEMA, UnifiedKernelImage, VerityRoot,
};
use eci_contract::version::is_at_least;

use super::digest::{Sha256, from_hex};
use super::verity;

/// File name of the manifest.
pub const FILE: &str = "manifest.json";
/// File name of its signature: 64 raw bytes.
pub const SIGNATURE_FILE: &str = "manifest.json.sig";
/// Ending of every test image's name, and of no shipped one's.
pub const TEST_SUFFIX: &str = "-test";

const FILESYSTEM: &str = "erofs";
const ALGORITHM: &str = "sha256";

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is larger than any manifest may be.
    #[error("the manifest is {bytes} bytes long, more than {MAX_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not JSON of the manifest's schema.
    #[error("the manifest does not follow its schema")]
    Schema(#[from] serde_json::Error),
    /// It is of another version of the schema.
    #[error("the manifest has schema {found}; this eci-builder reads schema {SCHEMA}")]
    Version {
        /// What it says.
        found: u32,
    },
    /// A field has a value that no image of ours has.
    #[error("the manifest's {field} is `{value}`, which is not {wanted}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// What it says.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
}

/// What a manifest is made of, besides the root's hash tree.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Image name.
    pub name: String,
    /// Image version.
    pub version: String,
    /// The oldest version that may be booted once this one has booted well.
    pub minimum_version: Option<String>,
    /// Processor architecture.
    pub architecture: Architecture,
    /// What the image is for.
    pub flavour: Flavour,
    /// Versions a user asks for.
    pub versions: BTreeMap<String, String>,
    /// The kernel.
    pub kernel: Artifact,
    /// The initial RAM file system.
    pub initrd: Artifact,
    /// The unified kernel image.
    pub uki: UnifiedKernelImage,
}

/// Makes the manifest of an image.
///
/// # Errors
/// [`Error::Field`] for facts that [`parse`] would refuse.
pub fn make(facts: Facts, identity: &verity::Identity, tree: &verity::Tree) -> Result<Manifest, Error> {
    let block_size = u32::try_from(verity::BLOCK_BYTES).expect("4096 fits in 32 bits");
    let manifest = Manifest {
        schema: SCHEMA,
        name: facts.name,
        version: facts.version,
        minimum_version: facts.minimum_version,
        architecture: facts.architecture,
        flavour: facts.flavour,
        root: VerityRoot {
            filesystem: FILESYSTEM.to_owned(),
            algorithm: ALGORITHM.to_owned(),
            root_hash: tree.root_hash().to_string(),
            salt: super::digest::to_hex(&identity.salt),
            data_block_size: block_size,
            hash_block_size: block_size,
            data_blocks: tree.data_blocks(),
            hash_start_block: verity::HASH_START_BLOCK,
        },
        kernel: facts.kernel,
        initrd: facts.initrd,
        uki: facts.uki,
        versions: facts.versions,
    };
    validate(&manifest)?;
    Ok(manifest)
}

/// The bytes that are signed: indented JSON, fields in the order of the schema, a final newline.
#[must_use]
pub fn to_bytes(manifest: &Manifest) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(manifest).expect("a manifest has string keys only");
    bytes.push(b'\n');
    bytes
}

/// Reads a manifest whose signature holds; every value is one that [`make`] can give.
///
/// # Errors
/// [`Error`].
pub fn parse(bytes: &[u8]) -> Result<Manifest, Error> {
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge { bytes: bytes.len() });
    }
    let manifest: Manifest = serde_json::from_slice(bytes)?;
    validate(&manifest)?;
    Ok(manifest)
}

fn validate(manifest: &Manifest) -> Result<(), Error> {
    if manifest.schema != SCHEMA {
        return Err(Error::Version { found: manifest.schema });
    }
    let root = &manifest.root;
    let digest = |text: &str| text.parse::<Sha256>().is_ok();
    let is_test = manifest.flavour == Flavour::Test;
    let none = || Sha256::of(&[]).to_string();
    let nothing = || Measured { pcr9: none(), pcr11: none(), kernel_authenticode_sha256: none() };
    let measured = manifest.uki.measured.clone().unwrap_or_else(nothing);
    let checks = [
        ("name", &manifest.name, "a plain name", is_plain_name(&manifest.name)),
        (
            "name",
            &manifest.name,
            "a name that ends in -test exactly where the flavour is test",
            manifest.name.ends_with(TEST_SUFFIX) == is_test,
        ),
        ("version", &manifest.version, "a plain name", is_plain_name(&manifest.version)),
        (
            "minimumVersion",
            manifest.minimum_version.as_ref().unwrap_or(&manifest.version),
            "a version of dotted whole numbers that is not above `version`",
            manifest.minimum_version.as_ref().is_none_or(|least| is_at_least(&manifest.version, least)),
        ),
        ("root.filesystem", &root.filesystem, FILESYSTEM, root.filesystem == FILESYSTEM),
        ("root.algorithm", &root.algorithm, ALGORITHM, root.algorithm == ALGORITHM),
        ("root.rootHash", &root.root_hash, "a SHA-256 digest", digest(&root.root_hash)),
        ("root.salt", &root.salt, "1 to 256 bytes in hexadecimal", is_salt(&root.salt)),
        ("root.dataBlockSize", &root.data_block_size.to_string(), "4096", is_block(root.data_block_size)),
        ("root.hashBlockSize", &root.hash_block_size.to_string(), "4096", is_block(root.hash_block_size)),
        ("root.dataBlocks", &root.data_blocks.to_string(), "at least 1", root.data_blocks > 0),
        (
            "root.hashStartBlock",
            &root.hash_start_block.to_string(),
            "1",
            root.hash_start_block == verity::HASH_START_BLOCK,
        ),
        ("kernel.file", &manifest.kernel.file, "a plain name", is_plain_name(&manifest.kernel.file)),
        ("kernel.sha256", &manifest.kernel.sha256, "a SHA-256 digest", digest(&manifest.kernel.sha256)),
        ("initrd.file", &manifest.initrd.file, "a plain name", is_plain_name(&manifest.initrd.file)),
        ("initrd.sha256", &manifest.initrd.sha256, "a SHA-256 digest", digest(&manifest.initrd.sha256)),
        ("uki.file", &manifest.uki.file, "a plain name", is_plain_name(&manifest.uki.file)),
        (
            "uki.authenticodeSha256",
            &manifest.uki.authenticode_sha256,
            "a SHA-256 digest",
            digest(&manifest.uki.authenticode_sha256),
        ),
        ("uki.measured.pcr9", &measured.pcr9, "a SHA-256 digest", digest(&measured.pcr9)),
        ("uki.measured.pcr11", &measured.pcr11, "a SHA-256 digest", digest(&measured.pcr11)),
        (
            "uki.measured.kernelAuthenticodeSha256",
            &measured.kernel_authenticode_sha256,
            "a SHA-256 digest",
            digest(&measured.kernel_authenticode_sha256),
        ),
    ];
    match checks.into_iter().find(|(.., holds)| !holds) {
        Some((field, value, wanted, _)) => Err(Error::Field { field, value: value.clone(), wanted }),
        None => Ok(()),
    }
}

/// Letters, digits, `.`, `-`, `_`, `+`, `~`; not empty, not hidden, no folders: names of ours become file names.
fn is_plain_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_+~".contains(&byte);
    !text.is_empty() && !text.starts_with('.') && text.bytes().all(plain)
}

fn is_salt(text: &str) -> bool {
    from_hex(text).is_some_and(|salt| (1..=256).contains(&salt.len()))
}

fn is_block(size: u32) -> bool {
    u64::from(size) == verity::BLOCK_BYTES
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn example() -> Manifest {
        let artifact = |file: &str| Artifact {
            file: file.to_owned(),
            size: 3,
            sha256: Sha256::of(&[b"abc"]).to_string(),
        };
        Manifest {
            schema: SCHEMA,
            name: "eci".to_owned(),
            version: "0.1.0".to_owned(),
            architecture: Architecture::X86_64,
            flavour: Flavour::Shipped,
            minimum_version: None,
            root: VerityRoot {
                filesystem: "erofs".to_owned(),
                algorithm: "sha256".to_owned(),
                root_hash: Sha256::of(&[b"root"]).to_string(),
                salt: Sha256::of(&[b"salt"]).to_string(),
                data_block_size: 4096,
                hash_block_size: 4096,
                data_blocks: 10,
                hash_start_block: 1,
            },
            kernel: artifact("vmlinuz"),
            initrd: artifact("initrd.img"),
            uki: UnifiedKernelImage {
                file: "eci.efi".to_owned(),
                authenticode_sha256: Sha256::of(&[b"uki"]).to_string(),
                measured: None,
            },
            versions: BTreeMap::from([("docker".to_owned(), "26.1.5".to_owned())]),
        }
    }

    fn refusal(change: impl FnOnce(&mut Manifest)) -> String {
        let mut manifest = example();
        change(&mut manifest);
        parse(&to_bytes(&manifest)).expect_err("the change is wrong").to_string()
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let bytes = to_bytes(&example());
        assert!(bytes.ends_with(b"}\n"));
        assert_eq!(parse(&bytes).expect("our own"), example());
        assert_eq!(to_bytes(&parse(&bytes).expect("our own")), bytes);
    }

    #[test]
    fn values_that_no_image_of_ours_has_are_refused() {
        assert_eq!(refusal(|m| m.schema = 2), "the manifest has schema 2; this eci-builder reads schema 1");
        assert_eq!(
            refusal(|m| m.kernel.file = "../vmlinuz".to_owned()),
            "the manifest's kernel.file is `../vmlinuz`, which is not a plain name"
        );
        assert_eq!(
            refusal(|m| m.root.filesystem = "ext4".to_owned()),
            "the manifest's root.filesystem is `ext4`, which is not erofs"
        );
        assert_eq!(
            refusal(|m| m.root.data_block_size = 1024),
            "the manifest's root.dataBlockSize is `1024`, which is not 4096"
        );
        let later = refusal(|m| m.minimum_version = Some(format!("{}.1", m.version)));
        assert!(later.contains("minimumVersion"), "{later}");
        assert!(refusal(|m| m.root.salt.clear()).contains("root.salt"));
        assert!(refusal(|m| m.root.root_hash.push('0')).contains("root.rootHash"));
        assert!(refusal(|m| m.root.data_blocks = 0).contains("root.dataBlocks"));
        assert!(refusal(|m| m.uki.authenticode_sha256.clear()).contains("uki.authenticodeSha256"));
        assert!(refusal(|m| m.root.hash_start_block = 0).contains("root.hashStartBlock"));
    }

    #[test]
    fn a_test_image_and_its_name_go_together() {
        assert!(refusal(|m| m.flavour = Flavour::Test).contains("-test exactly where"));
        assert!(refusal(|m| m.name = "eci-test".to_owned()).contains("-test exactly where"));
    }

    #[test]
    fn unknown_fields_and_oversized_manifests_are_refused() {
        let text = String::from_utf8(to_bytes(&example())).expect("JSON");
        let error = parse(text.replacen('{', "{\"extra\":1,", 1).as_bytes()).expect_err("unknown field");
        assert_eq!(error.to_string(), "the manifest does not follow its schema");
        let error = parse(&vec![b' '; MAX_BYTES + 1]).expect_err("too large");
        assert_eq!(error.to_string(), "the manifest is 65537 bytes long, more than 65536");
    }
}
