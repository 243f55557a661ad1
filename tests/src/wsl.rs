//! A machine that does for a distro what WSL 2 does: `scripts/wsl-kernel` makes it, `tests/wsl/` is what runs in it.
//!
//! What it cannot show is Microsoft's own kernel and programs; `tests/wsl/distro-init` says which of their steps it repeats.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::command::{self, Outcome};
use crate::qemu::{Ending, Qemu};
use crate::{clients, image};

/// Size of the disk that WSL gives a distro here; with Windows it may grow to 1 TB.
const DISK_BYTES: u64 = 2 << 30;
/// Under emulation, with a kernel that has to load modules, a start takes half a minute on a machine with nothing else to do.
const START: Duration = Duration::from_secs(240);
/// How long a command in the machine may take.
const ANSWER: Duration = Duration::from_secs(60);

/// The running machine.
pub struct Wsl {
    qemu: Qemu,
    folder: tempfile::TempDir,
    engine: u16,
    session: u16,
    outside: u16,
}

impl Wsl {
    /// Imports the archive and starts the distro, as `wsl --import` and `wsl -d` do.
    ///
    /// # Errors
    /// When the machine cannot be made or started.
    pub fn start(archive: &Path) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let machine = kernel()?;
        let disk = folder.path().join("distro.ext4");
        import(archive, folder.path(), &disk)?;
        let initrd = with_relay(&machine.join("initrd.img"), folder.path())?;
        let [engine, session, outside] = free_ports()?;
        let forwards = [(engine, 2375), (session, 2376), (outside, 2377)]
            .map(|(host, guest)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}"));
        let boot = ["-kernel", "-initrd", "-append"].map(str::to_owned).into_iter().zip([
            machine.join("vmlinuz").to_string_lossy().into_owned(),
            initrd.to_string_lossy().into_owned(),
            // Microsoft's kernel has no AppArmor.
            "console=ttyS0 apparmor=0 panic=-1".to_owned(),
        ]);
        let boot: Vec<_> = boot.flat_map(|(option, value)| [option, value]).collect();
        let drive = format!("file={},format=raw,cache=unsafe", disk.display());
        let qemu = Qemu::start_by(&boot, &format!("user,id=net{}", forwards.concat()), "wsl", &[drive], &[])?;
        Ok(Self { qemu, folder, engine, session, outside })
    }

    /// Waits until the console says this, from `position` on. Gives the position behind it.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn says(&mut self, position: usize, text: &str) -> Result<usize> {
        let ending = self.qemu.wait_until(
            text,
            |console| console.get(position..).is_some_and(|rest| rest.contains(text)),
            START,
        )?;
        ensure!(ending == Ending::Seen, "the machine ended without `{text}`:\n{}", self.console());
        let console = self.console();
        let at = console.get(position..).and_then(|rest| rest.find(text)).unwrap_or_default();
        Ok(position + at + text.len())
    }

    /// Everything on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.qemu.console()
    }

    /// Runs a command in the distro as a session of `wsl -d` does. Gives its output and exit code.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn session(&self, line: &str) -> Result<(String, i32)> {
        ask(self.session, line)
    }

    /// Runs a line of shell in the machine, outside of the distro, as the user on Windows may.
    ///
    /// # Errors
    /// When nothing answers, or the line fails.
    pub fn outside(&self, line: &str) -> Result<String> {
        match ask(self.outside, line)? {
            (output, 0) => Ok(output),
            (output, code) => bail!("`{line}` ended with {code}: {output}"),
        }
    }

    /// Docker's client, in another distro.
    ///
    /// # Errors
    /// When it is not there.
    pub fn docker(&self, arguments: &[&str], input: &[u8]) -> Result<Outcome> {
        let mut docker = Command::new(clients::unpacked()?.join("usr/bin/docker"));
        docker.env("DOCKER_CONFIG", self.folder.path());
        docker.arg("--host").arg(format!("tcp://127.0.0.1:{}", self.engine)).args(arguments);
        command::run(&mut docker, input)
    }
}

fn ask(port: u16, line: &str) -> Result<(String, i32)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(ANSWER))?;
    stream.write_all(format!("{line}\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).with_context(|| format!("no end of `{line}`"))?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (output, code) = answer.trim_end().rsplit_once("exit code ").with_context(|| answer.clone())?;
    Ok((output.trim_end().to_owned(), code.parse()?))
}

/// The folder with `vmlinuz` and `initrd.img`.
fn kernel() -> Result<PathBuf> {
    let script = image::repository()?.join("scripts/wsl-kernel");
    Ok(command::host(&script.to_string_lossy(), &[])?.ok()?.into())
}

/// What `wsl --import` does: unpacks with owners, modes and extended attributes into a fresh ext4. In a user namespace, so that the
/// owners are root's there whoever runs the suite.
fn import(archive: &Path, folder: &Path, disk: &Path) -> Result<()> {
    fs::File::create(disk)?.set_len(DISK_BYTES)?;
    let tree = folder.join("tree");
    fs::create_dir(&tree)?;
    let script =
        "bsdtar -x -p --xattrs --numeric-owner -f \"$1\" -C \"$2\" && mke2fs -q -t ext4 -d \"$2\" \"$3\"";
    let mut unpack = Command::new("unshare");
    unpack.args(["--map-root-user", "sh", "-c", script, "sh"]).arg(archive).arg(&tree).arg(disk);
    unpack.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command::run(&mut unpack, &[])?.ok()?;
    fs::remove_dir_all(tree).context("cannot remove the unpacked archive")
}

/// The initrd with `eci-relay` in front: the kernel unpacks one archive after the other.
fn with_relay(initrd: &Path, folder: &Path) -> Result<PathBuf> {
    let tree = folder.join("relay");
    fs::create_dir_all(tree.join("bin"))?;
    fs::copy(image::programs()?.join("eci-relay"), tree.join("bin/relay"))
        .context("scripts/test compiles eci-relay beside the guest's programs")?;
    let mut cpio = Command::new("cpio");
    cpio.args(["-o", "-H", "newc", "--quiet"]).current_dir(&tree);
    let mut bytes = command::run(&mut cpio, b"bin\nbin/relay\n")?.into_bytes()?;
    bytes.extend(fs::read(initrd)?);
    let path = folder.join("initrd.img");
    fs::write(&path, bytes)?;
    Ok(path)
}

/// Ports that were free a moment ago.
fn free_ports() -> Result<[u16; 3]> {
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let listeners = [listen()?, listen()?, listen()?];
    let [one, two, three] = listeners.map(|listener| listener.local_addr().map(|address| address.port()));
    Ok([one?, two?, three?])
}
