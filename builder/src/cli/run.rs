//! `eci-builder run`: boots what was built, in the foreground or detached.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use eci_contract::choice::Switch;
use eci_contract::shares::Share;
use eci_contract::status::Status;
use serde_json::json;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::cache::Cache;
use crate::instance::accel;
use crate::instance::artifacts::{self, Artifacts};
use crate::instance::home::{self, DEFAULT_NAME, Home, Lock, RECORD_VERSION, Record};
use crate::instance::link::ports;
use crate::instance::machine::{Accelerator, Body, Measured, Plan, program};
use crate::instance::own_disk::{Chosen, OwnDisk};
use crate::instance::shares::{self, Kept};
use crate::instance::supervise::Served;
use crate::instance::update::apply;
use crate::instance::{choice, client, console, context, supervise, tpm};
use crate::settings::disk;
use crate::tool;
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// What is booted where no folder is given.
const DEFAULT_FOLDER: &str = "out";
/// Size of a new data disk. It is sparse: it takes what is written to it.
const DATA_BYTES: u64 = 64 << 30;
/// Least memory that the engine starts in.
const LEAST_MEMORY_MIB: u64 = 256;
const POLL: Duration = Duration::from_millis(100);

/// Arguments of `run`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Output folder of a build; `out` if none is given. An instance that was updated boots its own disk.
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Return when the engine answers and leave the VM running.
    #[arg(long)]
    detach: bool,
    /// What executes the VM; auto proves that KVM works before it relies on it.
    #[arg(long, value_enum, default_value = "auto")]
    accel: Accel,
    /// Memory: a number with M or G.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = parse_memory)]
    memory: u64,
    /// Virtual processors.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=255))]
    cpus: u32,
    /// Raw file or block device to use as the data disk.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// Config disk that `eci-builder settings sign` made, for this run and those that follow.
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// No config disk, from this run on: the image's own settings.
    #[arg(long, conflicts_with = "settings")]
    no_settings: bool,
    /// Folder of this host that containers can have (`docker run -v`), with all that is in it; `:ro` behind it keeps it from being
    /// written to. May be given several times; for this run and those that follow.
    #[arg(long = "share", value_name = "DIR[:ro]")]
    shares: Vec<String>,
    /// No folder of this host, from this run on.
    #[arg(long, conflicts_with = "shares")]
    no_shares: bool,
    /// Whether containers are isolated, where the administrator's settings do not lock it; for this run and those that follow.
    #[arg(long, value_enum, value_name = "CHOICE")]
    isolation: Option<Isolation>,
    /// Boot by UEFI firmware, which measures what it starts into a TPM 2.0 of the instance's own (swtpm); `eci-builder attest` reads it.
    #[arg(long)]
    tpm: bool,
    /// Addresses of this host on which ports of containers (`docker run -p`) may be.
    #[arg(long, value_enum, default_value = "loopback")]
    publish_on: PublishOn,
    /// Seconds that the engine may take to answer, with --detach.
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    timeout: u64,
    /// Print the instance as JSON, with --detach.
    #[arg(long, requires = "detach")]
    json: bool,
    /// This process is the supervisor of a detached run.
    #[arg(long, hide = true, conflicts_with = "detach")]
    supervisor: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Accel {
    /// KVM if it works, else TCG.
    Auto,
    /// The host's processor.
    Kvm,
    /// QEMU's translator.
    Tcg,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PublishOn {
    /// 127.0.0.1 and ::1, which this host alone reaches; `-p ADDRESS:…` with another address is refused.
    Loopback,
    /// Every address, which other machines may reach; `-p ADDRESS:…` narrows it down.
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Isolation {
    /// Every container has a user namespace and ids of its own.
    On,
    /// Containers are as on any Linux machine: their root is the VM's root, and with --privileged can do all that this can.
    Off,
    /// As the administrator's settings say, which is how a new instance begins.
    Settings,
}

impl Isolation {
    /// As the command line has it.
    fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Settings => "settings",
        }
    }

    /// What it means for the machine.
    fn choice(self) -> Option<Switch> {
        match self {
            Self::On => Some(Switch::On),
            Self::Off => Some(Switch::Off),
            Self::Settings => None,
        }
    }
}

impl PublishOn {
    /// As the command line has it.
    fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::All => "all",
        }
    }
}

impl From<PublishOn> for ports::PublishOn {
    fn from(chosen: PublishOn) -> Self {
        match chosen {
            PublishOn::Loopback => Self::Loopback,
            PublishOn::All => Self::All,
        }
    }
}

/// Runs the subcommand.
///
/// # Errors
/// When the instance cannot be started, or its engine does not answer.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name)
        .or_exit_with_hint(Exit::Instance, "choose a short name, or set XDG_STATE_HOME")?;
    let artifacts = what_to_boot(args, &home)?;
    same_architecture(&home, &artifacts)?;
    settings_of(args, &home)?;
    shares_of(args, &home, &artifacts)?;
    let (qemu, package) = program(artifacts.manifest.architecture);
    tool::require(qemu).or_exit_with_hint(Exit::Host, format!("apt-get install {package}"))?;
    measured_by(args, &home, &artifacts)?;
    home.create().or_exit(Exit::Instance)?;
    if args.detach { detached(args, &home, &artifacts, ui) } else { foreground(args, &home, &artifacts, ui) }
}

/// The folder that is named, or the instance's own disk. An update that waits makes one.
fn what_to_boot(args: &Args, home: &Home) -> anyhow::Result<Artifacts> {
    let waits = home.next().exists();
    match (&args.folder, OwnDisk::of(home)) {
        (Some(_), own) if own.is_some() || waits => {
            let own = anyhow::anyhow!("the instance `{}` was updated, and boots its own disk", home.name());
            let hint = "`eci-builder update DIR` makes an image its next version; \
                without DIR, `eci-builder run` boots it";
            Err(own).or_exit_with_hint(Exit::Instance, hint)
        }
        (_, Some(own)) => chosen(&own).map(|(artifacts, _)| artifacts),
        (_, None) if waits => {
            Artifacts::check(&home.record().or_exit(Exit::Instance)?.artifacts).map_err(unusable)
        }
        (folder, None) => {
            Artifacts::check(folder.as_deref().unwrap_or(Path::new(DEFAULT_FOLDER))).map_err(unusable)
        }
    }
}

/// What the boot is measured with, where that is asked for and can be.
fn measured_by(args: &Args, home: &Home, artifacts: &Artifacts) -> anyhow::Result<Option<Measured>> {
    if !args.tpm {
        return Ok(None);
    }
    if home.own_disk().exists() || home.next().exists() {
        let updated = anyhow::anyhow!(
            "the instance `{}` was updated: firmware would boot the kernel that it began with",
            home.name()
        );
        let hint = "leave out --tpm, or start a new instance from the image with --name";
        return Err(updated).or_exit_with_hint(Exit::Instance, hint);
    }
    tpm::plan(home, artifacts.manifest.architecture).map(Some).map_err(unmeasured)
}

fn unmeasured(error: tpm::Error) -> anyhow::Error {
    match error.hint() {
        Some(hint) => Err::<(), _>(error).or_exit_with_hint(Exit::Host, hint),
        None => Err(error).or_exit(Exit::Host),
    }
    .expect_err("an error was given")
}

/// Images and containers on an instance's data disk are of one architecture.
fn same_architecture(home: &Home, artifacts: &Artifacts) -> anyhow::Result<()> {
    let now = artifacts.manifest.architecture;
    let before = match home.record() {
        Err(home::Error::Missing { .. }) => return Ok(()),
        record => record.or_exit(Exit::Instance)?.architecture,
    };
    if before == now {
        return Ok(());
    }
    let (before, now, folder) = (before.as_str(), now.as_str(), artifacts.folder.display());
    let other = anyhow::anyhow!("the instance `{}` is of {before}, and `{folder}` of {now}", home.name());
    let hint = format!(
        "give the new one a --name of its own, or remove this one with its data: `eci-builder rm --name {}`",
        home.name()
    );
    Err(other).or_exit_with_hint(Exit::Instance, hint)
}

fn chosen(own: &OwnDisk) -> anyhow::Result<(Artifacts, Chosen)> {
    let hint = "`eci-builder reset --keep-data` drops a version on trial; `eci-builder rm` removes the instance with its data";
    let chosen = own.chosen().or_exit_with_hint(Exit::Instance, hint)?;
    Ok((own.artifacts(chosen.slot).or_exit_with_hint(Exit::Untrusted, hint)?, chosen))
}

/// Artifacts that are not there are the wrong ones to name; those that are there and not what they should be are not
/// to be trusted.
fn unusable(error: artifacts::Error) -> anyhow::Error {
    let (exit, hint) = match error {
        artifacts::Error::NoManifest { .. } | artifacts::Error::Read { .. } => {
            (Exit::Instance, "run `eci-builder build`, or name the folder of a build")
        }
        artifacts::Error::Unsigned { .. } => (Exit::Untrusted, super::sign::HINT),
        artifacts::Error::Manifest { .. }
        | artifacts::Error::Unusable { .. }
        | artifacts::Error::Digest { .. } => (
            Exit::Untrusted,
            "`eci-builder verify` tells what else changed; `eci-builder build` makes it anew",
        ),
    };
    Err::<(), _>(error).or_exit_with_hint(exit, hint).expect_err("an error was given")
}

fn foreground(args: &Args, home: &Home, artifacts: &Artifacts, ui: &Ui) -> anyhow::Result<()> {
    if args.supervisor {
        rustix::process::setsid().context("cannot leave the terminal's session")?;
    }
    let held = home.lock().or_exit_with_hint(Exit::Instance, "stop it first: `eci-builder stop`")?;
    let accelerator = choose(args.accel, artifacts, ui)?;
    if !args.supervisor {
        make_context(home, ui)?;
    }
    bring_in(home, &held, ui)?;
    loop {
        let own = OwnDisk::of(home);
        let (artifacts, trial) = match &own {
            Some(own) => chosen(own).map(|(artifacts, chosen)| (artifacts, Some((own, chosen))))?,
            None => (artifacts.clone(), None),
        };
        let outcome = one_boot(args, home, &held, &artifacts, accelerator, ui);
        match (outcome, trial.filter(|(_, chosen)| chosen.count.on_trial())) {
            (Err(error), Some((own, chosen))) if !is_ours(&error) && was_a_try(own, chosen)? => {
                let version = &artifacts.manifest.version;
                ui.note(&format!("version {version} is on trial and did not get the engine ready: {error}"));
            }
            (outcome, _) => {
                return match outcome.as_ref().err().and_then(hint) {
                    Some(hint) => outcome.or_exit_with_hint(Exit::Boot, hint),
                    None => outcome.or_exit(Exit::Boot),
                };
            }
        }
    }
}

/// Puts an update that waits into its slot.
fn bring_in(home: &Home, held: &Lock, ui: &Ui) -> anyhow::Result<()> {
    if !home.next().exists() {
        return Ok(());
    }
    let updating = home.lock_update().or_exit_with_hint(Exit::Instance, "wait for it to end")?;
    let built = home.record().or_exit(Exit::Instance)?.artifacts;
    apply::apply(home, held, &updating, &built, ui).map(drop).map_err(super::update::classified)
}

/// Whether a boot failed by what it was given, and not by the version: the next one would as well.
fn is_ours(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(supervise::Error::Refused { step, .. }) => {
            ["settings", "settings taken", "shares"].contains(&step.as_str())
        }
        Some(supervise::Error::Share(_) | supervise::Error::Unserved { .. }) => true,
        _ => false,
    }
}

/// What can be done about a boot that failed by its folders.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref() {
        Some(supervise::Error::Refused { step, .. }) if step == "shares" => {
            Some("name other folders with --share, or none with --no-shares: they are remembered")
        }
        Some(supervise::Error::Unserved { served: Served::Folder(_), .. }) => Some(
            "if it ends at every start, it gets no user namespace: where the system keeps those from programs (Ubuntu \
             24.04 and later), give virtiofsd an AppArmor profile with `userns,`",
        ),
        _ => None,
    }
}

/// Whether a boot that failed took a try from a version on trial: then another one follows, of that version or of the old one.
fn was_a_try(own: &OwnDisk, before: Chosen) -> anyhow::Result<bool> {
    let after = own.table().or_exit(Exit::Instance)?.count(before.slot).or_exit(Exit::Instance)?;
    Ok(!after.successful && after.tries_left < before.count.tries_left)
}

fn one_boot(
    args: &Args,
    home: &Home,
    held: &Lock,
    artifacts: &Artifacts,
    accelerator: Accelerator,
    ui: &Ui,
) -> anyhow::Result<()> {
    let (plan, record) = prepare(args, home, artifacts, accelerator)?;
    home.save(&record).or_exit(Exit::Instance)?;
    ui.note(&format!(
        "booting `{}` with {accelerator}, {} MiB, {} processors",
        home.name(),
        plan.memory_mib,
        plan.cpus
    ));
    let ready = |after: Duration, status: &Status| {
        ui.note(&format!(
            "engine ready after {:.1} s: docker --context {} …",
            after.as_secs_f64(),
            context::name(home)
        ));
        tell_of_isolation(status, ui);
    };
    Ok(supervise::run(home, held, &plan, &record.shares, args.publish_on.into(), ready)?)
}

fn detached(args: &Args, home: &Home, artifacts: &Artifacts, ui: &Ui) -> anyhow::Result<()> {
    drop(home.lock().or_exit_with_hint(Exit::Instance, "stop it first: `eci-builder stop`")?);
    let accelerator = choose(args.accel, artifacts, ui)?;
    make_context(home, ui)?;
    let stage = ui.stage("boot");
    let mut supervisor = start_supervisor(args, home, accelerator)?;
    let status = wait_for_engine(&mut supervisor, home, Duration::from_secs(args.timeout))?;
    stage.done(&format!("{accelerator}, docker --context {} …", context::name(home)));
    tell_of_isolation(&status, ui);
    if args.json {
        let (host, pid) = (home.docker_host(), supervisor.id());
        let instance = json!({ "version": JSON_VERSION, "name": home.name(), "docker_host": host, "pid": pid,
            "boot_ms": status.boot_ms });
        print_data(&instance.to_string())?;
    }
    Ok(())
}

/// What nobody should find out by a container.
fn tell_of_isolation(status: &Status, ui: &Ui) {
    let step = status.steps.iter().find(|step| step.name == "isolation" && step.outcome != "ok");
    if let Some(step) = step {
        ui.note(&format!("{}; `--isolation settings` takes the choice back", step.outcome));
    }
    if status.settings.as_ref().is_some_and(|settings| settings.isolation == Switch::Off) {
        ui.note("containers are NOT isolated: their root is the VM's");
    }
}

fn choose(wanted: Accel, artifacts: &Artifacts, ui: &Ui) -> anyhow::Result<Accelerator> {
    let architecture = artifacts.manifest.architecture;
    let native = accel::is_native(architecture);
    match wanted {
        Accel::Kvm if !native => {
            let foreign = anyhow::anyhow!("KVM runs no {} image on this host", architecture.as_str());
            Err(foreign).or_exit_with_hint(Exit::Host, "leave out --accel, or build with another --arch")
        }
        Accel::Kvm => Ok(Accelerator::Kvm),
        Accel::Tcg => Ok(Accelerator::Tcg),
        Accel::Auto if !native => {
            let name = architecture.as_str();
            ui.note(&format!(
                "an {name} image; using QEMU's translator (tcg), which is slower than a host of that kind"
            ));
            Ok(Accelerator::Tcg)
        }
        Accel::Auto
            if accel::kvm_works(artifacts, &Cache::open().or_exit(Exit::Host)?).or_exit(Exit::Host)? =>
        {
            Ok(Accelerator::Kvm)
        }
        Accel::Auto => {
            ui.note("KVM does not run a guest on this host; using QEMU's translator (tcg), which is slower");
            Ok(Accelerator::Tcg)
        }
    }
}

fn make_context(home: &Home, ui: &Ui) -> anyhow::Result<()> {
    let hint = "remove it with `docker context rm`, or give the instance another --name";
    if context::create(home, ui).or_exit_with_hint(Exit::Instance, hint)? == context::Outcome::NoDocker {
        ui.note(&format!(
            "no `docker` on this host; other clients: export DOCKER_HOST={}",
            home.docker_host()
        ));
    }
    Ok(())
}

fn prepare(
    args: &Args,
    home: &Home,
    artifacts: &Artifacts,
    accelerator: Accelerator,
) -> anyhow::Result<(Plan, Record)> {
    // Again: an update may have come in since.
    let measured = measured_by(args, home, artifacts)?;
    let data = data_of(args, home)?;
    if args.data.is_none() {
        home.ensure_data_disk(DATA_BYTES).or_exit(Exit::Host)?;
    }
    let settings = settings_of(args, home)?;
    let shares = shares_of(args, home, artifacts)?;
    if !shares.is_empty() {
        shares::write_disk(&shares, &home.shares_disk()).or_exit(Exit::Host)?;
    }
    let isolation = isolation_of(args, home);
    if let Some(isolation) = isolation {
        let disk = home.choice_disk();
        let written = choice::write_disk(isolation, &disk);
        written.with_context(|| format!("cannot make `{}`", disk.display())).or_exit(Exit::Host)?;
    }
    let sockets: Vec<_> = (0..shares.len()).map(|index| home.share_socket(index)).collect();
    let record = Record {
        version: RECORD_VERSION,
        artifacts: artifacts.folder.clone(),
        data: data.clone(),
        architecture: artifacts.manifest.architecture,
        accel: accelerator.to_string(),
        memory_mib: args.memory,
        cpus: args.cpus,
        pid: std::process::id(),
        settings: settings.clone(),
        shares: shares.clone(),
        isolation,
    };
    let architecture = artifacts.manifest.architecture;
    if measured.is_some() {
        tpm::prepare(home, architecture).map_err(unmeasured)?;
    }
    let plan = Plan {
        architecture: artifacts.manifest.architecture,
        accelerator,
        memory_mib: args.memory,
        cpus: args.cpus,
        kernel: artifacts.kernel.clone(),
        initrd: artifacts.initrd.clone(),
        measured,
        console: home.console_log(),
        body: Some(Body {
            image: artifacts.disk.clone(),
            own: home.own_disk().exists(),
            data,
            settings,
            choice: isolation.map(|_| home.choice_disk()),
            shares: (!shares.is_empty()).then(|| (home.shares_disk(), sockets)),
            port_socket: home.port_socket(),
            qmp_socket: home.qmp_socket(),
        }),
    };
    Ok((plan, record))
}

/// The data disk that is named, or the instance's own, which need not be there yet.
fn data_of(args: &Args, home: &Home) -> anyhow::Result<PathBuf> {
    let Some(data) = &args.data else { return Ok(home.data_disk()) };
    data.canonicalize().with_context(|| format!("cannot use the data disk `{}`", data.display()))
}

/// The folders that are named, or those of the run before.
fn shares_of(args: &Args, home: &Home, artifacts: &Artifacts) -> anyhow::Result<Vec<Share>> {
    let hint = "name a folder that is there with --share, or none with --no-shares";
    let named: Result<Vec<_>, _> = args.shares.iter().map(|text| shares::parse(text)).collect();
    let mut wanted = named.or_exit_with_hint(Exit::Config, hint)?;
    if wanted.is_empty() && !args.no_shares {
        wanted = home.record().map(|record| record.shares).unwrap_or_default();
    }
    if !wanted.is_empty() {
        let hint = "apt-get install virtiofsd; where the package is older than 1.13 or there is none: apt-get install libcap-ng-dev \
            libseccomp-dev, then `cargo install --locked virtiofsd`";
        shares::program().or_exit_with_hint(Exit::Host, hint)?;
    }
    let data = data_of(args, home)?;
    let kept = Kept { home, image: &artifacts.folder, data: &data };
    shares::judge(&wanted, kept).or_exit_with_hint(Exit::Config, hint)?;
    Ok(wanted)
}

/// What is chosen, or was for the run before.
fn isolation_of(args: &Args, home: &Home) -> Option<Switch> {
    match args.isolation {
        Some(chosen) => chosen.choice(),
        None => home.record().ok().and_then(|record| record.isolation),
    }
}

/// The config disk that is named, or that of the run before.
fn settings_of(args: &Args, home: &Home) -> anyhow::Result<Option<PathBuf>> {
    let before = || home.record().ok().and_then(|record| record.settings).filter(|_| !args.no_settings);
    args.settings.clone().or_else(before).as_deref().map(config_disk).transpose()
}

/// The path of a config disk. What is on it the VM judges; that it is one at all is told at once.
fn config_disk(path: &Path) -> anyhow::Result<PathBuf> {
    disk::read(path).or_exit_with_hint(Exit::Config, "`eci-builder settings sign FILE` makes one")?;
    path.canonicalize().with_context(|| format!("cannot use the config disk `{}`", path.display()))
}

/// This program again, in a session of its own, with its messages in the instance's folder.
fn start_supervisor(args: &Args, home: &Home, accelerator: Accelerator) -> anyhow::Result<Child> {
    let log = File::create(home.supervisor_log()).context("cannot write the supervisor's log")?;
    let mut command = Command::new(env::current_exe().context("cannot find this program")?);
    command.arg("run").arg("--supervisor").args(["--name", home.name(), "--accel", &accelerator.to_string()]);
    command.args(["--memory", &format!("{}M", args.memory), "--cpus", &args.cpus.to_string()]);
    command.args(["--publish-on", args.publish_on.name()]);
    if args.tpm {
        command.arg("--tpm");
    }
    if let Some(data) = &args.data {
        command.arg("--data").arg(data);
    }
    if let Some(settings) = &args.settings {
        command.arg("--settings").arg(settings);
    }
    if args.no_settings {
        command.arg("--no-settings");
    }
    if let Some(isolation) = args.isolation {
        command.args(["--isolation", isolation.name()]);
    }
    for share in &args.shares {
        command.arg(format!("--share={share}"));
    }
    if args.no_shares {
        command.arg("--no-shares");
    }
    command.arg("--").args(&args.folder);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("cannot start the supervisor")
}

fn wait_for_engine(supervisor: &mut Child, home: &Home, deadline: Duration) -> anyhow::Result<Status> {
    let started = Instant::now();
    loop {
        if let Some(status) = client::ready(home) {
            return Ok(status);
        }
        if supervisor.try_wait().context("cannot wait for the supervisor")?.is_some() {
            let said = fs::read_to_string(home.supervisor_log()).unwrap_or_default();
            let logs = format!("the whole console is in `{}`", home.console_log().display());
            return Err(anyhow::anyhow!(reported(&said).to_owned())).or_exit_with_hint(Exit::Boot, logs);
        }
        if started.elapsed() > deadline {
            let words = console::last_words(&home.console_log());
            let late = anyhow::anyhow!(
                "the engine did not answer within {} s; the console ends:\n    {words}",
                deadline.as_secs()
            );
            let hint = "it is still running; look with `eci-builder status`, end it with `eci-builder stop`";
            return Err(late).or_exit_with_hint(Exit::Boot, hint);
        }
        thread::sleep(POLL);
    }
}

/// The error in a supervisor's log, without the notes before it.
fn reported(log: &str) -> &str {
    const START: &str = "error: ";
    let error =
        log.strip_prefix(START).or_else(|| log.split_once(&format!("\n{START}")).map(|(_, error)| error));
    error.unwrap_or(log).trim_end()
}

/// MiB from a number with M or G.
fn parse_memory(text: &str) -> anyhow::Result<u64> {
    let (number, factor) = match text.strip_suffix(['G', 'g']) {
        Some(number) => (number, 1024),
        None => (text.strip_suffix(['M', 'm']).unwrap_or(text), 1),
    };
    let mib = number.parse().ok().and_then(|number: u64| number.checked_mul(factor));
    match mib {
        Some(mib) if mib >= LEAST_MEMORY_MIB => Ok(mib),
        Some(_) => bail!("at least {LEAST_MEMORY_MIB}M are needed"),
        None => bail!("write a whole number with M or G, such as 2G"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_supervisor_s_log_the_error_is_passed_on() {
        let log = "booting `x` with tcg\nerror: the VM ended by itself:\n    boot refused: why\n";
        assert_eq!(reported(log), "the VM ended by itself:\n    boot refused: why");
        assert_eq!(reported("booting `x`\n"), "booting `x`");
        assert_eq!(reported(""), "");
    }

    #[test]
    fn memory_is_read_with_its_unit() {
        for (text, mib) in [("2G", 2048), ("512M", 512), ("1024", 1024)] {
            assert_eq!(parse_memory(text).expect("a size"), mib);
        }
        for text in ["", "G", "1T", "-1G", "1.5G", "128M", "18446744073709551615G"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
    }
}
