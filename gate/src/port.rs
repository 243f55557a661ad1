//! A virtio-serial port as an asynchronous byte stream.
//!
//! Kernel behaviour that shapes this (`drivers/char/virtio_console.c`): while no host process holds the other end, a read
//! gives 0 and poll gives HUP, even when not asked for; a write waits for a host. So waiting for a host is a blocking
//! write, and a file that has seen HUP is registered anew, for tokio takes HUP for the end of a connection.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use eci_link::preamble::BREAK;
use rustix::fs::OFlags;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Why the port cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's list of ports cannot be read.
    #[error("cannot list the virtio-serial ports in `{}`", .path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The device node cannot be opened or set up.
    #[error("cannot open the port `{}`", .device.display())]
    Open {
        /// The device node.
        device: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Device name of the port that has this name in the hypervisor; `None` when the machine has no such port.
///
/// # Errors
/// [`Error::List`], but for a folder that is not there.
pub fn find(ports: &Path, name: &str) -> Result<Option<String>, Error> {
    let failed = |source| Error::List { path: ports.to_owned(), source };
    let entries = match fs::read_dir(ports) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // A port that the hypervisor gave no name has no such file; it is not ours.
        let found = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if found.trim_end() == name {
            return Ok(Some(entry.file_name().to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// An open port with a host at the other end.
#[derive(Debug)]
pub struct Port {
    file: AsyncFd<File>,
}

impl Port {
    /// Opens the port and waits for a host; ends what the host may still take for a running session.
    ///
    /// # Errors
    /// [`Error::Open`].
    pub async fn open(device: &Path) -> Result<Self, Error> {
        let path = device.to_owned();
        let waited = tokio::task::spawn_blocking(move || wait_for_host(&path)).await;
        waited
            .unwrap_or_else(|panicked| Err(panicked.into()))
            .and_then(register)
            .map(|file| Self { file })
            .map_err(|source| Error::Open { device: device.to_owned(), source })
    }
}

/// A file that does not block, to wait for.
#[expect(
    deprecated,
    reason = "its successor is unsafe, for types that lie about their descriptor; a File does not"
)]
pub(crate) fn register(file: File) -> io::Result<AsyncFd<File>> {
    AsyncFd::new(file)
}

/// Blocks until a host has taken [`BREAK`], then makes the file non-blocking.
fn wait_for_host(device: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).write(true).open(device)?;
    file.write_all(&BREAK)?;
    let flags = rustix::fs::fcntl_getfl(&file)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK)?;
    Ok(file)
}

impl AsyncRead for Port {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.file.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match guard.try_io(|file| file.get_ref().read(unfilled)) {
                Ok(length) => return Poll::Ready(length.map(|length| buffer.advance(length))),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Port {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.file.poll_write_ready(context))?;
            match guard.try_io(|file| file.get_ref().write(bytes)) {
                Ok(written) => return Poll::Ready(written),
                Err(_would_block) => {}
            }
        }
    }

    /// A write to the port is done when it returns.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A port has no half-close; it ends when the file is closed.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let ports = tempfile::tempdir().expect("temporary folder");
        for (device, name) in
            [("vport1p0", None), ("vport1p1", Some("org.other")), ("vport2p1", Some("org.eci.link"))]
        {
            fs::create_dir(ports.path().join(device)).expect("port");
            if let Some(name) = name {
                fs::write(ports.path().join(device).join("name"), format!("{name}\n")).expect("name");
            }
        }
        assert_eq!(find(ports.path(), "org.eci.link").expect("listed").as_deref(), Some("vport2p1"));
        assert_eq!(find(ports.path(), "org.eci").expect("listed"), None);
        assert_eq!(find(&ports.path().join("none"), "org.eci.link").expect("no ports at all"), None);
    }
}
