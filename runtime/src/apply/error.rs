//! What can go wrong while a container's mounts are made.

use std::io;
use std::path::{Path, PathBuf};

use crate::plan::root;

/// Why the mounts could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("cannot {operation} `{}`", .path.display())]
    Call {
        /// What was to be done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The root filesystem is not one that can be rebuilt.
    #[error("cannot rebuild the root filesystem")]
    Root(#[from] root::Error),
    /// A folder that crun mounts over is something else in the image.
    #[error("the image has something else than a folder at `{path}`")]
    NotAFolder {
        /// The path in the image.
        path: &'static str,
    },
    /// A path that is not text.
    #[error("`{}` is not UTF-8", .path.display())]
    NotText {
        /// The path.
        path: PathBuf,
    },
}

/// Names operation and object of a failed call.
pub(super) fn call<E: Into<io::Error>>(operation: &'static str, path: &Path) -> impl FnOnce(E) -> Error {
    let path = path.to_owned();
    move |source| Error::Call { operation, path, source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_operation_and_object() {
        let error = call("mount", Path::new("/x"))(io::Error::from_raw_os_error(1));
        assert_eq!(error.to_string(), "cannot mount `/x`");
        assert_eq!(
            Error::NotAFolder { path: "/dev" }.to_string(),
            "the image has something else than a folder at `/dev`"
        );
        assert_eq!(Error::NotText { path: "/y".into() }.to_string(), "`/y` is not UTF-8");
    }
}
