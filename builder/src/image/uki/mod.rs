//! The unified kernel image: systemd's stub for UEFI with kernel, initrd and sealed command line as sections of one PE
//! file, which the firmware loads, and under Secure Boot checks, as a whole.
//!
//! Format: the UAPI Group's specification UAPI.5 (<https://uapi-group.org/specifications/specs/unified_kernel_image/>).

mod measured;
pub(super) mod pe;

pub use measured::measured;

use eci_contract::manifest::{Architecture, UnifiedKernelImage};

/// File name of the unified kernel image.
pub const FILE: &str = "eci.efi";
/// File name of what a Secure Boot key signs for an image that is not signed yet.
pub const TO_BE_SIGNED_FILE: &str = "eci.efi.tbs";
/// What the stub and we are called where a flaw is revoked by its generation (shim's SBAT.md), behind the stub's own lines.
const SBAT: &str =
    "eci,1,ECI appliance,eci,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n";
/// Section of revocation entries, the only one that the stub brings along.
const SBAT_SECTION: &str = ".sbat";

/// Why there is no unified kernel image, or none can be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The stub or the image is not a PE file of our kind.
    #[error(transparent)]
    Pe(#[from] pe::Error),
    /// The stub has no revocation entries to add ours to.
    #[error("the stub has no `{SBAT_SECTION}` section")]
    NoSbat,
    /// A section that every image of ours has is not there, or is there twice.
    #[error("it has no single section `{name}`")]
    Section {
        /// Name of the section.
        name: &'static str,
    },
}

/// What a unified kernel image is made of, besides systemd's stub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// Kernel image.
    pub linux: &'a [u8],
    /// Initial RAM file system.
    pub initrd: &'a [u8],
    /// Kernel command line.
    pub command_line: &'a str,
    /// What `/etc/os-release` says.
    pub os_release: &'a str,
    /// What `uname -r` prints.
    pub release: &'a str,
}

/// Path of the stub in Debian's package.
#[must_use]
pub fn stub_path(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "/usr/lib/systemd/boot/efi/linuxx64.efi.stub",
        Architecture::Aarch64 => "/usr/lib/systemd/boot/efi/linuxaa64.efi.stub",
    }
}

/// Adds the parts to the stub. Equal parts give equal bytes.
///
/// # Errors
/// [`Error::Pe`] and [`Error::NoSbat`].
pub fn make(stub: &[u8], parts: &Parts<'_>) -> Result<Vec<u8>, Error> {
    let revocation = section(stub, SBAT_SECTION)?.ok_or(Error::NoSbat)?;
    let revocation = [revocation, SBAT.as_bytes()].concat();
    let stub = pe::replace(stub, SBAT_SECTION, &revocation)?;
    // The kernel is last: nothing of it may be overwritten where it wants more memory than its file has.
    let sections = [
        (".osrel", parts.os_release.as_bytes()),
        (".cmdline", parts.command_line.as_bytes()),
        (".uname", parts.release.as_bytes()),
        (".initrd", parts.initrd),
        (".linux", parts.linux),
    ];
    Ok(pe::append(&stub, &sections)?)
}

/// What a unified kernel image holds.
///
/// # Errors
/// [`Error::Pe`], and [`Error::Section`] for a section that is missing, doubled, or text that is none.
pub fn read(image: &[u8]) -> Result<Parts<'_>, Error> {
    let part = |name| section(image, name)?.ok_or(Error::Section { name });
    let text = |name| std::str::from_utf8(part(name)?).map_err(|_| Error::Section { name });
    Ok(Parts {
        linux: part(".linux")?,
        initrd: part(".initrd")?,
        command_line: text(".cmdline")?,
        os_release: text(".osrel")?,
        release: text(".uname")?,
    })
}

/// What a manifest says of an image, signed or not.
///
/// # Errors
/// [`Error`].
pub fn describe(image: &[u8]) -> Result<UnifiedKernelImage, Error> {
    let digest = pe::authenticode_digest(image)?;
    Ok(UnifiedKernelImage {
        file: FILE.to_owned(),
        authenticode_sha256: digest.to_string(),
        measured: Some(measured(image)?),
    })
}

/// The only section of this name; `None` where there is none or more than one, for the stub looks for the first.
fn section<'a>(image: &'a [u8], name: &str) -> Result<Option<&'a [u8]>, pe::Error> {
    let sections = pe::sections(image)?;
    let mut found = sections.into_iter().filter(|section| section.name == name);
    let first = found.next();
    Ok(first.filter(|_| found.next().is_none()).map(|section| section.content))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::image) const PARTS: Parts<'static> = Parts {
        linux: b"kernel",
        initrd: b"initrd",
        command_line: "console=ttyS0",
        os_release: "ID=eci\n",
        release: "6.12.1",
    };

    #[test]
    fn reads_back_what_it_wrote() {
        let stub = pe::tests::stub(".sbat", b"sbat,1\n", 10);
        let image = make(&stub, &PARTS).expect("made");
        assert_eq!(read(&image).expect("our own"), PARTS);
        assert_eq!(image, make(&stub, &PARTS).expect("made"), "equal parts give equal bytes");
        let sbat = section(&image, ".sbat").expect("sound").expect("there");
        assert_eq!(sbat, format!("sbat,1\n{SBAT}").as_bytes());
    }

    #[test]
    fn a_section_that_is_there_twice_is_none() {
        let stub = pe::tests::stub(".sbat", b"sbat,1\n", 10);
        let image = make(&stub, &PARTS).expect("made");
        let image = pe::append(&image, &[(".cmdline", b"init=/bin/sh")]).expect("appended");
        assert_eq!(
            read(&image).expect_err("two command lines").to_string(),
            "it has no single section `.cmdline`"
        );
    }

    #[test]
    fn a_stub_that_is_none_is_refused() {
        let error = make(b"MZ", &PARTS).expect_err("two bytes");
        assert_eq!(error.to_string(), "it is not a PE file");
        let error = make(&pe::tests::stub(".text", b"", 10), &PARTS).expect_err("no .sbat");
        assert_eq!(error.to_string(), "the stub has no `.sbat` section");
    }
}
