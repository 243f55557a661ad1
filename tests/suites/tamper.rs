//! One byte is changed, or a block cannot be read: the engine never gets ready, the console says what and why, and the
//! machine stops.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::disk::{BootCount, SignaturePartition, Slot};
use eci_slots::Table;
use eci_tests::disk::{self, Partition};
use eci_tests::qemu::{Ending, Qemu};
use eci_tests::suite::row;
use eci_tests::vm::Vm;
use eci_tests::{image, suite};
use ring::signature::Ed25519KeyPair;

/// A refused boot takes as long as a good one gets to that point, and then ends.
const DEADLINE: Duration = Duration::from_secs(180);

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("an_untouched_image_gets_its_engine_ready", |()| {
            let disk = Disk::copy()?;
            let mut qemu = disk.boot("untouched")?;
            ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Seen, "{}", qemu.console());
            Ok(())
        }),
        row("a_changed_byte_in_the_first_data_block_panics_with_verity_s_reason", |()| {
            let disk = Disk::copy()?;
            disk.flip(ROOT, 1024 + 17)?;
            disk.refused(
                "data-first",
                &["data block 0 is corrupted", "Kernel panic - not syncing: dm-verity device corrupted"],
            )
        }),
        row("a_changed_byte_in_init_s_own_blocks_panics_with_verity_s_reason", |()| {
            let disk = Disk::copy()?;
            // Every data block but the first: whichever of them is read first is found out.
            disk.flip_every_block(ROOT, 1)?;
            disk.refused(
                "data-all",
                &["data block", "is corrupted", "Kernel panic - not syncing: dm-verity device corrupted"],
            )
        }),
        row("a_changed_byte_in_the_hash_tree_panics_with_verity_s_reason", |()| {
            let disk = Disk::copy()?;
            disk.flip(VERITY, 4096 + 5)?;
            disk.refused(
                "tree",
                &["metadata block 1 is corrupted", "Kernel panic - not syncing: dm-verity device corrupted"],
            )
        }),
        row("a_changed_root_hash_is_refused_by_name", |()| {
            let disk = Disk::copy()?;
            disk.rewrite_signature(|signature| {
                let last = if signature.root_hash.ends_with('0') { "1" } else { "0" };
                signature.root_hash.replace_range(63..64, last);
            })?;
            disk.refused("root-hash", &["boot refused", "eci-signature-a", "rootHash"])
        }),
        row("a_changed_manifest_is_refused_by_name", |()| {
            let disk = Disk::copy()?;
            disk.rewrite_signature(|signature| {
                let manifest = BASE64.decode(&signature.eci_manifest).expect("the manifest is base64");
                let text = String::from_utf8(manifest).expect("the manifest is text");
                let changed = text.replacen("\"erofs\"", "\"ext4!\"", 1);
                assert_ne!(text, changed);
                signature.eci_manifest = BASE64.encode(changed);
            })?;
            disk.refused("manifest", &["boot refused", "signature", "does not verify"])
        }),
        row("a_changed_signature_is_refused_by_name", |()| {
            let disk = Disk::copy()?;
            disk.rewrite_signature(|signature| {
                let mut bytes =
                    BASE64.decode(&signature.eci_manifest_signature).expect("the signature is base64");
                bytes[9] ^= 1;
                signature.eci_manifest_signature = BASE64.encode(bytes);
            })?;
            disk.refused("signature", &["boot refused", "signature", "does not verify"])
        }),
        row("a_manifest_signed_by_another_key_is_refused_by_name", |()| {
            let disk = Disk::copy()?;
            let random = ring::rand::SystemRandom::new();
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).expect("a key");
            let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).expect("a key");
            disk.rewrite_signature(|signature| {
                let manifest = BASE64.decode(&signature.eci_manifest).expect("the manifest is base64");
                signature.eci_manifest_signature = BASE64.encode(key.sign(&manifest));
            })?;
            disk.refused("other-key", &["boot refused", "signature", "does not verify"])
        }),
        row("a_signature_partition_of_garbage_is_refused_by_name", |()| {
            let disk = Disk::copy()?;
            disk.flip(SIGNATURE, 0)?;
            disk.refused("garbage", &["boot refused", "eci-signature-a"])
        }),
        row("run_tells_the_block_that_stopped_the_kernel_and_leaves_nothing_running", |()| {
            let disk = Disk::copy()?;
            disk.flip(ROOT, 1024 + 17)?;
            disk.run_fails(&[
                "Kernel panic - not syncing: dm-verity device corrupted",
                "data block 0 is corrupted",
            ])
        }),
        row("run_tells_the_reason_of_init_and_leaves_nothing_running", |()| {
            let disk = Disk::copy()?;
            disk.flip(SIGNATURE, 0)?;
            disk.run_fails(&["boot refused", "eci-signature-a"])
        }),
        row("a_corrupt_root_is_booted_three_times_in_a_row_and_then_no_more", |()| {
            let disk = Disk::copy()?;
            disk.flip(ROOT, 1024 + 17)?;
            let image = format!("file={},format=raw", disk.path.display());
            // Hypervisors start a machine that panicked again.
            let mut qemu = Qemu::start(
                "tamper-loop",
                &image::out()?,
                &[image, disk.data()?],
                &["-action", "reboot=reset"],
            )?;
            ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Ended, "the engine got ready");
            let console = qemu.console();
            let panics = console.matches("Kernel panic - not syncing: dm-verity device corrupted").count();
            ensure!(panics == 3, "{panics} boots:\n{console}");
            for word in ["boot refused: slot a was booted 3 times in a row", "switch the machine on again"] {
                ensure!(console.contains(word), "no `{word}` on the console:\n{console}");
            }
            let table = Table::read(&disk.open()?, 512)?;
            ensure!(table.count(Slot::A)? == BootCount::PROVEN, "{:?}", table.counts());
            Ok(())
        }),
        row("a_boot_that_comes_to_an_end_gives_its_try_back", |()| {
            let disk = Disk::copy()?;
            let count = || Ok::<_, anyhow::Error>(Table::read(&disk.open()?, 512)?.count(Slot::A)?);
            let image = format!("file={},format=raw", disk.path.display());
            let mut qemu = Qemu::start("tamper-tries", &image::out()?, &[image, disk.data()?], &[])?;
            ensure!(
                qemu.wait_for("eci: making a file system", DEADLINE)? == Ending::Seen,
                "{}",
                qemu.console()
            );
            ensure!(count()? == BootCount::PROVEN.after_a_boot(), "a boot is not counted: {:?}", count()?);
            ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Seen, "{}", qemu.console());
            ensure!(count()? == BootCount::PROVEN, "an engine gives no try back: {:?}", count()?);
            Ok(())
        }),
        row("a_read_error_under_verity_stops_the_machine", |()| {
            let disk = Disk::copy()?;
            let root = disk.partition(ROOT)?;
            // Sector 2 of the file system holds its superblock.
            let drive = format!(
                "file.driver=blkdebug,file.image.driver=file,file.image.filename={},file.inject-error.0.event=read_aio,\
                 file.inject-error.0.errno=5,file.inject-error.0.sector={},format=raw",
                disk.path.display(),
                root.start / 512 + 2,
            );
            let mut qemu = Qemu::start("read-error", &image::out()?, &[drive, disk.data()?], &[])?;
            ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Ended, "the engine got ready");
            let console = qemu.console();
            ensure!(
                console.contains("Kernel panic - not syncing: dm-verity device has I/O error"),
                "no reason on the console:\n{console}"
            );
            Ok(())
        }),
    ])
}

/// Partition numbers in the layout of the disk.
const ROOT: u32 = 2;
const VERITY: u32 = 3;
const SIGNATURE: u32 = 4;

/// A private copy of the image to tamper with.
struct Disk {
    folder: tempfile::TempDir,
    path: PathBuf,
}

impl Disk {
    fn copy() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("disk.raw");
        let from = image::raw(&image::out()?)?;
        disk::copy_sparse(&from, &path)?;
        Ok(Self { folder, path })
    }

    /// A new sparse data disk's `-drive` definition.
    fn data(&self) -> Result<String> {
        let path = self.folder.path().join("data");
        fs::File::create(&path)?.set_len(4 << 30)?;
        Ok(format!("file={},format=raw", path.display()))
    }

    fn boot(&self, name: &str) -> Result<Qemu> {
        let image = format!("file={},format=raw,readonly=on", self.path.display());
        Qemu::start(&format!("tamper-{name}"), &image::out()?, &[image, self.data()?], &[])
    }

    /// The boot ends by itself, never ready, with these words on the console.
    fn refused(&self, name: &str, words: &[&str]) -> Result<()> {
        let mut qemu = self.boot(name)?;
        ensure!(
            qemu.wait_for_engine(DEADLINE)? == Ending::Ended,
            "the engine got ready:\n{}",
            qemu.console()
        );
        let console = qemu.console();
        for word in words {
            ensure!(console.contains(word), "no `{word}` on the console:\n{console}");
        }
        Ok(())
    }

    /// `eci-builder run --detach` fails with its code for that, says these words, and has ended the VM.
    fn run_fails(&self, words: &[&str]) -> Result<()> {
        let out = image::out()?;
        let folder = tempfile::tempdir()?;
        for name in ["manifest.json", "vmlinuz", "initrd.img"] {
            symlink(out.join(name).canonicalize()?, folder.path().join(name))?;
        }
        let raw = image::raw(&out)?;
        symlink(&self.path, folder.path().join(raw.file_name().context("a file")?))?;
        let vm = Vm::prepare("tamper", folder.path())?;
        let outcome = vm.run(&[])?;
        ensure!(
            outcome.code == 6,
            "exit code {}, not 6: {}{}",
            outcome.code,
            outcome.stderr,
            vm.last_words()
        );
        outcome.refused(words)?;
        vm.builder(&["status", "--name", "tamper"])?.refused(&["is stopped"]).map(drop)
    }

    fn partition(&self, number: u32) -> Result<Partition> {
        Partition::of(&self.path, number)
    }

    fn open(&self) -> Result<fs::File> {
        Ok(fs::File::options().read(true).write(true).open(&self.path)?)
    }

    fn flip(&self, partition: u32, offset: u64) -> Result<()> {
        disk::flip(&self.path, self.partition(partition)?.start + offset)
    }

    fn flip_every_block(&self, partition: u32, from_block: u64) -> Result<()> {
        let start = self.partition(partition)?.start;
        let blocks = image::manifest(&image::out()?)?.root.data_blocks;
        (from_block..blocks).try_for_each(|block| disk::flip(&self.path, start + block * 4096 + 100))
    }

    fn rewrite_signature(&self, change: impl FnOnce(&mut SignaturePartition)) -> Result<()> {
        disk::rewrite_signature(&self.path, &self.partition(SIGNATURE)?, change)
    }
}
