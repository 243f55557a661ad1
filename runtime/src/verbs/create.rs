//! `create` and `run`: the way through, from the engine's bundle to crun.

use std::env;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use eci_contract::choice::Switch;
use eci_contract::paths::{ENGINE, ENGINE_DATA, NODES_SOCKET};
use eci_policy::Verdict;
use eci_policy::rules::mount_source::Origin;
use eci_policy::rules::{build_root, host_namespace};
use eci_sys::userns;

use super::program::{self, state_folder};
use crate::apply::binds::{self, Ground};
use crate::apply::scratch::{self, Scratch};
use crate::apply::tree::Layers;
use crate::apply::view::{Source, View};
use crate::apply::{self, destination, figures, uptime};
use crate::arguments::{Create, Flags};
use crate::audit::Denied;
use crate::bundle::{self, Spec, text};
use crate::container::{self, Container, Wanted};
use crate::leftovers::Birth;
use crate::plan::ids::{Range, UserNamespace};
use crate::plan::mounts::Mounts;
use crate::plan::root::{self, Tree};
use crate::plan::{
    annotations, devices, hooks, ids, mounts, namespaces, nodes, settings, syscalls, sysctls, views,
};
use crate::processes;
use crate::switch;

/// dockerd's places, Debian's first. A hook must be one of them by device and inode.
const ENGINE_PROGRAMS: &[&str] = &[ENGINE, "/usr/bin/dockerd"];

/// Why a container was not created.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A rule says no.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// The bundle cannot be used.
    #[error(transparent)]
    Bundle(#[from] bundle::Error),
    /// The bundle's folder cannot be found.
    #[error("cannot find bundle `{}`", .path.display())]
    NoBundle {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A namespace that is to be joined cannot be used.
    #[error("cannot join the {kind} namespace at `{}`", .path.display())]
    Join {
        /// Its kind.
        kind: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The namespaces to be joined belong to different containers, or to one that has ended.
    #[error("the namespaces to be joined do not belong to one running container")]
    NoOwner,
    /// `/proc` does not tell about this process.
    #[error("cannot find this process in `/proc`")]
    NoBirth {
        /// Why.
        source: io::Error,
    },
    /// That it is isolated cannot be written down.
    #[error("cannot write down that container `{id}` is isolated")]
    Unremembered {
        /// Its id.
        id: String,
        /// Why.
        source: io::Error,
    },
    /// A user namespace cannot be made.
    #[error("cannot make a user namespace with first id {base}")]
    UserNamespace {
        /// First host id.
        base: u32,
        /// Why.
        source: io::Error,
    },
    /// Folder or range cannot be had.
    #[error(transparent)]
    Container(#[from] container::Error),
    /// The mounts cannot be made.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// crun cannot be started.
    #[error(transparent)]
    Program(#[from] program::Error),
}

/// Prepares the container and becomes crun. Only ever returns an error; what was prepared is then taken back.
#[must_use]
pub fn run(globals: Flags, mut create: Create) -> Error {
    let folder = match env::current_dir() {
        Ok(folder) => folder,
        Err(source) => return Error::NoBundle { path: create.bundle, source },
    };
    let globals = globals.seen_from(&folder);
    create.flags = create.flags.seen_from(&folder);
    let id = create.id.clone();
    match judge(&create).and_then(|judged| establish(&globals, create, &judged)) {
        Ok(never) => match never {},
        Err(error) => {
            if let Error::Denied(denied) = &error {
                denied.record("create", &id);
            }
            error
        }
    }
}

enum Never {}

/// A bundle that every rule has passed, as far as it can be told without opening its mounts.
struct Judged {
    spec: Spec,
    mounts: Mounts,
    root: PathBuf,
    origin: Origin,
    joined: Option<Joined>,
    makes_nodes: bool,
}

/// Namespaces of another container.
struct Joined {
    /// Its user namespace.
    namespace: OwnedFd,
    range: Range,
    /// Those that the bundle names, by kind and path, as they were judged: a path may lead elsewhere a moment later.
    opened: Vec<(&'static str, PathBuf, OwnedFd)>,
}

/// The pure steps from here to [`build`]'s last stand in the same order in `fuzz/src/bundle.rs`.
fn judge(create: &Create) -> Result<Judged, Error> {
    allow(switch::ground().judge(&create.id))?;
    let folder = fs::canonicalize(&create.bundle)
        .map_err(|source| Error::NoBundle { path: create.bundle.clone(), source })?;
    let mut spec = bundle::read_object(&folder.join("config.json"))?;
    allow(settings::judge(&spec)?)?;
    let joined = judge_namespaces(&spec)?;
    allow(hooks::judge(&spec, runs_engine)?)?;
    allow(devices::filter(&mut spec)?)?;
    allow(syscalls::confine(&mut spec)?)?;
    let makes_nodes = nodes::hand_over(&mut spec)?;
    annotations::strip(&mut spec);
    if let Some(process) = spec.get_mut("process").and_then(serde_json::Value::as_object_mut) {
        annotations::strip_environment(process);
    }
    sysctls::adjust(&mut spec)?;
    namespaces::strip(&mut spec)?;
    let mounts = mounts::read(&spec)?.map_err(denied)?;
    let root =
        spec.get("root").and_then(|root| text(root, "path")).ok_or(bundle::Error::Field { field: "root" })?;
    let root = folder.join(root);
    let build = folder.starts_with(Path::new(ENGINE_DATA).join("buildkit"));
    let origin = if build { Origin::Build } else { Origin::Container };
    Ok(Judged { spec, mounts, root, origin, joined, makes_nodes })
}

/// Refuses the VM's namespaces, by absence or by path, and finds the container whose namespaces are joined.
fn judge_namespaces(spec: &Spec) -> Result<Option<Joined>, Error> {
    let found = namespaces::read(spec)?;
    let own = processes::identity(Path::new("/proc/self/ns/user")).map_err(|source| Error::Join {
        kind: "user",
        path: "/proc/self/ns/user".into(),
        source,
    })?;
    let mut shared = found.missing;
    let mut owners = Vec::new();
    let mut opened = Vec::new();
    for (kind, path) in found.joined {
        let failed = |source| Error::Join { kind, path: path.clone(), source };
        let namespace = fs::File::open(&path).map_err(failed)?;
        let owner = fs::File::from(userns::owner_of(namespace.as_fd()).map_err(failed)?);
        let status = owner.metadata().map_err(failed)?;
        match (status.dev(), status.ino()) {
            host if host == own => shared.push(kind),
            container => owners.push((container, owner)),
        }
        opened.push((kind, path, namespace.into()));
    }
    allow(host_namespace::judge(&shared))?;
    let Some((first, namespace)) = owners.pop() else { return Ok(None) };
    if owners.iter().any(|(other, _)| *other != first) {
        return Err(Error::NoOwner);
    }
    let range = processes::range_of(first).ok().flatten().ok_or(Error::NoOwner)?;
    Ok(Some(Joined { namespace: namespace.into(), range, opened }))
}

fn establish(globals: &Flags, create: Create, judged: &Judged) -> Result<Never, Error> {
    let container = Container::named(&create.id);
    let wanted = judged.joined.as_ref().map_or(Wanted::New, |joined| Wanted::Shared(joined.range));
    // The mounts are opened and judged before a range is booked: what is refused leaves no trace.
    binds::follow_no_links(&judged.root, &judged.mounts.binds)?;
    scratch::enter_private_namespace()?;
    let view = View::take()?;
    let root = Source::open(&judged.root)?;
    let table = view.table();
    let place = table.locate(&root.opened);
    let tree = root::read(&place, table.mount_of(&root.opened), ENGINE_DATA).map_err(apply::Error::from)?;
    let binds = binds::judge(&judged.mounts.binds, &view, &create.id, judged.origin)?.map_err(denied)?;
    let written = judged.mounts.binds.iter().find(|bind| !bind.is_read_only());
    let is_on_scratch = judged.origin == Origin::Build && matches!(tree, Tree::Layer(_));
    allow(build_root::judge(is_on_scratch, written.map(|bind| bind.destination.as_str())))?;
    let birth = Birth::of(&create.id, &judged.spec, state_folder(globals, &create.id))
        .map_err(|source| Error::NoBirth { source })?;
    let range = container.establish(wanted, &birth)?;
    let outcome = build(&container, judged, &view, &tree, &binds, range, birth.cgroup())
        .and_then(|()| remember(&create.id))
        .and_then(|()| Err(start(globals, create, &container).into()));
    if outcome.is_err() {
        // Both may fail when the start failed early; the error that goes to the user is the first one.
        let _covered = scratch::uncover();
        let _kept = container.dissolve();
    }
    outcome
}

/// Makes the mounts and writes crun's bundle.
fn build(
    container: &Container,
    judged: &Judged,
    view: &View,
    tree: &Tree,
    binds: &[binds::Judged<'_>],
    range: Range,
    cgroup: Option<&str>,
) -> Result<(), Error> {
    // A single layer is a step of a build that changes it in place: it has no room for mount points.
    let sees_all = views::sees_all(&judged.spec)?;
    let has_nodes = sees_all && matches!(tree, Tree::Overlay { .. });
    // Without a whole procfs beside it, a mount over `/proc` would take nested containers theirs.
    let figures = cgroup.filter(|_| has_nodes || !sees_all).map(|cgroup| figures::make(container, cgroup));
    let figures = figures.transpose()?;
    let socket = judged.makes_nodes.then_some(Path::new(NODES_SOCKET));
    let mut scratch = Scratch::mount(&container.folder, socket)?;
    let made;
    let (user_namespace, wanted) = match &judged.joined {
        Some(joined) => {
            let path = scratch.bind_namespace(&joined.namespace)?;
            (joined.namespace.as_fd(), UserNamespace::Join(path.to_string_lossy().into_owned()))
        }
        None => {
            let map = range.to_map();
            made =
                userns::with_map(&map).map_err(|source| Error::UserNamespace { base: range.base, source })?;
            (made.as_fd(), UserNamespace::New(range))
        }
    };
    let layers = Layers::map(&mut scratch, view.engine.file.as_fd(), user_namespace, range)?;
    let root_path = container.root();
    let lowest = has_nodes.then_some(Path::new(views::MOUNT_POINTS));
    scratch::attach(layers.build_root(lowest, tree)?.as_fd(), &root_path)?;
    let root = Source::open(&root_path)?;
    destination::check_folders(root.file.as_fd())?;
    container.write_device(root.identity.0)?;
    let ground =
        Ground { root: root.file.as_fd(), root_path: &root_path, user_namespace, range, layers: &layers };
    let fates = binds::lay(binds, &judged.mounts, &ground, &mut scratch)?.map_err(denied)?;
    layers.detach()?;
    let mut spec = judged.spec.clone();
    ids::set(&mut spec, &wanted)?;
    for (kind, path, namespace) in judged.joined.iter().flat_map(|joined| &joined.opened) {
        namespaces::lead(&mut spec, kind, path, &scratch.bind_namespace(namespace)?)?;
    }
    mounts::rewrite(&mut spec, &fates)?;
    if has_nodes {
        let own = views::nodes(kernel_setting).into_iter();
        let own: Result<Vec<_>, Error> = own
            .map(|node| {
                let file = scratch.file(&node.content, range)?;
                Ok((node, file.to_string_lossy().into_owned()))
            })
            .collect();
        views::mount(&mut spec, &own?)?;
    }
    if let Some(folder) = figures {
        views::show_figures(&mut spec, &scratch.attach(folder.as_fd(), true)?)?;
    }
    views::hide(&mut spec)?;
    if judged.makes_nodes {
        nodes::set_ground(&mut spec, root.identity.0)?;
    }
    uptime::start()?;
    set_root(&mut spec, &root_path)?;
    Ok(bundle::write_object(&container.bundle().join("config.json"), &spec)?)
}

/// Should isolation be off at its next start, it is isolated all the same.
fn remember(id: &str) -> Result<(), Error> {
    let written = switch::ground().remember(id, Switch::On);
    written.map_err(|source| Error::Unremembered { id: id.to_owned(), source })
}

fn start(globals: &Flags, create: Create, container: &Container) -> program::Error {
    program::create(globals, create, &container.bundle())
}

fn set_root(spec: &mut Spec, path: &Path) -> Result<(), Error> {
    let root = spec.get_mut("root").and_then(serde_json::Value::as_object_mut);
    let root = root.ok_or(bundle::Error::Field { field: "root" })?;
    root.insert("path".to_owned(), path.to_string_lossy().into_owned().into());
    Ok(())
}

/// The VM's value of a kernel setting.
fn kernel_setting(path: &str) -> Option<String> {
    fs::read_to_string(path).ok()
}

fn runs_engine(path: &str) -> bool {
    processes::is_one_of(Path::new(path), ENGINE_PROGRAMS)
}

fn allow(verdict: Verdict) -> Result<(), Error> {
    match verdict {
        Verdict::Allow => Ok(()),
        verdict => Err(denied(verdict)),
    }
}

fn denied(verdict: Verdict) -> Error {
    match verdict {
        Verdict::Allow => unreachable!("only refusals are turned into errors"),
        Verdict::Deny { rule, message, remedy } => Denied { rule, message, remedy }.into(),
    }
}
