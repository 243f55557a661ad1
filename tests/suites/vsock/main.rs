//! The link where the hypervisor has vsock and no virtio-serial port: all that the host does goes through it, nobody else is served, and
//! no container reaches the host by it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eci_contract::link::{Reply, Request, VSOCK_PORT};
use eci_tests::attempts::{UNCONFINED, is_as_expected};
use eci_tests::suite::{self, Row, row};
use eci_tests::{image, vm};

mod machine;

use machine::{GUEST_CID, Host, Machine};

/// How long a boot may take.
const BOOT: Duration = Duration::from_secs(180);
/// How long a container may take to answer.
const SOON: Duration = Duration::from_secs(30);
/// A port that programs of the host like to listen on.
const OF_THE_HOST: u32 = 1024;

struct Booted {
    machine: Machine,
    host: Host,
    _data: tempfile::TempDir,
}

impl Booted {
    /// Connects to a port of the VM.
    fn connect(&self, port: u32) -> Result<Option<UnixStream>> {
        machine::connect(&self.machine.device(), port).context("the device does not answer")
    }

    /// A listener for what the VM connects to at a port of the host.
    fn listen(&self, port: u32) -> Result<UnixListener> {
        let listener = UnixListener::bind(format!("{}_{port}", self.machine.device().display()))?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

fn main() -> ExitCode {
    match boot() {
        Ok(booted) => suite::run(booted, rows(), |booted| vm::tail(&booted.machine.console())),
        Err(error) => {
            eprintln!("the machine does not start: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Booted> {
    let (out, folder) = (image::out()?, tempfile::tempdir()?);
    let data = folder.path().join("data");
    File::create(&data)?.set_len(4 << 30)?;
    let file = |name: &str| out.join(name).to_string_lossy().into_owned();
    let boot = ["-kernel".to_owned(), file("vmlinuz"), "-initrd".to_owned(), file("initrd.img")];
    let drives = [
        format!("file={},format=raw,readonly=on", image::raw(&out)?.display()),
        format!("file={},format=raw", data.display()),
    ];
    let machine = Machine::start("vsock", &boot, &drives, &[], BOOT)?;
    let host = machine.link()?;
    host.docker(&["import", "-", "busybox"], &image::busybox_tar()?)?.ok()?;
    Ok(Booted { machine, host, _data: folder })
}

fn rows() -> Vec<Row<Booted>> {
    vec![
        row("the_host_is_told_the_state_and_every_promise_holds", |booted| {
            let Reply::Status(status) = booted.host.ask(&Request::Status {})? else {
                anyhow::bail!("no state")
            };
            let broken: Vec<_> = status.checks.iter().filter(|check| !check.holds).collect();
            ensure!(status.checks.len() >= 10 && broken.is_empty(), "{broken:#?}");
            Ok(())
        }),
        row("a_container_runs_with_ids_of_its_own_and_answers_what_it_is_sent", |booted| {
            let map =
                booted.host.docker(&["run", "--rm", "busybox", "cat", "/proc/self/uid_map"], &[])?.ok()?;
            let numbers: Vec<_> = map.split_whitespace().collect();
            ensure!(matches!(numbers[..], ["0", start, "65536"] if start != "0"), "{map}");
            let said = vec![b'x'; 3 << 20];
            let counted = booted.host.docker(&["run", "--rm", "-i", "busybox", "wc", "-c"], &said)?.ok()?;
            ensure!(counted.trim() == said.len().to_string(), "of {} bytes came {counted}", said.len());
            Ok(())
        }),
        row("a_published_port_is_reached_on_the_host", |booted| {
            let address = publish(booted, "web")?;
            soon(|| echo(&address))?;
            booted.host.docker(&["rm", "-f", "web"], &[])?.ok()?;
            ensure!(TcpStream::connect(&address).is_err(), "{address} is still open");
            Ok(())
        }),
        row("twenty_requests_at_once_are_all_served", |booted| {
            std::thread::scope(|scope| {
                let asked: Vec<_> =
                    (0..20).map(|_| scope.spawn(|| booted.host.ask(&Request::Status {}))).collect();
                for one in asked {
                    let reply = one.join().ok().context("a client panicked")??;
                    ensure!(matches!(reply, Reply::Status(_)), "{reply:?}");
                }
                Ok(())
            })
        }),
        row("no_other_port_is_open", |booted| {
            ensure!(booted.connect(VSOCK_PORT)?.is_some(), "the link's port is closed");
            for port in [VSOCK_PORT - 1, VSOCK_PORT + 1, 0, 1, 22, 1024, 2375, 2376] {
                ensure!(booted.connect(port)?.is_none(), "port {port} is open");
            }
            Ok(())
        }),
        row("ports_are_the_newest_host_s_and_go_back_when_it_goes", |booted| {
            let address = publish(booted, "moving")?;
            soon(|| echo(&address))?;
            let second = booted.machine.link()?;
            ensure!(
                matches!(second.ask(&Request::Status {})?, Reply::Status(_)),
                "the second host is not served"
            );
            soon(|| echo(&address))?;
            drop(second);
            soon(|| echo(&address))?;
            booted.host.docker(&["rm", "-f", "moving"], &[])?.ok()?;
            ensure!(TcpStream::connect(&address).is_err(), "{address} is still open");
            Ok(())
        }),
        row("what_is_no_session_gets_no_answer_and_the_host_goes_on", |booted| {
            for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"{\"stream\":\"shutdown\"}\n", &[0xff; 100_000]] {
                let mut stranger = booted.connect(VSOCK_PORT)?.context("the link's port is closed")?;
                stranger.write_all(bytes)?;
                stranger.set_read_timeout(Some(Duration::from_secs(2)))?;
                let mut answer = [0; 64];
                let read = stranger.read(&mut answer).unwrap_or(0);
                ensure!(read == 0, "an answer: {:?}", String::from_utf8_lossy(&answer[..read]));
            }
            ensure!(matches!(booted.host.ask(&Request::Status {})?, Reply::Status(_)), "no state");
            Ok(())
        }),
        row("no_container_reaches_the_host_or_the_link_by_it", no_way_from_containers),
        row("the_host_shuts_the_machine_down", |booted| {
            let reply = booted.host.ask(&Request::Shutdown {})?;
            ensure!(reply == Reply::Ok, "{reply:?}");
            booted.machine.wait_for_end(BOOT)
        }),
    ]
}

/// Starts a container that says back what it hears at the address of the host that is given.
fn publish(booted: &Booted, name: &str) -> Result<String> {
    let run = ["run", "-d", "--name", name, "-p", "127.0.0.1::80", "busybox", "/probe", "tcp-echo:80"];
    booted.host.docker(&run, &[])?.ok()?;
    Ok(booted.host.docker(&["port", name, "80/tcp"], &[])?.ok()?.trim().to_owned())
}

/// Whether what is said at an address comes back.
fn echo(address: &str) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SOON))?;
    let mut back = [0; 5];
    stream.write_all(b"hello")?;
    stream.read_exact(&mut back)?;
    ensure!(&back == b"hello", "{back:?}");
    Ok(())
}

/// A port is accepted on before its container can answer, and while it moves it is nobody's.
fn soon(mut check: impl FnMut() -> Result<()>) -> Result<()> {
    let started = Instant::now();
    loop {
        match check() {
            Err(_) if started.elapsed() < SOON => thread::sleep(Duration::from_millis(200)),
            outcome => return outcome,
        }
    }
}

/// The device that makes AF_VSOCK a way out is there, and so is somebody who listens on the host.
fn no_way_from_containers(booted: &Booted) -> Result<()> {
    let listener = booted.listen(OF_THE_HOST)?;
    let verbs = [
        format!("vsock:2:{OF_THE_HOST}"),
        format!("vsock:2:{VSOCK_PORT}"),
        format!("vsock:1:{VSOCK_PORT}"),
        format!("vsock:{GUEST_CID}:{VSOCK_PORT}"),
    ];
    let everything = [&["--cap-add", "ALL"], UNCONFINED].concat();
    for flags in [&[][..], &["--privileged"], UNCONFINED, &everything] {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(flags);
        arguments.extend(["busybox", "/probe"]);
        arguments.extend(verbs.iter().map(String::as_str));
        let said = booted.host.docker(&arguments, &[])?.ok()?;
        for verb in &verbs {
            let outcome = said.lines().find_map(|line| line.strip_prefix(&format!("{verb}: ")));
            let outcome = outcome.with_context(|| format!("the probe says nothing of {verb}: {said}"))?;
            ensure!(
                is_as_expected("EPERM at socket|EACCES at socket|EAFNOSUPPORT at socket", outcome),
                "{flags:?} {verb}: {outcome}"
            );
        }
    }
    let nobody = listener.accept().map_err(|error| error.kind());
    ensure!(matches!(nobody, Err(ErrorKind::WouldBlock)), "a container connected to the host");
    Ok(())
}
