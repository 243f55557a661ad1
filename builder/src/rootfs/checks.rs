//! What no image may have, whoever asks for it: names from a table, scripts without their interpreter, links to
//! nothing.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde::Deserialize;

use super::resolve::{Destination, resolve};
use super::tree::{Kind, Node, Origin, Tree};
use crate::plan::document;

/// The schema number of the table of refused names.
const VERSION: u32 = 1;

/// Longest first line of a script that the kernel looks at (`BINPRM_BUF_SIZE`).
const SCRIPT_LINE: u64 = 256;

/// Why the tree is refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table is not well formed.
    #[error(transparent)]
    Document(#[from] document::Error),
    /// A name is refused.
    #[error("`{path}`, from {origin}, is refused: the name `{name}` is in the table, for \"{why}\"")]
    Name {
        /// Path in the image.
        path: String,
        /// Who brought it.
        origin: Box<Origin>,
        /// The name that is refused.
        name: String,
        /// The table's why.
        why: String,
    },
    /// A link leads nowhere.
    #[error("`{path}`, from {origin}, is a link to `{target}`, which the image does not have")]
    Dangling {
        /// Path in the image.
        path: String,
        /// Who brought it.
        origin: Box<Origin>,
        /// What the link holds.
        target: String,
    },
    /// A script cannot run.
    #[error("`{path}`, from {origin}, is a script for `{interpreter}`, which the image does not have")]
    Script {
        /// Path in the image.
        path: String,
        /// Who brought it.
        origin: Box<Origin>,
        /// What its first line names.
        interpreter: String,
    },
    /// A file of the tree cannot be read back.
    #[error("cannot read `{path}` of the root file system")]
    Read {
        /// Path in the image.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The table of refused names.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusals {
    version: u32,
    #[serde(rename = "refused")]
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    kind: Refused,
    why: String,
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Refused {
    Shell,
    Interpreter,
    PackageManager,
    Login,
    Kernel,
    Runtime,
}

impl Refusals {
    /// Reads the table.
    ///
    /// # Errors
    /// [`Error::Document`].
    pub fn read(path: &Path) -> Result<Self, Error> {
        let refusals: Self = document::read(path)?;
        document::check_version(path, refusals.version, VERSION)?;
        Ok(refusals)
    }

    /// Refuses a tree with a program whose name, name in its package, or link target is in the table.
    ///
    /// # Errors
    /// [`Error::Name`].
    pub fn check(&self, tree: &Tree) -> Result<(), Error> {
        for (path, node) in tree.nodes() {
            let names = names(path, node);
            let hit = names.iter().find_map(|name| self.find(name, &node.origin).map(|group| (name, group)));
            if let Some((name, group)) = hit {
                let (path, origin) = (path.to_owned(), Box::new(node.origin.clone()));
                return Err(Error::Name { path, origin, name: (*name).to_owned(), why: group.why.clone() });
            }
        }
        Ok(())
    }

    fn find(&self, name: &str, origin: &Origin) -> Option<&Group> {
        let permitted = |group: &Group| group.kind == Refused::Shell && permits_shell(origin);
        self.groups.iter().filter(|group| !permitted(group)).find(|group| {
            group.names.iter().any(|refused| match refused.strip_suffix('*') {
                Some(head) => name.starts_with(head),
                None => name == refused,
            })
        })
    }
}

/// Refuses a tree with a link that leads to nothing in it.
///
/// # Errors
/// [`Error::Dangling`].
pub fn check_links(tree: &Tree) -> Result<(), Error> {
    for (path, node) in tree.nodes() {
        if let Kind::Symlink { target } = &node.kind {
            if resolve(tree, path) == Destination::Nowhere {
                let (path, origin) = (path.to_owned(), Box::new(node.origin.clone()));
                return Err(Error::Dangling { path, origin, target: target.clone() });
            }
        }
    }
    Ok(())
}

/// Refuses a tree with a script whose interpreter it does not have.
///
/// # Errors
/// [`Error::Script`] and [`Error::Read`].
pub fn check_scripts(tree: &Tree) -> Result<(), Error> {
    for (path, node) in tree.nodes() {
        if !matches!(node.kind, Kind::File { executable: true, .. }) {
            continue;
        }
        let first = first_line(tree, path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        let Some(interpreter) = first.strip_prefix("#!").and_then(|line| line.split_whitespace().next())
        else {
            continue;
        };
        if !matches!(resolve(tree, interpreter), Destination::Node { .. }) {
            let (path, origin) = (path.to_owned(), Box::new(node.origin.clone()));
            return Err(Error::Script { path, origin, interpreter: interpreter.to_owned() });
        }
    }
    Ok(())
}

/// The names under which a program could be known. Configuration is not run, so files that cannot be executed have none.
fn names<'a>(path: &'a str, node: &'a Node) -> Vec<&'a str> {
    let mut names = Vec::new();
    match &node.kind {
        Kind::Folder { .. } | Kind::File { executable: false, .. } => return names,
        Kind::File { executable: true, .. } => {}
        Kind::Symlink { target } => names.push(last_component(target)),
    }
    names.push(last_component(path));
    if let Origin::Package { path, .. } = &node.origin {
        names.push(last_component(path));
    }
    names
}

fn permits_shell(origin: &Origin) -> bool {
    matches!(origin, Origin::Package { shell_permitted: true, .. } | Origin::Link { shell_permitted: true })
}

fn last_component(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn first_line(tree: &Tree, path: &str) -> io::Result<String> {
    let mut head = Vec::new();
    File::open(tree.on_disk(path))?.take(SCRIPT_LINE).read_to_end(&mut head)?;
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "version = 1\n\
        [[refused]]\nkind = \"shell\"\nwhy = \"No shell.\"\nnames = [\"sh\", \"busybox*\"]\n\
        [[refused]]\nkind = \"login\"\nwhy = \"No login.\"\nnames = [\"su\"]\n";

    fn tree(fill: impl FnOnce(&mut Tree)) -> (tempfile::TempDir, Tree) {
        let home = tempfile::tempdir().expect("temporary folder");
        let mut tree = Tree::create(&home.path().join("root")).expect("tree");
        fill(&mut tree);
        (home, tree)
    }

    fn package(path: &str, shell_permitted: bool) -> Origin {
        Origin::Package { name: "p".to_owned(), path: path.to_owned(), shell_permitted }
    }

    fn named(path: &str, executable: bool, origin: Origin) -> Result<(), Error> {
        let (_home, tree) = tree(|tree| {
            tree.add_file(path, &mut &b"x"[..], executable, origin).expect("file");
        });
        let table: Refusals = document::parse(Path::new("refused.toml"), TABLE).expect("table");
        table.check(&tree)
    }

    #[test]
    fn a_shell_is_refused_with_file_package_and_reason() {
        let error = named("/usr/bin/sh", true, package("/usr/bin/sh", false)).expect_err("a shell");
        assert_eq!(
            error.to_string(),
            "`/usr/bin/sh`, from `/usr/bin/sh` of the package `p`, is refused: \
             the name `sh` is in the table, for \"No shell.\""
        );
    }

    #[test]
    fn a_shell_under_another_name_is_refused() {
        assert!(named("/usr/bin/tool", true, package("/usr/bin/busybox", false)).is_err(), "renamed");
        assert!(named("/usr/bin/busybox-x", true, Origin::Overlay).is_err(), "any ending");
        let (_home, tree) = tree(|tree| {
            tree.add_symlink("/usr/bin/tool", "/run/sh", Origin::Overlay).expect("link");
        });
        let table: Refusals = document::parse(Path::new("refused.toml"), TABLE).expect("table");
        assert!(table.check(&tree).is_err(), "a link to one");
    }

    #[test]
    fn names_near_to_refused_ones_and_files_that_do_not_run_are_fine() {
        named("/usr/bin/shim", true, Origin::Overlay).expect("not a shell");
        named("/etc/su", false, Origin::Overlay).expect("configuration");
    }

    #[test]
    fn a_permit_lifts_the_refusal_of_shells_alone() {
        named("/usr/bin/busybox", true, package("/usr/bin/busybox", true)).expect("permitted");
        assert!(named("/usr/bin/su", true, package("/usr/bin/su", true)).is_err());
    }

    #[test]
    fn a_link_to_nothing_is_refused_and_one_to_a_mount_point_is_fine() {
        let (_home, sound) = tree(|tree| {
            tree.add_symlink("/etc/mtab", "/proc/mounts", Origin::Overlay).expect("link");
        });
        check_links(&sound).expect("what /proc has is not known");
        let (_home, dangling) = tree(|tree| {
            tree.add_symlink("/etc/a", "b", Origin::Overlay).expect("link");
        });
        let error = check_links(&dangling).expect_err("no /etc/b").to_string();
        assert_eq!(error, "`/etc/a`, from the overlay, is a link to `b`, which the image does not have");
    }

    #[test]
    fn a_script_without_its_interpreter_is_refused() {
        let (_home, script) = tree(|tree| {
            let origin = package("/usr/sbin/apply", false);
            tree.add_file("/usr/sbin/apply", &mut &b"#! /bin/sh -e\n"[..], true, origin).expect("file");
        });
        let error = check_scripts(&script).expect_err("no sh").to_string();
        assert!(error.ends_with("is a script for `/bin/sh`, which the image does not have"), "{error}");
    }
}
