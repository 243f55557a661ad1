//! Mount tables: a place is the engine's only when the table says so, and a tree has layers of the engine only.

use eci_contract::paths::ENGINE_DATA;
use eci_policy::rules::mount_source::Place;
use eci_runc::plan::mountinfo::{self, Mount};
use eci_runc::plan::place::{Opened, Table};
use eci_runc::plan::root::{self, Tree};

/// Reads `input`: a line `<mount id> <real path>` for what was opened, one `<mount id>` for the engine's folder, and
/// the mount table.
///
/// # Panics
/// A place or a tree is not what the table says.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.splitn(3, '\n');
    let (Some(opened), Some(engine), Some(table)) = (lines.next(), lines.next(), lines.next()) else {
        return;
    };
    let Some((mount, path)) = opened.split_once(' ') else { return };
    let (Ok(mount), Ok(engine)) = (mount.parse(), engine.parse()) else { return };
    check_escapes(path);
    let mounts = mountinfo::parse(table);
    assert!(mounts.len() <= table.lines().count());
    // The kernel gives real paths, for what is opened and for where things are mounted.
    if !is_real(path) || !mounts.iter().all(|mount| is_real(&mount.root) && is_real(&mount.mount_point)) {
        return;
    }
    let engine = Opened { mount: engine, path: ENGINE_DATA.to_owned() };
    let opened = Opened { mount, path: path.to_owned() };
    let table = Table { mounts: &mounts, engine: &engine };
    let place = table.locate(&opened);
    check_place(&place, &opened, &engine, &mounts);
    let mount = table.mount_of(&opened);
    if let Ok(tree) = root::read(&place, mount, ENGINE_DATA) {
        check_tree(&tree, &place, mount);
    }
}

/// What the kernel escapes is read back.
fn check_escapes(path: &str) {
    if path.contains('\n') {
        return;
    }
    let escaped: String = path
        .chars()
        .map(|letter| match letter {
            ' ' | '\t' | '\\' => format!("\\{:03o}", u32::from(letter)),
            other => other.to_string(),
        })
        .collect();
    let line = format!("1 0 0:1 {escaped} {escaped} rw - tmpfs tmpfs rw");
    // A carriage return would end the line here, and the kernel does not escape it: then nothing is read.
    for mount in mountinfo::parse(&line).iter().filter(|_| !path.contains('\r')) {
        assert_eq!((mount.root.as_str(), mount.mount_point.as_str()), (path, path));
    }
}

fn check_place(place: &Place, opened: &Opened, engine: &Opened, mounts: &[Mount]) {
    let of = |id| mounts.iter().find(|mount| mount.id == id);
    let engine_mount = of(engine.mount);
    match place {
        Place::Vm(path) => assert_eq!(path, &opened.path, "a place of the VM has its real path"),
        Place::EngineData(path) => {
            let (mount, engine_mount) = (of(opened.mount).expect("known"), engine_mount.expect("known"));
            assert_eq!(mount.device, engine_mount.device, "another file system is not the engine's");
            let engine_path = in_filesystem(engine_mount, &engine.path);
            assert_eq!(
                in_filesystem(mount, &opened.path),
                [engine_path, parts(path)].concat(),
                "the place is where the table says"
            );
        }
        Place::Share => {
            let mount = of(opened.mount).expect("known");
            assert!(mount.filesystem == "virtiofs" && mount.source.starts_with("eci-share-"), "{mount:?}");
        }
        Place::EngineMemory(path) | Place::EngineOverlay(path) => {
            let mount = of(opened.mount).expect("known");
            let kind = if matches!(place, Place::EngineMemory(_)) { "tmpfs" } else { "overlay" };
            assert_eq!(mount.filesystem, kind);
            assert_eq!(parts(&opened.path), [parts(&engine.path), parts(path)].concat());
            assert!(
                mounts
                    .iter()
                    .filter(|other| kind == "tmpfs" && other.device == mount.device)
                    .all(|other| parts(&other.mount_point).starts_with(&parts(&engine.path))),
                "memory that is mounted elsewhere too is the VM's"
            );
        }
    }
}

/// Where `path`, which is on `mount`, is in its file system.
fn in_filesystem<'a>(mount: &'a Mount, path: &'a str) -> Vec<&'a str> {
    let below = parts(path).split_off(parts(&mount.mount_point).len());
    [parts(&mount.root), below].concat()
}

fn check_tree(tree: &Tree, place: &Place, mount: Option<&Mount>) {
    match tree {
        Tree::Overlay { lowers, upper } => {
            assert_eq!(mount.map(|mount| mount.filesystem.as_str()), Some("overlay"));
            assert!(!lowers.is_empty(), "an overlay has a lower layer");
            for layer in lowers.iter().chain(upper) {
                check_layer(layer);
                assert!(!layer.contains('\\'), "{layer} is not how the layer is called");
            }
        }
        Tree::Layer(layer) => {
            check_layer(layer);
            let Place::EngineData(path) = place else { panic!("a layer outside of the engine's data") };
            assert_eq!(parts(path), [parts("overlay2"), parts(layer)].concat());
        }
    }
}

/// A layer is below the folder of layers, and never that folder.
fn check_layer(layer: &str) {
    assert!(!layer.starts_with('/'), "{layer}");
    assert!(!parts(layer).is_empty() && !layer.split('/').any(|part| matches!(part, "." | "..")), "{layer}");
}

fn is_real(path: &str) -> bool {
    let mut parts = path.split('/').skip(1);
    path == "/" || path.starts_with('/') && parts.all(|part| !matches!(part, "" | "." | ".."))
}

fn parts(path: &str) -> Vec<&str> {
    path.split('/').filter(|part| !part.is_empty()).collect()
}
