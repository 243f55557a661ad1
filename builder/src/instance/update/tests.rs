use std::fs;
use std::path::{Path, PathBuf};

use eci_contract::disk::{BootCount, Slot};
use eci_contract::manifest::Flavour;
use tempfile::TempDir;

use super::Error;
use super::apply::apply;
use super::judge::Verdict;
use super::stage::{Present, stage};
use crate::image::assemble::Signing;
use crate::image::assemble::tests::assemble_version;
use crate::image::formats::Format;
use crate::image::secure_boot;
use crate::image::signature::{self, SigningKey};
use crate::image::verify::{self, Expected};
use crate::instance::home::Home;
use crate::instance::own_disk::OwnDisk;
use crate::instance::reset::{self, Data};
use crate::ui::Ui;

/// An instance that runs version 0.1.1, and a key that signs its updates.
struct Instance {
    folder: TempDir,
    home: Home,
    key: SigningKey,
    built: PathBuf,
}

impl Instance {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("folder");
        let home = Home::under(&folder.path().join("state"), "x").expect("legal");
        home.create().expect("made");
        let key = signature::generate(&folder.path().join("keys")).expect("key");
        let built = image(folder.path(), ("0.1.1", None), &key);
        Self { folder, home, key, built }
    }

    fn image(&self, version: &str, minimum: Option<&str>) -> PathBuf {
        image(self.folder.path(), (version, minimum), &self.key)
    }

    fn stage(&self, image: &Path) -> Result<Verdict, Error> {
        let present = Present::of(&self.home, &self.built)?;
        stage(&self.home, &self.home.lock_update().expect("free"), &present, image, &Ui::silent())
    }

    fn apply(&self) -> Result<Option<String>, Error> {
        let (held, updating) = (self.home.lock().expect("free"), self.home.lock_update().expect("free"));
        apply(&self.home, &held, &updating, &self.built, &Ui::silent())
    }

    fn update(&self, image: &Path) -> Result<Option<String>, Error> {
        self.stage(image)?;
        self.apply()
    }

    fn own(&self) -> OwnDisk {
        OwnDisk::of(&self.home).expect("it was updated")
    }

    /// What the VM does when the engine is ready.
    fn prove(&self, slot: Slot) {
        let change = |table: &mut eci_slots::Table| {
            let (this, other) = eci_slots::choice::proven(table.count(slot.other())?);
            table.set_count(slot, this)?;
            table.set_count(slot.other(), other)
        };
        self.own().change(change).expect("changed");
    }

    /// Slot and version that the next boot is of. Both slots have to be what was signed; the EFI system partition is the first
    /// image's, and nothing boots from it here.
    fn boots(&self) -> (Slot, BootCount, String) {
        let own = self.own();
        let expected = Expected { key: self.key.public(), certificate: None, flavour: Flavour::Shipped };
        let report = verify::verify(own.path(), &expected, &Ui::silent()).expect("read");
        let slots = report.checks.iter().filter(|check| check.subject.contains(" slot "));
        assert!(slots.clone().count() > 5);
        assert!(slots.clone().all(|check| check.verdict == verify::Verdict::Holds), "{:#?}", report.checks);
        let chosen = own.chosen().expect("bootable");
        let artifacts = own.artifacts(chosen.slot).expect("sound");
        (chosen.slot, chosen.count, artifacts.manifest.version)
    }
}

fn image(folder: &Path, version: (&str, Option<&str>), key: &SigningKey) -> PathBuf {
    let folder = folder.join(format!("image-{}", version.0));
    fs::create_dir_all(&folder).expect("folder");
    let signing = Signing::Now { key, signer: secure_boot::tests::signer() };
    assemble_version(&folder, Flavour::Shipped, signing, &[Format::Raw], version);
    folder.join("out")
}

#[test]
fn an_update_is_on_trial_in_the_other_slot_and_the_old_version_stays() {
    let instance = Instance::new();
    assert_eq!(instance.apply().expect("nothing waits"), None);
    assert!(OwnDisk::of(&instance.home).is_none());
    let version = instance.update(&instance.image("0.1.2", None)).expect("updated");
    assert_eq!(version.as_deref(), Some("0.1.2"));
    assert_eq!(instance.boots(), (Slot::B, BootCount::ON_TRIAL, "0.1.2".to_owned()));
    // Its tries are used up.
    let used_up = BootCount { tries_left: 0, ..BootCount::ON_TRIAL };
    instance.own().change(|table| table.set_count(Slot::B, used_up)).expect("changed");
    assert_eq!(instance.boots(), (Slot::A, BootCount::SECOND, "0.1.1".to_owned()));
}

#[test]
fn an_update_of_an_unproven_version_takes_its_place() {
    let instance = Instance::new();
    instance.update(&instance.image("0.1.2", None)).expect("updated");
    instance.update(&instance.image("0.1.3", None)).expect("updated");
    assert_eq!(instance.boots(), (Slot::B, BootCount::ON_TRIAL, "0.1.3".to_owned()));
    instance.prove(Slot::B);
    assert_eq!(instance.boots(), (Slot::B, BootCount::PROVEN, "0.1.3".to_owned()));
    instance.update(&instance.image("0.1.4", None)).expect("updated");
    assert_eq!(instance.boots(), (Slot::A, BootCount::ON_TRIAL, "0.1.4".to_owned()));
}

#[test]
fn a_reset_leaves_the_version_that_was_ready_last_and_the_data_only_if_asked() {
    let instance = Instance::new();
    instance.home.ensure_data_disk(4096).expect("made");
    let reset = |data| {
        let (held, updating) =
            (instance.home.lock().expect("free"), instance.home.lock_update().expect("free"));
        reset::reset(&instance.home, &held, &updating, data).expect("reset");
    };
    instance.stage(&instance.image("0.1.2", None)).expect("staged");
    reset(Data::Keep);
    assert_eq!(instance.apply().expect("nothing waits"), None);
    instance.update(&instance.image("0.1.2", None)).expect("updated");
    instance.prove(Slot::B);
    instance.update(&instance.image("0.1.3", None)).expect("updated");
    assert_eq!(instance.boots().2, "0.1.3");
    reset(Data::Keep);
    assert_eq!(instance.boots(), (Slot::B, BootCount::PROVEN, "0.1.2".to_owned()));
    assert_eq!(instance.own().table().expect("read").count(Slot::A).expect("there"), BootCount::NEVER);
    assert!(instance.home.data_disk().exists());
    reset(Data::Wipe);
    reset(Data::Wipe);
    assert!(!instance.home.data_disk().exists());
    assert_eq!(instance.boots().2, "0.1.2");
}

#[test]
fn an_image_that_is_there_or_too_old_is_not_brought_in() {
    let instance = Instance::new();
    assert_eq!(instance.stage(&instance.built).expect("sound"), Verdict::IsThere);
    instance.update(&instance.image("0.1.3", Some("0.1.2"))).expect("updated");
    // Not proven yet: what it does not allow may still follow what is.
    assert_eq!(instance.stage(&instance.built).expect("sound"), Verdict::IsThere);
    instance.prove(Slot::B);
    assert_eq!(instance.stage(&instance.image("0.1.2", None)).expect("sound"), Verdict::BringIn);
    let error = instance.stage(&instance.built).expect_err("below the minimum");
    assert_eq!(error.to_string(), "version 0.1.1 is older than 0.1.2, the oldest that version 0.1.3 allows");
}

#[test]
fn another_key_or_a_changed_byte_is_refused_by_name() {
    let instance = Instance::new();
    let other = signature::generate(&instance.folder.path().join("other")).expect("key");
    let error =
        instance.stage(&image(instance.folder.path(), ("0.1.2", None), &other)).expect_err("their key");
    assert!(matches!(&error, Error::Untrusted { failed, .. } if failed[0].contains("signature")), "{error}");

    let folder = instance.image("0.1.3", None);
    let disk = folder.join("eci-0.1.3-x86_64.raw");
    let mut bytes = fs::read(&disk).expect("read");
    let root = crate::image::disk::read(&fs::File::open(&disk).expect("opened"), &disk).expect("a table");
    let root = root.named("eci-root-a").expect("slot A").start;
    bytes[usize::try_from(root).expect("small") + 5000] ^= 1;
    fs::write(&disk, bytes).expect("changed");
    let error = instance.stage(&folder).expect_err("a changed block").to_string();
    assert!(error.contains("data block 1 differs first"), "{error}");
    assert!(!instance.home.next().exists() && OwnDisk::of(&instance.home).is_none());
}

#[test]
fn one_update_at_a_time() {
    let instance = Instance::new();
    let held = instance.home.lock_update().expect("free");
    let error = instance.home.lock_update().expect_err("taken").to_string();
    assert_eq!(error, "another update of the instance `x` is under way");
    drop(held);
    instance.home.lock_update().expect("free again");
}

/// Every state that an update can leave behind when it is cut off: the staged folder and the disk's content are as they were,
/// and what boots a slot may be missing for the slot that is never booted then.
#[test]
fn an_update_that_was_cut_off_is_done_by_the_next_start() {
    let instance = Instance::new();
    let update = instance.image("0.1.2", None);
    instance.stage(&update).expect("staged");
    let kept = instance.folder.path().join("kept");
    copy(&instance.home.next(), &kept);
    instance.apply().expect("done");
    // Cut off before the staged folder was removed: it is put in again.
    copy(&kept, &instance.home.next());
    instance.apply().expect("done again");
    assert_eq!(instance.boots().0, Slot::B);
    // Cut off while the slot was written.
    copy(&kept, &instance.home.next());
    instance.own().change(|table| table.set_count(Slot::B, BootCount::NEVER)).expect("changed");
    fs::remove_dir_all(instance.home.slot(Slot::B)).expect("removed");
    assert_eq!(instance.own().chosen().expect("bootable").slot, Slot::A);
    instance.apply().expect("done again");
    assert_eq!(instance.boots(), (Slot::B, BootCount::ON_TRIAL, "0.1.2".to_owned()));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).expect("folder");
    for entry in fs::read_dir(from).expect("listing") {
        let entry = entry.expect("entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
