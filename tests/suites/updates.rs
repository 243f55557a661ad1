//! A signed image becomes the next version of an instance; one that does not get its engine ready, or is too old, does not stay.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::disk::{BootCount, SignaturePartition, Slot};
use eci_contract::manifest::Manifest;
use eci_slots::Table;
use eci_tests::suite::row;
use eci_tests::vm::Vm;
use eci_tests::{command, disk, image, suite};
use ring::signature::Ed25519KeyPair;
use rustix::fs::{FlockOperation, flock};
use tempfile::TempDir;

/// Exit codes of `eci-builder --help`.
const UNTRUSTED: i32 = 5;
const INSTANCE: i32 = 7;
/// Name of the instance.
const NAME: &str = "updates";
/// How often an update is cut off.
const FEW_CUTS: u32 = 3;
/// With `scripts/test --all`.
const ALL_CUTS: u32 = 20;
/// Partitions of slot B, by number.
const SLOT_B: [u32; 3] = [5, 6, 7];

fn main() -> ExitCode {
    suite::run_alone(vec![row("an_instance_is_updated_goes_back_and_is_never_lost", whole_life)])
}

/// One instance through all of it: each part begins with what the one before left behind.
fn whole_life(_: &()) -> Result<()> {
    let images = Images::build()?;
    let mut vm = Vm::start(NAME, &image::out()?)?;
    vm.import_busybox()?;
    vm.sh(&["-v", "kept:/v"], "echo whole >/v/f")?;
    a_running_instance_gets_the_new_version_at_its_next_start(&mut vm, &images)
        .context("the first update")?;
    what_may_not_follow_is_refused(&vm, &images).context("refusals")?;
    an_older_version_on_the_disk_is_not_booted(&vm).context("an older version")?;
    a_version_without_an_engine_does_not_stay(&vm, &images).context("a version without an engine")?;
    if suite::everything() {
        // Four boots more, which end as the others do: by the count of boots.
        an_empty_root_does_not_stay(&vm, &images).context("an empty root")?;
    }
    an_update_is_cut_off(&vm, &images).context("cuts")?;
    a_reset_leaves_the_proven_version(&vm).context("reset")
}

/// What is on trial goes before it is ever booted, and the data when it may.
fn a_reset_leaves_the_proven_version(vm: &Vm) -> Result<()> {
    let reset = |vm: &Vm, flags: &[&str]| vm.builder(&[&["reset", "--name", NAME][..], flags].concat());
    reset(vm, &["--keep-data"])?.ok()?;
    boots(vm, "0.2.0", Slot::B)?;
    ensure!(!said(vm)?.contains("0.3.0"), "{}", said(vm)?);
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "whole", "the volume is lost");
    vm.every_check_holds()?;
    reset(vm, &[])?.refused(&["is running", "--force"])?;
    reset(vm, &["--force"])?.ok()?;
    boots(vm, "0.2.0", Slot::B)?;
    ensure!(vm.docker(&["volume", "ls", "-q"])?.ok()?.is_empty(), "there is data");
    vm.every_check_holds()
}

/// Images that follow the one under test.
struct Images {
    /// Version 0.2.0, which allows nothing below 0.1.5.
    good: (TempDir, PathBuf),
    /// Version 0.3.0, whose table of services is not understood.
    engineless: (TempDir, PathBuf),
}

impl Images {
    fn build() -> Result<Self> {
        let good = image::of_version("0.2.0\"\nminimum_version = \"0.1.5", |root| {
            fs::write(root.join("rootfs/overlay/etc/eci/note"), "another root\n")
        })?;
        let engineless = image::of_version("0.3.0", |root| {
            fs::write(root.join("rootfs/overlay/etc/eci/services.json"), "{}\n")
        })?;
        Ok(Self { good, engineless })
    }
}

fn update(vm: &Vm, image: &Path) -> Result<command::Outcome> {
    vm.builder(&["update", &image.to_string_lossy(), "--name", NAME, "--json"])
}

/// Boots the instance's own disk and fails unless this version runs from this slot.
fn boots(vm: &Vm, version: &str, slot: Slot) -> Result<()> {
    start(vm)?;
    let image = &vm.status()?["image"];
    let found = (image["version"].as_str(), image["slot"].as_str(), image["on_trial"].as_bool());
    ensure!(found == (Some(version), Some(slot.to_string().as_str()), Some(false)), "{image}");
    let table = table(vm)?;
    ensure!(table.count(slot)?.successful, "{:?}", table.counts());
    Ok(())
}

fn start(vm: &Vm) -> Result<()> {
    let started = vm.builder(&["run", "--name", NAME, "--detach", "--accel", "tcg", "--memory", "2G"])?;
    started.ok().with_context(|| vm.last_words()).map(drop)
}

fn table(vm: &Vm) -> Result<Table> {
    Ok(Table::read(&File::open(vm.state().join("disk.raw"))?, 512)?)
}

/// What `run` said while it tried.
fn said(vm: &Vm) -> Result<String> {
    Ok(fs::read_to_string(vm.state().join("supervisor.log"))?)
}

fn a_running_instance_gets_the_new_version_at_its_next_start(vm: &mut Vm, images: &Images) -> Result<()> {
    let outcome = update(vm, &images.good.1)?;
    ensure!(outcome.clone().ok()?.contains("\"outcome\":\"staged\""), "{}", outcome.stdout());
    let status = vm.status()?;
    ensure!(status["image"]["version"] == image::manifest(&image::out()?)?.version, "{status}");
    vm.stop()?;
    boots(vm, "0.2.0", Slot::B)?;
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "whole", "the volume is lost");
    vm.every_check_holds()?;
    let outcome = update(vm, &images.good.1)?;
    ensure!(outcome.clone().ok()?.contains("\"outcome\":\"present\""), "{}", outcome.stdout());
    vm.stop()
}

fn what_may_not_follow_is_refused(vm: &Vm, images: &Images) -> Result<()> {
    let out = image::out()?;
    let old = update(vm, &out)?;
    ensure!(old.code == UNTRUSTED, "exit code {}", old.code);
    old.refused(&["is older than 0.1.5, the oldest that version 0.2.0 allows"])?;

    let test = update(vm, &out.join("test"))?;
    ensure!(test.code == UNTRUSTED, "exit code {}", test.code);
    test.refused(&["is not to be trusted"])?;

    // The same image, signed by another key.
    let folder = tempfile::tempdir()?;
    for entry in fs::read_dir(&images.engineless.1)? {
        let entry = entry?;
        if !["manifest.json.sig", "image.pub"].contains(&entry.file_name().to_string_lossy().as_ref()) {
            symlink(entry.path(), folder.path().join(entry.file_name()))?;
        }
    }
    let keys = folder.path().join("keys");
    let made = command::run(Command::new(image::builder()?).arg("keygen").arg(&keys), &[])?;
    made.ok()?;
    fs::copy(keys.join("image.pub"), folder.path().join("image.pub"))?;
    let manifest = fs::read(folder.path().join("manifest.json"))?;
    let pem = fs::read_to_string(keys.join("image.key"))?;
    fs::write(folder.path().join("manifest.json.sig"), key(&pem)?.sign(&manifest))?;
    let theirs = update(vm, folder.path())?;
    ensure!(theirs.code == UNTRUSTED, "exit code {}", theirs.code);
    theirs.refused(&["is not to be trusted", "signature"])?;

    let held = File::create(vm.state().join("update.lock"))?;
    flock(&held, FlockOperation::LockExclusive)?;
    let second = update(vm, &images.engineless.1)?;
    ensure!(second.code == INSTANCE, "exit code {}", second.code);
    second.refused(&["another update of the instance `updates` is under way"])?;
    drop(held);

    let named = vm.builder(&["run", &out.to_string_lossy(), "--name", NAME, "--detach"])?;
    ensure!(named.code == INSTANCE, "exit code {}", named.code);
    named.refused(&["was updated, and boots its own disk", "eci-builder update DIR"])?;
    let measured = vm.builder(&["run", "--name", NAME, "--tpm", "--accel", "tcg"])?;
    measured.refused(&["firmware would boot the kernel that it began with", "leave out --tpm"])?;
    ensure!(!vm.state().join("next").exists(), "something was staged");
    Ok(())
}

/// PID 1 itself refuses what `update` would not have brought in.
fn an_older_version_on_the_disk_is_not_booted(vm: &Vm) -> Result<()> {
    let out = image::out()?;
    stage(vm, &out, &image::raw(&out)?, None)?;
    boots(vm, "0.2.0", Slot::B)?;
    let said = said(vm)?;
    let tries = said.matches("is on trial and did not get the engine ready").count();
    ensure!(
        tries == 3 && said.contains("is older than 0.1.5, the oldest that the image before it allows"),
        "{said}"
    );
    vm.stop()
}

fn a_version_without_an_engine_does_not_stay(vm: &Vm, images: &Images) -> Result<()> {
    let outcome = update(vm, &images.engineless.1)?;
    ensure!(outcome.clone().ok()?.contains("\"outcome\":\"installed\""), "{}", outcome.stdout());
    boots(vm, "0.2.0", Slot::B)?;
    let said = said(vm)?;
    let tries = said.matches("version 0.3.0 is on trial and did not get the engine ready").count();
    ensure!(tries == 3, "{said}");
    vm.stop()
}

/// A root that is what was signed, and has nothing in it.
fn an_empty_root_does_not_stay(vm: &Vm, images: &Images) -> Result<()> {
    let good = &images.good.1;
    let empty = Empty::make(good)?;
    stage(vm, good, &image::raw(good)?, Some(&empty))?;
    boots(vm, "0.2.0", Slot::B)?;
    let said = said(vm)?;
    ensure!(said.matches("is on trial and did not get the engine ready").count() == 3, "{said}");
    ensure!(said.contains("cannot switch to the new root"), "{said}");
    vm.stop()
}

/// Root, tree and signed manifest of an empty file system.
struct Empty {
    root: Vec<u8>,
    verity: Vec<u8>,
    signature: Vec<u8>,
    manifest: (Vec<u8>, Vec<u8>),
}

impl Empty {
    fn make(good: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        fs::create_dir(path("nothing"))?;
        command::host("mkfs.erofs", &["--quiet", &path("root"), &path("nothing")])?.ok()?;
        let length = fs::metadata(path("root"))?.len().next_multiple_of(4096);
        File::options().write(true).open(path("root"))?.set_len(length)?;
        let salt = "ab".repeat(32);
        let format = ["format", "--salt", &salt, &path("root"), &path("verity")];
        let printed = command::host("veritysetup", &format)?.ok()?;
        let hash = printed.lines().find_map(|line| line.strip_prefix("Root hash:")).context("a root hash")?;
        let mut manifest: Manifest = image::manifest(good)?;
        manifest.root.root_hash = hash.trim().to_owned();
        manifest.root.salt = salt;
        manifest.root.data_blocks = length / 4096;
        let manifest = serde_json::to_vec_pretty(&manifest)?;
        let signed = key(&fs::read_to_string(image::development_keys()?.join("image.key"))?)?.sign(&manifest);
        let partition = SignaturePartition {
            certificate_fingerprint: String::new(),
            signature: String::new(),
            root_hash: hash.trim().to_owned(),
            eci_manifest: BASE64.encode(&manifest),
            eci_manifest_signature: BASE64.encode(&signed),
        };
        Ok(Self {
            root: fs::read(path("root"))?,
            verity: fs::read(path("verity"))?,
            signature: serde_json::to_vec(&partition)?,
            manifest: (manifest, signed),
        })
    }
}

/// Lays a staged update as `update` does, and does not ask whether it may be one.
fn stage(vm: &Vm, out: &Path, raw: &Path, instead: Option<&Empty>) -> Result<()> {
    let next = vm.state().join("next");
    fs::create_dir(&next)?;
    for name in ["vmlinuz", "initrd.img", "manifest.json", "manifest.json.sig", "image.pub"] {
        fs::copy(out.join(name), next.join(name))?;
    }
    for (number, name) in [(2, "root"), (3, "verity"), (4, "signature")] {
        disk::Partition::of(raw, number)?.copy(raw, &next.join(name))?;
    }
    if let Some(empty) = instead {
        for (name, bytes) in [
            ("root", &empty.root),
            ("verity", &empty.verity),
            ("signature", &empty.signature),
            ("manifest.json", &empty.manifest.0),
            ("manifest.json.sig", &empty.manifest.1),
        ] {
            fs::write(next.join(name), bytes)?;
        }
    }
    Ok(())
}

/// Killed at any moment, an update leaves the proven slot as it was and the one to boot whole.
fn an_update_is_cut_off(vm: &Vm, images: &Images) -> Result<()> {
    let before = bytes(vm, SLOT_B)?;
    let begun = Instant::now();
    update(vm, &images.engineless.1)?.ok()?;
    let whole = begun.elapsed();
    let cuts = if suite::everything() { ALL_CUTS } else { FEW_CUTS };
    for round in 0..cuts {
        let mut cut = Command::new(image::builder()?);
        cut.args(["update", &images.engineless.1.to_string_lossy(), "--name", NAME]);
        cut.env("XDG_STATE_HOME", vm.state().ancestors().nth(2).context("a state folder")?);
        let mut cut = cut.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let moment = whole * round / cuts;
        thread::sleep(moment);
        cut.kill()?;
        cut.wait()?;
        let table = table(vm)?;
        let (slot, count) = eci_slots::choose(&table.counts()).context("no slot to boot")?;
        ensure!(table.count(Slot::B)?.successful, "after {moment:?}: {:?}", table.counts());
        ensure!(slot == Slot::B || count == BootCount::ON_TRIAL, "after {moment:?}: {:?}", table.counts());
        ensure!(bytes(vm, SLOT_B)? == before, "after {moment:?} the proven slot has changed");
    }
    // Whatever the last one left: an update that is not cut off still goes in.
    update(vm, &images.engineless.1)?.ok()?;
    let chosen = eci_slots::choose(&table(vm)?.counts());
    ensure!(chosen == Some((Slot::A, BootCount::ON_TRIAL)), "{chosen:?}");
    Ok(())
}

/// The bytes of some partitions of the instance's own disk.
fn bytes(vm: &Vm, numbers: [u32; 3]) -> Result<Vec<u8>> {
    let path = vm.state().join("disk.raw");
    let file = File::open(&path)?;
    let mut bytes = Vec::new();
    for number in numbers {
        let partition = disk::Partition::of(&path, number)?;
        let start = bytes.len();
        bytes.resize(start + usize::try_from(partition.bytes)?, 0);
        file.read_exact_at(&mut bytes[start..], partition.start)?;
    }
    Ok(bytes)
}

struct Key(Ed25519KeyPair);

impl Key {
    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        self.0.sign(bytes).as_ref().to_vec()
    }
}

/// An Ed25519 key from PKCS #8 in PEM.
fn key(pem: &str) -> Result<Key> {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&BASE64.decode(body)?);
    pair.map(Key).map_err(|error| anyhow::anyhow!("not a key: {error}"))
}
