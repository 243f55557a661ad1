//! The machine, and the ways to its engine.

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eci_contract::paths::{CONTAINER_SOCKET, ENGINE_SOCKET};
use eci_contract::wsl::{DOORS, ENGINE_SOCKET_NAME};
use eci_tests::built::Built;
use eci_tests::image;
use eci_tests::vm::Vm;
use eci_tests::workbench::Workbench;
use serde_json::json;

use super::exchange::{Address, Step, Stream, Talk, talk};

/// Name of the instance.
pub const NAME: &str = "gate";
/// How long a script in the VM may take.
const SOON: Duration = Duration::from_secs(60);

/// A way to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Its own socket.
    Engine,
    /// The host's, by the link: drivers are judged, and of registries that are not on a list it is told early.
    Host,
    /// That of containers which may have one, with a list of commands.
    Container,
    /// That of distros of WSL 2.
    Distro,
}

/// Those of the gate.
pub const OF_GATE: [Door; 3] = [Door::Host, Door::Container, Door::Distro];
/// All.
pub const ALL: [Door; 4] = [Door::Engine, Door::Host, Door::Container, Door::Distro];
/// Those at which what hostile requests want is refused when it is asked for plainly. The host's are read by the same reader, and may have it.
pub const READ: [Door; 2] = [Door::Container, Door::Distro];

impl Door {
    /// The letter that stands for it in names: one that an id may have.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Engine => "a",
            Self::Host => "b",
            Self::Container => "c",
            Self::Distro => "d",
        }
    }
}

/// A machine with four doors.
pub struct Doors {
    /// The machine.
    pub bench: Workbench,
    ports: [u16; 3],
    host: PathBuf,
    /// A connection to each door, in the order of [`ALL`], that earlier talks have kept.
    kept: [Mutex<Option<Stream>>; 4],
    _built: Built,
}

impl Doors {
    /// Boots it and opens them.
    pub fn open() -> Result<Self> {
        let settings = json!({
            "configurationFileVersion": 2,
            "enhancedContainerIsolation": { "value": true, "locked": true, "dockerSocketMount": {
                "imageList": { "images": ["nobody.example.com/agent:1"] },
                "commandList": { "type": "deny", "commands": ["push", "volume create"] }
            } },
            "eci": { "registryAccess": { "allowed": ["registry.example.com", "registry.example.com:5000", "clear.example.com:80"] } }
        });
        let built = Built::flavour(&settings.to_string())?;
        let bench = Workbench::over(Vm::start(NAME, &built.out())?)?;
        let ports = [port()?, port()?, port()?];
        let relay = image::programs()?.join("eci-relay");
        bench
            .vm
            .docker(&["cp", &relay.to_string_lossy(), "workbench:/bench/relay"])?
            .ok()
            .context("eci-relay")?;
        let published: Vec<_> =
            ports.iter().zip(1..).map(|(port, inside)| format!("{port}:700{inside}")).collect();
        let mut run = vec!["run", "-d", "--name", "doors"];
        published.iter().for_each(|published| run.extend(["-p", published]));
        run.extend(["busybox", "sleep", "6000"]);
        bench.vm.docker(&run)?.ok()?;
        let pid = bench.vm.docker(&["inspect", "-f", "{{.State.Pid}}", "doors"])?.ok()?;
        let distro = format!("{DOORS}/twin/{ENGINE_SOCKET_NAME}");
        let relays: String = [ENGINE_SOCKET, CONTAINER_SOCKET, &distro]
            .iter()
            .zip(1..)
            .map(|(socket, inside)| {
                format!(
                    "setsid nsenter -t {} -n /var/lib/docker/volumes/workbench/_data/relay 700{inside} {socket} >/dev/null 2>&1 &\n",
                    pid.trim()
                )
            })
            .collect();
        let script = format!(
            "mkdir -p {DOORS}/twin\nsetsid env -u NOTIFY_SOCKET eci-gate >/tmp/second-gate 2>&1 &\n\
             until [ -S {distro} ]; do sleep 0.1; done\n{relays}sleep 0.5\n"
        );
        bench.run(&script, SOON)?;
        let host = bench.vm.docker_host();
        let host = PathBuf::from(host.strip_prefix("unix://").context("the engine's address is a socket")?);
        let doors = Self { bench, ports, host, kept: Default::default(), _built: built };
        for door in ALL {
            let ping = [Step::Send(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n".to_vec()), Step::Answers(1)];
            let answers = doors.talk(door, &ping, false)?.answers;
            ensure!(answers.first().is_some_and(|answer| answer.body == b"OK"), "{door:?}: {answers:#?}");
        }
        Ok(doors)
    }

    /// Where a door is.
    pub fn address(&self, door: Door) -> Address {
        let [engine, container, distro] = self.ports;
        match door {
            Door::Engine => Address::Port(engine),
            Door::Container => Address::Port(container),
            Door::Distro => Address::Port(distro),
            Door::Host => Address::Socket(self.host.clone()),
        }
    }

    /// Does these steps at a door, on a connection of their own.
    pub fn talk(&self, door: Door, steps: &[Step], is_head: bool) -> Result<Talk> {
        Ok(talk(self.connect(door)?, steps, is_head).0)
    }

    /// The same on a connection that others were on before, where there is one.
    pub fn talk_on(&self, door: Door, steps: &[Step], is_head: bool) -> Result<Talk> {
        let slot = ALL.iter().zip(&self.kept).find(|(of, _)| **of == door).map(|(_, slot)| slot);
        let mut slot = slot.context("each door has a place")?.lock().unwrap_or_else(PoisonError::into_inner);
        let stream = match slot.take() {
            Some(stream) => stream,
            None => self.connect(door)?,
        };
        let talk;
        (talk, *slot) = super::exchange::talk(stream, steps, is_head);
        Ok(talk)
    }

    /// A connection on which so much of a request was sent.
    pub fn begin(&self, door: Door, begun: &[u8]) -> Result<Stream> {
        let mut stream = self.connect(door)?;
        stream.write_all(begun)?;
        Ok(stream)
    }

    fn connect(&self, door: Door) -> Result<Stream> {
        Stream::connect(&self.address(door)).with_context(|| format!("cannot connect to {door:?}"))
    }

    /// Does something at several doors at once.
    pub fn at_once<T: Send>(
        &self,
        doors: &[Door],
        act: impl Fn(&Self, Door) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        thread::scope(|scope| {
            let act = &act;
            let threads: Vec<_> = doors.iter().map(|door| scope.spawn(move || act(self, *door))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread panicked"))))
                .collect()
        })
    }

    /// What the VM's own log and the second gate say, for failures.
    pub fn last_words(&self) -> String {
        self.bench.vm.last_words()
    }
}

fn port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
