//! Binds and volumes: judged by what they open, id-mapped, and laid into the tree.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use eci_contract::paths::{
    CONTAINER_SOCKET, ENGINE_DATA, ENGINE_LAYERS, ENGINE_SOCKET, ENGINE_VOLUMES, SOCKET_POLICY,
};
use eci_contract::socket::{SocketPolicy, VERSION, filtered_by};
use eci_policy::Verdict;
use eci_policy::rules::mount_source::{self, Origin, Place};
use eci_policy::rules::stand_in::{self, Gift};
use eci_policy::rules::{engine_socket, mount_destination};
use eci_sys::mounts::{self, MountAttributes};
use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, move_mount};

use super::destination;
use super::error::{Error, call};
use super::scratch::{self, Scratch};
use super::tree::Layers;
use super::view::{Source, View, real_path};
use crate::image::{self, Image};
use crate::plan::ids::Range;
use crate::plan::mounts::{Bind, Fate, Mounts};
use crate::plan::place::below;
use crate::plan::root::{self, Tree};

/// Sockets that make their user root of the VM.
const ENGINE_SOCKETS: &[&str] =
    &[ENGINE_SOCKET, "/run/docker/containerd/containerd.sock", "/run/containerd/containerd.sock"];

/// Where BuildKit mounts what its steps run on.
const BUILD_ROOTS: &str = "/var/lib/docker/buildkit/executor";

/// The socket that the administrator's settings give to this container, or the refusal. Nobody's do that cannot be read.
fn socket_of(container: &str) -> Result<PathBuf, Verdict> {
    let policy = fs::read(SOCKET_POLICY).ok();
    let policy = policy.and_then(|text| serde_json::from_slice::<SocketPolicy>(&text).ok());
    let policy = policy.filter(|policy| policy.version == VERSION);
    let (Some(policy), Some(image)) = (policy, Image::of(container)) else {
        return Err(engine_socket::deny(&name_of(Image::of(container))));
    };
    let repositories = image::repositories();
    match engine_socket::judge(&image.name, &image.id, &policy, &repositories, image::lineage) {
        Verdict::Allow => {
            Ok(filtered_by(engine_socket::list_of(&image.id, &policy, &repositories, image::lineage)))
        }
        denied => Err(denied),
    }
}

fn name_of(image: Option<Image>) -> String {
    image.map_or_else(|| "unknown".to_owned(), |image| image.name)
}

/// Has the VM follow no link where the container will be able to put any: in volumes that are file systems of their own (`docker volume create -o
/// type=tmpfs`), as in all others, and in the root filesystem at `root` that a build mounted for this step, and tidies up by names after
/// it. Of an ordinary container's the engine copies by links of its own. To be called where the engine has mounted them.
///
/// # Errors
/// The mount table cannot be read, or a mount not be changed.
pub fn follow_no_links(root: &Path, binds: &[Bind]) -> Result<(), Error> {
    let is_inside = |path: &str| {
        [ENGINE_VOLUMES, BUILD_ROOTS]
            .iter()
            .any(|folder| below(path, folder).is_some_and(|name| !name.is_empty()))
    };
    let sources = binds.iter().map(|bind| Path::new(&bind.source)).chain([root]);
    let sources: Vec<_> = sources
        .filter_map(|path| Source::open(path).ok())
        .filter(|source| is_inside(&source.opened.path))
        .collect();
    if sources.is_empty() {
        return Ok(());
    }
    let view = View::take()?;
    let table = view.table();
    for mount in sources.iter().filter_map(|source| table.mount_of(&source.opened)) {
        // What is in no mount of its own is on the one of all volumes, which follows none already.
        if is_inside(&mount.mount_point) {
            let path = Path::new(&mount.mount_point);
            let root = Source::open(path)?.file;
            let attributes = MountAttributes { set: mounts::NO_LINKS, ..MountAttributes::default() };
            mounts::set_attributes(root.as_fd(), &attributes).map_err(call("follow no links in", path))?;
        }
    }
    Ok(())
}

/// A bind that may be mounted.
#[derive(Debug)]
pub struct Judged<'a> {
    bind: &'a Bind,
    source: Source,
    content: Content,
    /// Attributes that it has in any case.
    added: u64,
    /// Attributes that the source has only because of where the VM keeps it.
    lifted: u64,
}

/// What is mounted for a bind.
#[derive(Debug)]
enum Content {
    /// What the source opens, as it is.
    Opened,
    /// A rebuilt tree, from this path in it on: the engine's own overlay has ids that cannot be mapped.
    Tree(Tree, String),
    /// Something of the container's own; what the source opens is not used.
    StandIn(Gift),
}

/// Opens and judges the sources of `binds`.
///
/// # Errors
/// A source cannot be opened. The verdict is the first refusal.
pub fn judge<'a>(
    binds: &'a [Bind],
    view: &View,
    container: &str,
    origin: Origin,
) -> Result<Result<Vec<Judged<'a>>, Verdict>, Error> {
    let identity = |path: &str| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let sockets: Vec<(u64, u64)> = ENGINE_SOCKETS.iter().filter_map(|path| identity(path)).collect();
    let is_socket = fs::metadata(CONTAINER_SOCKET).is_ok_and(|found| found.file_type().is_socket());
    let filtered = identity(CONTAINER_SOCKET).filter(|_| is_socket);
    let table = view.table();
    let mut judged = Vec::with_capacity(binds.len());
    for bind in binds {
        let mut source = Source::open(Path::new(&bind.source))?;
        let place = table.locate(&source.opened);
        let verdict = mount_source::judge(mount_source::Source {
            requested: &bind.source,
            place: &place,
            destination: &bind.destination,
            container,
            origin,
            read_only: bind.is_read_only(),
        });
        // Filtered by the gate, and for those that the administrator names.
        let is_filtered = origin == Origin::Container && filtered == Some(source.identity);
        let verdict = match is_filtered.then(|| socket_of(container)) {
            Some(Ok(path)) => {
                source = Source::open(&path)?;
                Verdict::Allow
            }
            Some(Err(denied)) => denied,
            None => verdict,
        };
        let named_as_socket = engine_socket::USUAL_NAMES.contains(&bind.source.as_str());
        if sockets.contains(&source.identity) || (verdict != Verdict::Allow && named_as_socket) {
            return Ok(Err(engine_socket::deny(&name_of(Image::of(container)))));
        }
        if verdict != Verdict::Allow {
            return Ok(Err(verdict));
        }
        let content = content_of(bind, &source, &place, view)?;
        // The VM runs nothing that is on the data disk with another user's rights. A container may: in its own ids.
        let on_data_disk = source.opened.mount == view.engine.opened.mount
            || table
                .mount_of(&source.opened)
                .is_some_and(|mount| [ENGINE_VOLUMES, ENGINE_LAYERS].contains(&mount.mount_point.as_str()));
        let no_suid = if on_data_disk { mounts::NO_SUID } else { 0 };
        let lifted = match place {
            // The VM follows no link in volumes and shares. A container may: in its own tree.
            Place::EngineData(_) | Place::EngineMemory(_) | Place::Share => no_suid | mounts::NO_LINKS,
            _ => no_suid,
        };
        // A volume that the engine has made read-only has lost it.
        let added = if place == Place::Share { mounts::NO_SUID } else { 0 };
        judged.push(Judged { bind, source, content, added, lifted });
    }
    Ok(Ok(judged))
}

/// What the binds are laid with.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The container's root filesystem, attached.
    pub root: BorrowedFd<'a>,
    /// Where it is attached.
    pub root_path: &'a Path,
    /// The user namespace to map ids with.
    pub user_namespace: BorrowedFd<'a>,
    /// Its range.
    pub range: Range,
    /// The engine's layers.
    pub layers: &'a Layers,
}

/// Lays every bind into the tree; where a mount of crun's would cover it, it becomes a source for crun instead.
///
/// # Errors
/// A source cannot be mapped, or a destination cannot be made. The verdict is a refusal when the image's links lead a bind
/// to where none may be.
pub fn lay(
    judged: &[Judged<'_>],
    mounts: &Mounts,
    ground: &Ground<'_>,
    scratch: &mut Scratch,
) -> Result<Result<Vec<(usize, Fate)>, Verdict>, Error> {
    let mut fates = Vec::with_capacity(judged.len());
    for judged in judged {
        if let Content::StandIn(Gift::OwnCgroups) = judged.content {
            fates.push((judged.bind.position, Fate::OwnCgroups { read_only: judged.bind.is_read_only() }));
            continue;
        }
        let mount = map(judged, ground, scratch)?;
        let fate = if mounts.covers(&judged.bind.destination) {
            hand_to_crun(&mount, judged, scratch)?
        } else {
            let target = destination::prepare(
                ground.root,
                &judged.bind.destination,
                judged.source.is_folder,
                ground.range,
            )?;
            let real = real_path(&target, Path::new(&judged.bind.destination))?;
            let inside =
                format!("/{}", below(&real, &ground.root_path.to_string_lossy()).unwrap_or_default());
            let verdict = mount_destination::judge(&inside);
            if verdict != Verdict::Allow {
                return Ok(Err(verdict));
            }
            if mounts.covers(&inside) {
                hand_to_crun(&mount, judged, scratch)?
            } else {
                destination::own_parents(ground.root, &inside);
                attach_at(&mount, &target, judged)?;
                Fate::Laid
            }
        };
        fates.push((judged.bind.position, fate));
    }
    Ok(Ok(fates))
}

fn content_of(bind: &Bind, source: &Source, place: &Place, view: &View) -> Result<Content, Error> {
    match place {
        Place::Vm(path) => {
            let stand_in = stand_in::find(path, &bind.destination, bind.is_read_only());
            return Ok(stand_in.map_or(Content::Opened, |row| Content::StandIn(row.gift)));
        }
        Place::EngineData(_) | Place::EngineMemory(_) | Place::Share => return Ok(Content::Opened),
        Place::EngineOverlay(_) => {}
    }
    let table = view.table();
    let mount = table.mount_of(&source.opened);
    let tree = root::read(place, mount, ENGINE_DATA)?;
    let inside = mount.and_then(|mount| below(&source.opened.path, &mount.mount_point)).unwrap_or_default();
    Ok(Content::Tree(tree, inside))
}

fn map(judged: &Judged<'_>, ground: &Ground<'_>, scratch: &mut Scratch) -> Result<OwnedFd, Error> {
    let named = Path::new(&judged.bind.source);
    let mut attributes = MountAttributes {
        set: judged.bind.attributes | judged.added | mounts::NO_DEVICES,
        clear: judged.lifted & !judged.bind.attributes,
        propagation: judged.bind.propagation,
        ..MountAttributes::default()
    };
    let mount = match &judged.content {
        Content::Opened => {
            attributes.id_map = Some(ground.user_namespace);
            scratch::clone(&judged.source.file, Path::new(""))?
        }
        Content::Tree(tree, inside) => {
            let whole = scratch.attach(ground.layers.build(tree)?.as_fd(), true)?;
            let root = Source::open(&whole)?.file;
            let part = destination::prepare(root.as_fd(), inside, judged.source.is_folder, ground.range)?;
            scratch::clone(&part, Path::new(""))?
        }
        // The cgroups of its own are crun's to mount.
        Content::StandIn(Gift::EmptyFolder | Gift::OwnCgroups) => {
            scratch::clone(CWD, &scratch.folder(ground.range)?)?
        }
    };
    match mounts::set_attributes(mount.as_fd(), &attributes) {
        // The read-only system image may be of a kind that cannot be mapped: its owners then show as nobody.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput && judged.bind.is_read_only() => {
            attributes.id_map = None;
            mounts::set_attributes(mount.as_fd(), &attributes)
        }
        outcome => outcome,
    }
    .map_err(call("id-map", named))?;
    Ok(mount)
}

fn hand_to_crun(mount: &OwnedFd, judged: &Judged<'_>, scratch: &mut Scratch) -> Result<Fate, Error> {
    let path = scratch.attach(mount.as_fd(), judged.source.is_folder)?;
    Ok(Fate::Source(
        path.into_os_string().into_string().map_err(|path| Error::NotText { path: path.into() })?,
    ))
}

fn attach_at(mount: &OwnedFd, target: &OwnedFd, judged: &Judged<'_>) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", target, c"", flags).map_err(call("mount on", Path::new(&judged.bind.destination)))
}
