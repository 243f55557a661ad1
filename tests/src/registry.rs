//! A registry on the host, from the test flavour's lock: where a VM pulls images from by names and digests of their own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::clients;

/// Where the host's loopback is, as a VM of `eci-builder run` sees it.
const HOST: &str = "10.0.2.2";

/// A registry that runs until it is dropped.
pub struct Registry {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Registry {
    /// Starts one on a free port of loopback, without images.
    ///
    /// # Errors
    /// When the package is not in the cache, or the program does not listen.
    pub fn start() -> Result<Self> {
        let program = clients::unpacked()?.join("usr/bin/docker-registry");
        let folder = tempfile::tempdir()?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = folder.path().join("config.yml");
        let text = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {} }} }}\nhttp: {{ addr: '127.0.0.1:{port}' }}\n",
            folder.path().join("images").display()
        );
        fs::write(&settings, text)?;
        let mut command = Command::new(&program);
        command.arg("serve").arg(&settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let registry = Self { process, port, folder };
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(begin.elapsed() < Duration::from_secs(20), "the registry does not listen");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(registry)
    }

    /// Its name on this host.
    #[must_use]
    pub fn on_loopback(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its address on this host.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }

    /// The file of a blob, by its SHA-256 in hexadecimal.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let blobs = self.folder.path().join("images/docker/registry/v2/blobs/sha256");
        blobs.join(&digest[..2]).join(digest).join("data")
    }

    /// Its name, as a VM calls it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{HOST}:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // One that has ended by itself is what is wanted.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
