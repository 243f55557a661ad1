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
use crate::plan::lock::Lock;
use crate::plan::{self, Plan, Unlocked, document};
use crate::ui::Ui;

/// Arguments of `lock`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, short, default_value = "eci.toml")]
    config: PathBuf,
    /// Architectures of images to lock for; those that the lock file has, and the configuration's, otherwise.
    #[arg(long, value_enum, value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Move this package to its newest version; may be given more than once. One that the toolchain's list names moves all of the
    /// toolchain.
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
    locks: Vec<LockReport<'a>>,
}

/// A lock file of [`Report`].
#[derive(Serialize)]
struct LockReport<'a> {
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

    let named: BTreeSet<String> = args.update.into_iter().collect();
    let refresh = match (args.update_all, named.is_empty()) {
        (true, _) => Refresh::Everything,
        (false, true) => Refresh::Nothing,
        (false, false) => Refresh::Packages(named.clone()),
    };
    let targets: BTreeSet<Architecture> = if args.arch.is_empty() {
        old.packages.iter().map(|package| package.target).chain([plan.architecture()]).collect()
    } else {
        args.arch.into_iter().map(Architecture::from).collect()
    };
    let wanted = |target| -> BTreeSet<&str> {
        let kept: BTreeSet<&str> = base.iter().flat_map(|lock| lock.of(target).into_keys()).collect();
        plan.wanted().into_keys().filter(|name| !kept.contains(name)).collect()
    };
    let mut known: BTreeSet<&str> = plan.toolchain_list().names().collect();
    known.extend(targets.iter().flat_map(|target| wanted(*target)));
    if let Some(name) = named.iter().find(|name| !known.contains(name.as_str())) {
        let unknown = anyhow::anyhow!("`{name}` cannot be updated: nothing asks for it");
        return Err(not_locked(unknown));
    }

    let stage = ui.stage("package indexes");
    let mirror = Mirror::find(plan.config().packages.mirror.as_deref(), ui).or_exit(Exit::Host)?;
    let cache = Cache::open()?;
    let (mut lock, mut changes) = (old.clone(), Vec::new());
    for &target in &targets {
        let wanted = wanted(target);
        let apt = Apt::update(&mirror, target, None, &cache, ui).or_exit(Exit::Host)?;
        let (updated, changed) =
            update::update(&wanted, &lock, (target, target), &refresh, (&apt, &mirror), ui)
                .map_err(not_locked)?;
        lock = updated;
        changes.extend(changed);
    }
    stage.done(&format!("{} packages", lock.packages.len()));
    let mut locks = vec![Made { path, old, lock, changes }];
    for host in [Architecture::X86_64, Architecture::Aarch64] {
        let path = plan.toolchain_lock_path(host);
        if host == plan::host() || path.exists() {
            let stage = ui.stage("toolchain");
            let made = lock_toolchain((&plan, host), &path, &targets, &refresh, (&cache, &mirror), ui)?;
            stage.done(&format!("{} packages on {}", made.lock.packages.len(), host.as_str()));
            locks.push(made);
        }
    }
    write(&locks)?;
    report(&locks, args.json, ui)
}

/// A lock file and what is to stand in it.
struct Made {
    path: PathBuf,
    old: Lock,
    lock: Lock,
    changes: Vec<Change>,
}

/// Locks the toolchain's packages for build machines of the architecture `host`, with all that they depend on. They move together: many
/// of them go with one version of another alone.
fn lock_toolchain(
    (plan, host): (&Plan<Unlocked>, Architecture),
    path: &Path,
    targets: &BTreeSet<Architecture>,
    refresh: &Refresh,
    (cache, mirror): (&Cache, &Mirror),
    ui: &Ui,
) -> anyhow::Result<Made> {
    let old = read_or_new(path).or_exit(Exit::Config)?;
    let (mut lock, mut changes) = (old.clone(), Vec::new());
    for &target in targets {
        let Some(listed) = plan.toolchain_list().wanted(host, target) else { continue };
        let foreign = (host != target).then_some(target);
        let apt = Apt::update(mirror, host, foreign, cache, ui).or_exit(Exit::Host)?;
        let wanted = update::closure(&listed, host, &apt, ui).map_err(not_locked)?;
        let wanted = wanted.iter().map(String::as_str).collect();
        let update = |refresh: &Refresh| {
            update::update(&wanted, &lock, (host, target), refresh, (&apt, mirror), ui).map_err(not_locked)
        };
        let moves = match refresh {
            Refresh::Nothing => false,
            Refresh::Packages(names) => listed.iter().any(|name| names.contains(*name)),
            Refresh::Everything => true,
        };
        let (mut updated, mut changed) =
            update(if moves { &Refresh::Everything } else { &Refresh::Nothing })?;
        if !moves && !changed.is_empty() {
            (updated, changed) = update(&Refresh::Everything)?;
        }
        lock = updated;
        changes.extend(changed);
    }
    Ok(Made { path: path.to_owned(), old, lock, changes })
}

fn not_locked(error: impl Into<anyhow::Error>) -> anyhow::Error {
    let hint = "package names are in the lists and tables that the configuration names";
    Err::<(), _>(error.into()).or_exit_with_hint(Exit::Config, hint).expect_err("an error was given")
}

fn write(locks: &[Made]) -> anyhow::Result<()> {
    for made in locks.iter().filter(|made| made.lock != made.old || !made.path.exists()) {
        let path = &made.path;
        replace(path, &made.lock.to_text()).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

fn report(locks: &[Made], json: bool, ui: &Ui) -> anyhow::Result<()> {
    if json {
        let locks =
            locks.iter().map(|made| LockReport { lock: &made.path, changes: &made.changes }).collect();
        return print_data(&serde_json::to_string_pretty(&Report { version: 2, locks })?);
    }
    for made in locks {
        for change in &made.changes {
            print_data(&describe(change))?;
        }
        ui.note(&format!("`{}`: {} changed", made.path.display(), made.changes.len()));
    }
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
