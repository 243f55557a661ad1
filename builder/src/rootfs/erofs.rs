//! Making the EROFS image with the locked `mkfs.erofs`.
//!
//! The same tree gives the same bytes: no clock, no host owner, no extended attribute goes in, and the file system's
//! UUID is a digest of the tree.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::tools::{MKFS, Tools};
use super::tree::{Kind, Tree};
use crate::tool;
use crate::ui::Ui;

/// How the image is packed, with the reasons.
///
/// LZ4 decompresses fastest where the processor is slow, and the image stays within its bound with it. Level 9 gives
/// within half a percent of level 12 in a quarter of the time. Clusters of 64 KiB: 16 KiB cost a tenth more space,
/// 128 KiB save a hundredth and read more than is asked for. Deduplication and fragments save a hundredth, too.
const PACKING: [&str; 2] = ["-zlz4hc,9", "-C65536"];

/// The image could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make the EROFS image")]
pub struct Error(#[source] tool::Error);

/// Packs the tree into an EROFS image at `out`.
///
/// # Errors
/// mkfs fails.
pub fn make(tree: &Tree, tools: &Tools, out: &Path, ui: &Ui) -> Result<(), Error> {
    tools
        .tool(MKFS)
        .args(["--quiet", "-T0", "--all-root", "-x-1"])
        .args(PACKING)
        .arg(format!("-U{}", uuid_of(tree)))
        .arg(out)
        .arg(tree.folder())
        .run(ui)
        .map_err(Error)
}

/// A UUID (version 8, RFC 9562) from a digest over all that the image has.
fn uuid_of(tree: &Tree) -> String {
    let mut digest = Sha256::new();
    for (path, node) in tree.nodes() {
        let described = match &node.kind {
            Kind::Folder { mode } => format!("folder {mode:o}"),
            Kind::File { sha256, executable, .. } => format!("file {executable} {sha256}"),
            Kind::Symlink { target } => format!("link {target}"),
        };
        digest.update(format!("{path}\0{described}\0"));
    }
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest.finalize()[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tree::Origin;

    fn uuid(content: &[u8], executable: bool) -> String {
        let home = tempfile::tempdir().expect("temporary folder");
        let mut tree = Tree::create(&home.path().join("root")).expect("tree");
        tree.add_file("/a", &mut &content[..], executable, Origin::Overlay).expect("file");
        uuid_of(&tree)
    }

    #[test]
    fn the_uuid_is_of_the_content_alone() {
        assert_eq!(uuid(b"x", false), uuid(b"x", false));
        assert_ne!(uuid(b"x", false), uuid(b"y", false));
        assert_ne!(uuid(b"x", false), uuid(b"x", true));
        assert_eq!(uuid(b"x", false).as_bytes()[14], b'8', "version 8");
    }
}
