//! `eci-builder lock`: resolves versions, and is the only command that changes a lock file.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use eci_contract::manifest::Architecture;
use serde::Serialize;

use super::exit::{Classify, Exit};
use super::{Arch, print_data};
use crate::cache::Cache;
use crate::packages::apt::Apt;
use crate::packages::mirror::Mirror;
use crate::packages::update::{self, Change, Refresh};
use crate::plan::Plan;
use crate::plan::document;
use crate::plan::lock::Lock;
use crate::ui::Ui;

/// Arguments of `lock`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, short, default_value = "eci.toml")]
    config: PathBuf,
    /// Architectures to lock for; those that the lock file has, and the configuration's, otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Move this package to its newest version; may be given more than once.
    #[arg(long, value_name = "PKG")]
    update: Vec<String>,
    /// Move every package to its newest version.
    #[arg(long, conflicts_with = "update")]
    update_all: bool,
    /// Print what changed as JSON.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report<'a> {
    version: u32,
    lock: &'a Path,
    changes: &'a [Change],
}

/// Runs the subcommand.
///
/// # Errors
/// When configuration or lock are wrong, apt gives no answer, or the lock cannot be written.
pub fn run(args: Args, ui: &Ui) -> anyhow::Result<()> {
    let plan = Plan::read(&args.config, None).or_exit(Exit::Config)?;
    let mut paths = plan.lock_paths();
    let path = paths.pop().context("the configuration names no lock file").or_exit(Exit::Config)?;
    let mut base = Vec::new();
    for path in &paths {
        base.push(Lock::read(path).or_exit(Exit::Config)?);
    }
    let old = read_or_new(&path).or_exit(Exit::Config)?;

    let refresh = match (args.update_all, args.update.is_empty()) {
        (true, _) => Refresh::Everything,
        (false, true) => Refresh::Nothing,
        (false, false) => Refresh::Packages(args.update.into_iter().collect()),
    };
    let targets: BTreeSet<Architecture> = if args.arch.is_empty() {
        old.packages.iter().map(|package| package.target).chain([plan.architecture()]).collect()
    } else {
        args.arch.into_iter().map(Architecture::from).collect()
    };

    let stage = ui.stage("package indexes");
    let mirror = Mirror::find(plan.config().packages.mirror.as_deref(), ui).or_exit(Exit::Host)?;
    let cache = Cache::open()?;
    let (mut lock, mut changes) = (old.clone(), Vec::new());
    for target in targets {
        let kept: BTreeSet<&str> = base.iter().flat_map(|lock| lock.of(target).into_keys()).collect();
        let wanted = plan.wanted().into_keys().filter(|name| !kept.contains(name)).collect();
        let apt = Apt::update(&mirror, target, &cache, ui).or_exit(Exit::Host)?;
        let (updated, changed) = update::update(&wanted, &lock, target, &refresh, (&apt, &mirror), ui)
            .or_exit_with_hint(
                Exit::Config,
                "package names are in the lists and tables that the configuration names",
            )?;
        lock = updated;
        changes.extend(changed);
    }
    stage.done(&format!("{} packages", lock.packages.len()));

    if lock != old || !path.exists() {
        replace(&path, &lock.to_text()).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    if args.json {
        return print_data(&serde_json::to_string_pretty(&Report {
            version: 1,
            lock: &path,
            changes: &changes,
        })?);
    }
    for change in &changes {
        print_data(&describe(change))?;
    }
    ui.note(&format!("`{}`: {} changed", path.display(), changes.len()));
    Ok(())
}

/// A lock that is not there yet is an empty one.
fn read_or_new(path: &Path) -> Result<Lock, document::Error> {
    if path.exists() { Lock::read(path) } else { Ok(Lock::new(Vec::new())) }
}

/// Writes beside the file and renames into its place.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().permissions(world_readable()).tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// A lock is a source file like any other, not a secret as temporary files are by default.
fn world_readable() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o644)
}

fn describe(change: &Change) -> String {
    match change {
        Change::Added { name, version } => format!("added    {name} {version}"),
        Change::Updated { name, from, to } => format!("updated  {name} {from} -> {to}"),
        Change::Removed { name, version } => format!("removed  {name} {version}"),
    }
}
