//! `eci-builder settings`: what an `admin-settings.json` would have in force, and a config disk of it.

use std::path::{Path, PathBuf};

use eci_contract::choice::Switch;
use eci_contract::socket::{CommandList, ListKind, SocketPolicy};
use eci_policy::rules::registry::Registries;
use eci_policy::settings::machine::{Limits, Size};
use eci_policy::settings::{self as reader, Problem, Settings};
use serde_json::{Map, Value, json};

use super::exit::{Classify, Exit};
use super::print_data;
use super::sign::parse_key;
use super::status::{shown_reach, shown_share};
use crate::image::sign::Source;
use crate::settings::{self, Error, disk};
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;

/// Arguments of `settings`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Check a file as a build and the VM do: say what would be in force, what is kept apart, and all that is wrong.
    Check {
        /// The file, `admin-settings.json`.
        file: PathBuf,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Make a config disk: the file with an edition and a signature, which images that name the key's public half take.
    Sign {
        /// The file, `admin-settings.json`.
        file: PathBuf,
        /// Ed25519 private key (PEM), or the `pkcs11:` URI of one (see `eci-builder sign --help`).
        #[arg(long, value_name = "FILE|URI", value_parser = parse_key)]
        key: Source,
        /// Counts up with each disk: a VM takes none that is older than the one that it took last.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
        edition: u64,
        /// The disk.
        #[arg(long, short, value_name = "FILE", default_value = "eci-config.img")]
        out: PathBuf,
    },
}

/// Runs the subcommand.
///
/// # Errors
/// When the file cannot be read or an image would not take it.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    match &args.what {
        What::Check { file, json } => check(file, *json, ui),
        What::Sign { file, key, edition, out } => sign(file, key, *edition, out, ui),
    }
}

fn sign(file: &Path, key: &Source, edition: u64, out: &Path, ui: &Ui) -> anyhow::Result<()> {
    let hint = "`eci-builder settings check` tells all that is wrong with a file";
    let (bytes, _) = settings::read(file).or_exit_with_hint(Exit::Config, hint)?;
    disk::write(&bytes, edition, key, out).or_exit_with_hint(
        Exit::Config,
        "name a key of `eci-builder keygen`, and a place that can be written to",
    )?;
    let sha256 = settings::digest(&bytes);
    ui.note(&format!("`{}`: edition {edition}, sha256 {sha256}", out.display()));
    ui.note(
        "boot with it: eci-builder run --settings FILE; elsewhere: a virtio disk with serial `eci-config`",
    );
    Ok(())
}

fn check(file: &Path, as_data: bool, ui: &Ui) -> anyhow::Result<()> {
    let bytes = settings::bytes(file).or_exit(Exit::Config)?;
    let outcome = match reader::read(&bytes) {
        Ok(settings) => Ok(settings),
        Err(reader::Error::Refused(problems)) => Err(problems),
        Err(source) => return Err(Error::Refused { path: file.to_owned(), source }).or_exit(Exit::Config),
    };
    let sha256 = settings::digest(&bytes).to_string();
    print_data(&if as_data { as_json(file, &sha256, &outcome) } else { as_text(&sha256, &outcome, ui) })?;
    match outcome {
        Ok(_) => Ok(()),
        Err(problems) => {
            let (shown, count) = (file.display(), problems.len());
            let things = if count == 1 { "thing is" } else { "things are" };
            Err(anyhow::anyhow!("`{shown}` cannot be used as settings: {count} {things} wrong"))
                .or_exit(Exit::Config)
        }
    }
}

fn as_text(sha256: &str, outcome: &Result<Settings, Vec<Problem>>, ui: &Ui) -> String {
    let mut lines = vec![format!("sha256      {sha256}")];
    match outcome {
        Ok(settings) => {
            let Settings { isolation, engine, shares, registries, ports, limits, kept_apart } = settings;
            let locked = if isolation.locked { "locked" } else { "not locked" };
            lines.push(format!("isolation   {}, {locked}", isolation.value));
            let SocketPolicy { images, allow_derived_images, commands, lists, .. } = &isolation.socket;
            let derived = if *allow_derived_images { ", and images made from them" } else { "" };
            lines.extend(images.iter().map(|image| format!("socket      {image}{derived}")));
            if images.is_empty() {
                lines.push("socket      in no container".to_owned());
            } else {
                lines.extend(lists.iter().map(|list| {
                    format!("commands    of {}: {}", list.images.join(", "), shown_commands(&list.commands))
                }));
                let rest = if lists.is_empty() { "" } else { "of all others: " };
                lines.push(format!("commands    {rest}{}", shown_commands(commands)));
            }
            lines.extend(match shares.allow.as_deref() {
                None => vec!["shares      every folder of the host".to_owned()],
                Some([]) => vec!["shares      no folder of the host".to_owned()],
                Some(folders) => {
                    folders.iter().map(|share| format!("shares      {}", shown_share(share))).collect()
                }
            });
            lines.extend(match registries.as_ref().map(Registries::written) {
                None => vec!["registries  every one".to_owned()],
                Some([]) => vec!["registries  none".to_owned()],
                Some(allowed) => allowed.iter().map(|registry| format!("registries  {registry}")).collect(),
            });
            lines.push(format!("ports       {}", shown_reach(*ports)));
            lines.extend(shown_limits(limits).into_iter().map(|limit| format!("machine     {limit}")));
            lines.extend(engine.iter().map(|(key, value)| format!("engine      {key} {value}")));
            let apart = |(key, what)| format!("{}  {key}: {what}", ui.paint("33", "kept apart"));
            lines.extend(kept_apart.iter().map(|feature| apart((feature.key, feature.what))));
            if !kept_apart.is_empty() {
                lines.push(
                    "What is kept apart is about other features of Docker Desktop, and not in force."
                        .to_owned(),
                );
            }
        }
        Err(problems) => {
            lines.extend(
                problems.iter().map(|problem| format!("{}       {problem}", ui.paint("31", "wrong"))),
            );
        }
    }
    lines.join("\n")
}

fn shown_commands(list: &CommandList) -> String {
    let kind = if list.kind == ListKind::Allow { "allowed" } else { "denied" };
    let names = list.commands.join(", ");
    format!("{kind}: {}", if names.is_empty() { "none" } else { &names })
}

fn shown_limits(Limits { memory, cpus, minimum_version }: &Limits) -> Vec<String> {
    let memory = memory.map(|bytes| format!("{} of memory at most", Size(bytes)));
    let cpus = cpus.map(|cpus| format!("{cpus} processors at most"));
    let version = minimum_version.as_ref().map(|version| format!("version {version} or later"));
    [memory, cpus, version].into_iter().flatten().collect()
}

fn as_json(file: &Path, sha256: &str, outcome: &Result<Settings, Vec<Problem>>) -> String {
    let settings = outcome.as_ref().ok();
    let in_force = settings.map(|Settings { isolation, engine, shares, registries, ports, limits, .. }| {
        let engine: Map<String, Value> =
            engine.iter().map(|(key, value)| (key.to_owned(), value.clone())).collect();
        let value = isolation.value == Switch::On;
        json!({ "isolation": { "value": value, "locked": isolation.locked, "socket": isolation.socket }, "engine": engine,
            "shares": { "allow": shares.allow },
            "registryAccess": { "allowed": registries.as_ref().map(Registries::written) },
            "ports": { "publish": ports.word() },
            "resources": { "memory": limits.memory, "cpus": limits.cpus },
            "updates": { "minimumVersion": limits.minimum_version } })
    });
    let kept_apart = settings.into_iter().flat_map(|settings| &settings.kept_apart);
    let kept_apart: Vec<_> =
        kept_apart.map(|feature| json!({ "key": feature.key, "what": feature.what })).collect();
    let problems = outcome.as_ref().err().into_iter().flatten();
    let problems: Vec<_> = problems
        .map(|Problem { path, found, reason, fix }| {
            json!({ "path": path, "found": found, "reason": reason, "fix": fix })
        })
        .collect();
    json!({ "version": JSON_VERSION, "file": file, "sha256": sha256, "accepted": outcome.is_ok(),
        "inForce": in_force, "keptApart": kept_apart, "problems": problems })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Result<Settings, Vec<Problem>> {
        reader::read(text.as_bytes()).map_err(|error| match error {
            reader::Error::Refused(problems) => problems,
            _ => panic!("{error}"),
        })
    }

    #[test]
    fn what_is_in_force_and_what_is_kept_apart_is_told() {
        let text = r#"{"configurationFileVersion": 2, "scout": {}, "eci": {"engine": {"mtu": 1400}}}"#;
        let outcome = outcome(text);
        let lines = as_text("ab", &outcome, &Ui::silent());
        for line in [
            "sha256      ab",
            "isolation   on, locked",
            "socket      in no container",
            "registries  every one",
            "engine      mtu 1400",
            "engine      log-driver \"json-file\"",
            "kept apart  scout: Docker Scout, which is not here",
        ] {
            assert!(lines.lines().any(|found| found == line), "no `{line}` in\n{lines}");
        }
        let value: Value = serde_json::from_str(&as_json(Path::new("x"), "ab", &outcome)).expect("JSON");
        assert_eq!((&value["accepted"], &value["inForce"]["engine"]["mtu"]), (&json!(true), &json!(1400)));
        assert_eq!(value["keptApart"][0]["key"], "scout");
        assert_eq!(value["problems"], json!([]));
    }

    #[test]
    fn all_that_is_wrong_is_told() {
        let outcome = outcome(r#"{"configurationFileVersion": 1, "eci": {"engine": {"hosts": []}}}"#);
        let lines = as_text("ab", &outcome, &Ui::silent());
        assert_eq!(lines.lines().filter(|line| line.starts_with("wrong       `")).count(), 2, "{lines}");
        let value: Value = serde_json::from_str(&as_json(Path::new("x"), "ab", &outcome)).expect("JSON");
        assert_eq!((&value["accepted"], &value["inForce"]), (&json!(false), &Value::Null));
        assert_eq!(value["problems"][1]["path"], "eci.engine.hosts");
    }
}
