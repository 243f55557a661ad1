//! What the script tells vfkit, and that what it keeps is kept.

use std::os::unix::fs::MetadataExt;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use eci_contract::disk::DATA_NAME;
use eci_contract::link::VSOCK_PORT;
use eci_contract::manifest::Flavour;

use super::super::assemble::Signing;
use super::super::assemble::tests::assemble_for;
use super::super::formats::Format;
use super::super::{secure_boot, signature};
use super::*;

/// The folder of an image, with a `vfkit` that says what it is asked for.
struct Mac(tempfile::TempDir);

impl Mac {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["bin", "apple"] {
            fs::create_dir(path(name)).expect("folder");
        }
        let says = "#!/bin/sh\nfor word; do printf '%s\\n' \"$word\"; done\n";
        for (name, text) in [("bin/vfkit", says), ("apple/vfkit.sh", SCRIPT_TEXT)] {
            fs::write(path(name), text).expect("written");
        }
        for (name, text) in [(DISK, "disk"), (KERNEL, "kernel"), (INITRD, "initrd")] {
            fs::write(path(FOLDER).join(name), text).expect("written");
        }
        // As somebody may keep what is signed.
        fs::set_permissions(path("apple/disk.raw"), Permissions::from_mode(0o444)).expect("read-only");
        fs::set_permissions(path("bin/vfkit"), Permissions::from_mode(0o755)).expect("executable");
        Self(folder)
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn command(&self, state: &Path) -> Command {
        let path = std::env::var("PATH").expect("a PATH");
        let mut command = Command::new("sh");
        command
            .arg(self.0.path().join("apple/vfkit.sh"))
            .env("PATH", format!("{}:{path}", self.0.path().join("bin").display()))
            .env("ECI_STATE", state)
            .env("ECI_DATA_GIB", "1");
        command
    }

    fn run(&self, state: &Path, more: &[&str]) -> Output {
        self.command(state).args(more).output().expect("sh is there")
    }

    /// Has vfkit run until its input ends.
    fn wait_for_input(&self) {
        fs::write(self.0.path().join("bin/vfkit"), "#!/bin/sh\nread -r _ || :\n").expect("written");
    }

    /// What vfkit is asked for, a word each, without the temporary folder's name and the network address.
    fn words(&self, more: &[&str]) -> Vec<String> {
        let output = self.run(&self.state(), more);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mac = fs::read_to_string(self.state().join("mac")).expect("an address");
        let text = String::from_utf8(output.stdout).expect("text");
        let text = text.replace(&format!("{}/", self.0.path().display()), "").replace(mac.trim_end(), "MAC");
        text.lines().map(str::to_owned).collect()
    }
}

#[test]
fn the_script_names_every_device_that_the_machine_looks_for() {
    let mac = Mac::new();
    let words = mac.words(&["--device", "virtio-blk,path=/config.img,deviceId=eci-config"]);
    let wanted = format!(
        "--cpus 2 --memory 2048 --bootloader linux,kernel=apple/Image,initrd=apple/initrd.img,cmdline=console=hvc0 \
         --device virtio-blk,path=state/disk.raw --device virtio-blk,path=state/data.raw,deviceId={DATA_NAME} \
         --device virtio-net,nat,mac=MAC --device virtio-vsock,port={VSOCK_PORT},socketURL=state/link.sock,connect \
         --device virtio-serial,logFilePath=state/console.log --device virtio-rng \
         --device virtio-blk,path=/config.img,deviceId=eci-config"
    );
    assert_eq!(words, wanted.split(' ').collect::<Vec<_>>());
}

#[test]
fn the_second_start_finds_data_and_address_and_gets_the_disk_as_it_was_signed() {
    let mac = Mac::new();
    mac.words(&[]);
    let kept = |name: &str| fs::read(mac.state().join(name)).expect(name);
    let address = kept("mac");
    let bytes: Vec<_> = String::from_utf8_lossy(&address).trim().split(':').map(str::to_owned).collect();
    assert!(bytes.len() == 6 && bytes.iter().all(|byte| u8::from_str_radix(byte, 16).is_ok()), "{bytes:?}");
    assert_eq!(bytes[0], "02", "no manufacturer's");
    let data = fs::metadata(mac.state().join("data.raw")).expect("data disk");
    assert_eq!((data.len(), data.mode() & 0o777), (1 << 30, 0o600));
    let disk = fs::metadata(mac.state().join("disk.raw")).expect("disk");
    assert_eq!(disk.mode() & 0o600, 0o600, "boots are counted on it");
    fs::write(mac.state().join("data.raw"), "data").expect("written");
    fs::write(mac.state().join("disk.raw"), "counted").expect("written");
    mac.words(&[]);
    assert_eq!(
        (kept("mac"), kept("data.raw"), kept("disk.raw")),
        (address, b"data".to_vec(), b"disk".to_vec())
    );
    assert_eq!(fs::read(mac.0.path().join("apple/disk.raw")).expect("disk"), b"disk");
}

/// Asserts that a start is refused for this reason, with a fix, and that no disk was made.
fn assert_refused(output: &Output, state: &Path, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    assert!(said.starts_with("error: ") && said.contains(words) && said.contains("\nhint: "), "{said}");
    assert!(!state.join("data.raw").exists(), "a disk was made");
}

#[test]
fn what_vfkit_would_misread_is_refused() {
    let mac = Mac::new();
    let refused = |state: &Path, words: &str| assert_refused(&mac.run(state, &[]), state, words);
    refused(&mac.0.path().join("a,b"), "no path with a comma");
    refused(&mac.0.path().join("x".repeat(100)), "the path of a socket would be too long");
    // 52 letters, of two bytes each.
    refused(&mac.0.path().join("é".repeat(52)), "the path of a socket would be too long");
    for size in ["0", "010", "1G", "-1", "1+1", "100000"] {
        let output = mac.command(&mac.state()).env("ECI_DATA_GIB", size).output().expect("sh is there");
        assert_refused(&output, &mac.state(), &format!("ECI_DATA_GIB is no size: {size}"));
    }
    fs::remove_file(mac.0.path().join("apple/Image")).expect("removed");
    refused(&mac.state(), "there is no Image beside this script");
}

#[test]
fn of_starts_at_once_on_the_same_data_one_runs_a_machine() {
    let mac = Mac::new();
    mac.wait_for_input();
    for stale in [false, true] {
        let state = mac.0.path().join(format!("stale-{stale}"));
        fs::create_dir(&state).expect("folder");
        if stale {
            // Of a process that is gone: numbers end at 4194304.
            std::os::unix::fs::symlink("4194999", state.join("lock")).expect("lock");
        }
        let start = |_| {
            let mut command = mac.command(&state);
            command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh is there")
        };
        let mut starts: Vec<_> = (0..4).map(start).collect();
        let mut refused = Vec::new();
        while refused.len() < 3 {
            starts.retain_mut(|start| match start.try_wait().expect("a child") {
                Some(status) => {
                    refused.push(status.code());
                    false
                }
                None => true,
            });
            assert!(!starts.is_empty(), "none runs: {refused:?}");
            thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(refused, [Some(4); 3]);
        // It is vfkit itself that has the lock now.
        let again = mac.run(&state, &[]);
        let said = String::from_utf8_lossy(&again.stderr);
        assert!(said.contains(&format!("process {} runs a machine", starts[0].id())), "{said}");
        drop(starts[0].stdin.take());
        assert!(starts[0].wait().expect("it ends").success());
        assert!(!state.join("lock.stale").exists());
        assert!(mac.run(&state, &[]).status.success(), "the lock of one that has ended is taken over");
    }
}

#[test]
fn a_lock_that_names_another_program_by_now_is_taken_over() {
    let mac = Mac::new();
    fs::create_dir(mac.state()).expect("folder");
    let mut other = Command::new("sleep").arg("60").spawn().expect("sleep is there");
    std::os::unix::fs::symlink(other.id().to_string(), mac.state().join("lock")).expect("lock");
    mac.words(&[]);
    other.kill().expect("it runs");
    other.wait().expect("it ends");
}

#[test]
fn the_folder_has_further_names_of_what_is_beside_it() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let key = signature::generate(&folder.path().join("keys")).expect("key");
    let signing = Signing::Now { key: &key, signer: secure_boot::tests::signer() };
    let assembled = assemble_for(folder.path(), Flavour::Shipped, signing, &[Format::Raw, Format::Apple]);
    let out = |name: &str| folder.path().join("out").join(name);
    let inode = |name: &str| fs::metadata(out(name)).expect("file").ino();
    assert_eq!(inode("apple/Image"), inode("vmlinuz"));
    assert_eq!(inode("apple/initrd.img"), inode("initrd.img"));
    assert_eq!(inode("apple/disk.raw"), inode("eci-0.1.0-aarch64.raw"));
    assert_eq!(fs::metadata(out("apple/vfkit.sh")).expect("file").mode() & 0o777, 0o755);
    let placed: Vec<_> = assembled.artifacts.iter().map(|artifact| artifact.path.clone()).collect();
    assert!(names().iter().all(|name| placed.contains(&out(name))), "{placed:?}");

    // Again, over what is there, and without a raw disk beside it.
    assemble_for(folder.path(), Flavour::Shipped, signing, &[Format::Apple]);
    assert_eq!(fs::read_dir(out("apple")).expect("folder").count(), 4);
}

#[test]
fn a_kernel_that_the_framework_does_not_load_is_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let staging = Staging::beside(&folder.path().join("out")).expect("staging");
    for kernel in [&b"\x1f\x8b compressed"[..], &[0; 100]] {
        fs::write(staging.path(KERNEL_FILE), kernel).expect("written");
        let error = stage(&staging.path("disk"), &staging).expect_err("no such kernel").to_string();
        assert!(error.ends_with(
            "vmlinuz` is no uncompressed kernel for aarch64, and Apple's framework loads no other"
        ));
    }
    fs::remove_file(staging.path(KERNEL_FILE)).expect("removed");
    let error = stage(&staging.path("disk"), &staging).expect_err("no kernel").to_string();
    assert!(error.starts_with("cannot read `") && error.ends_with("vmlinuz`"), "{error}");
}
