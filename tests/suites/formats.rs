//! What boots where: the same image under every firmware and as every kind of disk that it is built for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::manifest::Architecture;
use eci_tests::disk::{self, Partition, copy_sparse};
use eci_tests::firmware::Firmware;
use eci_tests::platform::Platform;
use eci_tests::qemu::{Ending, Qemu};
use eci_tests::suite::{row, thorough_row};
use eci_tests::vm::{self, Vm};
use eci_tests::{command, image, suite};

#[path = "formats/apple.rs"]
mod apple;
#[path = "formats/cd.rs"]
mod cd;
#[path = "vsock/machine.rs"]
mod machine;

/// Firmware takes a few seconds more than QEMU's direct boot, and has no end of its own.
const DEADLINE: Duration = Duration::from_secs(180);
/// Number of slot A's signature partition.
const SIGNATURE: u32 = 4;
/// What a boot loader could ask for, if anybody listened.
const HOSTILE: &str = "init=/bin/sh rdinit=/bin/sh rd.break lockdown=none apparmor=0 initrd=\\evil";

fn main() -> ExitCode {
    let mut rows = vec![
        thorough_row("the_raw_disk_boots_under_uefi", raw),
        row("what_a_boot_loader_appends_to_the_unified_kernel_image_changes_nothing", appended),
        row("the_vhdx_disk_boots_under_uefi_behind_a_scsi_controller", vhdx),
        row("a_cd_boots_under_secure_boot_and_containers_see_and_open_no_drive", cd::secure_boot),
        row("a_cd_with_a_changed_byte_is_refused_by_verity", |_| cd::changed()),
        thorough_row("the_cd_is_a_disk_as_well_whose_boots_are_counted", |_| cd::as_a_disk()),
        row("sbverify_accepts_what_we_signed_and_nobody_else_s", sbverify),
        row("firmware_takes_the_keys_that_keygen_made", |machines: &Machines| machines.enrolled().map(drop)),
        row("under_secure_boot_the_engine_gets_ready_and_runs_a_container", secure_boot),
        row(
            "under_secure_boot_the_kernel_refuses_a_root_hash_that_nobody_signed_for_this_machine",
            other_root_hash,
        ),
        row("under_secure_boot_an_unsigned_image_is_refused", |machines| {
            let folder = tempfile::tempdir()?;
            machines.refuses("unsigned", &unsigned(folder.path())?)
        }),
        row("under_secure_boot_an_image_signed_with_another_key_is_refused", |machines| {
            let folder = tempfile::tempdir()?;
            let keys = folder.path().join("keys");
            command::run(Command::new(image::builder()?).arg("keygen").arg(&keys), &[])?.ok()?;
            let signed = folder.path().join("signed.efi");
            let mut sbsign = Command::new("sbsign");
            sbsign.arg("--key").arg(keys.join("secure-boot/db.key"));
            sbsign.arg("--cert").arg(keys.join("secure-boot/db.crt")).arg("--output").arg(&signed);
            command::run(sbsign.arg(unsigned(folder.path())?), &[])?.ok()?;
            machines.refuses("other-key", &signed)
        }),
    ];
    let arm = image::out().and_then(|out| image::manifest(&out));
    if arm.is_ok_and(|manifest| manifest.architecture == Architecture::Aarch64) {
        rows.push(row(
            "the_folder_for_apple_s_framework_boots_by_itself_and_x86_64_programs_run_by_rosetta",
            |_| apple::with_rosetta(),
        ));
        rows.push(row("without_a_program_in_rosetta_s_share_the_engine_runs_and_the_state_says_why", |_| {
            apple::without_a_program()
        }));
    }
    suite::run(Machines::default(), rows, |_| String::new())
}

/// What rows share.
#[derive(Default)]
struct Machines(Mutex<Option<Firmware>>);

impl Machines {
    /// Firmware with Secure Boot in force that trusts this host's development key, by the first row that asks for it.
    fn enrolled(&self) -> Result<Firmware> {
        let mut enrolled = self.0.lock().ok().context("another row panicked")?;
        let firmware = match enrolled.take() {
            Some(firmware) => firmware,
            None => Firmware::enrolled(&image::development_keys()?.join("secure-boot"))?,
        };
        // Each machine writes variables of its own.
        let copy = Firmware::secure(&firmware.variables());
        *enrolled = Some(firmware);
        copy
    }

    /// The firmware says that it does not boot a disk with this in place of the unified kernel image.
    fn refuses(&self, name: &str, uki: &Path) -> Result<()> {
        let disks = Disks::new()?;
        let copy = disks.0.path().join("disk.raw");
        copy_sparse(&image::raw(&image::out()?)?, &copy)?;
        let place = format!("{}@@{}", copy.display(), Partition::of(&copy, 1)?.start);
        let mut mcopy = Command::new("mcopy");
        mcopy
            .args(["-o", "-i", &place])
            .arg(uki)
            .arg(format!("::/EFI/BOOT/{}", Platform::of_image()?.boot_file));
        command::run(&mut mcopy, &[])?.ok()?;
        let drive = format!("file={},format=raw,readonly=on", copy.display());
        let firmware = self.enrolled()?;
        let mut qemu = Qemu::start_firmware(&firmware, &format!("formats-{name}"), &[drive], &[])?;
        let ending = qemu.wait_for("Access Denied", DEADLINE)?;
        ensure!(ending == Ending::Seen, "the firmware did not refuse:\n{}", qemu.console());
        ensure!(!qemu.console().contains("Linux version"), "it was booted:\n{}", qemu.console());
        Ok(())
    }
}

/// The unified kernel image without its signature.
fn unsigned(folder: &Path) -> Result<PathBuf> {
    let path = folder.join("unsigned.efi");
    fs::copy(image::out()?.join("eci.efi"), &path)?;
    command::run(Command::new("sbattach").arg("--remove").arg(&path), &[])?.ok()?;
    Ok(path)
}

fn raw(_: &Machines) -> Result<()> {
    let disks = Disks::new()?;
    let firmware = Firmware::plain()?;
    let mut qemu = Qemu::start_firmware(&firmware, "formats-raw", &disks.drives()?, &[])?;
    gets_ready(&mut qemu)
}

/// Without Secure Boot the stub takes the boot loader's command line in place of its own, and, always, one more from
/// the machine's SMBIOS strings. The kernel takes neither.
fn appended(_: &Machines) -> Result<()> {
    let disks = Disks::new()?;
    let firmware = Firmware::plain()?;
    let image = image::out()?.join("eci.efi").to_string_lossy().into_owned();
    let more = ["-kernel", &image, "-append", HOSTILE, "-smbios", &strings()];
    let mut qemu = Qemu::start_firmware(&firmware, "formats-appended", &disks.drives()?, &more)?;
    gets_ready(&mut qemu)
}

/// SMBIOS strings that systemd's stub adds to the command line.
fn strings() -> String {
    format!("type=11,value=io.systemd.stub.kernel-cmdline-extra={HOSTILE}")
}

fn sbverify(_: &Machines) -> Result<()> {
    let (out, folder) = (image::out()?, tempfile::tempdir()?);
    let verify = |certificate: &Path| {
        let mut sbverify = Command::new("sbverify");
        command::run(sbverify.arg("--cert").arg(certificate).arg(out.join("eci.efi")), &[])
    };
    verify(&out.join("secure-boot.crt"))?.ok()?;
    let other = folder.path().join("keys");
    command::run(Command::new(image::builder()?).arg("keygen").arg(&other), &[])?.ok()?;
    let other = other.join("secure-boot/db.crt");
    verify(&other)?.refused(&[])?;
    let mut ours = Command::new(image::builder()?);
    ours.arg("verify").arg(&out).arg("--key").arg(out.join("image.pub")).arg("--certificate").arg(&other);
    let said = command::run(&mut ours, &[])?;
    ensure!(said.code == 5 && said.stdout().contains("FAILED"), "{}{}", said.stdout(), said.stderr);
    Ok(())
}

/// Driven as `run` does, but for the firmware in between.
fn secure_boot(machines: &Machines) -> Result<()> {
    let out = image::out()?;
    let (firmware, mut vm) = (machines.enrolled()?, Vm::prepare("formats-secure", &out)?);
    vm.boot_by(&firmware, vm::Disks::AsRun, &["-smbios", &strings()])?;
    vm.boot(&[])?;
    has_its_own_command_line(&vm.console())?;
    root_is_signed(&vm, "checked with a key of the firmware")?;
    works(&vm)
}

/// What the self-check found of the signature that the kernel checks.
fn root_is_signed(vm: &Vm, wanted: &str) -> Result<()> {
    let status = vm.status()?;
    let checks = status["checks"].as_array().context("status has checks")?;
    let found = checks.iter().find(|check| check["id"] == "root-signed").map(|check| &check["found"]);
    ensure!(found.is_some_and(|found| found == wanted), "{found:?}");
    Ok(())
}

/// Manifest and unified kernel image are ours; the root hash is signed with a key that the firmware does not know, or with the one
/// that it does, for another root hash, or by nobody. Of the first two it is the kernel that refuses, and its log says so.
fn other_root_hash(machines: &Machines) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys");
    command::run(Command::new(image::builder()?).arg("keygen").arg(&keys), &[])?.ok()?;
    let root_hash = image::manifest(&image::out()?)?.root.root_hash;
    let digit = if root_hash.starts_with('0') { '1' } else { '0' };
    let other_hash = format!("{digit}{}", root_hash.get(1..).unwrap_or_default());
    let foreign = signed(&root_hash, &keys.join("secure-boot"))?;
    let ours = signed(&other_hash, &image::development_keys()?.join("secure-boot"))?;
    let kernel = "verity: Root hash verification failed";
    let refused = "boot refused: the firmware enforces Secure Boot";
    for (name, signature, reasons) in [
        ("other-key", foreign, [kernel, "Required key not available", refused]),
        ("other-root-hash", ours, [kernel, "Key was rejected by service", refused]),
        ("unsigned-root-hash", Vec::new(), ["nobody has signed the root hash", refused, refused]),
    ] {
        let disks = Disks::new()?;
        let copy = disks.0.path().join("disk.raw");
        copy_sparse(&image::raw(&image::out()?)?, &copy)?;
        let partition = Partition::of(&copy, SIGNATURE)?;
        disk::rewrite_signature(&copy, &partition, |said| said.signature = BASE64.encode(signature))?;
        let drive = format!("file={},format=raw", copy.display());
        let firmware = machines.enrolled()?;
        let mut qemu = Qemu::start_firmware(&firmware, &format!("formats-{name}"), &[drive], &[])?;
        qemu.wait_for_end(DEADLINE)?;
        let console = qemu.console();
        let missing = reasons.into_iter().find(|reason| !console.contains(reason));
        ensure!(
            missing.is_none(),
            "{name}: `{}` is not on the console:\n{console}",
            missing.unwrap_or_default()
        );
        ensure!(!console.contains("erofs (device"), "{name}: the root was mounted:\n{console}");
    }
    Ok(())
}

/// A root hash, signed as the kernel wants it with the db key of this folder.
fn signed(root_hash: &str, keys: &Path) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let (message, signature) = (folder.path().join("root-hash"), folder.path().join("root-hash.p7s"));
    fs::write(&message, root_hash)?;
    let mut openssl = Command::new("openssl");
    openssl.args(["smime", "-sign", "-binary", "-noattr", "-md", "sha256", "-outform", "der"]);
    openssl.arg("-signer").arg(keys.join("db.crt")).arg("-inkey").arg(keys.join("db.key"));
    command::run(openssl.arg("-in").arg(&message).arg("-out").arg(&signature), &[])?.ok()?;
    Ok(fs::read(&signature)?)
}

/// As Hyper-V has it: one disk, behind a SCSI controller, for image and data.
fn vhdx(_: &Machines) -> Result<()> {
    let out = image::out()?;
    let file = image::raw(&out)?.with_extension("vhdx");
    let (firmware, mut vm) = (Firmware::plain()?, Vm::prepare("formats-vhdx", &out)?);
    vm.boot_by(&firmware, vm::Disks::Scsi { file: &file, format: "vhdx" }, &[])?;
    vm.boot(&[])?;
    ensure!(vm.console().contains("data disk /dev/sda"), "the data is elsewhere:\n{}", vm.last_words());
    root_is_signed(&vm, "Secure Boot is not enforced; the manifest's signature was checked")?;
    works(&vm)
}

/// Firmware booted the root of this build, and the engine runs a container.
fn works(vm: &Vm) -> Result<()> {
    let root_hash = image::manifest(&image::out()?)?.root.root_hash;
    ensure!(vm.status()?["image"]["root_hash"] == root_hash.as_str(), "another root was booted");
    ensure!(vm.console().contains("BdsDxe: starting"), "no firmware had a part in it:\n{}", vm.last_words());
    vm.every_check_holds()?;
    vm.import_busybox()?;
    let said = vm.sh(&[], "echo works")?;
    ensure!(said == "works", "{said}");
    vm.stop()
}

/// The image and an empty data disk.
struct Disks(tempfile::TempDir);

impl Disks {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn drives(&self) -> Result<[String; 2]> {
        let data = self.0.path().join("data");
        fs::File::create(&data)?.set_len(4 << 30)?;
        let drive = |path: &Path, more: &str| format!("file={},format=raw{more}", path.display());
        Ok([drive(&image::raw(&image::out()?)?, ",readonly=on"), drive(&data, "")])
    }
}

/// The engine gets ready, and the kernel has its own command line and nothing else.
fn gets_ready(qemu: &mut Qemu) -> Result<()> {
    ensure!(qemu.wait_for_engine(DEADLINE)? == Ending::Seen, "no engine:\n{}", qemu.console());
    has_its_own_command_line(&qemu.console())
}

fn has_its_own_command_line(console: &str) -> Result<()> {
    let line = console.lines().find_map(|line| line.split_once("Kernel command line: "));
    let (_, line) = line.context("the kernel does not tell its command line")?;
    let config = fs::read_to_string(image::out()?.join("kernel.config"))?;
    let own = config.lines().find_map(|line| line.strip_prefix("CONFIG_CMDLINE=\""));
    let own = own.and_then(|line| line.strip_suffix('"')).context("the kernel has a command line")?;
    ensure!(line.trim() == own, "the command line is\n{line}\nand not\n{own}");
    Ok(())
}
