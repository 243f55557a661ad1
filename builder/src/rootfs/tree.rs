//! The root file system while it is put together: a folder on disk, and what is known of each file in it.
//!
//! Invariant: every node's parents are folders of the tree, so no write follows a link; folder and description always
//! have the same files; modes are ours (0755 and 0644), whatever the archive had.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The tree.
#[derive(Debug)]
pub struct Tree {
    folder: PathBuf,
    nodes: BTreeMap<String, Node>,
}

/// One file, folder or link.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Where it came from.
    pub origin: Origin,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder with these permission bits.
    Folder {
        /// Permission bits.
        mode: u32,
    },
    /// A file.
    File {
        /// Size in bytes.
        size: u64,
        /// SHA-256, hexadecimal.
        sha256: String,
        /// Whether it can be executed.
        executable: bool,
    },
    /// A symbolic link and what it holds.
    Symlink {
        /// What it holds.
        target: String,
    },
}

/// Where a node came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A package.
    Package {
        /// Binary package name.
        name: String,
        /// Path in the package.
        path: String,
        /// The refusal as a shell is lifted.
        shell_permitted: bool,
    },
    /// A link that a list asks for.
    Link {
        /// The refusal as a shell is lifted.
        shell_permitted: bool,
    },
    /// A file of the overlay.
    Overlay,
    /// What the administrator set.
    Settings,
    /// A program of ours.
    Program {
        /// Its file name among the built programs.
        name: String,
    },
    /// The table of folders.
    Table,
    /// It has to be there for something in it.
    Parent,
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Package { name, path, .. } => write!(formatter, "`{path}` of the package `{name}`"),
            Self::Link { .. } => formatter.write_str("a list's link"),
            Self::Overlay => formatter.write_str("the overlay"),
            Self::Settings => formatter.write_str("the administrator's settings"),
            Self::Program { name } => write!(formatter, "our program `{name}`"),
            Self::Table => formatter.write_str("the table of folders"),
            Self::Parent => formatter.write_str("a file in it"),
        }
    }
}

/// Why a node cannot be added.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The place is taken by something else.
    #[error("`{path}` comes from {first} and, with another content, from {second}")]
    Conflict {
        /// Path in the image.
        path: String,
        /// Who was first.
        first: Box<Origin>,
        /// Who was second.
        second: Box<Origin>,
    },
    /// A parent is a file or a link.
    #[error("`{path}`, from {origin}, is inside `{parent}`, which is no folder")]
    NotInFolder {
        /// Path in the image.
        path: String,
        /// Who wants it.
        origin: Box<Origin>,
        /// What is in the way.
        parent: String,
    },
    /// The folder on disk cannot be written.
    #[error("cannot write `{path}` of the root file system")]
    Write {
        /// Path in the image.
        path: String,
        /// What the system said.
        source: io::Error,
    },
}

impl Tree {
    /// An empty tree in a folder that is made, or emptied.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub fn create(folder: &Path) -> Result<Self, Error> {
        match fs::remove_dir_all(folder) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(write_error("/", source)),
            _ => {}
        }
        fs::create_dir_all(folder).map_err(|source| write_error("/", source))?;
        let root = Node { kind: Kind::Folder { mode: 0o755 }, origin: Origin::Parent };
        Ok(Self { folder: folder.to_owned(), nodes: BTreeMap::from([("/".to_owned(), root)]) })
    }

    /// The folder on disk.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All nodes with their absolute paths, sorted.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The node at a path, no link followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Where the node of this path lies on disk.
    #[must_use]
    pub fn on_disk(&self, path: &str) -> PathBuf {
        self.folder.join(path.trim_start_matches('/'))
    }

    /// Adds a folder. One that is there only for its content, or with the same mode, is fine.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn add_folder(&mut self, path: &str, mode: u32, origin: Origin) -> Result<(), Error> {
        let kind = Kind::Folder { mode };
        if let Some(there) = self.nodes.get_mut(path) {
            if there.origin == Origin::Parent || there.kind == kind {
                *there = Node { kind, origin };
                return set_mode(&self.folder, path, mode);
            }
            return Err(Error::Conflict {
                path: path.to_owned(),
                first: Box::new(there.origin.clone()),
                second: Box::new(origin),
            });
        }
        self.add_parents(path, &origin)?;
        fs::create_dir(self.on_disk(path)).map_err(|source| write_error(path, source))?;
        set_mode(&self.folder, path, mode)?;
        self.nodes.insert(path.to_owned(), Node { kind, origin });
        Ok(())
    }

    /// Adds a file with what `content` gives.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn add_file(
        &mut self,
        path: &str,
        content: &mut dyn Read,
        executable: bool,
        origin: Origin,
    ) -> Result<(), Error> {
        if self.nodes.contains_key(path) {
            let mut digest = Sha256::new();
            let size = io::copy(content, &mut digest).map_err(|source| write_error(path, source))?;
            let kind = Kind::File { size, sha256: format!("{:x}", digest.finalize()), executable };
            return self.expect_same(path, &kind, origin);
        }
        self.add_parents(path, &origin)?;
        let written = write_file(&self.on_disk(path), content).map_err(|source| write_error(path, source))?;
        set_mode(&self.folder, path, if executable { 0o755 } else { 0o644 })?;
        let (size, sha256) = written;
        self.nodes.insert(path.to_owned(), Node { kind: Kind::File { size, sha256, executable }, origin });
        Ok(())
    }

    /// Adds a symbolic link.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn add_symlink(&mut self, path: &str, target: &str, origin: Origin) -> Result<(), Error> {
        let kind = Kind::Symlink { target: target.to_owned() };
        if self.nodes.contains_key(path) {
            return self.expect_same(path, &kind, origin);
        }
        self.add_parents(path, &origin)?;
        symlink(target, self.on_disk(path)).map_err(|source| write_error(path, source))?;
        self.nodes.insert(path.to_owned(), Node { kind, origin });
        Ok(())
    }

    fn expect_same(&self, path: &str, kind: &Kind, second: Origin) -> Result<(), Error> {
        match self.nodes.get(path) {
            Some(there) if there.kind != *kind => Err(Error::Conflict {
                path: path.to_owned(),
                first: Box::new(there.origin.clone()),
                second: Box::new(second),
            }),
            _ => Ok(()),
        }
    }

    fn add_parents(&mut self, path: &str, origin: &Origin) -> Result<(), Error> {
        let ends = path.char_indices().skip(1).filter(|(_, c)| *c == '/').map(|(index, _)| index);
        for end in ends.collect::<Vec<_>>() {
            let parent = &path[..end];
            match self.nodes.get(parent).map(|node| &node.kind) {
                Some(Kind::Folder { .. }) => {}
                Some(_) => {
                    let (path, parent) = (path.to_owned(), parent.to_owned());
                    return Err(Error::NotInFolder { path, origin: Box::new(origin.clone()), parent });
                }
                None => self.add_folder(parent, 0o755, Origin::Parent)?,
            }
        }
        Ok(())
    }
}

/// Writes a new file and gives its size and digest.
fn write_file(path: &Path, content: &mut dyn Read) -> io::Result<(u64, String)> {
    let mut file = File::create_new(path)?;
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    let mut size = 0;
    loop {
        let count = content.read(&mut buffer)?;
        if count == 0 {
            return Ok((size, format!("{:x}", digest.finalize())));
        }
        digest.update(&buffer[..count]);
        file.write_all(&buffer[..count])?;
        size += count as u64;
    }
}

fn set_mode(folder: &Path, path: &str, mode: u32) -> Result<(), Error> {
    let on_disk = folder.join(path.trim_start_matches('/'));
    fs::set_permissions(on_disk, Permissions::from_mode(mode)).map_err(|source| write_error(path, source))
}

fn write_error(path: &str, source: io::Error) -> Error {
    Error::Write { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let home = tempfile::tempdir().expect("temporary folder");
        let tree = Tree::create(&home.path().join("root")).expect("tree");
        (home, tree)
    }

    fn package(name: &str) -> Origin {
        Origin::Package { name: name.to_owned(), path: "/a".to_owned(), shell_permitted: false }
    }

    #[test]
    fn two_packages_may_have_one_file_only_with_the_same_bytes() {
        let (_home, mut tree) = tree();
        tree.add_file("/a", &mut &b"x"[..], false, package("one")).expect("new");
        tree.add_file("/a", &mut &b"x"[..], false, package("two")).expect("the same bytes");
        let error = tree.add_file("/a", &mut &b"y"[..], false, package("two")).expect_err("other bytes");
        assert_eq!(
            error.to_string(),
            "`/a` comes from `/a` of the package `one` and, with another content, from `/a` of the package `two`"
        );
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let (home, mut tree) = tree();
        let outside = home.path().join("outside");
        fs::create_dir(&outside).expect("folder");
        tree.add_symlink("/etc", outside.to_str().expect("text"), package("one")).expect("link");
        let error = tree.add_file("/etc/passwd", &mut &b"x"[..], false, package("two")).expect_err("a link");
        assert!(matches!(error, Error::NotInFolder { .. }), "{error}");
        assert_eq!(fs::read_dir(outside).expect("listing").count(), 0);
    }

    #[test]
    fn a_folder_is_not_a_file_s_place() {
        let (_home, mut tree) = tree();
        tree.add_folder("/run", 0o755, Origin::Table).expect("folder");
        assert!(matches!(
            tree.add_file("/run", &mut &b"x"[..], false, package("one")),
            Err(Error::Conflict { .. })
        ));
        assert!(matches!(tree.add_folder("/run", 0o700, Origin::Overlay), Err(Error::Conflict { .. })));
    }

    #[test]
    fn modes_on_disk_are_ours() {
        let (_home, mut tree) = tree();
        tree.add_file("/usr/bin/a", &mut &b"x"[..], true, Origin::Program { name: "a".to_owned() })
            .expect("program");
        let mode = |path| fs::metadata(tree.on_disk(path)).expect("there").permissions().mode() & 0o7777;
        assert_eq!((mode("/usr/bin/a"), mode("/usr/bin"), mode("/usr")), (0o755, 0o755, 0o755));
    }
}
