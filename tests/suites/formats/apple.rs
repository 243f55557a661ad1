//! The folder for Apple's framework, by itself, in a machine with the devices that its script asks vfkit for: QEMU has the same kinds.
//! Rosetta's share is served by `virtiofsd`, and in it is a program of ours that says what the kernel had it run.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use eci_builder::instance::shares;
use eci_contract::link::{Reply, Request, VSOCK_PORT};
use eci_contract::shares::Share;
use eci_contract::status::{State, Status};
use eci_tests::disk::copy_sparse;
use eci_tests::{command, image};

use super::DEADLINE;
use super::machine::{Host, Machine};

/// What the folder has.
const FILES: [&str; 4] = ["Image", "initrd.img", "disk.raw", "vfkit.sh"];
/// How a script that is to be vfkit tells what it was asked for.
const VFKIT: &str = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n";

/// Everything, and Rosetta.
pub fn with_rosetta() -> Result<()> {
    let mac = Mac::start("formats-apple", "rosetta")?;
    let log = fs::read_to_string(mac.state().join("console.log"))?;
    ensure!(log.contains("eci: boot "), "nothing on hvc0:\n{log}");
    let status = mac.status()?;
    let root_hash = image::manifest(&image::out()?)?.root.root_hash;
    ensure!(status.image.root_hash == root_hash, "another root was booted");
    ensure!(step(&status)? == "ok", "{}", step(&status)?);

    let user = ["--user", "1000"];
    let fixed = [&user[..], &["--security-opt", "no-new-privileges"]].concat();
    for (flags, program, wanted) in [
        (&[][..], "/x86", "0/0"),
        (&["--privileged"], "/x86", "0/0"),
        (&["--read-only", "--cap-drop", "ALL"], "/x86", "0/0"),
        (&user, "/x86", "1000/1000"),
        // The container's root, by the program's own bit; not where containers go without.
        (&user, "/x86-setuid", "1000/0"),
        (&fixed, "/x86-setuid", "1000/1000"),
    ] {
        let said = mac.docker_run(flags, &[program, "one", "two"])?.ok()?;
        let wanted = format!("rosetta: {program} [\"one\", \"two\"] for 0x3e as {wanted}");
        ensure!(said.trim() == wanted, "{flags:?}: {said}");
    }
    nobody_changes_it(&mac)?;
    mac.shut_down()
}

/// A container that mounts a registry of interpreters gets one of its own, and the folder is none that containers get.
fn nobody_changes_it(mac: &Mac) -> Result<()> {
    let script = "mkdir /own && mount -t binfmt_misc none /own && ls /own && echo 0 > /own/status; /x86 2>/dev/null; true";
    let seen = mac.docker_run(&["--privileged"], &["sh", "-c", script])?.ok()?;
    ensure!(
        seen.trim() == "register\nstatus",
        "a container sees of the registry, or is without one:\n{seen}"
    );
    let script = "ls /proc/sys/fs/binfmt_misc; mount | grep -c rosetta; ls -d /run/eci; true";
    let seen = mac.docker_run(&["--privileged"], &["sh", "-c", script])?.ok()?;
    ensure!(seen.trim() == "0", "a container sees more:\n{seen}");
    mac.docker_run(&["-v", "/run/eci/rosetta:/r"], &["true"])?.refused(&["can't mount /run/eci/rosetta"])?;
    let said = mac.docker_run(&[], &["/x86"])?.ok()?;
    ensure!(said.starts_with("rosetta: /x86 []"), "it is gone: {said}");
    Ok(())
}

/// A share with something else in it: the engine runs, x86-64 programs do not.
pub fn without_a_program() -> Result<()> {
    let mac = Mac::start("formats-apple-empty", "something-else")?;
    let status = mac.status()?;
    let outcome = step(&status)?;
    ensure!(outcome.starts_with("the host's folder `rosetta` has no program `rosetta`"), "{outcome}");
    ensure!(mac.docker_run(&[], &["echo", "works"])?.ok()?.trim() == "works", "no container runs");
    mac.docker_run(&[], &["/x86"])?.refused(&["Exec format error"])?;
    mac.shut_down()
}

fn step(status: &Status) -> Result<&str> {
    let step = status.steps.iter().find(|step| step.name == "rosetta");
    Ok(step.context("the boot has no step `rosetta`")?.outcome.as_str())
}

/// A machine that was started by a copy of the folder and nothing else of the image.
struct Mac {
    machine: Machine,
    host: Host,
    share: Served,
    folder: tempfile::TempDir,
}

impl Mac {
    /// Boots, with a share that has our program under this name.
    fn start(name: &str, program: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let share = Served::start(folder.path(), program)?;
        let words = words_to_vfkit(folder.path())?;
        let (boot, devices) = as_qemu_has_it(&words, &share.socket)?;
        let machine = Machine::start(name, &boot, &[], &devices, DEADLINE)?;
        let host = machine.link()?;
        host.docker(&["import", "-", "busybox"], &image::foreign_tar()?)?.ok()?;
        Ok(Self { machine, host, share, folder })
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The machine's state, in which every promise holds.
    fn status(&self) -> Result<Status> {
        let Reply::Status(status) = self.host.ask(&Request::Status {})? else { bail!("no state") };
        ensure!(status.state == State::Ready, "it is {:?}: {}", status.state, status.reason);
        let broken: Vec<_> = status.checks.iter().filter(|check| !check.holds).collect();
        ensure!(status.checks.len() >= 10 && broken.is_empty(), "{broken:#?}");
        Ok(*status)
    }

    fn docker_run(&self, flags: &[&str], words: &[&str]) -> Result<command::Outcome> {
        let arguments = [&["run", "--rm"], flags, &["busybox"], words].concat();
        self.host.docker(&arguments, &[])
    }

    fn shut_down(self) -> Result<()> {
        let reply = self.host.ask(&Request::Shutdown {})?;
        ensure!(reply == Reply::Ok, "{reply:?}");
        self.machine.wait_for_end(DEADLINE).with_context(|| self.machine.console())?;
        drop(self.share);
        Ok(())
    }
}

/// What the script asks vfkit for, where macOS has Rosetta.
fn words_to_vfkit(folder: &Path) -> Result<Vec<String>> {
    let (copy, bin) = (folder.join("copy"), folder.join("bin"));
    for made in [&copy, &bin] {
        fs::create_dir(made)?;
    }
    let from = image::out()?.join("apple");
    for name in FILES {
        copy_sparse(&from.join(name), &copy.join(name))?;
    }
    fs::write(bin.join("vfkit"), VFKIT)?;
    fs::set_permissions(bin.join("vfkit"), Permissions::from_mode(0o755))?;
    let path = std::env::var("PATH").unwrap_or_default();
    let mut script = Command::new("sh");
    script.arg(copy.join("vfkit.sh")).env("ECI_STATE", folder.join("state")).env("ECI_DATA_GIB", "4");
    script.env("PATH", format!("{}:{path}", bin.display()));
    script.args(["--device", "rosetta,mountTag=rosetta"]);
    Ok(command::run(&mut script, &[])?.ok()?.lines().map(str::to_owned).collect())
}

/// Boot and devices of a machine of QEMU's that is asked for in vfkit's words. Network, processors and memory are what every suite has,
/// and the vsock device is there already.
fn as_qemu_has_it(words: &[String], rosetta: &Path) -> Result<(Vec<String>, Vec<String>)> {
    let (mut boot, mut devices) = (Vec::new(), Vec::new());
    for (index, pair) in words.chunks(2).enumerate() {
        let [option, value] = pair else { bail!("`{pair:?}` is no option with a value") };
        let (kind, rest) = value.split_once(',').unwrap_or((value, ""));
        let field = |name: &str| {
            let mut fields = rest.split(',').filter_map(|field| field.split_once('='));
            fields.find(|(found, _)| *found == name).map(|(_, value)| value)
        };
        let wanted = |name| field(name).with_context(|| format!("`{value}` has no `{name}`"));
        let mut add = |words: &[&str]| devices.extend(words.iter().map(|word| (*word).to_owned()));
        match (option.as_str(), kind) {
            ("--cpus" | "--memory", _) | ("--device", "virtio-net") => {}
            ("--bootloader", "linux") => {
                for (theirs, ours) in [("kernel", "-kernel"), ("initrd", "-initrd"), ("cmdline", "-append")] {
                    boot.extend([ours.to_owned(), wanted(theirs)?.to_owned()]);
                }
            }
            ("--device", "virtio-blk") => {
                let drive = format!("if=none,id=blk{index},format=raw,file={}", wanted("path")?);
                let serial = field("deviceId").map(|id| format!(",serial={id}")).unwrap_or_default();
                add(&["-drive", &drive, "-device", &format!("virtio-blk-pci,drive=blk{index}{serial}")]);
            }
            ("--device", "virtio-vsock") => {
                let port = wanted("port")?;
                ensure!(port == VSOCK_PORT.to_string() && rest.ends_with(",connect"), "{value}");
            }
            ("--device", "virtio-serial") => {
                let file = format!("file,id=hvc0,path={}", wanted("logFilePath")?);
                add(&[
                    "-device",
                    "virtio-serial-pci",
                    "-chardev",
                    &file,
                    "-device",
                    "virtconsole,chardev=hvc0",
                ]);
            }
            ("--device", "virtio-rng") => add(&["-device", "virtio-rng-pci"]),
            ("--device", "rosetta") => {
                let socket = format!("socket,id=rosetta,path={}", rosetta.display());
                let tag = format!("vhost-user-fs-pci,chardev=rosetta,tag={}", wanted("mountTag")?);
                add(&["-chardev", &socket, "-device", &tag]);
            }
            _ => bail!("QEMU has nothing for `{option} {value}`"),
        }
    }
    Ok((boot, devices))
}

/// A folder that `virtiofsd` serves, as `run --share` has it do.
struct Served {
    server: Child,
    socket: PathBuf,
}

impl Served {
    /// Serves a folder with our program under this name.
    fn start(scratch: &Path, name: &str) -> Result<Self> {
        let (folder, socket) = (scratch.join("share"), scratch.join("virtiofs"));
        fs::create_dir(&folder)?;
        fs::write(folder.join(name), image::probe()?)?;
        fs::set_permissions(folder.join(name), Permissions::from_mode(0o755))?;
        let share = Share { path: folder.to_string_lossy().into_owned(), read_only: true };
        let listener = shares::listen(&socket)?;
        let mut server = Command::new(shares::program()?);
        server.args(shares::arguments(&share)).stdin(Stdio::from(listener));
        Ok(Self { server: server.spawn().context("cannot start virtiofsd")?, socket })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended with QEMU.
        drop(self.server.kill());
        drop(self.server.wait());
    }
}
