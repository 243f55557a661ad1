//! All artifacts of an image, made in a staging folder and put in place together.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use eci_contract::manifest::{Architecture, Artifact, Flavour, Manifest, UnifiedKernelImage};

use super::digest::Sha256;
use super::disk::{self, Sizes};
use super::esp::{self, Esp};
use super::formats::{self, Format};
use super::provenance::dsse::Envelope;
use super::provenance::statement::Statement;
use super::provenance::{self, Origin};
use super::region::Region;
use super::secure_boot::{self, Certificate, Signer, root_hash};
use super::signature::{PublicKey, SigningKey};
use super::signature_partition::{self, Signed};
use super::{apple, iso, manifest, sbom, sums, uki, verity, wsl};
use crate::staging::{self, Staging};
use crate::ui::{Ui, human_size};

/// File name of the kernel.
pub const KERNEL_FILE: &str = "vmlinuz";
/// File name of the initial RAM file system.
pub const INITRD_FILE: &str = "initrd.img";
/// File name of the kernel's resolved configuration.
pub const KERNEL_CONFIG_FILE: &str = "kernel.config";
/// File name of the public key that the image is signed for: a convenience. Trust it only as far as its origin.
pub const KEY_FILE: &str = "image.pub";
/// File name of the certificate that the unified kernel image is signed for: a convenience, like the key.
pub const CERTIFICATE_FILE: &str = "secure-boot.crt";
/// What every image has besides disks, distro and sums.
pub(super) const FIXED: [&str; 12] = [
    KERNEL_FILE,
    INITRD_FILE,
    KERNEL_CONFIG_FILE,
    uki::FILE,
    manifest::FILE,
    manifest::SIGNATURE_FILE,
    root_hash::FILE,
    KEY_FILE,
    CERTIFICATE_FILE,
    sbom::spdx::FILE,
    sbom::cyclonedx::FILE,
    provenance::FILE,
];
/// What is there until an image is signed.
pub(super) const TO_BE_SIGNED_FILES: [&str; 3] =
    [uki::TO_BE_SIGNED_FILE, provenance::TO_BE_SIGNED_FILE, root_hash::TO_BE_SIGNED_FILE];
/// Everyone may read artifacts, as they hold no secrets.
const MODE: u32 = 0o644;

/// Why an image cannot be assembled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The output folder cannot be used.
    #[error("cannot write the artifacts")]
    Staging(#[from] staging::Error),
    /// A file cannot be read or written.
    #[error("cannot {operation} `{}`", .path.display())]
    File {
        /// "read", "copy", "write" or "remove".
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The hash tree cannot be computed.
    #[error("cannot hash the root file system `{}`", .path.display())]
    Verity {
        /// The root file system's image.
        path: PathBuf,
        /// Why not.
        source: verity::Error,
    },
    /// The manifest would not be a sound one.
    #[error("cannot make the manifest")]
    Manifest(#[from] manifest::Error),
    /// The unified kernel image cannot be made.
    #[error("cannot make the unified kernel image")]
    Uki(#[from] uki::Error),
    /// The unified kernel image cannot be signed.
    #[error("cannot sign the unified kernel image")]
    Sign(#[from] secure_boot::SignatureError),
    /// The root hash cannot be signed.
    #[error("cannot sign the root hash")]
    RootHash(#[from] root_hash::Error),
    /// The provenance cannot be made.
    #[error("cannot make the provenance")]
    Provenance(#[from] provenance::Error),
    /// The unified kernel image does not go onto its partition.
    #[error("cannot make the EFI system partition")]
    Esp(#[from] esp::Error),
    /// The disk cannot be written.
    #[error("cannot make the disk image")]
    Disk(#[from] disk::Error),
    /// The disk cannot be converted.
    #[error("cannot convert the disk image")]
    Format(#[from] formats::Error),
    /// The folder for Apple's framework cannot be made.
    #[error("cannot make the folder for Apple's Virtualization framework")]
    Apple(#[from] apple::Error),
    /// The CD cannot be written.
    #[error("cannot make the CD")]
    Iso(#[from] iso::Error),
    /// The archive for WSL cannot be written.
    #[error("cannot make the distro for WSL")]
    Wsl(#[from] wsl::Error),
    /// The sums cannot be computed.
    #[error("cannot sum the artifacts")]
    Sums(#[from] sums::Error),
}

/// What an image is made from.
#[derive(Clone, Debug)]
pub struct Inputs<'a> {
    /// Image name: ends in `-test` exactly where the flavour is test.
    pub name: &'a str,
    /// Image version.
    pub version: &'a str,
    /// The oldest version that may be booted once this one has booted well.
    pub minimum_version: Option<&'a str>,
    /// Processor architecture.
    pub architecture: Architecture,
    /// What the image is for.
    pub flavour: Flavour,
    /// EROFS image of the root file system, a whole number of 4096-byte blocks.
    pub root: &'a Path,
    /// Kernel image.
    pub kernel: &'a Path,
    /// The kernel's resolved configuration.
    pub kernel_config: &'a Path,
    /// Initial RAM file system, with the signing key's public half in it.
    pub initrd: &'a Path,
    /// PID 1, as it is in the initrd.
    pub init: &'a Path,
    /// The rest of the unified kernel image.
    pub uki: UkiInputs<'a>,
    /// Versions a user asks for: `docker`, `containerd`, `crun`, `linux`.
    pub versions: BTreeMap<String, String>,
    /// Who signs.
    pub signing: Signing<'a>,
    /// Sizes of the partitions.
    pub sizes: Sizes,
    /// Forms to give out.
    pub formats: &'a [Format],
    /// What is in the image.
    pub contents: &'a sbom::Contents,
    /// What it is made from and with.
    pub origin: &'a Origin,
}

/// Who signs manifest, provenance, unified kernel image and root hash.
#[derive(Clone, Copy, Debug)]
pub enum Signing<'a> {
    /// These keys, at once.
    Now {
        /// Signs manifest and provenance.
        key: &'a SigningKey,
        /// Signs the unified kernel image and the root hash.
        signer: &'a Signer,
    },
    /// Whoever has these keys' private halves, later: [`super::sign`] takes what they make.
    Later {
        /// Will sign manifest and provenance.
        key: PublicKey,
        /// The unified kernel image and the root hash will be signed for it.
        certificate: &'a Certificate,
    },
}

impl Signing<'_> {
    /// The key that manifest and provenance are signed for.
    fn key(&self) -> PublicKey {
        match self {
            Self::Now { key, .. } => key.public(),
            Self::Later { key, .. } => *key,
        }
    }
}

/// What the unified kernel image is made of besides kernel and initrd.
#[derive(Clone, Copy, Debug)]
pub struct UkiInputs<'a> {
    /// systemd's stub for UEFI.
    pub stub: &'a [u8],
    /// The command line that is built into the kernel.
    pub command_line: &'a str,
    /// `/etc/os-release` of the root file system.
    pub os_release: &'a str,
    /// What `uname -r` prints.
    pub release: &'a str,
}

/// An assembled image.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The manifest.
    pub manifest: Manifest,
    /// Everything that was put in place, `SHA256SUMS` last.
    pub artifacts: Vec<Placed>,
}

/// A file in the output folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its path.
    pub path: PathBuf,
    /// Its size in bytes.
    pub bytes: u64,
    /// What it takes on disk, in bytes: less than its size for a sparse file.
    pub bytes_on_disk: u64,
}

/// Makes every artifact beside `out` and then puts all of them in place. Equal inputs give equal bytes.
///
/// # Errors
/// [`Error`]; what stood in `out` before still stands there, unless the putting in place itself fails.
pub fn assemble(inputs: &Inputs<'_>, out: &Path, ui: &Ui) -> Result<Assembled, Error> {
    let staging = Staging::beside(out)?;
    let stage = ui.stage("verity");
    let (identity, tree) = hash_root(inputs.root)?;
    stage.done(&format!("root hash {}", tree.root_hash()));

    let kernel = copy(inputs.kernel, &staging, KERNEL_FILE)?;
    let initrd = copy(inputs.initrd, &staging, INITRD_FILE)?;
    copy(inputs.kernel_config, &staging, KERNEL_CONFIG_FILE)?;
    let unsigned = unified(inputs)?;
    let unsigned_bytes = u64::try_from(unsigned.len()).unwrap_or(u64::MAX);
    let manifest =
        manifest::make(facts(inputs, [kernel, initrd], uki::describe(&unsigned)?), &identity, &tree)?;
    let manifest_bytes = manifest::to_bytes(&manifest);
    let (signature, root_hash_signature, image, certificate) = match inputs.signing {
        Signing::Now { key, signer } => {
            let image = secure_boot::sign(&unsigned, signer)?;
            let root_hash_signature = root_hash::sign(tree.root_hash(), signer)?;
            (key.sign(&manifest_bytes).to_vec(), root_hash_signature, image, signer.certificate())
        }
        Signing::Later { certificate, .. } => {
            write(&staging, uki::TO_BE_SIGNED_FILE, &secure_boot::to_be_signed(&unsigned)?)?;
            write(&staging, root_hash::TO_BE_SIGNED_FILE, &root_hash::to_be_signed(tree.root_hash()))?;
            (Vec::new(), Vec::new(), unsigned, certificate)
        }
    };
    write(&staging, uki::FILE, &image)?;
    write(&staging, manifest::FILE, &manifest_bytes)?;
    write(&staging, manifest::SIGNATURE_FILE, &signature)?;
    write(&staging, root_hash::FILE, &root_hash_signature)?;
    write(&staging, KEY_FILE, inputs.signing.key().to_pem().as_bytes())?;
    write(&staging, CERTIFICATE_FILE, certificate.to_pem().as_bytes())?;
    let subject = sbom::Subject { name: inputs.name, version: inputs.version, root_hash: tree.root_hash() };
    write(&staging, sbom::spdx::FILE, &sbom::spdx::to_bytes(&subject, inputs.contents))?;
    write(&staging, sbom::cyclonedx::FILE, &sbom::cyclonedx::to_bytes(&subject, inputs.contents))?;
    write_provenance(inputs, &manifest, &staging)?;

    let stage = ui.stage("disk");
    let layout = disk::plan(inputs.architecture, inputs.sizes, tree.root_hash())?;
    let verity = verity::partition_bytes(&identity, &tree);
    let signed = Signed {
        root_hash: manifest.root.root_hash.clone(),
        fingerprint: certificate.fingerprint(),
        root_hash_signature,
        manifest: manifest_bytes,
        signature,
    };
    let signature = signature_partition::to_bytes(&signed);
    let esp = layout.partitions.first().expect("a layout has the EFI system partition first");
    let volume = disk::esp_volume(tree.root_hash());
    let esp = Esp::new(inputs.architecture, &image, volume, (esp.start, esp.length))?;
    let contents = disk::Contents { esp: &esp, root: inputs.root, verity: &verity, signature: &signature };
    let mut forms = write_disks(inputs, &layout, &contents, &staging, ui)?;
    stage.done(&human_size(layout.length));
    if inputs.formats.contains(&Format::Iso) {
        let stage = ui.stage("CD");
        let name = disk_file(inputs.name, inputs.version, inputs.architecture, Format::Iso);
        // Signed now or later, it has the same partitions.
        let esp = esp::length_for(unsigned_bytes);
        let bytes = write_cd(inputs, (&image, esp), tree.root_hash(), &contents, &staging.path(&name))?;
        stage.done(&human_size(bytes));
        forms.push(name);
    }
    if inputs.formats.contains(&Format::Wsl) {
        let stage = ui.stage("distro for WSL");
        let init = fs::read(inputs.init).map_err(|source| Error::File {
            operation: "read",
            path: inputs.init.to_owned(),
            source,
        })?;
        let parts = wsl::Parts {
            name: inputs.name,
            init: &init,
            key: &inputs.signing.key().0,
            manifest: &signed.manifest,
            signature: &signed.signature,
            root: inputs.root,
            tree: &verity,
        };
        let name = disk_file(inputs.name, inputs.version, inputs.architecture, Format::Wsl);
        write_wsl(&parts, &staging, &name)?;
        stage.done("");
        forms.push(name);
    }

    let mut names: Vec<String> = FIXED.into_iter().map(str::to_owned).chain(forms).collect();
    if matches!(inputs.signing, Signing::Later { .. }) {
        names.extend(TO_BE_SIGNED_FILES.map(str::to_owned));
    }
    let stage = ui.stage("sums");
    sum(&staging, &names)?;
    let artifacts = place(staging, &names, out)?;
    stage.done("");
    Ok(Assembled { manifest, artifacts })
}

/// Adds the sums of the staged files.
pub(super) fn sum(staging: &Staging, names: &[String]) -> Result<(), Error> {
    let sums = sums::Sums::of(&staging.path(""), names)?;
    write(staging, sums::FILE, sums.to_text().as_bytes())
}

/// Puts the staged files in place; a signed image leaves nothing to be signed behind.
pub(super) fn place(staging: Staging, names: &[String], out: &Path) -> Result<Vec<Placed>, Error> {
    staging.place()?;
    for left in TO_BE_SIGNED_FILES.into_iter().filter(|left| !names.iter().any(|name| name == left)) {
        // Best effort: it is no part of a signed image, and no sum is of it.
        drop(fs::remove_file(out.join(left)));
    }
    names.iter().map(String::as_str).chain([sums::FILE]).map(|name| measure(out.join(name))).collect()
}

/// Stages the distro for WSL.
pub(super) fn write_wsl(parts: &wsl::Parts<'_>, staging: &Staging, name: &str) -> Result<(), Error> {
    let path = staging.path(name);
    wsl::write(parts, &path)?;
    set_mode(&path)
}

/// File name of the image in a form.
#[must_use]
pub fn disk_file(name: &str, version: &str, architecture: Architecture, format: Format) -> String {
    format!("{}.{}", volume_name(name, version, architecture), format.extension())
}

/// What a CD of the image is called, and how the image's files begin.
#[must_use]
pub fn volume_name(name: &str, version: &str, architecture: Architecture) -> String {
    format!("{name}-{version}-{}", architecture.as_str())
}

fn hash_root(path: &Path) -> Result<(verity::Identity, verity::Tree), Error> {
    let read = |source| Error::File { operation: "read", path: path.to_owned(), source };
    let file = File::open(path).map_err(read)?;
    let region = Region::whole(&file).map_err(read)?;
    let identity = verity::Identity::of_data(Sha256::of_reader(region.reader()).map_err(read)?);
    let tree = verity::hash(region, &identity.salt);
    Ok((identity, tree.map_err(|source| Error::Verity { path: path.to_owned(), source })?))
}

/// The unified kernel image, unsigned. What the system is called has name and version of the image on top, for boot menus.
fn unified(inputs: &Inputs<'_>) -> Result<Vec<u8>, Error> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| Error::File { operation: "read", path: path.to_owned(), source })
    };
    let UkiInputs { stub, command_line, os_release, release } = inputs.uki;
    let os_release = format!("{os_release}IMAGE_ID={}\nIMAGE_VERSION={}\n", inputs.name, inputs.version);
    let (linux, initrd) = (read(inputs.kernel)?, read(inputs.initrd)?);
    let parts = uki::Parts { linux: &linux, initrd: &initrd, command_line, os_release: &os_release, release };
    Ok(uki::make(stub, &parts)?)
}

fn facts(inputs: &Inputs<'_>, [kernel, initrd]: [Artifact; 2], uki: UnifiedKernelImage) -> manifest::Facts {
    manifest::Facts {
        name: inputs.name.to_owned(),
        version: inputs.version.to_owned(),
        minimum_version: inputs.minimum_version.map(str::to_owned),
        architecture: inputs.architecture,
        flavour: inputs.flavour,
        versions: inputs.versions.clone(),
        kernel,
        initrd,
        uki,
    }
}

/// Writes the provenance of what is staged, and what is to be signed of it where that is done later.
fn write_provenance(inputs: &Inputs<'_>, manifest: &Manifest, staging: &Staging) -> Result<(), Error> {
    let subjects = provenance::subjects(&staging.path(""), manifest)?;
    let key = inputs.signing.key();
    let statement = Statement::new(subjects, manifest, &key, inputs.sizes, inputs.origin);
    let envelope = Envelope::unsigned(statement.to_bytes());
    let message = envelope.to_be_signed();
    let envelope = match inputs.signing {
        Signing::Now { key: private, .. } => envelope.signed(&key, &private.sign(&message)),
        Signing::Later { .. } => {
            write(staging, provenance::TO_BE_SIGNED_FILE, &message)?;
            envelope
        }
    };
    write(staging, provenance::FILE, &envelope.to_bytes())
}

/// Writes the disk in every form that is asked for and gives their file names.
fn write_disks(
    inputs: &Inputs<'_>,
    layout: &disk::Layout,
    contents: &disk::Contents<'_>,
    staging: &Staging,
    ui: &Ui,
) -> Result<Vec<String>, Error> {
    let name = |format| disk_file(inputs.name, inputs.version, inputs.architecture, format);
    let raw = staging.path(&name(Format::Raw));
    disk::write(layout, contents, &raw)?;
    let asked = Format::DISKS.into_iter().filter(|format| inputs.formats.contains(format));
    let disks: Vec<_> = asked.map(|format| (format, name(format))).collect();
    let mut forms: Vec<_> = disks.iter().map(|(_, name)| name.clone()).collect();
    if inputs.formats.contains(&Format::Apple) {
        apple::stage(&raw, staging)?;
        forms.extend(apple::names());
    }
    convert(&raw, &disks, staging, ui)?;
    Ok(forms)
}

/// Writes the CD with this unified kernel image on an EFI system partition of so many bytes, and gives its size.
fn write_cd(
    inputs: &Inputs<'_>,
    (image, esp): (&[u8], u64),
    root_hash: Sha256,
    contents: &disk::Contents<'_>,
    to: &Path,
) -> Result<u64, Error> {
    let read = |source| Error::File { operation: "read", path: inputs.root.to_owned(), source };
    let root = fs::metadata(inputs.root).map_err(read)?.len();
    let layout = disk::plan_cd(inputs.architecture, esp, root, root_hash)?;
    let first = layout.partitions.first().expect("a layout has the EFI system partition first");
    let place = (first.start, first.length);
    let esp = Esp::new(inputs.architecture, image, disk::esp_volume(root_hash), place)?;
    let name = volume_name(inputs.name, inputs.version, inputs.architecture);
    iso::write(&name, &layout, &disk::Contents { esp: &esp, ..*contents }, to)?;
    set_mode(to)?;
    Ok(layout.length)
}

/// Gives a staged raw disk the forms and names that are asked for; raw need not be among them.
pub(super) fn convert(
    raw: &Path,
    names: &[(Format, String)],
    staging: &Staging,
    ui: &Ui,
) -> Result<(), Error> {
    set_mode(raw)?;
    for (format, name) in names.iter().filter(|(format, _)| *format != Format::Raw) {
        let to = staging.path(name);
        formats::from_raw(raw, *format, &to, ui)?;
        set_mode(&to)?;
    }
    if names.iter().any(|(format, _)| *format == Format::Raw) {
        return Ok(());
    }
    fs::remove_file(raw).map_err(|source| Error::File { operation: "remove", path: raw.to_owned(), source })
}

fn copy(from: &Path, staging: &Staging, name: &str) -> Result<Artifact, Error> {
    let to = staging.path(name);
    let failed = |source| Error::File { operation: "copy", path: from.to_owned(), source };
    let size = fs::copy(from, &to).map_err(failed)?;
    set_mode(&to)?;
    let sha256 = Sha256::of_file(&to).map_err(failed)?.to_string();
    Ok(Artifact { file: name.to_owned(), size, sha256 })
}

pub(super) fn write(staging: &Staging, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let path = staging.path(name);
    fs::write(&path, bytes).map_err(|source| Error::File {
        operation: "write",
        path: path.clone(),
        source,
    })?;
    set_mode(&path)
}

pub(super) fn set_mode(path: &Path) -> Result<(), Error> {
    let set = fs::set_permissions(path, fs::Permissions::from_mode(MODE));
    set.map_err(|source| Error::File { operation: "write", path: path.to_owned(), source })
}

fn measure(path: PathBuf) -> Result<Placed, Error> {
    match fs::metadata(&path) {
        Ok(metadata) => Ok(Placed { bytes: metadata.len(), bytes_on_disk: metadata.blocks() * 512, path }),
        Err(source) => Err(Error::File { operation: "read", path, source }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const SIZES: Sizes = Sizes { esp: esp::MIN_BYTES, root: 2 << 20, data: 1 << 20 };

    fn uki_inputs(stub: &[u8]) -> UkiInputs<'_> {
        UkiInputs { stub, command_line: "console=ttyS0", os_release: "ID=eci\n", release: "6.12" }
    }

    /// Inputs of a small image in `folder`, assembled into `folder/out`.
    pub(in crate::image) fn assemble_small(folder: &Path, flavour: Flavour, key: &SigningKey) -> Assembled {
        let signing = Signing::Now { key, signer: secure_boot::tests::signer() };
        assemble_for(folder, flavour, signing, &[Format::Raw])
    }

    /// The same, signed now or later, with a disk in these forms.
    pub(in crate::image) fn assemble_for(
        folder: &Path,
        flavour: Flavour,
        signing: Signing<'_>,
        formats: &[Format],
    ) -> Assembled {
        assemble_version(folder, flavour, signing, formats, ("0.1.0", None))
    }

    /// The same of a version, whose last digit makes the root another one, with the least version that it allows.
    pub(crate) fn assemble_version(
        folder: &Path,
        flavour: Flavour,
        signing: Signing<'_>,
        formats: &[Format],
        (version, minimum_version): (&str, Option<&str>),
    ) -> Assembled {
        let path = |name: &str| folder.join(name);
        let apple = formats.contains(&Format::Apple);
        let architecture = if apple { Architecture::Aarch64 } else { Architecture::X86_64 };
        let first = version.chars().last().and_then(|last| last.to_digit(10)).expect("a digit");
        let root: Vec<u8> =
            (first..first + 300).flat_map(|block| [block; 1024]).flat_map(u32::to_le_bytes).collect();
        for (name, bytes) in [
            ("root", root.as_slice()),
            ("kernel", &kernel(architecture)),
            ("config", b"CONFIG_A=y\n"),
            ("init", b"PID 1"),
        ] {
            fs::write(path(name), bytes).expect("input");
        }
        let key = match signing {
            Signing::Now { key, .. } => key.public(),
            Signing::Later { key, .. } => key,
        };
        crate::rootfs::initrd(&path("init"), &key.0, &path("initrd")).expect("initrd");
        let stub = uki::pe::tests::stub(".sbat", b"sbat,1\n", 10);
        let inputs = Inputs {
            name: if flavour == Flavour::Test { "eci-test" } else { "eci" },
            version,
            minimum_version,
            architecture,
            flavour,
            root: &path("root"),
            kernel: &path("kernel"),
            kernel_config: &path("config"),
            initrd: &path("initrd"),
            init: &path("init"),
            uki: uki_inputs(&stub),
            versions: BTreeMap::new(),
            signing,
            sizes: SIZES,
            formats,
            contents: &sbom::Contents::default(),
            origin: &Origin::default(),
        };
        assemble(&inputs, &path("out"), &Ui::silent()).expect("assembled")
    }

    /// A kernel that firmware starts. Arm's has an uncompressed one's header as well.
    fn kernel(architecture: Architecture) -> Vec<u8> {
        let mut kernel = uki::pe::tests::stub(".text", b"kernel", 1);
        if architecture == Architecture::Aarch64 {
            kernel[56..60].copy_from_slice(b"ARM\x64");
        }
        kernel
    }

    fn key(folder: &Path) -> SigningKey {
        super::super::signature::generate(&folder.join("keys")).expect("key")
    }

    #[test]
    fn equal_inputs_give_equal_artifacts_in_any_folder() {
        let (one, two) = (tempfile::tempdir().expect("folder"), tempfile::tempdir().expect("folder"));
        let key = key(one.path());
        let sums = |folder: &Path| {
            assemble_small(folder, Flavour::Shipped, &key);
            fs::read_to_string(folder.join("out").join(sums::FILE)).expect("sums")
        };
        let first = sums(one.path());
        assert_eq!(first, sums(two.path()));
        assert_eq!(first.lines().count(), 13);
    }

    #[test]
    fn sums_cover_every_artifact_and_hold() {
        let folder = tempfile::tempdir().expect("folder");
        let assembled = assemble_small(folder.path(), Flavour::Shipped, &key(folder.path()));
        let out = folder.path().join("out");
        let sums =
            sums::Sums::parse(&fs::read_to_string(out.join(sums::FILE)).expect("sums")).expect("sound");
        let names: Vec<_> = sums.0.keys().cloned().collect();
        assert_eq!(sums::Sums::of(&out, &names).expect("all there"), sums);
        assert_eq!(assembled.artifacts.len(), names.len() + 1);
        assert!(names.contains(&"eci-0.1.0-x86_64.raw".to_owned()));
    }

    #[test]
    fn what_stood_in_the_folder_stays_when_assembly_fails() {
        let folder = tempfile::tempdir().expect("folder");
        let key = key(folder.path());
        assemble_small(folder.path(), Flavour::Shipped, &key);
        let before = fs::read(folder.path().join("out/manifest.json")).expect("manifest");
        let inputs = Inputs {
            name: "eci",
            version: "0.2.0",
            minimum_version: None,
            architecture: Architecture::X86_64,
            flavour: Flavour::Shipped,
            root: &folder.path().join("root"),
            kernel: &folder.path().join("no-such-kernel"),
            kernel_config: &folder.path().join("config"),
            initrd: &folder.path().join("initrd"),
            init: &folder.path().join("init"),
            uki: uki_inputs(b""),
            versions: BTreeMap::new(),
            signing: Signing::Now { key: &key, signer: secure_boot::tests::signer() },
            sizes: SIZES,
            formats: &[Format::Raw],
            contents: &sbom::Contents::default(),
            origin: &Origin::default(),
        };
        let error = assemble(&inputs, &folder.path().join("out"), &Ui::silent()).expect_err("no kernel");
        assert!(error.to_string().ends_with("no-such-kernel`"), "{error}");
        assert_eq!(fs::read(folder.path().join("out/manifest.json")).expect("manifest"), before);
        assert_eq!(fs::read_dir(folder.path().join("out")).expect("listing").count(), 14);
    }
}
