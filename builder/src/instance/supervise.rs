//! One run of an instance, from QEMU's start to its end.
//!
//! QEMU is started through this same program (`eci-builder tied`), which asks the kernel to kill it with its parent and
//! then becomes QEMU: setting that between fork and exec from outside would take `unsafe`.

use std::collections::VecDeque;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio, id};
use std::time::{Duration, Instant};

use eci_contract::link::{Reply, Request};
use eci_contract::shares::Share;
use eci_contract::status::{State, Status};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::console;
use super::home::{self, Home, Lock};
use super::link::ports::PublishOn;
use super::link::{self, Link, qmp};
use super::machine::{Plan, program};
use super::{shares, tpm};

/// How long an orderly shutdown may take before the power button is pressed.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);
/// How long the power button may take before the machine is killed.
const BUTTON_DEADLINE: Duration = Duration::from_secs(15);
/// How soon one of QEMU and what serves it folders, or is its TPM, ends after the other.
const MISSED: Duration = Duration::from_secs(2);
/// Lines that are kept of what a server says.
const KEPT_LINES: usize = 6;
/// Pause between two questions whether the engine is ready.
const READY_PERIOD: Duration = Duration::from_millis(100);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime or a signal handler cannot be set up.
    #[error("cannot set up the supervisor")]
    Setup(#[source] io::Error),
    /// QEMU cannot be started or waited for.
    #[error("cannot run QEMU")]
    Qemu(#[source] io::Error),
    /// The instance's folder cannot be used.
    #[error("cannot prepare the instance's folder")]
    Home(#[from] home::Error),
    /// The host's end of the link failed.
    #[error("cannot serve the instance's sockets")]
    Link(#[from] link::Error),
    /// The VM will not start its engine. It was stopped, for it is of no use.
    #[error("the VM refuses to start the engine: {reason}")]
    Refused {
        /// The step of its boot that failed; empty when it was none.
        step: String,
        /// The VM's words.
        reason: String,
    },
    /// What serves a folder of the host, or the TPM, cannot be started.
    #[error("cannot serve a folder or the TPM")]
    Share(#[from] shares::Error),
    /// What serves a folder, or is the TPM, ended first. The VM was stopped: whoever reads there would wait for ever.
    #[error("what serves {served} to the VM ended ({status}){}", said(.last_words))]
    Unserved {
        /// What it served.
        served: Served,
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        last_words: String,
    },
    /// QEMU ended and nobody had asked for it.
    #[error("the VM ended by itself ({status}){}", shown(.last_words))]
    Ended {
        /// How QEMU ended.
        status: ExitStatus,
        /// What the console said last; where it said nothing, QEMU.
        last_words: String,
    },
}

/// What a program beside QEMU serves to the VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// A folder of this host.
    Folder(String),
    /// A TPM.
    Tpm,
}

impl fmt::Display for Served {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(formatter, "the folder `{path}`"),
            Self::Tpm => formatter.write_str("the TPM"),
        }
    }
}

/// How the wait for the engine ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Every promise holds and the engine answers.
    Ready(Box<Status>),
    /// The engine will not be started, by this step and for this reason.
    Refused { step: String, reason: String },
}

/// Runs the machine until it is stopped by a signal or by its guest, or refuses to start its engine. `ready` is called
/// once, when the engine answers, with the time since QEMU was started and what the VM says of itself.
///
/// # Errors
/// [`Error`].
pub fn run(
    home: &Home,
    held: &Lock,
    plan: &Plan,
    shares: &[Share],
    publish_on: PublishOn,
    ready: impl FnOnce(Duration, &Status),
) -> Result<(), Error> {
    home.remove_sockets(held)?;
    allow_open_files();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::Setup)?;
    runtime.block_on(supervise(home, plan, shares, publish_on, ready))
}

/// As many as this user may have: connections to containers take one each, and the usual limit is for programs that use
/// select(2).
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, fewer connections are served at once.
    let _best_effort = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

async fn supervise(
    home: &Home,
    plan: &Plan,
    shares: &[Share],
    publish_on: PublishOn,
    ready: impl FnOnce(Duration, &Status),
) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Setup)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Setup)?;
    let started = Instant::now();
    let mut servers = Servers::start(shares, plan.measured.is_some(), home)?;
    let mut qemu = start(plan, home)?;
    let link = Link::start(home.port_socket(), publish_on);
    link.listen(&home.docker_socket(), &home.link_socket())?;
    tokio::spawn(link.clone().keep_clock());
    tokio::select! {
        ended = qemu.wait() => return Err(servers.or_died(home, ended).await),
        unserved = servers.ended() => {
            let given_up = give_up(unserved, &mut qemu, &link, home).await;
            return if was_asked(&mut interrupt, &mut terminate).await { Ok(()) } else { given_up };
        }
        () = asked(&mut interrupt, &mut terminate) => return stop(&mut qemu, &link, home).await,
        verdict = verdict(&link) => match verdict {
            Verdict::Ready(status) => ready(started.elapsed(), &status),
            Verdict::Refused { step, reason } => {
                stop(&mut qemu, &link, home).await?;
                let told = was_asked(&mut interrupt, &mut terminate).await;
                return if told { Ok(()) } else { Err(Error::Refused { step, reason }) };
            }
        },
    }
    tokio::select! {
        ended = qemu.wait() => Err(servers.or_died(home, ended).await),
        unserved = servers.ended() => give_up(unserved, &mut qemu, &link, home).await,
        () = asked(&mut interrupt, &mut terminate) => stop(&mut qemu, &link, home).await,
    }
}

fn start(plan: &Plan, home: &Home) -> Result<Child, Error> {
    let mut qemu = tied(program(plan.architecture).0.as_ref(), plan.arguments())?;
    // What an earlier run said explains nothing.
    File::create(home.console_log()).map_err(Error::Setup)?;
    let log = File::create(home.qemu_log()).map_err(Error::Setup)?;
    qemu.stdin(Stdio::null()).stderr(log).spawn().map_err(Error::Qemu)
}

/// A program that ends with this one, out of reach of the terminal's keys.
fn tied(program: &OsStr, arguments: Vec<OsString>) -> Result<Command, Error> {
    let mut command = Command::new(env::current_exe().map_err(Error::Setup)?);
    command.args(["tied", &id().to_string()]).arg(program).args(arguments);
    command.stdout(Stdio::null()).process_group(0).kill_on_drop(true);
    Ok(command)
}

/// The programs that serve folders of the host, and the TPM.
struct Servers {
    count: usize,
    /// What ended, with how and its last words.
    ended: mpsc::Receiver<Error>,
    /// Kept, so that nobody ends when there are none.
    _ends: mpsc::Sender<Error>,
}

impl Servers {
    fn start(shares: &[Share], tpm: bool, home: &Home) -> Result<Self, Error> {
        let count = shares.len() + usize::from(tpm);
        let (ends, ended) = mpsc::channel(count.max(1));
        // Asked for its version once, and not at all where nothing is shared.
        let program = if shares.is_empty() { PathBuf::new() } else { shares::program()? };
        for (index, share) in shares.iter().enumerate() {
            let socket = shares::listen(&home.share_socket(index))?;
            let mut server = tied(program.as_os_str(), shares::arguments(share))?;
            let server = server.stdin(socket).stderr(Stdio::piped()).spawn().map_err(Error::Setup)?;
            tokio::spawn(watch(server, Served::Folder(share.path.clone()), ends.clone()));
        }
        if tpm {
            let socket = shares::listen(&home.tpm_socket())?;
            let mut server = tied(tpm::PROGRAM.as_ref(), tpm::arguments(home))?;
            server.current_dir(home.root()).stdin(socket).stderr(Stdio::piped());
            tokio::spawn(watch(server.spawn().map_err(Error::Setup)?, Served::Tpm, ends.clone()));
        }
        Ok(Self { count, ended, _ends: ends })
    }

    /// What to make of QEMU's end: a server that failed is the reason, before or after.
    async fn or_died(&mut self, home: &Home, ended: io::Result<ExitStatus>) -> Error {
        let missed = if self.count == 0 { Duration::ZERO } else { MISSED };
        match timeout(missed, self.ended()).await {
            Ok(unserved) if is_at_fault(&unserved) => unserved,
            _ => died(home, ended),
        }
    }

    /// Waits for the first that ends.
    async fn ended(&mut self) -> Error {
        match self.ended.recv().await {
            Some(unserved) => unserved,
            None => std::future::pending().await,
        }
    }
}

/// Waits for a server's end and says how it was.
async fn watch(mut server: Child, served: Served, ends: mpsc::Sender<Error>) {
    let mut lines = VecDeque::new();
    if let Some(stderr) = server.stderr.take() {
        let mut said = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = said.next_line().await {
            if lines.len() == KEPT_LINES {
                lines.pop_front();
            }
            lines.push_back(line);
        }
    }
    let last_words = Vec::from(lines).join("\n    ");
    let unserved = match server.wait().await {
        Ok(status) => Error::Unserved { served, status, last_words },
        Err(error) => Error::Setup(error),
    };
    // Nobody listens any more when the VM has ended.
    let _nobody = ends.send(unserved).await;
}

/// One that QEMU left ends by itself, and well.
fn is_at_fault(unserved: &Error) -> bool {
    !matches!(unserved, Error::Unserved { status, .. } if status.success())
}

/// What to make of a server's end: QEMU's own comes just before or after, for each misses the other.
async fn give_up(unserved: Error, qemu: &mut Child, link: &Link, home: &Home) -> Result<(), Error> {
    match timeout(MISSED, qemu.wait()).await {
        Ok(ended) if !is_at_fault(&unserved) => return Err(died(home, ended)),
        Ok(_) => {}
        Err(_) => stop(qemu, link, home).await?,
    }
    Err(unserved)
}

/// Whether somebody asked for the end meanwhile: it was for this, and another boot must not follow.
async fn was_asked(interrupt: &mut Signal, terminate: &mut Signal) -> bool {
    timeout(Duration::ZERO, asked(interrupt, terminate)).await.is_ok()
}

async fn asked(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Asks the VM until it is decided. A VM that does not answer yet is still booting.
async fn verdict(link: &Link) -> Verdict {
    loop {
        match link.ask(&Request::Status {}).await {
            Ok(Reply::Status(status)) => match status.state {
                State::Refused => {
                    let failed = status.steps.into_iter().find(|step| step.outcome == status.reason);
                    let step = failed.map(|step| step.name).unwrap_or_default();
                    return Verdict::Refused { step, reason: status.reason };
                }
                State::Ready if matches!(link.engine_answers().await, Ok(true)) => {
                    return Verdict::Ready(status);
                }
                State::Ready | State::Starting | State::Stopping => {}
            },
            Ok(Reply::Ok | Reply::Evidence(_) | Reply::Error(_)) | Err(_) => {}
        }
        sleep(READY_PERIOD).await;
    }
}

/// Asks, then presses the power button, then pulls the plug.
async fn stop(qemu: &mut Child, link: &Link, home: &Home) -> Result<(), Error> {
    let accepted = tokio::select! {
        ended = qemu.wait() => return ended.map(drop).map_err(Error::Qemu),
        reply = link.ask(&Request::Shutdown {}) => matches!(reply, Ok(Reply::Ok)),
    };
    if accepted && ends_within(qemu, SHUTDOWN_DEADLINE).await? {
        return Ok(());
    }
    if press_button(&home.qmp_socket()).await && ends_within(qemu, BUTTON_DEADLINE).await? {
        return Ok(());
    }
    qemu.kill().await.map_err(Error::Qemu)
}

async fn press_button(socket: &Path) -> bool {
    matches!(timeout(BUTTON_DEADLINE, qmp::power_button(socket)).await, Ok(Ok(())))
}

async fn ends_within(qemu: &mut Child, deadline: Duration) -> Result<bool, Error> {
    match timeout(deadline, qemu.wait()).await {
        Ok(ended) => ended.map(|_| true).map_err(Error::Qemu),
        Err(_) => Ok(false),
    }
}

fn died(home: &Home, ended: io::Result<ExitStatus>) -> Error {
    match ended {
        Ok(status) => {
            let said = [home.console_log(), home.qemu_log()].map(|log| console::last_words(&log));
            let last_words = said.into_iter().find(|words| !words.is_empty()).unwrap_or_default();
            Error::Ended { status, last_words }
        }
        Err(error) => Error::Qemu(error),
    }
}

fn said(last_words: &str) -> String {
    if last_words.is_empty() { String::new() } else { format!(":\n    {last_words}") }
}

fn shown(last_words: &str) -> String {
    if last_words.is_empty() {
        "; neither it nor QEMU said why".to_owned()
    } else {
        format!(":\n    {last_words}")
    }
}
