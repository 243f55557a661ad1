//! Nothing in the VM can be changed: not by a privileged container, not from the console, not by the boot loader.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eci_contract::manifest::Architecture;
use eci_tests::disk::Partition;
use eci_tests::qemu::{Ending, Qemu};
use eci_tests::suite::{Row, row};
use eci_tests::vm::{self, Vm};
use eci_tests::{command, image};

fn main() -> ExitCode {
    vm::run_suite("immutability", rows())
}

fn rows() -> Vec<Row<Vm>> {
    vec![
        row("an_image_without_a_registry_is_imported", Vm::import_busybox),
        row("a_privileged_container_sees_no_block_device_of_the_vm_and_an_empty_kernel_log", |vm| {
            let look =
                "ls /dev | grep -E '^(vd|sd|dm|mem|port|kmem|loop)' || echo none; stat -c %t:%T /dev/kmsg";
            let found = vm.sh(&["--privileged"], look)?;
            // 1:3 is the null device.
            ensure!(found == "none\n1:3", "{found}");
            Ok(())
        }),
        row("a_privileged_container_cannot_make_or_open_a_block_device", |vm| {
            denied(vm, "mknod /tmp/b b 254 0 && dd if=/dev/zero of=/tmp/b count=1")
        }),
        row("a_privileged_container_cannot_write_the_vm_s_sysctls", |vm| {
            for node in [
                "kernel/core_pattern",
                "kernel/sysrq",
                "kernel/warn_limit",
                "fs/suid_dumpable",
                "kernel/randomize_va_space",
            ] {
                denied(vm, &format!("echo 1 >/proc/sys/{node}"))?;
            }
            Ok(())
        }),
        row("what_a_privileged_container_writes_to_its_own_settings_reaches_nobody_else", |vm| {
            let script = "cd /proc/sys/vm && echo 2 >overcommit_memory && cat overcommit_memory";
            ensure!(vm.sh(&["--privileged"], script)? == "2", "the container has no setting of its own");
            for flags in [&[][..], &["--privileged"]] {
                let others = vm.sh(flags, "cat /proc/sys/vm/overcommit_memory")?;
                ensure!(others == "0", "another container has {others}");
            }
            Ok(())
        }),
        row("a_privileged_container_cannot_pull_the_kernel_s_triggers", |vm| {
            for attempt in [
                "echo b >/proc/sysrq-trigger",
                "echo mem >/sys/power/state",
                "echo 1 >/sys/kernel/uevent_helper",
                "echo 0 >/sys/class/block/vda/ro || echo 0 >/sys/block/vda/queue/read_ahead_kb",
                "insmod /bin/busybox",
                "mount -t debugfs none /tmp",
                "mount -t securityfs none /tmp",
                "nsenter -t 1 -m true && chroot /proc/1/root test -e /usr/libexec/eci",
                "date -s 2001-01-01; test $(date +%Y) = 2001",
            ] {
                denied(vm, attempt)?;
            }
            Ok(())
        }),
        row("no_kernel_memory_module_or_kexec_interface_exists", |vm| {
            let script = "for f in /proc/kcore /proc/modules /proc/sysrq-trigger /proc/kallsyms-x /sys/kernel/kexec_loaded \
                          /proc/config; do test -e $f && echo $f; done; true";
            let found = vm.sh(&["--privileged"], script)?;
            ensure!(found.is_empty(), "{found}");
            Ok(())
        }),
        row("after_the_engine_s_work_every_promise_still_holds", |vm| {
            vm.sh(&["-v", "work:/w"], "dd if=/dev/zero of=/w/f bs=1M count=32 2>/dev/null")?;
            vm.docker(&["system", "prune", "-f"])?.ok()?;
            vm.every_check_holds()
        }),
        row("the_self_check_reads_what_was_promised", |vm| {
            let status = vm.status()?;
            let ids: Vec<_> = status["checks"]
                .as_array()
                .context("checks")?
                .iter()
                .filter_map(|check| check["id"].as_str())
                .collect();
            for topic in ["verity", "mount", "lockdown", "listen", "sysctl", "doors"] {
                ensure!(ids.iter().any(|id| id.contains(topic)), "no check about {topic}: {ids:?}");
            }
            Ok(())
        }),
        row("no_shell_setuid_file_device_or_package_manager_is_in_the_image", no_tools),
        row("a_service_that_was_taken_over_changes_nothing", taken_over),
        row("keystrokes_get_no_prompt_and_ctrl_alt_del_is_an_orderly_shutdown", keystrokes),
        row("what_a_boot_loader_appends_changes_nothing", command_line),
        row("the_image_on_the_host_is_byte_for_byte_what_was_built", |_| {
            let out = image::out()?;
            let mut sums = Command::new("sha256sum");
            command::run(sums.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out), &[])?
                .ok()
                .map(drop)
        }),
    ]
}

/// The attempt fails for a privileged root, and the container itself was started.
fn denied(vm: &Vm, attempt: &str) -> Result<()> {
    let script = format!("if ( {attempt} ) 2>/dev/null >/dev/null; then echo DONE; else echo DENIED; fi");
    let text = vm.sh(&["--privileged"], &script)?;
    ensure!(text == "DENIED", "`{attempt}` gave {text}");
    Ok(())
}

/// Extracts the root file system from the disk image with the file system's own tools, and looks.
fn no_tools(_: &Vm) -> Result<()> {
    let out = image::out()?;
    let folder = tempfile::tempdir()?;
    let erofs = folder.path().join("root.erofs");
    let tree = folder.path().join("tree");
    cut_root(&image::raw(&out)?, &erofs)?;
    command::host("fsck.erofs", &[&format!("--extract={}", tree.display()), &erofs.to_string_lossy()])?
        .ok()?;
    let found = command::host(
        "find",
        &[
            &tree.to_string_lossy(),
            "(",
            "-perm",
            "/6000",
            "-o",
            "-type",
            "b",
            "-o",
            "-type",
            "c",
            "-o",
            "-perm",
            "-0002",
            "!",
            "-type",
            "l",
            "!",
            "-path",
            "*/tmp",
            ")",
        ],
    )?
    .ok()?;
    ensure!(found.is_empty(), "{found}");
    let names = "sh bash dash busybox ash zsh apt dpkg rpm apk python3 perl login getty agetty su sudo ssh sshd systemctl gdb strace ctr docker runc-real";
    for name in names.split(' ') {
        let found = command::host(
            "find",
            &[&tree.to_string_lossy(), "-name", name, "(", "-type", "f", "-o", "-type", "l", ")"],
        )?
        .ok()?;
        ensure!(found.is_empty(), "{found}");
    }
    ensure!(tree.join("usr/bin/runc").exists(), "the tree was not extracted");
    Ok(())
}

/// Boots the test flavour, whose service table has an intruder: root in the VM with a shell. The shipped image has neither.
fn taken_over(_: &Vm) -> Result<()> {
    let mut vm = Vm::prepare("intruder", &image::out()?.join("test"))?;
    vm.boot(&["--tpm"])?;
    let mut logs = String::new();
    for _ in 0..60 {
        logs = vm.builder(&["logs", "--name", "intruder"])?.ok()?;
        if logs.contains("intruder: all attempts made") {
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    let said: Vec<_> = logs
        .lines()
        .filter_map(|line| line.split_once("intruder: intruder: "))
        .map(|(_, said)| said)
        .collect();
    ensure!(
        said.contains(&"control-write: DONE"),
        "the intruder is not root, or did not run:\n{}",
        said.join("\n")
    );
    ensure!(said.contains(&"control-tpm: DONE"), "the machine has no TPM:\n{}", said.join("\n"));
    ensure!(
        said.contains(&"all attempts made"),
        "the intruder did not come to its end:\n{}",
        said.join("\n")
    );
    let done: Vec<_> =
        said.iter().filter(|line| line.ends_with(": DONE") && !line.starts_with("control-")).collect();
    ensure!(done.is_empty(), "the intruder did: {done:?}");
    ensure!(
        said.iter().filter(|line| line.ends_with(": refused")).count() >= 23,
        "few attempts:\n{}",
        said.join("\n")
    );
    Ok(())
}

/// Copies the partition named `eci-root-a` out of a raw disk.
fn cut_root(disk: &Path, to: &Path) -> Result<()> {
    let partition = Partition::of(disk, 2)?;
    ensure!(partition.name == "eci-root-a", "partition 2 is `{}`", partition.name);
    partition.copy(disk, to)
}

fn drive(path: &Path, more: &str) -> String {
    format!("file={},format=raw{more}", path.display())
}

fn boot(name: &str, data: &Path, more: &[&str]) -> Result<Qemu> {
    let out = image::out()?;
    fs::File::create(data)?.set_len(4 << 30)?;
    let drives = [drive(&image::raw(&out)?, ",readonly=on"), drive(data, "")];
    Qemu::start(name, &out, &drives, more)
}

fn keystrokes(_: &Vm) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut qemu = boot("keystrokes", &folder.path().join("data"), &[])?;
    ensure!(
        qemu.wait_for_engine(Duration::from_secs(180))? == Ending::Seen,
        "no engine:\n{}",
        qemu.console()
    );
    let before = qemu.console().len();
    let mut monitor = Monitor::connect(&qemu.monitor())?;
    for key in ["ret", "a", "ret", "ctrl-c", "alt-sysrq-b", "ctrl-d", "f1", "ret"] {
        monitor.keys(key)?;
    }
    std::thread::sleep(Duration::from_secs(3));
    let said = qemu.console()[before..].to_lowercase();
    for prompt in ["login", "password", "# ", "$ ", "sh:", "emergency", "sysrq"] {
        ensure!(!said.contains(prompt), "the console answered:\n{said}");
    }
    // QEMU's board for Arm has no keyboard, but a power button.
    let word = if image::manifest(&image::out()?)?.architecture == Architecture::X86_64 {
        monitor.keys("ctrl-alt-delete")?;
        "ctrl-alt-del"
    } else {
        monitor.send(r#"{"execute":"system_powerdown"}"#)?;
        "power button"
    };
    qemu.wait_for_end(Duration::from_secs(180))?;
    ensure!(qemu.console().contains(word), "no word of the shutdown:\n{}", qemu.console());
    Ok(())
}

fn command_line(_: &Vm) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let hostile = "init=/bin/sh rdinit=/bin/sh single rd.break systemd.unit=rescue.target systemd.debug-shell ro=0 rw 1 emergency lockdown=none apparmor=0";
    let mut qemu = boot("command-line", &folder.path().join("data"), &["-append", hostile])?;
    ensure!(
        qemu.wait_for_engine(Duration::from_secs(180))? == Ending::Seen,
        "no engine:\n{}",
        qemu.console()
    );
    Ok(())
}

/// QEMU's machine protocol, as far as pressing keys needs it.
struct Monitor(UnixStream);

impl Monitor {
    fn connect(path: &Path) -> Result<Self> {
        let mut monitor = Self(UnixStream::connect(path)?);
        monitor.answer()?;
        monitor.send(r#"{"execute":"qmp_capabilities"}"#)?;
        Ok(monitor)
    }

    fn keys(&mut self, combination: &str) -> Result<()> {
        let keys: Vec<_> =
            combination.split('-').map(|key| format!(r#"{{"type":"qcode","data":"{key}"}}"#)).collect();
        self.send(&format!(r#"{{"execute":"send-key","arguments":{{"keys":[{}]}}}}"#, keys.join(",")))
    }

    fn send(&mut self, text: &str) -> Result<()> {
        self.0.write_all(text.as_bytes())?;
        let answer = self.answer()?;
        ensure!(!answer.contains("\"error\""), "QEMU refused {text}: {answer}");
        Ok(())
    }

    fn answer(&mut self) -> Result<String> {
        let mut buffer = [0; 4096];
        let length = self.0.read(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}
