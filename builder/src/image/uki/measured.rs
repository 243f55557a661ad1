//! What a machine with a TPM measures when it starts a unified kernel image, foretold: what systemd's stub measures, and what the stub
//! hands to the kernel, which measures that once more before it uses it.
//!
//! Sources: UAPI.5, "TPM Boot Measurements"; systemd's `unified_section_measure` (src/fundamental/uki.h) and `generate_embedded_initrds`
//! (src/boot/stub.c) of the locked version; Linux, `efi_measure_tagged_event` (drivers/firmware/efi/libstub). Suite `attest`
//! has both measure.

use eci_contract::manifest::Measured;
use eci_tpm::pcr::Pcr;

use super::{Error, Parts, SBAT_SECTION, pe, read, section};

/// Sections in the order in which the stub measures them into PCR 11: the name with a NUL at its end, then the content. Images of ours have
/// no others that it measures.
const MEASURED: [&str; 6] = [".linux", ".osrel", ".cmdline", ".initrd", ".uname", SBAT_SECTION];
/// Folder of the initramfs for what the stub adds, and the one file that it adds by itself.
const ADDED: (&str, &str) = (".extra", ".extra/os-release");
/// Their modes, `S_IFDIR` and `S_IFREG` included.
const MODES: (u32, u32) = (0o040_555, 0o100_444);
/// What the entries of an archive, and archives behind one another, are filled up to.
const ALIGNMENT: usize = 4;

/// What a machine with a TPM measures when it starts an image, besides the image itself.
///
/// # Errors
/// [`Error`].
pub fn measured(image: &[u8]) -> Result<Measured, Error> {
    let mut stub = Pcr::default();
    for name in MEASURED {
        let content = section(image, name)?.ok_or(Error::Section { name })?;
        stub = stub.measure(format!("{name}\0").as_bytes()).measure(content);
    }
    let parts = read(image)?;
    let kernel = Pcr::default().measure(&load_options(parts.command_line)).measure(&initramfs(&parts));
    Ok(Measured {
        pcr9: kernel.to_string(),
        pcr11: stub.to_string(),
        kernel_authenticode_sha256: pe::authenticode_digest(parts.linux)?.to_string(),
    })
}

/// The command line as firmware has it: UTF-16 with a NUL at its end.
fn load_options(command_line: &str) -> Vec<u8> {
    command_line.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect()
}

/// What the kernel gets: the image's own initramfs, and behind it an archive with `os-release`.
fn initramfs(parts: &Parts<'_>) -> Vec<u8> {
    let mut given = padded(parts.initrd.to_vec());
    given.extend(entry(1, MODES.0, ADDED.0, &[]));
    given.extend(entry(2, MODES.1, ADDED.1, parts.os_release.as_bytes()));
    given.extend(header(0, 0, 0, "TRAILER!!!", b"0000000B"));
    padded(given)
}

fn entry(inode: u32, mode: u32, name: &str, content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).expect("os-release is short");
    let name_bytes = format!("{:08x}", name.len() + 1);
    let mut entry = padded(header(inode, mode, length, name, name_bytes.as_bytes()));
    entry.extend_from_slice(content);
    padded(entry)
}

/// The header of an archive's entry (`newc`, cpio(5)) with its name: owned by root, one link, without a time.
fn header(inode: u32, mode: u32, length: u32, name: &str, name_bytes: &[u8]) -> Vec<u8> {
    let fields = [inode, mode, 0, 0, 1, 0, length, 0, 0, 0, 0];
    let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    [b"070701", fields.as_bytes(), name_bytes, b"00000000", name.as_bytes(), b"\0"].concat()
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::super::tests::PARTS;
    use super::super::{describe, make};
    use super::*;

    #[test]
    fn what_is_measured_depends_on_every_part_and_not_on_the_signature() {
        let (stub, kernel) =
            (pe::tests::stub(".sbat", b"sbat,1\n", 10), pe::tests::stub(".text", b"kernel", 1));
        let parts = Parts { linux: &kernel, ..PARTS };
        let measured = |parts| measured(&make(&stub, &parts).expect("made")).expect("measured");
        let ours = measured(parts);
        let digest = pe::authenticode_digest(&kernel).expect("a program").to_string();
        assert_eq!(ours.kernel_authenticode_sha256, digest);
        for changed in [
            Parts { initrd: b"another", ..parts },
            Parts { command_line: "init=/bin/sh", ..parts },
            Parts { os_release: "ID=other\n", ..parts },
            Parts { release: "6.12.2", ..parts },
        ] {
            assert_ne!(measured(changed).pcr11, ours.pcr11, "{changed:?}");
        }
        let image = make(&stub, &parts).expect("made");
        let signed = pe::attach_signature(&image, b"signature").expect("attached");
        assert_eq!(describe(&signed).expect("ours"), describe(&image).expect("ours"));
    }

    #[test]
    fn what_the_kernel_gets_is_an_archive_behind_the_image_s_own() {
        let parts = Parts { initrd: b"12345", os_release: "ID=x\n", ..PARTS };
        let given = String::from_utf8(initramfs(&parts)).expect("text");
        assert!(given.starts_with("12345\u{0}\u{0}\u{0}070701000000010000416d"), "{given}");
        assert!(given.contains("0000001200000000.extra/os-release\u{0}"), "{given}");
        assert!(given.ends_with("0000000B00000000TRAILER!!!\0\0\0\0"), "{given}");
        assert_eq!(given.len() % ALIGNMENT, 0);
        assert_eq!(load_options("a"), [b'a', 0, 0, 0]);
    }
}
