//! A machine whose only link is vsock, as under Hyper-V and Apple's framework: QEMU with a device that a process of this host serves
//! (`vhost-device-vsock`), for the host's kernel need not have one.
//!
//! That process takes connections to the VM on a Unix socket, each of which first says `CONNECT PORT`, and makes those of the VM to the
//! host on that socket's path with `_PORT` behind. The host's end of the link is `eci-builder run`'s own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eci_builder::instance::link::Link;
use eci_builder::instance::link::ports::PublishOn;
use eci_contract::link::{Reply, Request, VSOCK_PORT};
use tokio::runtime::{self, Runtime};

use eci_tests::clients;
use eci_tests::command::{self, Outcome};
use eci_tests::qemu::{Ending, Qemu};

/// `scripts/test` brings it into PATH.
const PROGRAM: &str = "vhost-device-vsock";
/// The VM's own address.
pub const GUEST_CID: u32 = 3;

/// A running machine and its device.
pub struct Machine {
    qemu: Mutex<Qemu>,
    device: Child,
    folder: tempfile::TempDir,
}

impl Machine {
    /// Boots by these arguments, with these `-drive` definitions, more arguments, and no link but vsock, and waits for the engine.
    ///
    /// # Errors
    /// When device or machine do not start, or the engine does not get ready.
    pub fn start(
        name: &str,
        boot: &[String],
        drives: &[String],
        more: &[String],
        deadline: Duration,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let [socket, host] = ["device", "host"].map(|name| folder.path().join(name));
        let device = Command::new(PROGRAM)
            .arg("--guest-cid")
            .arg(GUEST_CID.to_string())
            .arg("--socket")
            .arg(&socket)
            .arg("--uds-path")
            .arg(&host)
            .stdin(Stdio::null())
            .stderr(File::create(folder.path().join("log"))?)
            .spawn()
            .with_context(|| format!("cannot start {PROGRAM}"))?;
        let chardev = format!("socket,id=vsock,path={}", socket.display());
        // The device's process reads and writes the machine's memory.
        let mut arguments = vec![
            "-object",
            "memory-backend-memfd,id=memory,size=1G,share=on",
            "-machine",
            "memory-backend=memory",
            "-chardev",
            &chardev,
            "-device",
            "vhost-user-vsock-pci,chardev=vsock",
        ];
        arguments.extend(more.iter().map(String::as_str));
        wait_for(&socket)?;
        let mut qemu = Qemu::start_by(boot, "user,id=net", name, drives, &arguments)?;
        let ending = qemu.wait_for_engine(deadline)?;
        ensure!(ending == Ending::Seen, "the machine ended:\n{}", qemu.console());
        Ok(Self { qemu: Mutex::new(qemu), device, folder })
    }

    /// Everything on the console so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.qemu().console()
    }

    /// Waits until the machine ends by itself.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_for_end(&self, deadline: Duration) -> Result<()> {
        self.qemu().wait_for_end(deadline)
    }

    fn qemu(&self) -> MutexGuard<'_, Qemu> {
        self.qemu.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the device takes connections to the VM.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        self.folder.path().join("host")
    }

    /// Starts a host's end of the link.
    ///
    /// # Errors
    /// When its sockets cannot be made.
    pub fn link(&self) -> Result<Host> {
        let folder = tempfile::tempdir()?;
        let [port, docker, link] = ["port", "docker", "link"].map(|name| folder.path().join(name));
        let (listener, device) = (UnixListener::bind(&port)?, self.device());
        thread::spawn(move || {
            for session in listener.incoming().flatten() {
                let device = device.clone();
                thread::spawn(move || relay(session, &device));
            }
        });
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let running = runtime.enter();
        let held = Link::start(port, PublishOn::Loopback);
        held.listen(&docker, &link)?;
        drop(running);
        Ok(Host { _link: held, _runtime: runtime, folder })
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended with QEMU.
        drop(self.device.kill());
        drop(self.device.wait());
    }
}

/// A host's end of the link, until it is dropped.
pub struct Host {
    _link: Link,
    _runtime: Runtime,
    folder: tempfile::TempDir,
}

impl Host {
    /// Runs `docker` with bytes on stdin.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn docker(&self, arguments: &[&str], input: &[u8]) -> Result<Outcome> {
        let socket = self.folder.path().join("docker");
        let mut docker = Command::new(clients::unpacked()?.join("usr/bin/docker"));
        docker.env("DOCKER_HOST", format!("unix://{}", socket.display())).env_remove("DOCKER_CONTEXT");
        command::run(docker.args(arguments), input)
    }

    /// The reply to a request.
    ///
    /// # Errors
    /// When there is none.
    pub fn ask(&self, request: &Request) -> Result<Reply> {
        let mut stream = UnixStream::connect(self.folder.path().join("link"))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&serde_json::to_vec(request)?)?;
        stream.write_all(b"\n")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}

/// Connects to a port of the VM, as the host does; `None` where nobody takes the connection.
///
/// # Errors
/// When the device does not answer.
pub fn connect(host: &Path, port: u32) -> io::Result<Option<UnixStream>> {
    for _ in 0..10 {
        match try_connect(host, port) {
            // Right after one that the VM refused the device may hang up before it is told a port. That says nothing of the VM.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                thread::sleep(Duration::from_millis(100));
            }
            outcome => return outcome,
        }
    }
    Err(io::ErrorKind::BrokenPipe.into())
}

fn try_connect(host: &Path, port: u32) -> io::Result<Option<UnixStream>> {
    let mut stream = UnixStream::connect(host)?;
    writeln!(stream, "CONNECT {port}")?;
    // Byte by byte: what follows the line is the stream's.
    let (mut answer, mut byte) = (Vec::new(), [0]);
    loop {
        match stream.read(&mut byte) {
            Ok(1) if byte != *b"\n" => answer.extend(byte),
            Err(error) if error.kind() != io::ErrorKind::ConnectionReset => return Err(error),
            _ => break,
        }
    }
    Ok(answer.starts_with(b"OK ").then_some(stream))
}

/// Joins a session to a connection of its own.
fn relay(session: UnixStream, device: &Path) -> io::Result<()> {
    let stream = connect(device, VSOCK_PORT)?.ok_or(io::ErrorKind::ConnectionRefused)?;
    let (mut from_session, mut to_stream) = (session.try_clone()?, stream.try_clone()?);
    let up = thread::spawn(move || {
        drop(io::copy(&mut from_session, &mut to_stream));
        drop(to_stream.shutdown(Shutdown::Both));
    });
    let (mut from_stream, mut to_session) = (stream, session);
    drop(io::copy(&mut from_stream, &mut to_session));
    drop(to_session.shutdown(Shutdown::Both));
    drop(up.join());
    Ok(())
}

fn wait_for(socket: &Path) -> Result<()> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        if socket.exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("{PROGRAM} makes no socket")
}
