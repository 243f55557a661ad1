//! What the image has besides packages: folders from a table, files laid as they lie in the overlay, links from the
//! lists, the administrator's settings, and our programs.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;
use eci_contract::paths::{ADMIN_SETTINGS, SETTINGS_ANCHOR};
use serde::Deserialize;

use super::tree::{self, Origin, Tree};
use crate::plan::document;
use crate::plan::list::{List, Permit};
use crate::plan::settings::Baked;

/// Why something of ours cannot be laid into the tree.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table of folders is not well formed.
    #[error(transparent)]
    Document(#[from] document::Error),
    /// A node cannot be added.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// A file of ours cannot be read.
    #[error("cannot read `{}`", .path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The overlay has something that an image may not have.
    #[error("`{}` is neither folder nor file nor link, or its name is no text", .path.display())]
    BadFile {
        /// The file.
        path: PathBuf,
    },
    /// An overlay says whose config disks the image takes.
    #[error(
        "an overlay has `{SETTINGS_ANCHOR}`; that comes from `key` in the table [settings] of the configuration alone"
    )]
    Anchor,
    /// The table has a folder that everyone could write to, or one with special bits.
    #[error("`{}`: the folder `{folder}` has mode {mode:o}; its bits have to be within 755", .table.display())]
    BadMode {
        /// The table.
        table: PathBuf,
        /// Path in the image.
        folder: String,
        /// The mode.
        mode: u32,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Folders {
    #[serde(rename = "folder")]
    folders: Vec<Folder>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Folder {
    path: String,
    mode: u32,
    #[serde(rename = "why")]
    _why: String,
}

/// Adds the folders of a table. Root is mounted read-only, so their modes only matter until something is mounted there.
///
/// # Errors
/// Every variant of [`Error`] but the bad file.
pub fn add_folders(table: &Path, tree: &mut Tree) -> Result<(), Error> {
    let folders: Folders = document::read(table)?;
    for Folder { path, mode, .. } in folders.folders {
        if mode & !0o755 != 0 {
            return Err(Error::BadMode { table: table.to_owned(), folder: path, mode });
        }
        tree.add_folder(&path, mode, Origin::Table)?;
    }
    Ok(())
}

/// Adds every file below the folders `overlays`; where two have the same path, the later folder's is taken.
///
/// # Errors
/// [`Error::Read`], [`Error::BadFile`] and [`Error::Tree`].
pub fn add_overlays(overlays: &[PathBuf], tree: &mut Tree) -> Result<(), Error> {
    for (index, overlay) in overlays.iter().enumerate() {
        add_below(overlay, "", &overlays[index + 1..], tree)?;
    }
    Ok(())
}

/// Adds the links that lists ask for on `target`.
///
/// # Errors
/// [`Error::Tree`].
pub fn add_links(lists: &[&List], target: Architecture, tree: &mut Tree) -> Result<(), Error> {
    let links = lists.iter().flat_map(|list| &list.links);
    for link in links.filter(|link| link.arch.is_none_or(|arch| arch == target)) {
        let origin = Origin::Link { shell_permitted: link.permits == Some(Permit::Shell) };
        tree.add_symlink(&link.path, &link.target, origin)?;
    }
    Ok(())
}

/// Adds the administrator's settings, and whose config disks the image takes. No overlay has either in its place.
///
/// # Errors
/// [`Error::Tree`].
pub fn add_settings(baked: &Baked, tree: &mut Tree) -> Result<(), Error> {
    tree.add_file(ADMIN_SETTINGS, &mut &baked.text[..], false, Origin::Settings)?;
    if baked.anchor.is_none() && tree.get(SETTINGS_ANCHOR).is_some() {
        return Err(Error::Anchor);
    }
    if let Some(anchor) = &baked.anchor {
        let text = serde_json::to_vec(anchor).expect("texts and a number are JSON");
        tree.add_file(SETTINGS_ANCHOR, &mut &text[..], false, Origin::Settings)?;
    }
    Ok(())
}

/// Adds our programs from the folder that they were built in.
///
/// # Errors
/// [`Error::Read`] and [`Error::Tree`].
pub fn add_programs(lists: &[&List], folder: &Path, tree: &mut Tree) -> Result<(), Error> {
    for program in lists.iter().flat_map(|list| &list.programs) {
        let mut file = open(&folder.join(&program.name))?;
        let origin = Origin::Program { name: program.name.clone() };
        tree.add_file(&program.path, &mut file, true, origin)?;
    }
    Ok(())
}

fn add_below(folder: &Path, inside: &str, later: &[PathBuf], tree: &mut Tree) -> Result<(), Error> {
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).map_err(failed)?.collect();
    let mut names: Vec<_> = entries.map_err(failed)?.iter().map(fs::DirEntry::file_name).collect();
    names.sort();
    for name in names {
        let path = folder.join(&name);
        let bad = || Error::BadFile { path: path.clone() };
        let place = format!("{inside}/{}", name.to_str().ok_or_else(bad)?);
        let metadata =
            path.symlink_metadata().map_err(|source| Error::Read { path: path.clone(), source })?;
        if metadata.is_dir() {
            add_below(&path, &place, later, tree)?;
        } else if later.iter().any(|other| other.join(&place[1..]).symlink_metadata().is_ok()) {
            // A later overlay's file takes its place.
        } else if metadata.is_file() {
            let executable = metadata.permissions().mode() & 0o100 != 0;
            tree.add_file(&place, &mut open(&path)?, executable, Origin::Overlay)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(|source| Error::Read { path: path.clone(), source })?;
            tree.add_symlink(&place, target.to_str().ok_or_else(bad)?, Origin::Overlay)?;
        } else {
            return Err(bad());
        }
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn home() -> (tempfile::TempDir, Tree) {
        let home = tempfile::tempdir().expect("temporary folder");
        fs::create_dir_all(home.path().join("overlay/etc/eci")).expect("overlay");
        let tree = Tree::create(&home.path().join("root")).expect("tree");
        (home, tree)
    }

    #[test]
    fn overlay_files_and_links_lie_where_they_lay() {
        let (home, mut tree) = home();
        let etc = home.path().join("overlay/etc");
        fs::write(etc.join("eci/a"), "x").expect("file");
        symlink("/run/eci/resolv.conf", etc.join("resolv.conf")).expect("link");
        add_overlays(&[home.path().join("overlay")], &mut tree).expect("sound");
        assert!(tree.get("/etc/eci/a").is_some() && tree.get("/etc/resolv.conf").is_some());
    }

    #[test]
    fn a_later_overlay_s_file_takes_the_place_of_an_earlier_one() {
        let (home, mut tree) = home();
        let [first, second] = ["overlay", "second"].map(|name| home.path().join(name));
        fs::create_dir_all(second.join("etc/eci")).expect("second overlay");
        fs::write(first.join("etc/eci/a"), "first").expect("file");
        fs::write(second.join("etc/eci/a"), "second").expect("file");
        add_overlays(&[first, second], &mut tree).expect("sound");
        assert_eq!(fs::read_to_string(tree.folder().join("etc/eci/a")).expect("laid"), "second");
    }

    #[test]
    fn no_overlay_has_settings_in_the_place_of_those_that_were_checked() {
        let (home, mut tree) = home();
        let place = home.path().join("overlay/etc/eci/admin-settings.json");
        fs::write(place, "{}").expect("file");
        add_overlays(&[home.path().join("overlay")], &mut tree).expect("sound");
        let baked = Baked { anchor: None, text: b"{ }".to_vec(), settings: None };
        let error = add_settings(&baked, &mut tree).expect_err("both are there");
        assert_eq!(
            error.to_string(),
            "`/etc/eci/admin-settings.json` comes from the overlay and, with another content, from the administrator's settings"
        );
    }

    #[test]
    fn no_overlay_says_whose_config_disks_are_taken() {
        let (home, mut tree) = home();
        fs::write(home.path().join("overlay/etc/eci/settings-anchor.json"), "{}").expect("file");
        add_overlays(&[home.path().join("overlay")], &mut tree).expect("sound");
        let baked = Baked { anchor: None, text: b"{}".to_vec(), settings: None };
        let error = add_settings(&baked, &mut tree).expect_err("nobody asked for it").to_string();
        assert!(error.starts_with("an overlay has `/etc/eci/settings-anchor.json`"), "{error}");
    }

    #[test]
    fn a_socket_in_the_overlay_is_refused() {
        let (home, mut tree) = home();
        let _socket = UnixListener::bind(home.path().join("overlay/s")).expect("socket");
        let error = add_overlays(&[home.path().join("overlay")], &mut tree).expect_err("a socket");
        assert!(matches!(error, Error::BadFile { .. }), "{error}");
    }

    #[test]
    fn a_folder_that_everyone_can_write_to_is_refused() {
        let (home, mut tree) = home();
        let table = home.path().join("folders.toml");
        for (mode, sound) in [("0o755", true), ("0o700", true), ("0o757", false), ("0o1755", false)] {
            let text = format!("[[folder]]\npath = \"/f{mode}\"\nmode = {mode}\nwhy = \"x\"\n");
            fs::write(&table, text).expect("table");
            assert_eq!(add_folders(&table, &mut tree).is_ok(), sound, "{mode}");
        }
    }
}
