//! One run of an instance, from QEMU's start to its end.
//!
//! QEMU is started through this same program (`eci-builder tied`), which asks the kernel to kill it with its parent and
//! then becomes QEMU: setting that between fork and exec from outside would take `unsafe`.

use std::env;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio, id};
use std::time::{Duration, Instant};

use eci_contract::link::{Reply, Request};
use eci_contract::status::State;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::process::{Child, Command};
use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{sleep, timeout};

use super::console;
use super::home::{self, Home, Lock};
use super::link::ports::PublishOn;
use super::link::{self, Link, qmp};
use super::machine::{PROGRAM, Plan};

/// How long an orderly shutdown may take before the power button is pressed.
const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(30);
/// How long the power button may take before the machine is killed.
const BUTTON_DEADLINE: Duration = Duration::from_secs(15);
/// Pause between two questions whether the engine is ready.
const READY_PERIOD: Duration = Duration::from_millis(100);

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime or a signal handler cannot be set up.
    #[error("cannot set up the supervisor")]
    Setup(#[source] io::Error),
    /// QEMU cannot be started or waited for.
    #[error("cannot run `{PROGRAM}`")]
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
        /// The VM's words.
        reason: String,
    },
    /// QEMU ended and nobody had asked for it.
    #[error("the VM ended by itself ({status}){}", shown(.last_words))]
    Ended {
        /// How QEMU ended.
        status: ExitStatus,
        /// What the console said last.
        last_words: String,
    },
}

/// How the wait for the engine ended.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Every promise holds and the engine answers.
    Ready,
    /// The engine will not be started, for this reason.
    Refused(String),
}

/// Runs the machine until it is stopped by a signal or by its guest, or refuses to start its engine. `ready` is called
/// once, when the engine answers, with the time since QEMU was started.
///
/// # Errors
/// [`Error`].
pub fn run(
    home: &Home,
    held: &Lock,
    plan: &Plan,
    publish_on: PublishOn,
    ready: impl FnOnce(Duration),
) -> Result<(), Error> {
    home.remove_sockets(held)?;
    allow_open_files();
    let runtime = Builder::new_current_thread().enable_all().build().map_err(Error::Setup)?;
    runtime.block_on(supervise(home, plan, publish_on, ready))
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
    publish_on: PublishOn,
    ready: impl FnOnce(Duration),
) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Setup)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Setup)?;
    let started = Instant::now();
    let mut qemu = start(plan)?;
    let link = Link::start(home.port_socket(), publish_on);
    link.listen(&home.docker_socket(), &home.link_socket())?;
    tokio::spawn(link.clone().keep_clock());
    tokio::select! {
        ended = qemu.wait() => return Err(died(home, ended)),
        () = asked(&mut interrupt, &mut terminate) => return stop(&mut qemu, &link, home).await,
        verdict = verdict(&link) => match verdict {
            Verdict::Ready => ready(started.elapsed()),
            Verdict::Refused(reason) => {
                stop(&mut qemu, &link, home).await?;
                // Who asked meanwhile asked for this; another boot must not follow.
                let told = timeout(Duration::ZERO, asked(&mut interrupt, &mut terminate)).await.is_ok();
                return if told { Ok(()) } else { Err(Error::Refused { reason }) };
            }
        },
    }
    tokio::select! {
        ended = qemu.wait() => Err(died(home, ended)),
        () = asked(&mut interrupt, &mut terminate) => stop(&mut qemu, &link, home).await,
    }
}

fn start(plan: &Plan) -> Result<Child, Error> {
    let ourselves = env::current_exe().map_err(Error::Setup)?;
    Command::new(ourselves)
        .args(["tied", &id().to_string(), PROGRAM])
        .args(plan.arguments())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::Qemu)
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
                State::Refused => return Verdict::Refused(status.reason),
                State::Ready if matches!(link.engine_answers().await, Ok(true)) => return Verdict::Ready,
                State::Ready | State::Starting | State::Stopping => {}
            },
            Ok(Reply::Ok | Reply::Error(_)) | Err(_) => {}
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
        Ok(status) => Error::Ended { status, last_words: console::last_words(&home.console_log()) },
        Err(error) => Error::Qemu(error),
    }
}

fn shown(last_words: &str) -> String {
    if last_words.is_empty() { "; its console is empty".to_owned() } else { format!(":\n    {last_words}") }
}
