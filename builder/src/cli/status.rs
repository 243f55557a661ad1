//! `eci-builder status`: what the VM says of itself, promise by promise.

use eci_contract::attest::Measurement;
use eci_contract::disk::Medium;
use eci_contract::ports::Reach;
use eci_contract::shares::Share;
use eci_contract::status::{Image, Settings, SettingsSource, State, Status};
use serde_json::json;

use super::exit::{Classify, Exit};
use super::print_data;
use crate::instance::client;
use crate::instance::home::{DEFAULT_NAME, Home};
use crate::ui::{Ui, printable};

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the instance.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Print everything as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// When the instance does not run or does not answer, and when a promise does not hold.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let home = Home::of(&args.name).or_exit(Exit::Instance)?;
    let start = "start it with `eci-builder run`";
    let running = home.is_running().or_exit_with_hint(Exit::Instance, start)?;
    if !running {
        let stopped = anyhow::anyhow!("the instance `{}` is stopped", home.name());
        return Err(stopped).or_exit_with_hint(Exit::Instance, start);
    }
    let record = home.record().or_exit(Exit::Instance)?;
    let status = client::status(&home).or_exit(Exit::Boot)?;
    if args.json {
        let instance = json!({ "name": home.name(), "docker_host": home.docker_host(), "record": record });
        print_data(&json!({ "version": JSON_VERSION, "instance": instance, "status": status }).to_string())?;
    } else {
        print_data(&table(&status, ui))?;
    }
    let refused = status.state == State::Refused
        || status.checks.iter().any(|check| !check.holds && check.left_out.is_none());
    if refused {
        Err(anyhow::anyhow!("the appliance is not as promised")).or_exit(Exit::Boot)
    } else {
        Ok(())
    }
}

fn settings(settings: &Settings) -> String {
    let source = match settings.source {
        SettingsSource::Default => "default",
        SettingsSource::Image => "of the image",
        SettingsSource::Disk => "of the config disk",
    };
    let edition = settings.edition.map(|edition| format!(", edition {edition}")).unwrap_or_default();
    let (isolation, locked) = (settings.isolation, if settings.locked { "locked" } else { "not locked" });
    let socket =
        if settings.socket.is_empty() { "for nobody".to_owned() } else { settings.socket.join(", ") };
    let registries = match settings.registries.as_deref() {
        None => "every one".to_owned(),
        Some([]) => "none".to_owned(),
        Some(allowed) => allowed.join(", "),
    };
    let ports = match settings.ports {
        Reach::All => String::new(),
        reach => format!(", ports: {}", shown_reach(reach)),
    };
    let apart = match settings.kept_apart.as_slice() {
        [] => String::new(),
        keys => format!("; not in force: {}", keys.join(", ")),
    };
    format!(
        "{source}{edition}, isolation {isolation} ({locked}), socket: {socket}, registries: {registries}{ports}, engine: {}, sha256 {}{apart}",
        settings.engine.join(", "),
        settings.sha256
    )
}

/// How far ports may be published, in words.
pub(super) fn shown_reach(reach: Reach) -> &'static str {
    match reach {
        Reach::All => "as `eci-builder run --publish-on` says",
        Reach::Loopback => "on the host's loopback",
        Reach::Nothing => "not published",
    }
}

fn shares(shares: &[Share]) -> String {
    let shown: Vec<_> = shares.iter().map(shown_share).collect();
    if shown.is_empty() { "no folder of the host".to_owned() } else { shown.join(", ") }
}

/// What the TPM was told, but for its long digests.
fn measured(measured: &[Measurement]) -> String {
    let names = measured.iter().map(|one| one.text.split(':').next().unwrap_or_default());
    let names: Vec<_> = names.collect();
    if names.is_empty() { "nothing: there is no TPM, or it failed".to_owned() } else { names.join(", ") }
}

/// As `run --share` has it.
pub(super) fn shown_share(share: &Share) -> String {
    format!("{}{}", share.path, if share.read_only { ":ro" } else { "" })
}

/// What is to be said of the slot.
fn of_slot(image: &Image) -> &'static str {
    match (image.medium, image.on_trial) {
        (Medium::Cd, _) => ", on a CD: boots are not counted, and another version is another CD",
        (Medium::Disk, true) => ", on trial",
        (Medium::Disk, false) => "",
    }
}

fn table(status: &Status, ui: &Ui) -> String {
    let state = match status.state {
        State::Starting => "starting",
        State::Ready => "ready",
        State::Refused => "refused",
        State::Stopping => "stopping",
    };
    let of_vm = [
        format!("{} {}  {state}  {}", status.image.name, status.image.version, status.reason),
        format!("root hash  {}", status.image.root_hash),
        format!("slot       {}{}", status.image.slot, of_slot(&status.image)),
        format!("settings   {}", status.settings.as_ref().map_or("none in force".to_owned(), settings)),
        format!("shares     {}", shares(&status.shares)),
        format!("measured   {}", measured(&status.measured)),
        format!("address    {}", status.address.as_deref().unwrap_or("none yet")),
        format!("memory     {} MiB in use", status.memory_used_kib / 1024),
        format!(
            "boot       kernel {} ms, init {} ms, engine {} ms",
            status.boot_ms.kernel, status.boot_ms.init, status.boot_ms.engine
        ),
        String::new(),
    ];
    let mut lines = of_vm.map(|line| printable(&line)).to_vec();
    for check in &status.checks {
        let (verdict, found) = match (&check.left_out, check.holds) {
            (Some(why), _) => (ui.paint("33", "left out"), format!("; {why}")),
            (None, true) => (ui.paint("32", "holds   "), String::new()),
            (None, false) => (ui.paint("31", "BROKEN  "), format!("; found: {}", check.found)),
        };
        let told = format!("{:<24} {}{found}", check.id, check.promise);
        lines.push(format!("{verdict}  {}", printable(&told)));
    }
    lines.push(String::new());
    for service in &status.services {
        let told = format!("service {:<16} {}, {} restarts", service.name, service.state, service.restarts);
        lines.push(printable(&told));
    }
    lines.join("\n")
}
