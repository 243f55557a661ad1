//! A machine with a TPM says what it booted, and nobody who boots something else gets it to say that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::attest::Evidence;
use eci_tests::command::{self, Outcome};
use eci_tests::disk::{Partition, copy_sparse};
use eci_tests::firmware::Firmware;
use eci_tests::image;
use eci_tests::platform::Platform;
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::{Disks, Vm};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Exit codes of `eci-builder --help`.
const UNTRUSTED: i32 = 5;
const INSTANCE: i32 = 7;
/// Name of the instance.
const NAME: &str = "attest";
/// A question.
const NONCE: &str = "00112233445566778899aabbccddeeff";
/// DER of a P-256 public key up to its point (RFC 5480, 2).
const P256: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// A machine whose boot was measured, and room for evidence.
struct Measured {
    vm: Vm,
    folder: TempDir,
}

impl Measured {
    fn new() -> Result<Self> {
        let mut vm = Vm::prepare(NAME, &image::out()?)?;
        vm.boot(&["--tpm"])?;
        Ok(Self { vm, folder: tempfile::tempdir()? })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `eci-builder attest` with the image's key.
    fn attest(&self, more: &[&str]) -> Result<Outcome> {
        attest(&self.vm, NAME, more)
    }

    /// Evidence in answer to [`NONCE`], in a file of this name.
    fn saved(&self, name: &str) -> Result<Evidence> {
        let path = self.path(name);
        let save = ["attest", "--name", NAME, "--nonce", NONCE, "--save", text(&path)?];
        self.vm.builder(&save)?.ok()?;
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    /// What is said of saved evidence.
    fn judged(&self, evidence: &Path, nonce: &str) -> Result<Outcome> {
        self.attest(&[text(&image::out()?)?, "--evidence", text(evidence)?, "--nonce", nonce])
    }
}

fn attest(vm: &Vm, name: &str, more: &[&str]) -> Result<Outcome> {
    let key = image::out()?.join("image.pub");
    let mut arguments = vec!["attest", "--name", name, "--key", text(&key)?];
    arguments.extend(more);
    vm.builder(&arguments)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("paths of the suites are text")
}

fn main() -> ExitCode {
    match Measured::new() {
        Ok(measured) => suite::run(measured, rows(), |measured| measured.vm.last_words()),
        Err(error) => {
            eprintln!("the image does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn rows() -> Vec<Row<Measured>> {
    vec![
        row("a_boot_of_this_image_is_told_by_its_tpm", |measured| {
            let said = measured.attest(&[])?.ok()?;
            let root_hash = image::manifest(&image::out()?)?.root.root_hash;
            for line in [
                "ok      TPM: quote: answers ",
                "ok      firmware: event log: ",
                "ok      firmware: programs: eci.efi, the kernel in it, and nothing else",
                "ok      eci.efi: parts: kernel, initrd and command line; then enter-initrd, leave-initrd, sysinit, ready",
                "ok      eci.efi: what the kernel got: the image's command line and initramfs",
                "ok      eci.efi: nothing beside it: ",
                &format!("ok      root: root hash: the image's, root hash {root_hash}"),
                "ok      settings: digest: the default: isolation on and locked",
                "skipped TPM: key: sha256 ",
                "skipped firmware: its own code: Secure Boot off; ",
                "ok      firmware: drivers: none but its own",
            ] {
                ensure!(said.lines().any(|found| found.starts_with(line)), "no `{line}` in\n{said}");
            }
            let status = measured.vm.status()?;
            ensure!(status["measured"].as_array().is_some_and(|measured| measured.len() == 6), "{status}");
            measured.vm.every_check_holds()
        }),
        row("with_the_evidence_of_a_trusted_day_nothing_is_left_open", |measured| {
            let reference = measured.path("reference");
            measured.saved("reference")?;
            let settings = measured.path("settings.json");
            fs::write(&settings, "{}")?;
            let said = measured.attest(&["--reference", text(&reference)?])?.ok()?;
            ensure!(said.lines().all(|line| line.starts_with("ok ")), "{said}");
            let other = measured.attest(&["--settings", text(&settings)?])?;
            ensure!(other.code == UNTRUSTED, "exit code {}: {}", other.code, other.stderr);
            other.refused(&["settings: digest: `settings:", "was wanted"])?;
            // A reference that nobody signed is none.
            let mut foreign = measured.saved("foreign")?;
            foreign.pcrs.swap(0, 15);
            fs::write(measured.path("foreign"), serde_json::to_vec(&foreign)?)?;
            let said = measured.attest(&["--reference", text(&measured.path("foreign"))?])?;
            said.refused(&["the reference is no evidence", "not those that were signed"])?;
            // What does not hold takes no good one's place.
            let (before, settings) = (fs::read(&reference)?, text(&settings)?.to_owned());
            let save = ["--settings", &settings, "--save", text(&reference)?];
            measured.attest(&save)?.refused(&["was wanted"])?;
            ensure!(fs::read(&reference)? == before, "the reference is another one");
            Ok(())
        }),
        row("tpm2_tools_agree_with_the_quote", |measured| {
            let evidence = measured.saved("evidence")?;
            let (key, attested) = (BASE64.decode(&evidence.key)?, BASE64.decode(&evidence.attested)?);
            // The point's two halves are the last two sized fields of the public area.
            let (x, y) = key.split_at(key.len() - 34);
            let x = x.get(x.len() - 32..).context("a key has a point")?;
            let der = [&P256[..], x, y.get(2..).context("a key has a point")?].concat();
            let body = BASE64.encode(der);
            let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
            fs::write(measured.path("key.pem"), pem)?;
            fs::write(measured.path("quote"), &attested)?;
            fs::write(measured.path("signature"), BASE64.decode(&evidence.signature)?)?;
            let check = |nonce: &str| {
                let mut check = Command::new("tpm2_checkquote");
                check.current_dir(measured.folder.path());
                check.args(["-u", "key.pem", "-m", "quote", "-s", "signature", "-g", "sha256", "-q", nonce]);
                command::run(&mut check, &[])
            };
            check(NONCE)?.ok()?;
            check("00112233445566778899aabbccddeefe")?.refused(&[])?;
            let print = ["-t", "TPMS_ATTEST", text(&measured.path("quote"))?].map(str::to_owned);
            let print = command::host("tpm2_print", &print.each_ref().map(String::as_str))?.ok()?;
            let pcrs: Vec<_> = evidence.pcrs.concat().into_bytes();
            let pcrs: Result<Vec<u8>, _> =
                pcrs.chunks(2).map(|pair| u8::from_str_radix(&String::from_utf8_lossy(pair), 16)).collect();
            let digest: String = Sha256::digest(pcrs?).iter().map(|byte| format!("{byte:02x}")).collect();
            ensure!(print.contains(&digest), "{digest} is not in\n{print}");
            Ok(())
        }),
        row("an_old_answer_and_a_changed_one_are_refused", |measured| {
            let mut evidence = measured.saved("evidence")?;
            let path = measured.path("evidence");
            measured.judged(&path, NONCE)?.ok()?;
            let old = measured.judged(&path, &"00".repeat(16))?;
            ensure!(old.code == UNTRUSTED, "exit code {}: {}", old.code, old.stderr);
            old.refused(&["TPM: quote: it answers another nonce"])?;
            let root = evidence.pcrs.get_mut(15).context("16 registers")?;
            *root = "0".repeat(64);
            fs::write(&path, serde_json::to_vec(&evidence)?)?;
            measured
                .judged(&path, NONCE)?
                .refused(&["the values of the PCRs are not those that were signed"])?;
            let mut evidence = measured.saved("evidence")?;
            evidence.firmware_log = String::new();
            fs::write(&path, serde_json::to_vec(&evidence)?)?;
            measured.judged(&path, NONCE)?.refused(&["firmware: event log: PCR 0 is "]).map(drop)
        }),
        row("another_image_is_not_what_this_machine_booted", |measured| {
            let other = image::out()?.join("test");
            let key = other.join("image.pub");
            let said = measured.vm.builder(&[
                "attest",
                text(&other)?,
                "--name",
                NAME,
                "--key",
                text(&key)?,
                "--flavour",
                "test",
            ])?;
            ensure!(said.code == UNTRUSTED, "exit code {}: {}", said.code, said.stderr);
            said.refused(&[
                "firmware: programs: another program before eci.efi",
                "eci.efi: parts: PCR 11 is ",
                "root: root hash: `root:",
            ])?;
            // Signed by another key than the one that is asked for, nothing else is looked at.
            let said = measured.attest(&[text(&other)?])?;
            ensure!(said.code == UNTRUSTED && !said.stdout().contains("quote"), "{}", said.stdout());
            Ok(())
        }),
        row("no_container_reaches_the_tpm_or_reads_its_registers", |measured| {
            let vm = &measured.vm;
            vm.import_busybox()?;
            let before = measured.saved("before")?.pcrs;
            for flags in [&[][..], &["--privileged"]] {
                let nodes = vm.sh(flags, "find / -xdev -name 'tpm*'; find /dev -name 'tpm*'")?;
                ensure!(nodes.is_empty(), "{flags:?}: {nodes}");
                let said = vm.sh(flags, "cat /sys/class/tpm/tpm0/pcr-sha256/11 2>&1; true")?;
                ensure!(said.contains("can't open"), "{flags:?}: {said}");
                let said =
                    vm.sh(flags, "cat /sys/kernel/security/tpm0/binary_bios_measurements 2>&1 | head -c 99")?;
                ensure!(said.contains("can't open"), "{flags:?}: {said}");
                // 10, 224 is tpm0; the resource manager's number is the kernel's choice.
                for numbers in ["10 224", "253 65536", "254 65536", "255 65536"] {
                    let said = vm.sh(flags, &format!("mknod /t c {numbers} 2>&1 && cat /t 2>&1; true"))?;
                    ensure!(said.contains("not permitted"), "{flags:?}: {numbers}: {said}");
                }
            }
            for device in ["/dev/tpm0", "/dev/tpmrm0"] {
                let said = vm.docker(&["run", "--rm", "--device", device, "busybox", "true"])?;
                said.refused(&["enhanced container isolation"])?;
            }
            ensure!(measured.saved("after")?.pcrs == before, "somebody measured something");
            measured.attest(&[])?.ok().map(drop)
        }),
        row("many_who_ask_at_once_are_answered_or_told_to_wait", |measured| {
            let key = image::out()?.join("image.pub");
            let ask = || measured.vm.builder(&["attest", "--name", NAME, "--key", text(&key)?]);
            let said: Vec<_> = thread::scope(|scope| {
                let askers: Vec<_> = (0..6).map(|_| scope.spawn(ask)).collect();
                askers.into_iter().map(|asker| asker.join().expect("no panic")).collect()
            });
            let mut answered = 0;
            for outcome in said {
                let outcome = outcome?;
                answered += u32::from(outcome.code == 0);
                ensure!(
                    outcome.code == 0 || outcome.stderr.contains("the TPM is being asked already"),
                    "{}",
                    outcome.stderr
                );
            }
            ensure!(answered > 0, "nobody was answered");
            measured.attest(&[])?.ok().map(drop)
        }),
        row("a_tpm_that_hangs_keeps_nobody_but_those_who_ask_it", |measured| {
            let vm = &measured.vm;
            let supervisor = vm.answer()["pid"].to_string();
            let tpm = command::host("pgrep", &["-P", &supervisor, "swtpm"])?.ok()?;
            command::host("kill", &["-STOP", &tpm])?.ok()?;
            let began = Instant::now();
            let said = thread::scope(|scope| {
                let asker = scope.spawn(|| measured.attest(&[]));
                thread::sleep(Duration::from_secs(2));
                let others = (measured.attest(&[]), vm.status(), vm.sh(&[], "echo works"));
                let resumed = command::host("kill", &["-CONT", &tpm]);
                (asker.join().expect("no panic"), others, resumed)
            });
            let (asker, (second, status, container), resumed) = said;
            resumed?.ok()?;
            second?.refused(&["the TPM is being asked already"])?;
            ensure!(status?["state"] == "ready" && container? == "works", "the machine hangs as well");
            asker?.ok().with_context(|| format!("after {:?}", began.elapsed()))?;
            measured.attest(&[])?.ok().map(drop)
        }),
        row("a_machine_does_not_go_on_without_its_tpm_and_is_the_same_one_afterwards", |measured| {
            let vm = &measured.vm;
            measured.saved("known")?;
            let supervisor = vm.answer()["pid"].to_string();
            let tpm = command::host("pgrep", &["-P", &supervisor, "swtpm"])?.ok()?;
            command::host("kill", &["-KILL", &tpm])?.ok()?;
            let (log, begin) = (vm.state().join("supervisor.log"), Instant::now());
            while !fs::read_to_string(&log)?.contains("error: what serves the TPM to the VM ended") {
                ensure!(begin.elapsed() < Duration::from_secs(120), "{}", fs::read_to_string(&log)?);
                thread::sleep(Duration::from_millis(200));
            }
            let stopped = measured.attest(&[])?;
            ensure!(stopped.code == INSTANCE, "exit code {}: {}", stopped.code, stopped.stderr);
            stopped.refused(&["is stopped", "hint: start it with `eci-builder run --tpm`"])?;
            vm.run(&["--tpm"])?.ok()?;
            let said = measured.attest(&["--reference", text(&measured.path("known"))?])?.ok()?;
            ensure!(said.lines().all(|line| line.starts_with("ok ")), "{said}");
            // Without it nothing is measured, and nothing is claimed.
            vm.stop()?;
            vm.run(&[])?.ok()?;
            ensure!(vm.status()?.get("measured").is_none(), "something was measured");
            let said = measured.attest(&[])?;
            ensure!(said.code == INSTANCE, "exit code {}: {}", said.code, said.stderr);
            said.refused(&["the machine has no TPM 2.0", "hint: stop it, and start it with"])?;
            vm.stop()
        }),
        row("under_secure_boot_a_boot_is_told_too", secure),
        row("the_image_s_own_kernel_and_initramfs_started_by_another_way_are_found_out", directly),
        row("a_changed_boot_program_and_what_a_boot_loader_adds_are_found_out", changed),
    ]
}

/// There the stub starts the kernel without the firmware, which measures one program less.
fn secure(_: &Measured) -> Result<()> {
    let keys = image::development_keys()?.join("secure-boot");
    let firmware = Firmware::enrolled(&keys)?;
    let mut vm = Vm::prepare("secure", &image::out()?)?;
    vm.boot_by(&firmware, Disks::AsRun, &[])?;
    vm.boot(&["--tpm"])?;
    let said = attest(&vm, "secure", &[])?.ok()?;
    for line in [
        "skipped firmware: its own code: Secure Boot on; ",
        "ok      firmware: programs: eci.efi, and nothing else",
        "ok      eci.efi: what the kernel got: ",
    ] {
        ensure!(said.lines().any(|found| found.starts_with(line)), "no `{line}` in\n{said}");
    }
    vm.stop()
}

/// The firmware has a kernel from QEMU, and starts that. It could as well have been another one's initramfs.
fn directly(_: &Measured) -> Result<()> {
    let out = image::out()?;
    let mut vm = Vm::prepare("directly", &out)?;
    let [kernel, initrd] = ["vmlinuz", "initrd.img"].map(|name| out.join(name));
    vm.add_arguments(&["-kernel", text(&kernel)?, "-initrd", text(&initrd)?])?;
    vm.boot(&["--tpm"])?;
    let said = attest(&vm, "directly", &[])?;
    ensure!(said.code == UNTRUSTED, "exit code {}: {}", said.code, said.stderr);
    said.refused(&[
        "firmware: programs: another program before eci.efi",
        "eci.efi: parts: no firmware measured a kernel",
        "eci.efi: what the kernel got: another command line or initramfs",
    ])?;
    vm.stop()
}

/// Without Secure Boot the firmware starts whatever lies there; the engine gets ready, and the TPM tells.
fn changed(measured: &Measured) -> Result<()> {
    let folder = measured.path("changed");
    fs::create_dir(&folder)?;
    for entry in fs::read_dir(image::out()?)?.flatten() {
        let name = entry.file_name();
        if entry.file_type()?.is_file() && !name.to_string_lossy().contains(".wsl") {
            copy_sparse(&entry.path(), &folder.join(&name))?;
        }
    }
    let mut program = fs::read(folder.join("eci.efi"))?;
    let words = b"IMAGE_ID=eci";
    let place = program.windows(words.len()).position(|window| window == words);
    let place = place.context("eci.efi says what it is")? + words.len() - 1;
    *program.get_mut(place).context("it is inside")? = b'j';
    let efi = measured.path("changed.efi");
    fs::write(&efi, program)?;
    let disk = image::raw(&folder)?;
    let volume = format!("{}@@{}", disk.display(), Partition::of(&disk, 1)?.start);
    let file = format!("::/EFI/BOOT/{}", Platform::of_image()?.boot_file);
    let mut copy = Command::new("mcopy");
    command::run(copy.args(["-o", "-i", &volume]).arg(&efi).arg(file).stdin(Stdio::null()), &[])?.ok()?;
    let mut vm = Vm::prepare("changed", &folder)?;
    vm.add_arguments(&["-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra=init=/bin/sh"])?;
    vm.boot(&["--tpm"])?;
    let reference = measured.path("reference");
    let said = attest(&vm, "changed", &["--reference", text(&reference)?])?;
    ensure!(said.code == UNTRUSTED, "exit code {}: {}", said.code, said.stderr);
    ensure!(
        said.stdout().contains("ok      root: root hash: "),
        "it is the image's root:\n{}",
        said.stdout()
    );
    said.refused(&[
        "TPM: key: sha256 ",
        "another TPM's than the reference's",
        "firmware: programs: another program before eci.efi, of sha256 ",
        "eci.efi: parts: PCR 11 is ",
        "eci.efi: what the kernel got: another command line or initramfs",
        "eci.efi: nothing beside it: something is measured in PCR 12: another command line",
    ])?;
    vm.stop()
}
