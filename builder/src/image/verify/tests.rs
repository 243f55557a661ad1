//! An assembled image holds; the same image one byte off is refused, and by the right check.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use tempfile::TempDir;

use super::super::assemble::Signing;
use super::super::assemble::tests::{assemble_for, assemble_small};
use super::super::digest::Sha256;
use super::super::provenance::{self as provenance_file, dsse::Envelope};
use super::super::secure_boot::root_hash;
use super::super::signature::{self, SigningKey};
use super::super::signature_partition::Signed;
use super::super::wsl as wsl_image;
use super::super::{disk as disk_image, secure_boot, signature_partition, uki};
use super::*;

/// An assembled image of its own for each test.
struct Image {
    folder: TempDir,
    key: SigningKey,
}

impl Image {
    fn new(flavour: Flavour) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = signature::generate(&folder.path().join("keys")).expect("key");
        assemble_small(folder.path(), flavour, &key);
        Self { folder, key }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("out").join(name)
    }

    fn raw(&self) -> PathBuf {
        self.path("eci-0.1.0-x86_64.raw")
    }

    fn report(&self, artifact: &Path) -> Report {
        let expected = Expected { key: self.key.public(), certificate: None, flavour: Flavour::Shipped };
        verify(artifact, &expected, &Ui::silent()).expect("it can be read")
    }

    /// Names of the failed checks of the raw disk.
    fn failures(&self) -> Vec<&'static str> {
        failures(&self.report(&self.raw()))
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(self.raw()).expect("disk")
    }

    fn partition(&self, name: &str) -> disk_image::Partition {
        let table = disk_image::read(&self.file(), &self.raw()).expect("sound table");
        table.named(name).expect("a partition of ours").clone()
    }

    fn flip(&self, partition: &str, position: u64) {
        let (file, at) = (self.file(), self.partition(partition).start + position);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("read");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
    }

    fn change_signed(&self, change: impl FnOnce(&mut Signed)) {
        let (file, partition) = (self.file(), self.partition("eci-signature-a"));
        let mut signed =
            signature_partition::read(partition.region(&file)).expect("sound").expect("not empty");
        change(&mut signed);
        let mut bytes = signature_partition::to_bytes(&signed);
        bytes.resize(8192, 0);
        file.write_all_at(&bytes, partition.start).expect("written");
    }

    /// What `veritysetup verify` says of slot A; `None` when it is not installed.
    fn veritysetup(&self) -> Option<bool> {
        let part = |name: &str, to: &str| {
            let (file, partition) = (self.file(), self.partition(name));
            let mut bytes = vec![0; usize::try_from(partition.length).expect("small")];
            partition.region(&file).read_exact_at(&mut bytes, 0).expect("read");
            fs::write(self.folder.path().join(to), bytes).expect("written");
            self.folder.path().join(to)
        };
        let (data, tree) = (part("eci-root-a", "data"), part("eci-verity-a", "tree"));
        let manifest =
            manifest::parse(&fs::read(self.path(manifest::FILE)).expect("manifest")).expect("our own");
        let tools = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new("veritysetup");
        command.env("PATH", tools).arg("verify").args([data, tree]).arg(manifest.root.root_hash);
        let output = command.output();
        if output.is_err() {
            eprintln!("skipped: veritysetup is not installed");
        }
        output.ok().map(|output| output.status.success())
    }
}

fn failures(report: &Report) -> Vec<&'static str> {
    report.checks.iter().filter(|check| check.verdict == Verdict::Fails).map(|check| check.check).collect()
}

#[test]
fn a_fresh_image_holds_as_folder_as_disk_and_as_manifest() {
    let image = Image::new(Flavour::Shipped);
    for artifact in [image.path(""), image.raw(), image.path(manifest::FILE)] {
        let report = image.report(&artifact);
        assert!(report.holds(), "{report:#?}");
    }
    assert_ne!(image.veritysetup(), Some(false));
}

#[test]
fn a_changed_byte_is_found_by_its_check_and_by_veritysetup_alike() {
    for (partition, position, check) in [
        ("eci-root-a", 0, vec!["root hash", "hash tree"]),
        ("eci-root-a", 299 * 4096 + 4095, vec!["root hash", "hash tree"]),
        ("eci-verity-a", 4096, vec!["hash tree"]),
        ("eci-verity-a", 2 * 4096 + 5, vec!["hash tree"]),
        ("eci-verity-a", 88, vec!["verity superblock"]),
    ] {
        let image = Image::new(Flavour::Shipped);
        image.flip(partition, position);
        assert_eq!(image.failures(), check, "{partition} {position}");
        assert_ne!(image.veritysetup(), Some(true), "{partition} {position}");
    }
}

#[test]
fn the_damaged_block_is_named() {
    let image = Image::new(Flavour::Shipped);
    image.flip("eci-root-a", 123 * 4096 + 1);
    let report = image.report(&image.raw());
    let detail = &report.checks.iter().find(|check| check.check == "root hash").expect("checked").detail;
    assert!(detail.ends_with("; data block 123 differs first"), "{detail}");
    let image = Image::new(Flavour::Shipped);
    image.flip("eci-verity-a", 2 * 4096);
    let report = image.report(&image.raw());
    let detail = &report.checks.iter().find(|check| check.check == "hash tree").expect("checked").detail;
    assert_eq!(detail, "it is damaged in block 2 of its partition, and the data is sound");
}

#[test]
fn a_manifest_that_is_not_signed_by_the_key_is_not_believed() {
    let image = Image::new(Flavour::Shipped);
    image.change_signed(|signed| signed.signature[9] ^= 1);
    assert_eq!(image.failures(), ["signature"]);
    let image = Image::new(Flavour::Shipped);
    image.change_signed(|signed| signed.manifest[30] ^= 1);
    assert_eq!(image.failures(), ["signature"]);
    let image = Image::new(Flavour::Shipped);
    let other = signature::generate(&image.folder.path().join("other")).expect("key");
    image.change_signed(|signed| signed.signature = other.sign(&signed.manifest).to_vec());
    assert_eq!(image.failures(), ["signature"]);
}

#[test]
fn a_root_hash_beside_the_manifest_must_be_the_manifest_s() {
    let image = Image::new(Flavour::Shipped);
    image.change_signed(|signed| signed.root_hash.replace_range(..1, "g"));
    assert_eq!(image.failures(), ["root hash of the signature partition"]);
}

#[test]
fn garbage_in_the_signature_partition_is_refused() {
    let image = Image::new(Flavour::Shipped);
    image.flip("eci-signature-a", 0);
    assert_eq!(image.failures(), ["signature"]);
}

#[test]
fn an_emptied_slot_a_is_refused() {
    let image = Image::new(Flavour::Shipped);
    image.file().write_all_at(&[0; 8192], image.partition("eci-signature-a").start).expect("written");
    assert_eq!(image.failures(), ["signature"]);
}

#[test]
fn a_test_image_is_no_shipped_one_even_under_its_own_key() {
    let image = Image::new(Flavour::Test);
    let raw = image.path("eci-test-0.1.0-x86_64.raw");
    assert_eq!(failures(&image.report(&raw)), ["flavour"]);
    let expected = Expected { key: image.key.public(), certificate: None, flavour: Flavour::Test };
    assert!(verify(&raw, &expected, &Ui::silent()).expect("readable").holds());
}

#[test]
fn a_shipped_image_is_no_test_one() {
    let image = Image::new(Flavour::Shipped);
    let expected = Expected { key: image.key.public(), certificate: None, flavour: Flavour::Test };
    assert_eq!(failures(&verify(&image.raw(), &expected, &Ui::silent()).expect("readable")), ["flavour"]);
}

#[test]
fn a_changed_kernel_is_found_by_the_manifest_and_by_the_sums() {
    let image = Image::new(Flavour::Shipped);
    fs::write(image.path("vmlinuz"), "kernex").expect("changed");
    assert_eq!(failures(&image.report(&image.path(""))), ["digest", "sums", "subjects"]);
    fs::remove_file(image.path("vmlinuz")).expect("removed");
    assert_eq!(failures(&image.report(&image.path(""))), ["digest", "sums", "subjects"]);
}

#[test]
fn a_disk_from_another_build_is_not_the_folder_s() {
    let (image, other) = (Image::new(Flavour::Shipped), Image::new(Flavour::Test));
    fs::copy(other.path("eci-test-0.1.0-x86_64.raw"), image.raw()).expect("copied");
    let failed = failures(&image.report(&image.path("")));
    assert_eq!(failed, ["sums", "signature", "manifest beside it"]);
}

#[test]
fn a_disk_without_a_partition_table_is_refused() {
    let image = Image::new(Flavour::Shipped);
    image.file().set_len(4096).expect("cut");
    assert_eq!(image.failures(), ["partition table"]);
}

#[test]
fn a_changed_partition_uuid_is_refused() {
    let image = Image::new(Flavour::Shipped);
    let file = image.file();
    let mut table = gpt::GptConfig::new().writable(true).open_from_device(file).expect("table");
    let mut partitions = table.take_partitions();
    partitions.get_mut(&3).expect("verity A").part_guid = uuid::Uuid::from_bytes([1; 16]);
    table.update_partitions(partitions).expect("updated");
    drop(table.write().expect("written"));
    assert_eq!(image.failures(), ["partition types and UUIDs"]);
}

#[test]
fn a_changed_efi_system_partition_is_found() {
    let start = super::super::esp::file_start(super::super::esp::MIN_BYTES).expect("large enough");
    for (position, checks) in [
        (start, vec!["unified kernel image"]),
        (start + 1024, vec!["unified kernel image"]),
        // A bit of the label, of a table, of a folder, and a byte that nothing uses.
        (71, vec!["rest of the partition"]),
        (32 * 512 + 20, vec!["rest of the partition"]),
        (start - 512, vec!["rest of the partition"]),
        (super::super::esp::MIN_BYTES - 1, vec!["rest of the partition"]),
    ] {
        let image = Image::new(Flavour::Shipped);
        image.flip("eci-esp", position);
        assert_eq!(image.failures(), checks, "{position}");
    }
    let image = Image::new(Flavour::Shipped);
    fs::write(image.path("eci.efi"), "another").expect("changed");
    let failed = failures(&image.report(&image.path("")));
    assert_eq!(failed, ["digest", "measurements", "Secure Boot signature", "sums", "subjects"]);
}

#[test]
fn who_signs_the_unified_kernel_image_again_leaves_the_manifest_in_force_and_signs_the_root_hash_too() {
    let image = Image::new(Flavour::Shipped);
    let folder = tempfile::tempdir().expect("temporary folder");
    let other = secure_boot::generate(folder.path(), &Ui::silent()).expect("openssl is installed");
    let stub = uki::pe::tests::stub(".sbat", b"sbat,1\n", 10);
    let read = |name: &str| fs::read(image.path(name)).expect("artifact");
    let (ours, linux, initrd) = (read("eci.efi"), read("vmlinuz"), read("initrd.img"));
    let parts = uki::Parts { linux: &linux, initrd: &initrd, ..uki::read(&ours).expect("ours") };
    let sign = |parts| secure_boot::sign(&uki::make(&stub, &parts).expect("made"), &other).expect("signed");
    fs::write(image.path("eci.efi"), sign(parts)).expect("changed");
    assert_eq!(failures(&image.report(&image.path(""))), ["Secure Boot signature", "sums"]);
    let root_hash = manifest::parse(&read("manifest.json")).expect("ours").root.root_hash;
    let signature = root_hash::sign(root_hash.parse().expect("ours"), &other).expect("signed");
    fs::write(image.path(root_hash::FILE), signature).expect("changed");
    assert_eq!(failures(&image.report(&image.path(""))), ["sums"]);
    let parts = uki::Parts { command_line: "console=ttyS1", ..parts };
    fs::write(image.path("eci.efi"), sign(parts)).expect("changed");
    assert_eq!(failures(&image.report(&image.path(""))), ["digest", "measurements", "sums", "subjects"]);
}

/// The reason for which the folder's provenance fails, with sums that are true of what lies there.
fn provenance_fails(image: &Image) -> (&'static str, String) {
    let names: Vec<_> = fs::read_dir(image.path(""))
        .expect("listing")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .filter(|name| name != sums::FILE)
        .collect();
    let sums = sums::Sums::of(&image.path(""), &names).expect("files");
    fs::write(image.path(sums::FILE), sums.to_text()).expect("written");
    let report = image.report(&image.path(""));
    let mut failed = report.checks.into_iter().filter(|check| check.verdict == Verdict::Fails);
    let check = failed.next().expect("it fails");
    assert_eq!((check.subject.as_str(), failed.next()), (provenance_file::FILE, None));
    (check.check, check.detail)
}

/// Replaces the provenance by one with a changed statement that `key` signs.
fn state(image: &Image, key: &SigningKey, from: &str, to: &str) {
    let path = image.path(provenance_file::FILE);
    let envelope = provenance_file::read(&path).expect("our own");
    let text = String::from_utf8(envelope.statement().to_owned()).expect("JSON");
    assert!(text.contains(from), "{text}");
    let envelope = Envelope::unsigned(text.replacen(from, to, 1).into_bytes());
    let signature = key.sign(&envelope.to_be_signed());
    fs::write(&path, envelope.signed(&key.public(), &signature).to_bytes()).expect("written");
}

#[test]
fn a_provenance_is_the_image_key_s_or_none() {
    let image = Image::new(Flavour::Shipped);
    let path = image.path(provenance_file::FILE);
    let good = fs::read(&path).expect("provenance");
    let other = signature::generate(&image.folder.path().join("other")).expect("key");
    state(&image, &other, "", "");
    let no_signature = format!("no signature of it verifies with key {}", image.key.public().id());
    assert_eq!(provenance_fails(&image), ("signature", no_signature.clone()));
    // One byte of the statement, and one of the signature.
    for mark in [&b"\"payload\":\""[..], b"\"sig\":\""] {
        let at =
            good.windows(mark.len()).position(|window| window == mark).expect("a field") + mark.len() + 9;
        let mut bytes = good.clone();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        fs::write(&path, bytes).expect("written");
        assert_eq!(provenance_fails(&image), ("signature", no_signature.clone()));
    }
    let unsigned = Envelope::parse(&good).expect("our own").statement().to_owned();
    fs::write(&path, Envelope::unsigned(unsigned).to_bytes()).expect("written");
    let (check, reason) = provenance_fails(&image);
    assert_eq!(
        (check, reason.as_str()),
        ("signature", "the image is signed, and nobody has signed its provenance")
    );
    assert!(!image.report(&image.path("")).is_unsigned(), "`sign` would not mend it");
    fs::remove_file(&path).expect("removed");
    let (check, reason) = provenance_fails(&image);
    assert!(check == "signature" && reason.starts_with("cannot read `"), "{reason}");
    fs::write(&path, good).expect("written");
    assert!(image.report(&image.path("")).checks.iter().any(|check| check.check == "subjects"));
}

#[test]
fn a_provenance_is_about_all_artifacts_of_this_image_and_nothing_else() {
    let digest = |bytes: &[u8]| Sha256::of(&[bytes]).to_string();
    let kernel = uki::pe::tests::stub(".text", b"kernel", 1);
    for (from, to, reason) in [
        (
            digest(&kernel),
            digest(b"other"),
            format!("`vmlinuz` has sha256 {}, it says sha256 {}", digest(&kernel), digest(b"other")),
        ),
        (
            "\"initrd.img\"".to_owned(),
            "\"initrd\"".to_owned(),
            "it is about `initrd`, which is no artifact of this image".to_owned(),
        ),
        ("\"rootHash\"".to_owned(), "\"sha256\"".to_owned(), "`root` has rootHash ".to_owned()),
        (
            "\"subject\": [".to_owned(),
            "\"subject\": [], \"x\": [".to_owned(),
            "it says nothing of `eci.efi`".to_owned(),
        ),
    ] {
        let image = Image::new(Flavour::Shipped);
        state(&image, &image.key, &from, &to);
        let (check, detail) = provenance_fails(&image);
        assert!(check == "subjects" && detail.starts_with(&reason), "{detail}");
    }
    // That of another image with the same key.
    let image = Image::new(Flavour::Shipped);
    let older = tempfile::tempdir().expect("temporary folder");
    assemble_small(older.path(), Flavour::Test, &image.key);
    let other = older.path().join("out").join(provenance_file::FILE);
    fs::copy(other, image.path(provenance_file::FILE)).expect("copied");
    assert_eq!(provenance_fails(&image).0, "subjects");
}

#[test]
fn a_unified_kernel_image_of_another_signer_is_refused() {
    let image = Image::new(Flavour::Shipped);
    let verdicts = |certificate: &Certificate| {
        let certificate = Some(certificate.clone());
        let expected = Expected { key: image.key.public(), certificate, flavour: Flavour::Shipped };
        failures(&verify(&image.path(""), &expected, &Ui::silent()).expect("readable"))
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let other = secure_boot::generate(folder.path(), &Ui::silent()).expect("openssl is installed");
    assert_eq!(verdicts(secure_boot::tests::signer().certificate()), [] as [&str; 0]);
    let [uki, root_hash] = ["Secure Boot signature", "signature of the root hash"];
    assert_eq!(verdicts(other.certificate()), [root_hash, uki, root_hash, uki]);
}

#[test]
fn a_root_hash_signed_by_nobody_by_another_or_for_another_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let other = secure_boot::generate(folder.path(), &Ui::silent()).expect("openssl is installed");
    let signer = secure_boot::tests::signer();
    let change = |change: &dyn Fn(&mut Signed, Sha256)| {
        let image = Image::new(Flavour::Shipped);
        image.change_signed(|signed| change(signed, signed.root_hash.parse().expect("ours")));
        image.failures()
    };
    let wanted = ["signature of the root hash"];
    assert_eq!(change(&|signed, _| signed.root_hash_signature.clear()), wanted);
    assert_eq!(change(&|signed, _| signed.fingerprint = other.certificate().fingerprint()), wanted);
    let sign = |root_hash: Sha256, signer| root_hash::sign(root_hash, signer).expect("signed");
    let another = |root_hash: Sha256| Sha256::of(&[&root_hash.0]);
    assert_eq!(change(&|signed, of| signed.root_hash_signature = sign(another(of), signer)), wanted);
    assert_eq!(change(&|signed, of| signed.root_hash_signature = sign(of, &other)), wanted);
    assert_eq!(change(&|signed, of| signed.root_hash_signature = sign(of, signer)), [] as [&str; 0]);
    // By another with all that belongs to it: then it is not who signed the kernel.
    let changed = change(&|signed, of| {
        signed.root_hash_signature = sign(of, &other);
        signed.fingerprint = other.certificate().fingerprint();
    });
    assert_eq!(changed, ["Secure Boot signature"]);
}

/// An image in these forms.
fn image_in(formats: &[Format]) -> Image {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = signature::generate(&folder.path().join("keys")).expect("key");
    let signing = Signing::Now { key: &key, signer: secure_boot::tests::signer() };
    assemble_for(folder.path(), Flavour::Shipped, signing, formats);
    Image { folder, key }
}

#[test]
fn a_cd_holds_beside_the_image_and_alone_and_one_byte_off_it_does_not() {
    let image = image_in(&[Format::Iso]);
    let path = image.path("eci-0.1.0-x86_64.iso");
    for artifact in [image.path(""), path.clone()] {
        let report = image.report(&artifact);
        assert!(report.holds(), "{report:#?}");
        assert!(report.checks.iter().any(|row| row.check == "descriptors"));
    }
    let file = File::options().read(true).write(true).open(&path).expect("CD");
    let table = disk_image::read(&file, &path).expect("sound table");
    let start = |name| table.named(name).expect("a partition of ours").start;
    for (at, failed) in [
        // Another place to boot from, a file of another name, and something between descriptors and partitions.
        (19 * 2048 + 40, &["descriptors"][..]),
        (22 * 2048 + 110, &["descriptors"]),
        (30 * 2048, &["descriptors"]),
        // No CD any more, and no whole disk.
        (16 * 2048 + 1, &["partitions"]),
        (512 + 24, &["partition table"]),
        (start("eci-esp") + 300, &["rest of the partition"]),
        (start("eci-root-a") + 5, &["root hash", "hash tree"]),
        (start("eci-verity-a") + 4096, &["hash tree"]),
        (start("eci-signature-a"), &["signature"]),
    ] {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("inside");
        file.write_all_at(&[byte[0] ^ 1], at).expect("written");
        assert_eq!(failures(&image.report(&path)), failed, "{at}");
        file.write_all_at(&byte, at).expect("written");
    }
    assert!(image.report(&path).holds());
}

/// An image with a distro, whose parts a test changes.
fn distro() -> (Image, PathBuf) {
    let image = image_in(&[Format::Raw, Format::Wsl]);
    let path = image.path("eci-0.1.0-x86_64.wsl");
    (image, path)
}

#[test]
fn a_distro_for_wsl_holds_beside_the_image_and_alone() {
    let (image, path) = distro();
    for artifact in [image.path(""), path] {
        let report = image.report(&artifact);
        assert!(report.holds(), "{report:#?}");
        let checked = |check| report.checks.iter().filter(|row| row.check == check).count();
        assert_eq!(checked("PID 1 and key"), 1);
        assert!(checked("root hash") >= 1);
    }
}

#[test]
fn a_distro_with_another_part_is_refused_by_the_check_of_that_part() {
    let (image, path) = distro();
    let opened = wsl_image::open(&path).expect("our own");
    let parts = opened.parts().expect("whole");
    let root = fs::read(parts.root).expect("root");
    let file = image.folder.path().join("root.changed");
    let mut longer = root.clone();
    longer.extend([0; 4096]);
    let mut changed = root;
    changed[4096 * 123] ^= 1;
    let flipped = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let (init, key) = (flipped(parts.init, 1), flipped(parts.key, 31));
    let (manifest, signature) = (flipped(parts.manifest, 40), flipped(parts.signature, 0));
    let tree = flipped(parts.tree, 4096);
    for (parts, root, check) in [
        (wsl_image::Parts { init: &init, ..parts }, None, vec!["PID 1 and key"]),
        (wsl_image::Parts { key: &key, ..parts }, None, vec!["PID 1 and key"]),
        (wsl_image::Parts { name: "eci-test", ..parts }, None, vec!["name"]),
        (wsl_image::Parts { manifest: &manifest, ..parts }, None, vec!["signature"]),
        (wsl_image::Parts { signature: &signature, ..parts }, None, vec!["signature"]),
        (wsl_image::Parts { signature: &[], ..parts }, None, vec!["signature"]),
        (wsl_image::Parts { tree: &tree, ..parts }, None, vec!["hash tree"]),
        (wsl_image::Parts { root: &file, ..parts }, Some(&changed), vec!["root hash", "hash tree"]),
        (wsl_image::Parts { root: &file, ..parts }, Some(&longer), vec!["sizes"]),
    ] {
        if let Some(root) = root {
            fs::write(&file, root).expect("written");
        }
        fs::remove_file(&path).expect("it was there");
        wsl_image::write(&parts, &path).expect("written");
        assert_eq!(failures(&image.report(&path)), check);
        assert!(!image.report(&image.path("")).holds(), "{check:?}");
    }
    fs::write(&path, b"\x1f\x8b\x08").expect("written");
    assert_eq!(failures(&image.report(&path)), ["members"]);
}

#[test]
fn another_image_s_distro_is_not_the_one_beside_it() {
    let ((image, path), (other, others)) = (distro(), distro());
    fs::copy(&others, &path).expect("copied");
    drop(other);
    assert!(failures(&image.report(&image.path(""))).contains(&"manifest beside it"));
}

#[test]
fn a_report_without_checks_does_not_hold() {
    assert!(!Report::default().holds());
    let mut report = Report::default();
    report.skip("x", "y", "z");
    assert!(!report.holds());
}

#[test]
fn errors_name_operation_and_object() {
    let image = Image::new(Flavour::Shipped);
    let expected = Expected { key: image.key.public(), certificate: None, flavour: Flavour::Shipped };
    let error = verify(Path::new("/nowhere/x.raw"), &expected, &Ui::silent()).expect_err("not there");
    assert_eq!(
        chain(&error),
        "cannot open the disk image: cannot read `/nowhere/x.raw`: No such file or directory (os error 2)"
    );
    let error = verify(Path::new("/nowhere/manifest.json"), &expected, &Ui::silent()).expect_err("not there");
    assert_eq!(error.to_string(), "cannot read `/nowhere/manifest.json`");
}

/// An image with the folder for Apple's framework as its only form, which no file shares with another: a test changes one of them.
fn apple() -> (Image, PathBuf) {
    let image = image_in(&[Format::Apple]);
    let path = image.path("apple");
    for name in ["Image", "initrd.img"] {
        let bytes = fs::read(path.join(name)).expect("file");
        fs::remove_file(path.join(name)).expect("removed");
        fs::write(path.join(name), bytes).expect("written");
    }
    (image, path)
}

#[test]
fn a_folder_for_apple_s_framework_holds_beside_the_image_and_alone() {
    let (image, path) = apple();
    let report = image.report(&image.path(""));
    assert!(report.holds(), "{report:#?}");
    let row =
        |subject: &str, check| report.checks.iter().any(|row| row.subject == subject && row.check == check);
    assert!(
        row("apple/Image", "digest") && row("apple/initrd.img", "digest") && row("apple/vfkit.sh", "script")
    );
    assert!(row("apple/disk.raw slot A", "signature") && row("apple", "manifest beside it"));
    assert!(report.checks.iter().all(|row| row.subject != "disk images"), "it has a disk");

    let copy = tempfile::tempdir().expect("temporary folder");
    for name in ["Image", "initrd.img", "disk.raw", "vfkit.sh"] {
        fs::copy(path.join(name), copy.path().join(name)).expect("copied");
    }
    let report = image.report(copy.path());
    assert!(report.holds(), "{report:#?}");
    assert!(report.checks.iter().any(|row| row.subject == "Image" && row.check == "digest"));
}

#[test]
fn whatever_is_changed_in_the_folder_for_apple_s_framework_is_found_without_the_sums() {
    for (name, check) in [("Image", "digest"), ("initrd.img", "digest"), ("vfkit.sh", "script")] {
        let (image, path) = apple();
        let mut bytes = fs::read(path.join(name)).expect("file");
        bytes.push(b' ');
        fs::write(path.join(name), bytes).expect("written");
        assert_eq!(failed(&image.report(&path)), [format!("{name}: {check}")]);
    }
    let (image, path) = apple();
    let disk = fs::OpenOptions::new().write(true).open(path.join("disk.raw")).expect("disk");
    disk.set_len(4096).expect("cut");
    let report = image.report(&path);
    assert!(!report.holds());
    assert!(report.checks.iter().any(|row| row.subject == "Image" && row.verdict == Verdict::Skipped));
}

fn failed(report: &Report) -> Vec<String> {
    let failed = report.checks.iter().filter(|row| row.verdict == Verdict::Fails);
    failed.map(|row| format!("{}: {}", row.subject, row.check)).collect()
}
