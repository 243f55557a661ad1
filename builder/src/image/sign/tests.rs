//! Signed afterwards, an image is the one that is signed at once; what is not its signature leaves it as it was.

use std::collections::BTreeMap;
use std::process::Command;

use eci_contract::errors::chain;
use eci_contract::manifest::Flavour;
use tempfile::TempDir;

use super::super::assemble::Signing;
use super::super::assemble::tests::assemble_for;
use super::super::uki::pe;
use super::*;
use crate::tool;

const KEY: &str = "image/image.key";
const DB_KEY: &str = "secure-boot/db.key";

/// An unsigned image with the keys that it was built for beside it.
struct Image(TempDir);

impl Image {
    fn new(formats: &[Format]) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = signature::generate(&folder.path().join("image")).expect("fresh folder").public();
        let signer = secure_boot::generate(folder.path(), &Ui::silent()).expect("openssl is installed");
        let signing = Signing::Later { key, certificate: signer.certificate() };
        assemble_for(folder.path(), Flavour::Shipped, signing, formats);
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn out(&self, name: &str) -> PathBuf {
        self.path("out").join(name)
    }

    fn keys(&self) -> Sources {
        let (key, db) = (Source::Key(self.path(KEY)), Source::Key(self.path(DB_KEY)));
        Sources { manifest: key.clone(), provenance: key, secure_boot: db.clone(), root_hash: db }
    }

    fn sign(&self, by: &Sources) -> Result<Vec<Placed>, String> {
        sign(&self.path("out"), by, &Ui::silent()).map_err(|error| {
            let said = chain(&error).replace(&format!("{}/", self.0.path().display()), "");
            assert!(!said.contains("/tmp"), "{said}");
            said
        })
    }

    /// Digests of all files of the output folder, and that nothing else lies beside it.
    fn state(&self) -> BTreeMap<String, Sha256> {
        let names = |path: &Path| -> Vec<String> {
            let entries = fs::read_dir(path).expect("listing");
            entries.map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned()).collect()
        };
        assert!(!names(self.0.path()).iter().any(|name| name.contains("staging")));
        let digest = |name: String| (name.clone(), Sha256::of_file(&self.out(&name)).expect("file"));
        let inside = |name: String| -> Vec<String> {
            let path = self.out(&name);
            if path.is_dir() {
                names(&path).iter().map(|file| format!("{name}/{file}")).collect()
            } else {
                vec![name]
            }
        };
        names(&self.path("out")).into_iter().flat_map(inside).map(digest).collect()
    }

    /// Signatures of the folder's files, made with what everybody has.
    fn signatures(&self) -> Sources {
        let openssl = |arguments: &[&str], key: &str, from: &str, to: &str| {
            let mut command = Command::new("openssl");
            command.current_dir(self.0.path()).args(arguments).args([key, "-out", to]);
            command.args(if arguments[0] == "pkeyutl" { vec!["-in", from] } else { vec![from] });
            let output = command.output().expect("openssl is installed");
            assert!(output.status.success(), "{output:?}");
            Source::Signature(self.path(to))
        };
        Sources {
            manifest: openssl(
                &["pkeyutl", "-sign", "-rawin", "-inkey"],
                KEY,
                "out/manifest.json",
                "manifest.sig",
            ),
            provenance: openssl(
                &["pkeyutl", "-sign", "-rawin", "-inkey"],
                KEY,
                "out/provenance.intoto.json.tbs",
                "provenance.sig",
            ),
            secure_boot: openssl(&["dgst", "-sha256", "-sign"], DB_KEY, "out/eci.efi.tbs", "uki.sig"),
            root_hash: openssl(&["dgst", "-sha256", "-sign"], DB_KEY, "out/root-hash.tbs", "root-hash.sig"),
        }
    }

    fn flip(&self, name: &str, at: usize) {
        let mut bytes = fs::read(self.path(name)).expect("file");
        bytes[at] ^= 1;
        fs::write(self.path(name), bytes).expect("written");
    }

    /// Writes the folder's sums anew, as somebody does who changes a file on purpose.
    fn sum(&self) {
        let names: Vec<_> = self.state().into_keys().filter(|name| name != sums::FILE).collect();
        let sums = Sums::of(&self.path("out"), &names).expect("files");
        fs::write(self.out(sums::FILE), sums.to_text()).expect("written");
    }
}

#[test]
fn signed_afterwards_it_has_the_bytes_of_a_build_with_the_keys() {
    let all = [&Format::DISKS[..], &[Format::Wsl, Format::Iso]].concat();
    let formats =
        if tool::is_in_path("qemu-img") { &all[..] } else { &[Format::Raw, Format::Wsl, Format::Iso] };
    let image = Image::new(formats);
    let unsigned = image.state();
    let (key, signer) =
        (SigningKey::read(&image.path(KEY)), Signer::read(&image.path(DB_KEY), &image.out(CERTIFICATE_FILE)));
    let (key, signer) = (key.expect("our own"), signer.expect("our own"));
    let signing = Signing::Now { key: &key, signer: &signer };
    let with_keys = Image(tempfile::tempdir().expect("temporary folder"));
    assemble_for(with_keys.0.path(), Flavour::Shipped, signing, formats);
    let wanted = with_keys.state();
    assert_eq!(unsigned["manifest.json"], wanted["manifest.json"], "it needs no private key");

    let signatures = image.signatures();
    let placed = image.sign(&signatures).expect("signed elsewhere");
    assert_eq!(image.state(), wanted);
    assert_eq!(placed.len(), wanted.len());

    let again = Image(tempfile::tempdir().expect("temporary folder"));
    let later = Signing::Later { key: key.public(), certificate: signer.certificate() };
    // Into a folder with a signed image.
    assemble_for(again.0.path(), Flavour::Shipped, signing, &[Format::Raw]);
    assemble_for(again.0.path(), Flavour::Shipped, later, formats);
    assert_eq!(again.state(), unsigned);
    // And a signed build into one that waits: nothing to be signed is left.
    assemble_for(again.0.path(), Flavour::Shipped, signing, formats);
    assert_eq!(again.state(), wanted);
    assemble_for(again.0.path(), Flavour::Shipped, later, formats);
    sign(&again.path("out"), &image.keys(), &Ui::silent()).expect("signed here");
    assert_eq!(again.state(), wanted);
    assert_eq!(image.sign(&signatures).expect_err("done"), "`out` is signed already");
}

#[test]
fn the_folder_for_apple_s_framework_is_signed_beside_other_forms_and_as_the_only_one() {
    for formats in [&[Format::Raw, Format::Apple, Format::Iso][..], &[Format::Apple]] {
        let image = Image::new(formats);
        let key = SigningKey::read(&image.path(KEY)).expect("our own");
        let signer = Signer::read(&image.path(DB_KEY), &image.out(CERTIFICATE_FILE)).expect("our own");
        let with_keys = Image(tempfile::tempdir().expect("temporary folder"));
        let signing = Signing::Now { key: &key, signer: &signer };
        assemble_for(with_keys.0.path(), Flavour::Shipped, signing, formats);
        image.sign(&image.keys()).expect("signed");
        assert_eq!(image.state(), with_keys.state());
        assert_eq!(image.state().contains_key("eci-0.1.0-aarch64.raw"), formats.len() == 3);
        assert!(image.state().contains_key("apple/vfkit.sh"));
    }
}

#[test]
fn a_folder_without_the_raw_disk_gets_none() {
    if !tool::is_in_path("qemu-img") {
        eprintln!("skipped: qemu-img is not installed");
        return;
    }
    let image = Image::new(&[Format::Qcow2]);
    image.sign(&image.keys()).expect("signed");
    let disks: Vec<_> = image.state().into_keys().filter(|name| name.starts_with("eci-")).collect();
    assert_eq!(disks, ["eci-0.1.0-x86_64.qcow2"]);
}

#[test]
fn an_image_that_waits_is_told_from_one_with_a_wrong_signature() {
    let image = Image::new(&[Format::Raw]);
    let key = PublicKey::read(&image.out(KEY_FILE)).expect("our own");
    let report = |artifact: &str| {
        let expected = Expected { key, certificate: None, flavour: Flavour::Shipped };
        verify::verify(&image.out(artifact), &expected, &Ui::silent()).expect("readable")
    };
    for artifact in ["", manifest::FILE, "eci-0.1.0-x86_64.raw"] {
        let report = report(artifact);
        assert!(report.is_unsigned() && !report.holds(), "{artifact}: {report:#?}");
    }
    fs::write(image.out(manifest::SIGNATURE_FILE), [1; SIGNATURE_BYTES]).expect("written");
    assert!(!report(manifest::FILE).is_unsigned());
}

#[test]
fn what_is_not_its_signature_leaves_the_folder_as_it_was() {
    let (image, other) = (Image::new(&[Format::Raw]), Image::new(&[Format::Raw]));
    let before = image.state();
    let (good, foreign) = (image.signatures(), other.signatures());
    let file = |name: &str, bytes: &[u8]| {
        fs::write(image.path(name), bytes).expect("written");
        Source::Signature(image.path(name))
    };
    let read = |name: &str| fs::read(image.path(name)).expect("signature");
    let mut flipped = (read("manifest.sig"), read("uki.sig"));
    flipped.0[0] ^= 1;
    flipped.1[0] ^= 1;
    let key = SigningKey::read(&image.path(KEY)).expect("our own");
    let of_another =
        key.sign(&[&fs::read(image.out("manifest.json")).expect("manifest")[..], b"\n"].concat());
    let cases = [
        (
            file("flipped", &flipped.0),
            good.secure_boot.clone(),
            "`flipped` is not a signature of `out/manifest.json` by key ",
        ),
        (
            file("other", &of_another),
            good.secure_boot.clone(),
            "`other` is not a signature of `out/manifest.json` by key ",
        ),
        (
            file("long", &[7; 65]),
            good.secure_boot.clone(),
            "`long` has 65 bytes; an Ed25519 signature has 64",
        ),
        (Source::Signature(image.path("none")), good.secure_boot.clone(), "cannot read `none`"),
        (
            Source::Key(image.path(DB_KEY)),
            good.secure_boot.clone(),
            "the key `secure-boot/db.key` is not an Ed25519 private key",
        ),
        (
            good.manifest.clone(),
            file("flipped-uki", &flipped.1),
            "`flipped-uki` is not a signature of `out/eci.efi`: its signature does not verify with the certificate of ",
        ),
        (
            good.manifest.clone(),
            file("none-uki", b"signature"),
            "`none-uki` is not a signature of `out/eci.efi`: its signature does not follow the format",
        ),
        (
            good.manifest.clone(),
            Source::Signature(image.out("eci.efi")),
            "`out/eci.efi` is not a signature of `out/eci.efi`: it is not signed",
        ),
        (
            good.manifest.clone(),
            Source::Key(image.path("secure-boot/KEK.key")),
            "the certificate `out/secure-boot.crt` is not the one of the key `secure-boot/KEK.key`",
        ),
    ];
    for (manifest, secure_boot, reason) in cases {
        let provenance = good.provenance.clone();
        let root_hash = good.root_hash.clone();
        let error = image.sign(&Sources { manifest, provenance, secure_boot, root_hash }).expect_err(reason);
        assert!(error.starts_with(reason), "{error}");
        assert_eq!(image.state(), before, "{reason}");
    }
    // Another's keys and signatures are those of another folder.
    for (manifest, secure_boot, reason) in [
        (Source::Key(other.path(KEY)), good.secure_boot.clone(), "; the image is built for key "),
        (foreign.manifest, good.secure_boot.clone(), "/out/manifest.json` by key "),
        (good.manifest.clone(), foreign.secure_boot, " does not verify with the certificate of "),
    ] {
        let sources = Sources { manifest, secure_boot, ..good.clone() };
        let error = sign(&image.path("out"), &sources, &Ui::silent());
        let error = chain(&error.expect_err(reason));
        assert!(error.contains(reason), "{error}");
        assert_eq!(image.state(), before, "{reason}");
    }
    // The provenance's signature is held against the same key, and against its own bytes.
    let mut flipped = read("provenance.sig");
    flipped[63] ^= 1;
    for (provenance, reason) in [
        (file("flipped", &flipped), "flipped` is not a signature of `"),
        (good.manifest.clone(), "manifest.sig` is not a signature of `"),
        (foreign.provenance, "/out/provenance.intoto.json.tbs` by key "),
        (Source::Key(other.path(KEY)), "; the image is built for key "),
    ] {
        let error = sign(&image.path("out"), &Sources { provenance, ..good.clone() }, &Ui::silent());
        let error = chain(&error.expect_err(reason));
        assert!(error.contains(reason), "{error}");
        assert_eq!(image.state(), before, "{reason}");
    }
    // The root hash's likewise, in both of its forms.
    let mut flipped = read("root-hash.sig");
    flipped[255] ^= 1;
    let attributes = smime(&image, &["-binary"], "attributes.p7");
    for (root_hash, reason) in [
        (
            file("flipped", &flipped),
            "flipped` is not a signature of the root hash: it is not a signature of ",
        ),
        (
            file("none", b"none"),
            "none` is not a signature of the root hash: it is not a signature in PKCS #7 (DER)",
        ),
        (good.secure_boot.clone(), "uki.sig` is not a signature of the root hash: it is not a signature of "),
        (foreign.root_hash, "root-hash.sig` is not a signature of the root hash: it is not a signature of "),
        (
            attributes,
            "attributes.p7` is not a signature of the root hash: it has signed attributes; leave them out",
        ),
        (Source::Key(other.path(DB_KEY)), "secure-boot.crt` is not the one of the key `"),
    ] {
        let error = sign(&image.path("out"), &Sources { root_hash, ..good.clone() }, &Ui::silent());
        let error = chain(&error.expect_err(reason));
        assert!(error.contains(reason), "{error}");
        assert_eq!(image.state(), before, "{reason}");
    }
    image.sign(&good).expect("the good ones are still good");
}

#[test]
fn a_root_hash_that_openssl_signed_gives_the_bytes_of_a_build() {
    let (image, other) = (Image::new(&[Format::Raw]), Image::new(&[Format::Raw]));
    let signed_by = |more: &[&str]| {
        let Source::Signature(path) = smime(&image, more, "root-hash.p7") else { panic!("a file") };
        let certificate = Certificate::read(&image.out(CERTIFICATE_FILE)).expect("our own");
        let root_hash = fs::read_to_string(image.out(root_hash::TO_BE_SIGNED_FILE)).expect("digits");
        let root_hash = root_hash.parse().expect("digits");
        let bytes = root_hash::accept(root_hash, &fs::read(path).expect("signature"), &certificate);
        (root_hash, bytes.expect("accepted"), certificate)
    };
    let (root_hash, bytes, certificate) = signed_by(&["-binary", "-noattr"]);
    assert_eq!(signed_by(&["-binary", "-noattr", "-nocerts"]).1, bytes);
    image.sign(&image.keys()).expect("signed");
    assert_eq!(fs::read(image.out(root_hash::FILE)).expect("signature"), bytes);
    let made = root_hash::verify(root_hash, &bytes, None).expect("it holds");
    assert_eq!(made, certificate);
    root_hash::verify(root_hash, &bytes, Some(&certificate)).expect("it is the one");
    // One bit of the hash, one of any byte of the signature, another's certificate: none holds.
    let mut wrong = root_hash;
    wrong.0[31] ^= 1;
    assert!(matches!(root_hash::verify(wrong, &bytes, None), Err(root_hash::Error::Signature { .. })));
    for at in 0..bytes.len() {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1;
        assert!(root_hash::verify(root_hash, &flipped, Some(&certificate)).is_err(), "byte {at}");
    }
    let foreign = Certificate::read(&other.out(CERTIFICATE_FILE)).expect("our own");
    let error = root_hash::verify(root_hash, &bytes, Some(&foreign)).expect_err("another's");
    assert!(error.to_string().starts_with("it is signed by "), "{error}");
}

/// The root hash, signed by OpenSSL as PKCS #7.
fn smime(image: &Image, more: &[&str], to: &str) -> Source {
    let mut command = Command::new("openssl");
    command.current_dir(image.0.path()).args(["smime", "-sign", "-outform", "der", "-md", "sha256"]);
    command.args(["-signer", "out/secure-boot.crt", "-inkey", DB_KEY, "-in", "out/root-hash.tbs"]);
    let output = command.args(["-out", to]).args(more).output().expect("openssl is installed");
    assert!(output.status.success(), "{output:?}");
    Source::Signature(image.path(to))
}

#[test]
fn a_folder_that_is_not_as_it_was_built_is_not_signed() {
    for (name, at) in
        [("vmlinuz", 0), ("eci.efi", 700), ("eci-0.1.0-x86_64.raw", 40 << 20), ("sbom.spdx.json", 9)]
    {
        let image = Image::new(&[Format::Raw]);
        image.flip(&format!("out/{name}"), at);
        let before = image.state();
        let error = image.sign(&image.keys()).expect_err("damaged");
        assert_eq!(error, format!("`out/{name}` is not what SHA256SUMS says"));
        assert_eq!(image.state(), before);
    }
}

#[test]
fn changes_that_somebody_made_on_purpose_are_found_by_what_is_signed() {
    let disk = "out/eci-0.1.0-x86_64.raw";
    let root = (1 << 20) + esp::MIN_BYTES;
    for (name, at, check) in [
        ("out/vmlinuz", 0, "vmlinuz: digest: "),
        (disk, usize::try_from(root).expect("small"), "eci-0.1.0-x86_64.raw slot A: root hash: "),
    ] {
        let image = Image::new(&[Format::Raw]);
        image.flip(name, at);
        image.sum();
        let before = image.state();
        let error = image.sign(&image.keys()).expect_err("another image");
        assert!(error.starts_with(&format!("signed, `out` would not hold: {check}")), "{error}");
        assert_eq!(image.state(), before);
    }
    // The unified kernel image is replaced by a sound one with another command line.
    let image = Image::new(&[Format::Raw]);
    let stub = pe::tests::stub(".sbat", b"sbat,1\n", 10);
    let ours = fs::read(image.out("eci.efi")).expect("image");
    let parts = uki::Parts { command_line: "init=/bin/sh", ..uki::read(&ours).expect("ours") };
    fs::write(image.out("eci.efi"), uki::make(&stub, &parts).expect("made")).expect("written");
    image.sum();
    let error = image.sign(&image.keys()).expect_err("another image");
    assert!(error.starts_with("signed, `out` would not hold: eci.efi: digest: "), "{error}");
}

#[test]
fn a_provenance_that_is_not_this_image_s_is_not_signed() {
    let image = Image::new(&[Format::Raw]);
    let envelope = provenance::read(&image.out(provenance::FILE)).expect("our own");
    let text = String::from_utf8(envelope.statement().to_owned()).expect("JSON");
    let kernel = Sha256::of(&[&pe::tests::stub(".text", b"kernel", 1)]).to_string();
    let lie = text.replacen(&kernel, &Sha256::of(&[b"another"]).to_string(), 1);
    for (statement, reason) in [
        (lie, "provenance.intoto.json: subjects: `vmlinuz` has sha256 "),
        ("{}".to_owned(), "provenance.intoto.json: subjects: it is no SLSA provenance"),
    ] {
        let bytes = Envelope::unsigned(statement.into_bytes()).to_bytes();
        fs::write(image.out(provenance::FILE), bytes).expect("written");
        image.sum();
        let before = image.state();
        let error = image.sign(&image.keys()).expect_err("a lie");
        assert!(error.starts_with(&format!("signed, `out` would not hold: {reason}")), "{error}");
        assert_eq!(image.state(), before);
    }
    fs::write(image.out(provenance::FILE), "{").expect("written");
    image.sum();
    let error = image.sign(&image.keys()).expect_err("no envelope");
    assert!(error.starts_with("cannot use `out/provenance.intoto.json`: it is no DSSE envelope"), "{error}");
}

#[test]
fn a_certificate_whose_time_is_over_is_named_with_its_day() {
    let image = Image::new(&[Format::Raw]);
    let mut der = Certificate::read(&image.out(CERTIFICATE_FILE)).expect("our own").der().to_owned();
    // Both times are `UTCTime` of 13 bytes (RFC 5280, 4.1.2.5), the last moment behind the first.
    let last = (0..der.len() - 1).filter(|at| der[*at..].starts_with(&[0x17, 13])).nth(1).expect("two times");
    der[last + 2..last + 4].copy_from_slice(b"20");
    fs::write(image.out(CERTIFICATE_FILE), signature::pem::encode("CERTIFICATE", &der)).expect("written");
    image.sum();
    let error = image.sign(&image.keys()).expect_err("over");
    assert!(error.starts_with("the certificate `out/secure-boot.crt` has expired on 2020-"), "{error}");
}

#[test]
fn a_folder_of_something_else_is_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = Source::Key(PathBuf::new());
    let by =
        Sources { manifest: key.clone(), provenance: key.clone(), secure_boot: key.clone(), root_hash: key };
    let error = sign(&folder.path().join("none"), &by, &Ui::silent()).expect_err("not there").to_string();
    assert!(error.ends_with("none/manifest.json`"), "{error}");
    assert!(!folder.path().join("none").exists());
    fs::write(folder.path().join(manifest::FILE), "{}").expect("written");
    let error = sign(folder.path(), &by, &Ui::silent()).expect_err("no manifest").to_string();
    assert!(error.starts_with("cannot use `"), "{error}");
}
