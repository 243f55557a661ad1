//! What an artifact says of itself, without a verdict: `verify` is for that.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::disk::{BootCount, ESP_NAME, Slot};
use eci_contract::manifest::Manifest;
use eci_contract::paths::{ADMIN_SETTINGS, SETTINGS_ANCHOR};
use eci_contract::status::SettingsSource;
use eci_policy::settings::DEFAULT;
use serde::Serialize;
use serde_json::Value;

use super::apple;
use super::assemble::{self, KERNEL_CONFIG_FILE};
use super::formats::{self, Format};
use super::provenance::{self, statement::Statement};
use super::sbom::Source;
use super::signature::PublicKey;
use super::{disk, esp, manifest, sbom, secure_boot, signature_partition, sums, uki, wsl};
use crate::kernel::config::Config;
use crate::settings;
use crate::ui::Ui;

/// Why an artifact cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk image has no sound table.
    #[error("cannot read the disk image")]
    Disk(#[from] disk::Error),
    /// The disk image cannot be brought into raw form.
    #[error("cannot open the disk image")]
    Format(#[from] formats::Error),
    /// The signature partition is not one.
    #[error("cannot read the disk's manifest")]
    SignaturePartition(#[from] signature_partition::Error),
    /// Slot A has no image, or the partition is not there.
    #[error("slot A of `{}` is empty", .path.display())]
    Empty {
        /// The disk image.
        path: PathBuf,
    },
    /// The distro for WSL is none of ours.
    #[error("cannot read the distro for WSL")]
    Wsl(#[from] wsl::Error),
    /// The manifest is not one.
    #[error("cannot use the manifest")]
    Manifest(#[from] manifest::Error),
}

/// What there is to say of an artifact.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    /// The manifest. It is not to be believed before `verify`.
    pub manifest: Manifest,
    /// Id of the key that signed it, among those that were tried.
    pub signer: Option<String>,
    /// Partitions of the disk image, if there is one.
    pub partitions: Vec<PartitionInfo>,
    /// The unified kernel image on the disk's EFI system partition, or in the folder.
    pub uki: Option<UkiInfo>,
    /// Packages with their versions, from the bill of materials beside it.
    pub packages: BTreeMap<String, String>,
    /// The sources of those packages, by the same bill.
    pub sources: BTreeSet<Source>,
    /// Code name of the Debian release that they are from.
    pub release: Option<String>,
    /// Licences of packages, kernel and programs as SPDX expressions, by their names; `NOASSERTION` where no machine can read them.
    pub licences: BTreeMap<String, String>,
    /// Where it comes from, by the provenance beside it. It is not to be believed before `verify`.
    pub provenance: Option<ProvenanceInfo>,
    /// The administrator's settings in it, by the bill of materials beside it.
    pub settings: Option<SettingsInfo>,
    /// Options that are set in the kernel's configuration beside it.
    pub kernel_options: BTreeMap<String, String>,
    /// SHA-256 of the artifacts beside it, by file name.
    pub sha256: BTreeMap<String, String>,
}

/// A partition as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionInfo {
    /// GPT partition name.
    pub name: String,
    /// Partition type UUID.
    pub kind: String,
    /// Partition UUID.
    pub uuid: String,
    /// First byte on the disk.
    pub start: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Priority, tries left and success of a root partition.
    pub boot_count: Option<BootInfo>,
}

/// The unified kernel image as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UkiInfo {
    /// Size in bytes.
    pub bytes: u64,
    /// Release of the kernel in it.
    pub release: String,
    /// The kernel's command line.
    pub command_line: String,
    /// Size of the kernel in bytes.
    pub kernel_bytes: u64,
    /// Size of the initial RAM file system in bytes.
    pub initrd_bytes: u64,
    /// Whom the certificate is for that it is signed with, or why nobody's is.
    pub signed_by: String,
}

/// The provenance as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProvenanceInfo {
    /// Id of the key that signed it, among those that were tried.
    pub signer: Option<String>,
    /// What built the image, with its version.
    pub builder: String,
    /// Commit of the project's checkout, where the build could vouch for one.
    pub commit: Option<String>,
    /// Version and digests of what went into the image or was used on it, by name.
    pub materials: BTreeMap<String, String>,
}

/// The administrator's settings as they are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SettingsInfo {
    /// Whether the image was built with any.
    pub source: SettingsSource,
    /// SHA-256 of the file: `settings check` and `status` show the same of the same.
    pub sha256: String,
    /// Whether it takes others from a config disk; who signs those is on the root.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub takes_disks: bool,
}

/// Boot counting of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BootInfo {
    /// 15 is the highest, 0 is never booted.
    pub priority: u8,
    /// Boots left to prove itself.
    pub tries_left: u8,
    /// It got the engine ready before.
    pub successful: bool,
}

/// Inspects an output folder, a `manifest.json` in one, a disk image, a CD, a distro for WSL, or a copy of the folder for Apple's framework.
/// `keys` are tried on the signature.
///
/// # Errors
/// [`Error`]. What may lie beside an artifact and does not is left out.
pub fn inspect(artifact: &Path, keys: &[PublicKey], ui: &Ui) -> Result<Inspection, Error> {
    let is_manifest = artifact.extension().is_some_and(|extension| extension == "json");
    let folder = if artifact.is_dir() { artifact } else { artifact.parent().unwrap_or(Path::new("")) };
    let Found { manifest: bytes, signature, partitions, uki } = if apple::is_alone(artifact) {
        from_file(&artifact.join(apple::DISK), ui)?
    } else if artifact.is_dir() || is_manifest {
        let bytes = read(&folder.join(manifest::FILE))?;
        let partitions = disk_of(folder, &manifest::parse(&bytes)?, ui)?;
        let beside = |name| fs::read(folder.join(name)).unwrap_or_default();
        Found {
            manifest: bytes,
            signature: beside(manifest::SIGNATURE_FILE),
            partitions,
            uki: beside(uki::FILE),
        }
    } else {
        from_file(artifact, ui)?
    };
    let signer = keys.iter().find(|key| key.verifies(&bytes, &signature)).map(PublicKey::id);
    let manifest = manifest::parse(&bytes)?;
    let beside = Beside { folder };
    let bill = Bill::parse(&beside.text(sbom::spdx::FILE));
    Ok(Inspection {
        manifest,
        signer,
        partitions,
        uki: uki_info(&uki),
        packages: bill.packages(),
        sources: bill.sources(),
        release: bill.release(),
        licences: bill.licences(),
        provenance: beside.provenance(keys),
        settings: bill.settings(),
        kernel_options: beside.kernel_options(),
        sha256: beside.sha256(),
    })
}

/// What is looked at; empty where it is not there.
struct Found {
    manifest: Vec<u8>,
    signature: Vec<u8>,
    partitions: Vec<PartitionInfo>,
    uki: Vec<u8>,
}

fn from_file(path: &Path, ui: &Ui) -> Result<Found, Error> {
    if formats::of_file(path)? != Format::Wsl {
        return from_disk(path, ui);
    }
    let opened = wsl::open(path)?;
    Ok(Found {
        manifest: opened.manifest,
        signature: opened.signature,
        partitions: Vec::new(),
        uki: Vec::new(),
    })
}

fn from_disk(path: &Path, ui: &Ui) -> Result<Found, Error> {
    let disk = formats::open(path, ui)?;
    let table = disk::read(&disk.file, path)?;
    let empty = || Error::Empty { path: path.to_owned() };
    let partition = table.named(Slot::A.names()[2]).ok_or_else(empty)?;
    let signed = signature_partition::read(partition.region(&disk.file))?.ok_or_else(empty)?;
    let esp = table.named(ESP_NAME).map(|partition| partition.region(&disk.file));
    let uki = esp.and_then(|region| esp::read_file(region).ok()).unwrap_or_default();
    let partitions = table.partitions.iter().map(info).collect();
    Ok(Found { manifest: signed.manifest, signature: signed.signature, partitions, uki })
}

/// What a unified kernel image holds; `None` where it is none.
fn uki_info(image: &[u8]) -> Option<UkiInfo> {
    let parts = uki::read(image).ok()?;
    let size = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    Some(UkiInfo {
        bytes: size(image),
        release: parts.release.to_owned(),
        command_line: parts.command_line.to_owned(),
        kernel_bytes: size(parts.linux),
        initrd_bytes: size(parts.initrd),
        signed_by: match secure_boot::verify(image, None) {
            Ok(certificate) => certificate.name(),
            Err(error) => format!("nobody: {error}"),
        },
    })
}

/// Partitions of the disk image in an output folder, if it has one.
fn disk_of(folder: &Path, manifest: &Manifest, ui: &Ui) -> Result<Vec<PartitionInfo>, Error> {
    let name = |format| assemble::disk_file(&manifest.name, &manifest.version, manifest.architecture, format);
    let others = [apple::beside(apple::DISK), name(Format::Iso)];
    for name in Format::DISKS.map(name).into_iter().chain(others) {
        let path = folder.join(name);
        if path.exists() {
            return from_disk(&path, ui).map(|found| found.partitions);
        }
    }
    Ok(Vec::new())
}

fn info(partition: &disk::Partition) -> PartitionInfo {
    let is_root = [Slot::A, Slot::B].iter().any(|slot| slot.names()[0] == partition.name);
    let count = BootCount::from_attributes(partition.attributes);
    PartitionInfo {
        name: partition.name.clone(),
        kind: partition.kind.to_string(),
        uuid: partition.uuid.to_string(),
        start: partition.start,
        bytes: partition.length,
        boot_count: is_root.then_some(BootInfo {
            priority: count.priority,
            tries_left: count.tries_left,
            successful: count.successful,
        }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

/// What lies beside a manifest; each of it may be missing.
struct Beside<'a> {
    folder: &'a Path,
}

impl Beside<'_> {
    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    fn provenance(&self, keys: &[PublicKey]) -> Option<ProvenanceInfo> {
        let envelope = provenance::read(&self.folder.join(provenance::FILE)).ok()?;
        let statement = Statement::parse(envelope.statement()).ok()?;
        let materials = statement.materials().iter();
        Some(ProvenanceInfo {
            signer: keys.iter().find(|key| envelope.is_signed_by(key)).map(PublicKey::id),
            builder: statement.builder(),
            commit: statement.commit().map(str::to_owned),
            materials: materials.map(|material| (material.name.clone(), material.to_string())).collect(),
        })
    }

    fn kernel_options(&self) -> BTreeMap<String, String> {
        let config = Config::parse(&self.text(KERNEL_CONFIG_FILE));
        config.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn sha256(&self) -> BTreeMap<String, String> {
        let sums = sums::Sums::parse(&self.text(sums::FILE)).unwrap_or_default();
        sums.0.into_iter().map(|(name, digest)| (name, digest.to_string())).collect()
    }
}

/// The bill of materials beside a manifest; without entries where there is none.
struct Bill {
    packages: Vec<Value>,
    files: Vec<Value>,
}

impl Bill {
    fn parse(text: &str) -> Self {
        let mut document: Value = serde_json::from_str(text).unwrap_or_default();
        let mut entries = |name| match document.get_mut(name).map(Value::take) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        };
        Self { packages: entries("packages"), files: entries("files") }
    }

    /// Entries of a purpose; those of packages of the image state none.
    fn of_purpose<'a>(&'a self, purpose: Option<&'a str>) -> impl Iterator<Item = &'a Value> {
        self.packages.iter().filter(move |entry| entry["primaryPackagePurpose"].as_str() == purpose)
    }

    fn packages(&self) -> BTreeMap<String, String> {
        let packages = self.of_purpose(None);
        packages.map(|entry| (text_of(entry, "name"), text_of(entry, "versionInfo"))).collect()
    }

    fn sources(&self) -> BTreeSet<Source> {
        let source = |entry| Source { name: text_of(entry, "name"), version: text_of(entry, "versionInfo") };
        self.of_purpose(Some("SOURCE")).map(source).collect()
    }

    fn release(&self) -> Option<String> {
        let urls = self.of_purpose(Some("SOURCE"));
        let mut urls = urls.filter_map(|entry| entry["externalRefs"][0]["referenceLocator"].as_str());
        urls.find_map(sbom::release_of).map(str::to_owned)
    }

    fn settings(&self) -> Option<SettingsInfo> {
        settings_of(&self.files)
    }

    fn licences(&self) -> BTreeMap<String, String> {
        let entries = self.of_purpose(None).chain(self.of_purpose(Some("APPLICATION")));
        entries.map(|entry| (text_of(entry, "name"), text_of(entry, "licenseDeclared"))).collect()
    }
}

fn settings_of(files: &[Value]) -> Option<SettingsInfo> {
    let file = |path: &str| files.iter().find(|entry| text_of(entry, "fileName") == format!(".{path}"));
    let entry = file(ADMIN_SETTINGS)?;
    let sums = entry["checksums"].as_array()?;
    let sum = sums.iter().find(|sum| text_of(sum, "algorithm") == "SHA256")?;
    let sha256 = text_of(sum, "checksumValue");
    let is_default = sha256 == settings::digest(DEFAULT.as_bytes()).to_string();
    Some(SettingsInfo {
        source: if is_default { SettingsSource::Default } else { SettingsSource::Image },
        sha256,
        takes_disks: file(SETTINGS_ANCHOR).is_some(),
    })
}

fn text_of(entry: &Value, field: &str) -> String {
    entry[field].as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use eci_contract::manifest::Flavour;

    use super::super::assemble::Signing;
    use super::super::assemble::tests::{assemble_for, assemble_small};
    use super::super::signature;
    use super::*;

    #[test]
    fn folder_disk_and_manifest_say_the_same() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = signature::generate(&folder.path().join("keys")).expect("key");
        assemble_small(folder.path(), Flavour::Shipped, &key);
        let out = folder.path().join("out");
        for artifact in [out.clone(), out.join("eci-0.1.0-x86_64.raw"), out.join("manifest.json")] {
            let inspection = inspect(&artifact, &[key.public()], &Ui::silent()).expect("inspected");
            assert_eq!(inspection.signer, Some(key.public().id()));
            assert_eq!(inspection.manifest.name, "eci");
            assert_eq!(inspection.partitions.len(), 8);
            let uki = inspection.uki.expect("it is there");
            assert_eq!(uki.command_line, "console=ttyS0");
            assert_eq!(uki.signed_by, secure_boot::tests::signer().certificate().name());
            assert_eq!(inspection.kernel_options["CONFIG_A"], "y");
            assert_eq!(inspection.sha256.len(), 13);
            let provenance = inspection.provenance.expect("it is there");
            assert_eq!(provenance.signer, Some(key.public().id()));
            assert!(provenance.builder.starts_with("pkg:generic/eci-builder "), "{}", provenance.builder);
            assert_eq!((provenance.commit, provenance.materials.len()), (None, 0));
            let boot = inspection.partitions[1].boot_count.expect("a root partition");
            assert_eq!(boot, BootInfo { priority: 15, tries_left: 3, successful: true });
        }
    }

    #[test]
    fn a_folder_for_apple_s_framework_is_known_beside_the_manifest_and_alone() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = signature::generate(&folder.path().join("keys")).expect("key");
        let signing = Signing::Now { key: &key, signer: secure_boot::tests::signer() };
        assemble_for(folder.path(), Flavour::Shipped, signing, &[Format::Apple]);
        let out = folder.path().join("out");
        for artifact in [out.clone(), out.join(apple::FOLDER)] {
            let inspection = inspect(&artifact, &[key.public()], &Ui::silent()).expect("inspected");
            assert_eq!(inspection.signer, Some(key.public().id()));
            assert_eq!(inspection.partitions.len(), 8);
            assert_eq!(inspection.sha256.contains_key("apple/vfkit.sh"), artifact == out);
        }
    }

    #[test]
    fn the_bill_tells_packages_sources_release_and_licences() {
        let bytes = sbom::spdx::to_bytes(&sbom::tests::subject(), &sbom::tests::contents());
        let bill = Bill::parse(&String::from_utf8(bytes).expect("JSON"));
        let named = |pairs: &[(&str, &str)]| {
            let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            pairs.iter().map(owned).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(bill.packages(), named(&[("crun", "1.21-1"), ("libstdc++6", "1:14.2~rc1+b1-2")]));
        let sources = bill.sources().into_iter().map(|source| format!("{} {}", source.name, source.version));
        assert_eq!(sources.collect::<Vec<_>>(), ["crun 1.21-1", "gcc-14 14.2-2"]);
        assert_eq!(bill.release().as_deref(), Some("trixie"));
        let licences = [
            ("crun", "LicenseRef-Debian-crun-own"),
            ("eci-init", "Apache-2.0"),
            ("libstdc++6", "NOASSERTION"),
            ("linux", "NOASSERTION"),
        ];
        assert_eq!(bill.licences(), named(&licences));
        assert_eq!(Bill::parse("{}").packages(), BTreeMap::new());
    }

    #[test]
    fn the_bill_tells_whether_there_are_settings() {
        let with = |text: &str| {
            let mut contents = sbom::tests::contents();
            contents.files.push(sbom::File::read(ADMIN_SETTINGS, None, text.as_bytes()).expect("read"));
            let bytes = sbom::spdx::to_bytes(&sbom::tests::subject(), &contents);
            Bill::parse(&String::from_utf8(bytes).expect("JSON")).settings().expect("they are listed")
        };
        assert_eq!(with(DEFAULT).source, SettingsSource::Default);
        let own = with("{}");
        assert_eq!((own.source, own.sha256), (SettingsSource::Image, settings::digest(b"{}").to_string()));
        assert_eq!(Bill::parse("{}").settings(), None);
    }

    #[test]
    fn an_unknown_signer_is_not_named() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = signature::generate(&folder.path().join("keys")).expect("key");
        assemble_small(folder.path(), Flavour::Shipped, &key);
        let inspection = inspect(&folder.path().join("out"), &[], &Ui::silent()).expect("inspected");
        assert_eq!(inspection.signer, None);
        assert_eq!(inspection.provenance.expect("it is there").signer, None);
    }

    #[test]
    fn a_folder_without_a_manifest_is_named() {
        let error =
            inspect(Path::new("/nowhere/manifest.json"), &[], &Ui::silent()).expect_err("nothing there");
        assert_eq!(error.to_string(), "cannot read `/nowhere/manifest.json`");
    }
}
