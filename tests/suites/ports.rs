//! Ports that containers publish: on the host, where the user allowed it, for as long as the container runs, and by no other way.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eci_tests::attempts::{self, REFUSED};
use eci_tests::suite::{self, Row, row, thorough_row};
use eci_tests::workbench::Workbench;

/// How long anything may take that is not a start of the engine, under TCG.
const SOON: Duration = Duration::from_secs(30);
/// How long a killed engine may take to have its containers back.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// What goes both ways in one connection.
const MUCH: usize = 32 << 20;
/// Sends back what it gets.
const ECHO: &[&str] = &["/probe", "tcp-echo:80"];
/// Connections at the same time.
const AT_ONCE: usize = 100;

fn main() -> ExitCode {
    match Workbench::start("ports") {
        Ok(bench) => suite::run(bench, rows(), |bench| bench.vm.last_words()),
        Err(error) => {
            eprintln!("the image does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn rows() -> Vec<Row<Workbench>> {
    vec![
        row("a_port_is_reached_on_the_host_s_loopback_and_nowhere_else", loopback),
        row("megabytes_go_both_ways_and_each_direction_ends_by_itself", |bench| {
            let server = Server::start(bench, "echo", &[])?;
            let sent: Vec<u8> =
                (0..MUCH).map(|at| (at.wrapping_mul(2_654_435_761) >> 16).to_le_bytes()[0]).collect();
            server.is_up()?;
            let started = Instant::now();
            let back = exchange(server.port, &sent)?;
            eprintln!("{} MiB both ways in {:.1} s", MUCH >> 20, started.elapsed().as_secs_f64());
            ensure!(back == sent, "{} of {} bytes came back, or others", back.len(), sent.len());
            server.end()
        }),
        row("a_hundred_connections_are_open_at_once", at_once),
        row("datagrams_of_two_senders_find_back", datagrams),
        row("what_nobody_listens_for_in_the_container_is_reset", |bench| {
            let server = Server::start_by(bench, "deaf", &[], &["sleep", "900"])?;
            let error = exchange(server.port, b"anybody?").err().context("somebody answered")?;
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            ensure!(kind == Some(ErrorKind::ConnectionReset), "{error:?}");
            server.end()
        }),
        row("two_containers_have_a_port_each_and_never_the_same", |bench| {
            let servers = [Server::start(bench, "first", &[])?, Server::start(bench, "second", &[])?];
            for server in &servers {
                server.is_up()?;
            }
            let taken = format!("{}:80", servers[0].port);
            bench
                .vm
                .docker(&["run", "--rm", "-p", &taken, "busybox", "true"])?
                .refused(&["already allocated"])?;
            servers.into_iter().try_for_each(Server::end)
        }),
        row("a_port_is_free_when_its_container_is_gone_and_can_be_had_again_at_once", |bench| {
            let port = free_port()?;
            for name in ["one", "two", "three"] {
                let server = Server::start_on(bench, port, name)?;
                server.is_up()?;
                server.end()?;
                drop(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).context("it is not free")?);
            }
            Ok(())
        }),
        row("a_port_that_the_host_uses_is_refused_in_words", |bench| {
            let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            let port = held.local_addr()?.port();
            let words = format!("port {port}/tcp of the host is in use at 127.0.0.1");
            let wanted = format!("{port}:80");
            bench
                .vm
                .docker(&["run", "--name", "late", "-p", &wanted, "busybox", "true"])?
                .refused(&[&words])?;
            drop(held);
            bench.vm.docker(&["start", "-a", "late"])?.ok()?;
            bench.vm.docker(&["rm", "late"])?.ok().map(drop)
        }),
        row("an_address_that_was_not_allowed_is_refused_with_the_flag_that_allows_it", |bench| {
            for address in ["192.0.2.1", "[2001:db8::1]"] {
                let wanted = format!("{address}:{}:80", free_port()?);
                let refused = bench.vm.docker(&["run", "--rm", "-p", &wanted, "busybox", "true"])?;
                refused.refused(&["eci-builder run --publish-on all"])?;
            }
            Ok(())
        }),
        row("nothing_listens_in_the_vm_for_a_published_port", |bench| {
            let server = Server::start(bench, "unheard", &["-p", &format!("{}:53/udp", free_port()?)])?;
            server.is_up()?;
            let listening =
                "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6 | grep -E ' 0[A7] ' || true";
            let found = bench.run(listening, SOON)?;
            ensure!(found.trim().is_empty(), "{found}");
            let verb = format!("tcp-gateway:{}", server.port);
            attempts::expect(&bench.vm, &["--privileged"], &[(&verb, REFUSED)])?;
            bench.vm.every_check_holds()?;
            server.end()
        }),
        row("a_container_does_not_reach_the_socket_that_ports_are_announced_on", |bench| {
            for mount in ["/run/eci:/x", "/run/eci/ports.sock:/x", "/run:/x"] {
                let run = ["run", "--rm", "--privileged", "-v", mount, "busybox", "true"];
                bench.vm.docker(&run)?.refused(&["restricted host mount"])?;
            }
            attempts::expect(&bench.vm, &["--privileged"], &[("publish:172.17.0.2:80", "ENOENT at connect")])
        }),
        row("an_announcement_of_what_is_no_container_s_is_refused", strangers),
        row("a_gate_that_is_killed_publishes_again", |bench| survives(bench, "eci-gate", &[])),
        row("an_engine_that_is_killed_publishes_again", |bench| {
            survives(bench, "dockerd", &["--restart", "always"])
        }),
        thorough_row("a_boot_publishes_again_and_on_all_addresses_where_that_is_allowed", boot_again),
    ]
}

/// A container that answers every connection with what it is sent.
struct Server<'a> {
    bench: &'a Workbench,
    name: &'static str,
    port: u16,
}

impl<'a> Server<'a> {
    /// On a free port, with more flags.
    fn start(bench: &'a Workbench, name: &'static str, flags: &[&str]) -> Result<Self> {
        Self::start_by(bench, name, flags, ECHO)
    }

    fn start_on(bench: &'a Workbench, port: u16, name: &'static str) -> Result<Self> {
        Self { bench, name, port }.run(&[], ECHO)
    }

    fn start_by(bench: &'a Workbench, name: &'static str, flags: &[&str], command: &[&str]) -> Result<Self> {
        Self { bench, name, port: free_port()? }.run(flags, command)
    }

    fn run(self, flags: &[&str], command: &[&str]) -> Result<Self> {
        let port = format!("{}:80", self.port);
        let mut arguments = vec!["run", "-d", "--name", self.name, "-p", &port];
        arguments.extend(flags);
        arguments.push("busybox");
        arguments.extend(command);
        self.bench.vm.docker(&arguments)?.ok()?;
        Ok(self)
    }

    fn is_up(&self) -> Result<()> {
        self.answers_within(SOON)
    }

    fn answers_within(&self, patience: Duration) -> Result<()> {
        let started = Instant::now();
        loop {
            match exchange(self.port, self.name.as_bytes()) {
                Ok(back) if back == self.name.as_bytes() => return Ok(()),
                // It accepts before it can answer, for as long as the container starts.
                Ok(back) if started.elapsed() > patience => bail!("{} answered {back:?}", self.name),
                Err(error) if started.elapsed() > patience => return Err(error),
                Ok(_) | Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Removes the container; the port is then gone.
    fn end(self) -> Result<()> {
        self.bench.vm.docker(&["rm", "-f", self.name])?.ok()?;
        let error = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).err();
        let error = error.context("the port is still there")?;
        ensure!(error.kind() == ErrorKind::ConnectionRefused, "{error}");
        Ok(())
    }
}

/// A port that is free for TCP and UDP.
fn free_port() -> Result<u16> {
    loop {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = tcp.local_addr()?.port();
        if UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
}

/// Sends, ends that direction, and reads to the end of the other.
fn exchange(port: u16, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut reader = connect((Ipv4Addr::LOCALHOST, port).into())?;
    let mut writer = reader.try_clone()?;
    let sent = bytes.to_owned();
    let writing = thread::spawn(move || {
        writer.write_all(&sent)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut back = Vec::new();
    reader.read_to_end(&mut back)?;
    writing.join().ok().context("the writer panicked")??;
    Ok(back)
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, SOON)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn loopback(bench: &Workbench) -> Result<()> {
    let server = Server::start(bench, "local", &[])?;
    server.is_up()?;
    ensure!(listened_on(server.port)? == ["0100007F"], "{:?}", listened_on(server.port)?);
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
        let mut stream = connect((Ipv6Addr::LOCALHOST, server.port).into())?;
        stream.write_all(b"six")?;
        let mut back = [0; 3];
        stream.read_exact(&mut back)?;
        ensure!(&back == b"six", "{back:?}");
    }
    let shown = bench.vm.docker(&["port", "local", "80"])?.ok()?;
    ensure!(shown.contains(&format!("0.0.0.0:{}", server.port)), "{shown}");
    server.end()
}

/// Addresses of IPv4 on which a port of the host is listened on, as the kernel writes them.
fn listened_on(port: u16) -> Result<Vec<String>> {
    let table = fs::read_to_string("/proc/net/tcp")?;
    let rows = table.lines().skip(1).filter_map(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        let (address, number) = columns.get(1)?.split_once(':')?;
        let listens = *columns.get(3)? == "0A" && number == format!("{port:04X}");
        listens.then(|| address.to_owned())
    });
    Ok(rows.collect())
}

fn at_once(bench: &Workbench) -> Result<()> {
    let server = Server::start(bench, "many", &[])?;
    server.is_up()?;
    let started = Instant::now();
    let mut open = Vec::new();
    for number in 0..AT_ONCE {
        let mut stream = connect((Ipv4Addr::LOCALHOST, server.port).into())?;
        stream.write_all(format!("connection {number:04}").as_bytes())?;
        open.push(stream);
    }
    for (number, stream) in open.iter_mut().enumerate() {
        let mut back = [0; 15];
        stream.read_exact(&mut back).with_context(|| format!("connection {number}"))?;
        ensure!(back == format!("connection {number:04}").as_bytes(), "{back:?} for {number}");
    }
    eprintln!("{AT_ONCE} connections answered in {:.1} s", started.elapsed().as_secs_f64());
    // The engine is not kept waiting by them.
    bench.vm.docker(&["version"])?.ok()?;
    drop(open);
    server.end()
}

fn datagrams(bench: &Workbench) -> Result<()> {
    let port = free_port()?;
    let wanted = format!("{port}:53/udp");
    let run = ["run", "-d", "--name", "dns", "-p", &wanted, "busybox", "/probe", "udp-echo:53"];
    bench.vm.docker(&run)?.ok()?;
    let clients: Vec<_> = (0..2).map(|_| client(port)).collect::<Result<_>>()?;
    let mut buffer = vec![0; 65_536];
    for size in [1, 100, 1_400, 8_000, 40_000] {
        for (number, client) in clients.iter().enumerate() {
            let sent = vec![u8::try_from(number)? + 1; size];
            let started = Instant::now();
            let length = loop {
                // One may be lost, as while the container starts.
                client.send(&sent)?;
                match client.recv(&mut buffer) {
                    Ok(length) if length == size => break length,
                    _ if started.elapsed() > SOON => bail!("no answer to {size} bytes"),
                    _ => {}
                }
            };
            ensure!(buffer[..length] == sent, "another's answer to {size} bytes");
        }
    }
    bench.vm.docker(&["rm", "-f", "dns"])?.ok()?;
    UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).context("the port is still there").map(drop)
}

fn client(port: u16) -> Result<UdpSocket> {
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    client.connect((Ipv4Addr::LOCALHOST, port))?;
    client.set_read_timeout(Some(Duration::from_secs(2)))?;
    Ok(client)
}

/// As root of the VM, who alone reaches the socket: programs of the VM, the engine's own addresses, and the world.
fn strangers(bench: &Workbench) -> Result<()> {
    const PROBE: &str = "/var/lib/docker/volumes/workbench/_data/probe";
    bench.vm.sh(&["-v", "workbench:/bench"], "cp /probe /bench/new && mv /bench/new /bench/probe")?;
    let server = Server::start(bench, "known", &[])?;
    let inspect = ["inspect", "-f", "{{.NetworkSettings.IPAddress}}", server.name];
    let known = format!("publish:{}:80", bench.vm.docker(&inspect)?.ok()?);
    let others = [
        "publish:127.0.0.1:2377",
        "publish:[::1]:2377",
        "publish:[::ffff:127.0.0.1]:2377",
        "publish:0.0.0.0:2377",
        "publish:172.17.0.1:2377",
        "publish:10.0.2.2:80",
        "publish:10.0.2.15:2377",
        "publish:192.0.2.1:80",
    ];
    let script = format!("{PROBE} '{known}' {}", others.map(|verb| format!("'{verb}'")).join(" "));
    let said = bench.run(&script, SOON)?;
    let outcome = |verb: &str| said.lines().find_map(|line| line.strip_prefix(verb)?.strip_prefix(": "));
    ensure!(outcome(&known) == Some("allowed"), "nothing is shown: {said}");
    for verb in others {
        ensure!(outcome(verb) == Some("EPERM"), "{verb}: {said}");
    }
    server.end()
}

/// A port is there again after a program of the VM was killed.
fn survives(bench: &Workbench, target: &str, flags: &[&str]) -> Result<()> {
    let server = Server::start(bench, "survivor", flags)?;
    server.is_up()?;
    let before = pid_of(bench, target)?;
    let order = bench.order(&format!("kill -9 {before}"), SOON)?;
    drop(bench.answer(&order, PATIENCE)?);
    let started = Instant::now();
    server.answers_within(PATIENCE)?;
    eprintln!("published again {:.1} s after {target} was killed", started.elapsed().as_secs_f64());
    let after = pid_of(bench, target)?;
    ensure!(before != after, "{target} was not killed");
    server.end()
}

fn pid_of(bench: &Workbench, program: &str) -> Result<String> {
    Ok(bench.run(&format!("pidof {program}"), PATIENCE)?.trim().to_owned())
}

fn boot_again(bench: &Workbench) -> Result<()> {
    let server = Server::start(bench, "kept", &["--restart", "always"])?;
    server.is_up()?;
    bench.vm.stop()?;
    ensure!(listened_on(server.port)?.is_empty(), "the port outlived the VM");
    bench.vm.run(&["--publish-on", "all"])?.ok()?;
    server.answers_within(PATIENCE)?;
    ensure!(listened_on(server.port)? == ["00000000"], "{:?}", listened_on(server.port)?);
    bench.vm.every_check_holds()?;
    server.end()
}
