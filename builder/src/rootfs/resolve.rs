//! Following symbolic links inside the tree, as the kernel will with the image as root.

use super::tree::{Kind, Tree};

/// The kernel gives up after as many links.
const MAX_LINKS: usize = 40;

/// Places that something is mounted on, so what is there is not known when the image is built.
const MOUNT_POINTS: [&str; 6] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var"];

/// Where a path leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// To this node, over these links.
    Node {
        /// Path of the node.
        path: String,
        /// Paths of the links, in order.
        links: Vec<String>,
    },
    /// To a place that is mounted over at run time.
    MountPoint,
    /// To nothing, or round and round.
    Nowhere,
}

/// Follows `path`, its last component included.
#[must_use]
pub fn resolve(tree: &Tree, path: &str) -> Destination {
    let mut links = Vec::new();
    let mut rest: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut at = String::new();
    while let Some(component) = rest.pop() {
        match component.as_str() {
            "" | "." => continue,
            ".." => {
                at.truncate(at.rfind('/').unwrap_or(0));
                continue;
            }
            name => at = format!("{at}/{name}"),
        }
        if MOUNT_POINTS.contains(&at.as_str()) && !rest.is_empty() {
            return Destination::MountPoint;
        }
        match tree.get(&at).map(|node| &node.kind) {
            None => return Destination::Nowhere,
            Some(Kind::Symlink { target }) => {
                if links.len() == MAX_LINKS {
                    return Destination::Nowhere;
                }
                links.push(at.clone());
                at.truncate(if target.starts_with('/') { 0 } else { at.rfind('/').unwrap_or(0) });
                rest.extend(target.split('/').rev().map(str::to_owned));
            }
            Some(Kind::Folder { .. }) => {}
            Some(Kind::File { .. }) if rest.iter().all(String::is_empty) => {}
            Some(Kind::File { .. }) => return Destination::Nowhere,
        }
    }
    Destination::Node { path: if at.is_empty() { "/".to_owned() } else { at }, links }
}

#[cfg(test)]
mod tests {
    use super::super::tree::Origin;
    use super::*;

    fn lead(path: &str) -> Destination {
        let home = tempfile::tempdir().expect("temporary folder");
        let mut tree = Tree::create(&home.path().join("root")).expect("tree");
        tree.add_file("/usr/bin/a", &mut &b"x"[..], true, Origin::Overlay).expect("file");
        for (link, target) in [
            ("/bin", "usr/bin"),
            ("/up", "../../../../bin/./a"),
            ("/mtab", "/proc/mounts"),
            ("/round", "/round"),
            ("/gone", "usr/bin/b"),
            ("/through", "usr/bin/a/b"),
        ] {
            tree.add_symlink(link, target, Origin::Overlay).expect("link");
        }
        resolve(&tree, path)
    }

    #[test]
    fn links_are_followed_within_the_root() {
        let node = |links: &[&str]| Destination::Node {
            path: "/usr/bin/a".to_owned(),
            links: links.iter().map(ToString::to_string).collect(),
        };
        assert_eq!(lead("/bin/a"), node(&["/bin"]));
        assert_eq!(lead("/up"), node(&["/up", "/bin"]));
    }

    #[test]
    fn loops_and_gaps_lead_nowhere_and_mount_points_anywhere() {
        assert_eq!(lead("/round"), Destination::Nowhere);
        assert_eq!(lead("/gone"), Destination::Nowhere);
        assert_eq!(lead("/through"), Destination::Nowhere);
        assert_eq!(lead("/mtab"), Destination::MountPoint);
    }
}
