//! The way in where the system is a distro of WSL 2: the engine's socket in each folder that is shared with distros.
//!
//! PID 1 mounts the folders before the gate starts. They are the only way in then: the machine's vsock belongs to all distros.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eci_contract::paths::ENGINE_SOCKET;
use eci_contract::wsl::ENGINE_SOCKET_NAME;
use eci_service::log::{self, Level};
use tokio::net::UnixListener;
use tokio::time::sleep;

use crate::api::{self, Rules};

/// Root alone, in every distro that sees the folder: who reaches the engine gets at all containers and volumes.
const MODE: u32 = 0o600;
/// Pause after a failed accept: it fails for want of descriptors or memory, which come back with time.
const RETRY: Duration = Duration::from_millis(200);

/// Why a socket is not there.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on `{}`", .path.display())]
pub struct Error {
    path: PathBuf,
    source: io::Error,
}

/// Listens in every folder of `doors`. No such folder means that this is no distro.
///
/// # Errors
/// When one cannot be listened in.
pub fn listen(doors: &Path) -> Result<Vec<UnixListener>, Error> {
    let folders = fs::read_dir(doors).into_iter().flatten().flatten();
    folders.map(|folder| bind(&folder.path().join(ENGINE_SOCKET_NAME))).collect()
}

fn bind(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error { path: path.to_owned(), source };
    // Of a gate, or a distro, that ended before.
    drop(fs::remove_file(path));
    let listener = UnixListener::bind(path).map_err(failed)?;
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    Ok(listener)
}

/// Serves clients for ever.
pub async fn serve(listener: UnixListener) -> Infallible {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                tokio::spawn(api::serve(client, Path::new(ENGINE_SOCKET), Rules::Distro));
            }
            Err(error) => {
                log::failure(Level::Warn, "cannot accept a client", &error);
                sleep(RETRY).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_folder_gets_a_socket_for_root_alone_and_an_old_one_is_replaced() {
        let doors = tempfile::tempdir().expect("temporary folder");
        for name in ["all", "distro"] {
            fs::create_dir(doors.path().join(name)).expect("door");
        }
        let first = listen(doors.path()).expect("sockets");
        assert_eq!(first.len(), 2);
        drop(first);
        assert_eq!(listen(doors.path()).expect("sockets again").len(), 2);
        let socket = doors.path().join("all").join(ENGINE_SOCKET_NAME);
        let mode = fs::metadata(socket).expect("socket").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[tokio::test]
    async fn without_doors_nothing_listens() {
        assert_eq!(listen(Path::new("/no/such/doors")).expect("no distro").len(), 0);
        let error = bind(Path::new("/no/such/door/docker.sock")).expect_err("no folder");
        assert_eq!(error.to_string(), "cannot listen on `/no/such/door/docker.sock`");
    }
}
