//! A folder survives the way through a layout, and whatever else a registry could give stands nowhere.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use eci_contract::errors::chain;
use eci_contract::manifest::{Architecture, Flavour};
use tempfile::TempDir;

use super::layout::{Descriptor, Index, Layout, MANIFEST, Manifest, TITLE};
use super::pack::pack;
use super::unpack::unpack;
use super::{PLAIN, ZSTD};
use crate::image::assemble::Signing;
use crate::image::assemble::tests::assemble_for;
use crate::image::digest::Sha256;
use crate::image::formats::Format;
use crate::image::signature::PublicKey;
use crate::image::verify::Expected;
use crate::image::{secure_boot, signature};
use crate::ui::Ui;

/// A signed image in `out`, and what a registry gives of it in `layout`.
struct Made {
    folder: TempDir,
    key: PublicKey,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let key = signature::generate(&folder.path().join("image")).expect("fresh folder");
        let signer = secure_boot::generate(folder.path(), &Ui::silent()).expect("openssl is installed");
        let signing = Signing::Now { key: &key, signer: &signer };
        assemble_for(folder.path(), Flavour::Shipped, signing, &[Format::Raw, Format::Wsl]);
        let made = Self { key: key.public(), folder };
        made.pack(&[made.path("out")]).expect("packed");
        let layout = made.layout();
        let outer: Index = layout.document(&layout.index().expect("index").manifests[0]).expect("index");
        // A registry's client picks the one of its architecture.
        layout.finish(outer.manifests[0].clone()).expect("written");
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn layout(&self) -> Layout {
        Layout::at(&self.path("layout"))
    }

    fn pack(&self, folders: &[PathBuf]) -> Result<String, String> {
        drop(fs::remove_dir_all(self.path("layout")));
        pack(folders, &self.path("layout"), &Ui::silent()).map_err(|error| self.said(&error))
    }

    fn unpack_for(&self, key: PublicKey) -> Result<usize, String> {
        let expected = Expected { key, certificate: None, flavour: Flavour::Shipped };
        self.unpack_on(Architecture::X86_64, &expected)
    }

    fn unpack_on(&self, architecture: Architecture, expected: &Expected) -> Result<usize, String> {
        let placed = unpack(&self.layout(), architecture, expected, &self.path("got"), &Ui::silent());
        placed.map(|placed| placed.len()).map_err(|error| self.said(&error))
    }

    /// Why it was refused; nothing stands anywhere then.
    fn refusal(&self) -> String {
        fs::create_dir_all(self.path("got")).expect("folder");
        fs::write(self.path("got/manifest.json"), "the one before").expect("file");
        let error = self.unpack_for(self.key).expect_err("refused");
        let before = [("manifest.json".to_owned(), Sha256::of(&[b"the one before"]))];
        assert_eq!(digests(&self.path("got")), BTreeMap::from(before), "{error}");
        let entries = fs::read_dir(self.folder.path()).expect("listing");
        let left = entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("staging"));
        assert!(!left, "{error}");
        error
    }

    fn said(&self, error: &dyn std::error::Error) -> String {
        chain(error).replace(&format!("{}/", self.folder.path().display()), "")
    }

    /// The same with another manifest, as whoever has the registry can make one.
    fn change(&self, change: impl FnOnce(&mut Manifest)) -> &Self {
        let layout = self.layout();
        let index = layout.index().expect("index");
        let mut document: Manifest = layout.document(&index.manifests[0]).expect("manifest");
        change(&mut document);
        layout.finish(layout.add_document(MANIFEST, &document).expect("added")).expect("written");
        self
    }

    fn add(&self, name: &str, media_type: &str, bytes: &[u8]) -> &Self {
        let mut layer = self.layout().add(media_type, bytes).expect("added");
        layer.annotations.insert(TITLE.to_owned(), name.to_owned());
        self.change(|document| document.layers.push(layer))
    }

    fn replace(&self, name: &str, media_type: &str, bytes: &[u8]) -> &Self {
        self.change(|document| document.layers.retain(|layer| title(layer) != name));
        self.add(name, media_type, bytes)
    }
}

fn title(layer: &Descriptor) -> &str {
    layer.annotations.get(TITLE).map_or("", String::as_str)
}

fn digests(folder: &Path) -> BTreeMap<String, Sha256> {
    let entries = fs::read_dir(folder).expect("listing").flatten();
    let digest = |entry: fs::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, Sha256::of_file(&entry.path()).expect("file"))
    };
    entries.map(digest).collect()
}

#[test]
fn a_folder_comes_out_as_it_went_in() {
    let made = Made::new();
    let placed = made.unpack_for(made.key).expect("it is the same image");
    assert_eq!(placed, 15, "twelve files, disk, distro and sums");
    assert_eq!(digests(&made.path("got")), digests(&made.path("out")));
    let again = made.pack(&[made.path("out")]);
    assert_eq!(again, made.pack(&[made.path("out")]), "the digest depends on the folder alone");
}

#[test]
fn what_is_not_as_it_was_built_or_not_signed_is_not_packed() {
    let made = Made::new();
    let twice = made.pack(&[made.path("out"), made.path("out")]).expect_err("twice");
    assert_eq!(twice, "`out` is for x86_64, and so is another folder");
    let kernel = fs::read(made.path("out/vmlinuz")).expect("kernel");
    fs::write(made.path("out/vmlinuz"), "another").expect("written");
    assert_eq!(made.pack(&[made.path("out")]), Err("`out/vmlinuz` is not what SHA256SUMS says".to_owned()));
    fs::write(made.path("out/vmlinuz"), kernel).expect("written");
    fs::write(made.path("out/manifest.json.sig"), "").expect("written");
    assert_eq!(made.pack(&[made.path("out")]), Err("`out` is not signed yet".to_owned()));
}

#[test]
fn an_image_that_another_key_signed_is_refused() {
    let made = Made::new();
    let other = signature::generate(&made.path("other")).expect("fresh folder").public();
    let error = made.unpack_for(other).expect_err("another key");
    assert_eq!(error, format!("`manifest.json` is not signed by key {}", other.id()));
    assert!(!made.path("got/manifest.json").exists());
}

#[test]
fn files_that_no_image_has_are_refused_by_name() {
    let others = ["eci-9.9-x86_64.raw", "eci-0.1.0-x86_64.qcow2", "image.pub", "SHA256SUMS"];
    for name in ["../evil", "/tmp/evil", "run.sh", "", "."].into_iter().chain(others) {
        let error = Made::new().add(name, PLAIN, b"evil").refusal();
        assert_eq!(error, format!("it is no image of ours: an image has no file `{name}`"));
    }
    let nameless = Made::new();
    nameless
        .add("x", PLAIN, b"evil")
        .change(|document| document.layers.iter_mut().for_each(|l| l.annotations.clear()));
    assert_eq!(nameless.refusal(), "it is no image of ours: a layer has no name");
    let twice = Made::new().add("vmlinuz", PLAIN, b"evil").refusal();
    assert!(twice.starts_with("cannot write `") && twice.contains("File exists"), "{twice}");
}

#[test]
fn changed_files_are_refused_although_their_digests_are_right() {
    let changed = Made::new().replace("vmlinuz", PLAIN, b"evil").refusal();
    assert!(changed.starts_with("the image does not hold: ") && changed.contains("vmlinuz"), "{changed}");
    let unsigned = Made::new().replace("manifest.json", PLAIN, b"{}").refusal();
    assert!(unsigned.starts_with("`manifest.json` is not signed by key "), "{unsigned}");
    let kind = Made::new().replace("vmlinuz", "application/gzip", b"evil").refusal();
    assert_eq!(kind, "it is no image of ours: `vmlinuz` is of the type `application/gzip`");
    for name in ["manifest.json.sig", "vmlinuz", "secure-boot.crt"] {
        let missing = Made::new();
        missing.change(|document| document.layers.retain(|layer| title(layer) != name));
        assert_eq!(missing.refusal(), format!("it is no image of ours: it has no `{name}`"));
    }
    let nothing_to_boot = Made::new();
    nothing_to_boot.change(|document| document.layers.retain(|layer| !title(layer).starts_with("eci-")));
    assert_eq!(nothing_to_boot.refusal(), "it is no image of ours: it has no `eci-0.1.0-x86_64.raw`");
}

#[test]
fn a_disk_that_qemu_would_read_otherwise_and_an_image_for_other_machines_are_refused() {
    let qcow2 = Made::new().replace("eci-0.1.0-x86_64.raw", PLAIN, b"QFI\xfb and a backing file").refusal();
    assert_eq!(qcow2, "it is no image of ours: `eci-0.1.0-x86_64.raw` is something else");
    let made = Made::new();
    let expected = Expected { key: made.key, certificate: None, flavour: Flavour::Shipped };
    let other = made.unpack_on(Architecture::Aarch64, &expected).expect_err("another architecture");
    assert_eq!(other, "the image is for x86_64, not for aarch64");
    let test = made.unpack_on(Architecture::X86_64, &Expected { flavour: Flavour::Test, ..expected });
    assert!(test.expect_err("another flavour").contains("does not hold"), "a shipped image is no test image");
}

#[test]
fn what_unpacks_to_more_than_was_signed_is_cut_off() {
    let ones = zstd::encode_all(std::io::repeat(1).take(80 << 20), 1).expect("compressed");
    assert!(ones.len() < 1 << 20, "a bomb is small");
    let error = Made::new().replace("vmlinuz", ZSTD, &ones).refusal();
    assert_eq!(error, "`vmlinuz` has more in it than the image that was signed");
    let long = Made::new().replace("manifest.json", PLAIN, &[b' '; 70_000]).refusal();
    assert_eq!(long, "`manifest.json` has more in it than the image that was signed");
}

#[test]
fn blobs_are_named_by_digests_alone_and_there_is_one_image() {
    for digest in ["sha256:../../../../etc/passwd", "sha512:00", "sha256:", "x"] {
        let made = Made::new();
        made.change(|document| digest.clone_into(&mut document.layers[0].digest));
        assert_eq!(made.refusal(), format!("`{digest}` is not the name of a blob"));
    }
    let made = Made::new();
    let index = made.layout().index().expect("index");
    let twice = Index { manifests: [index.manifests.clone(), index.manifests].concat(), ..index };
    fs::write(made.path("layout/index.json"), serde_json::to_vec(&twice).expect("JSON")).expect("written");
    assert_eq!(made.refusal(), "it is no image of ours: 2 manifests");
    fs::write(made.path("layout/index.json"), "[").expect("written");
    assert!(made.refusal().contains("is not what the OCI image specification says"));
}
