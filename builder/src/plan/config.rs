//! The text of `eci.toml`, as its schema has it. [`super::Plan`] is what comes of it.

use std::path::PathBuf;

use eci_contract::manifest::{Architecture, Flavour};
use serde::Deserialize;

/// The schema number of `eci.toml`.
pub const VERSION: u32 = 1;

/// `eci.toml`. All paths in it are relative to the folder that it is in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// [`VERSION`].
    pub version: u32,
    /// What is built.
    pub image: Image,
    /// Where packages come from.
    pub packages: Packages,
    /// What goes into the root file system besides packages.
    pub rootfs: Rootfs,
    /// What the administrator sets.
    #[serde(default)]
    pub settings: Settings,
    /// The kernel.
    pub kernel: Kernel,
    /// What kernel and programs are compiled with.
    pub toolchain: Toolchain,
    /// Programs of the build that come from packages, so that the host's versions do not matter.
    pub tools: Tools,
    /// The unified kernel image.
    pub uki: Uki,
    /// How the image is signed.
    #[serde(default)]
    pub signing: Signing,
    /// How the unified kernel image is signed.
    #[serde(default)]
    pub secure_boot: SecureBoot,
    /// How large the partitions are.
    pub disk: Disk,
}

/// `[image]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Image name, part of artifact names.
    pub name: String,
    /// Image version, part of artifact names.
    pub version: String,
    /// The oldest version that an instance may go back to once this one has booted well: dotted whole numbers, as `version`
    /// has to be then.
    #[serde(default)]
    pub minimum_version: Option<String>,
    /// What the image is for.
    pub flavour: Flavour,
    /// Architecture where the command line names none.
    pub arch: Architecture,
}

/// `[packages]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Packages {
    /// Allow-lists, later ones adding to earlier ones.
    pub lists: Vec<PathBuf>,
    /// Lock files. `eci-builder lock` writes the last; the others are kept by the configuration that they end.
    pub locks: Vec<PathBuf>,
    /// Root of a mirror, such that `MIRROR/debian` and `MIRROR/debian-security` are the archives. The host's own
    /// mirror where this is absent.
    #[serde(default)]
    pub mirror: Option<String>,
}

/// `[rootfs]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rootfs {
    /// Folders whose files are laid into the image as they lie there; a later folder's file takes an earlier one's place.
    pub overlays: Vec<PathBuf>,
    /// Folder of AppArmor profiles, which are compiled.
    pub apparmor: PathBuf,
    /// Table of folders that the image has.
    pub folders: PathBuf,
    /// Table of names that no image may have.
    pub refused: PathBuf,
}

/// `[settings]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The administrator's `admin-settings.json`, which is baked in. Isolation that is locked and nothing else where this is absent.
    #[serde(default)]
    pub file: Option<PathBuf>,
    /// Ed25519 public key (PEM) of who signs config disks (`eci-builder settings sign`). An image without one takes none.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Without a config disk there is no engine.
    #[serde(default)]
    pub required: bool,
    /// Nobody looks at the file before the VM does. Only an image of the test flavour may say so: it is how the suites get one whose
    /// engine is refused.
    #[serde(default)]
    pub unchecked: bool,
}

/// `[kernel]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// The package with the kernel's source.
    pub source: String,
    /// Folder of configuration fragments.
    pub fragments: PathBuf,
}

/// `[toolchain]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Toolchain {
    /// Folder with the list of its packages and a lock for each kind of build machine.
    pub folder: PathBuf,
}

/// `[tools]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tools {
    /// Packages with the programs and the libraries that they need.
    pub packages: Vec<String>,
}

/// `[uki]`
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uki {
    /// The package with systemd's stub for UEFI.
    pub stub: String,
}

/// `[signing]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    /// Ed25519 private key, PKCS#8 PEM, or its public half for a build that is signed elsewhere. A development key of this host where
    /// this is absent.
    #[serde(default)]
    pub key: Option<PathBuf>,
}

/// `[secure_boot]`: both, the certificate alone for a build that is signed elsewhere, or a development key of this host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecureBoot {
    /// RSA private key of the firmware's db, PEM.
    #[serde(default)]
    pub key: Option<PathBuf>,
    /// Its certificate, PEM.
    #[serde(default)]
    pub certificate: Option<PathBuf>,
}

/// `[disk]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// Size of the EFI system partition in MiB.
    pub esp_mib: u32,
    /// Size of a slot's root partition in MiB; the largest root file system that an update may bring.
    pub root_mib: u32,
    /// Size of the data partition in MiB. It grows with the disk.
    pub data_mib: u32,
}
