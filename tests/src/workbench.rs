//! Scripts that run as root of the VM, beside the engine. Only the test flavour has the service that runs them,
//! `rootfs/test-overlay/usr/libexec/eci/workbench`; orders and answers are files of the volume `workbench`.
//!
//! They are put there and taken away by `docker cp` with a container that never starts, so that asking starts no process
//! that a script could count.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::image;
use crate::vm::Vm;

/// The container that lends its view of the volume.
const DOOR: &str = "workbench";
/// Pause between two looks for an answer.
const PAUSE: Duration = Duration::from_millis(500);

/// The test flavour, booted, with the busybox image imported.
pub struct Workbench {
    /// The instance.
    pub vm: Vm,
    orders: AtomicU32,
}

/// A script that was started.
#[must_use]
pub struct Order(String);

/// How a script ended.
pub struct Answer {
    /// Exit code.
    pub code: i32,
    /// stdout and stderr.
    pub text: String,
}

impl Workbench {
    /// Boots the test flavour.
    ///
    /// # Errors
    /// When it does not boot or does not take the image.
    pub fn start(name: &'static str) -> Result<Self> {
        Self::over(Vm::start(name, &image::out()?.join("test"))?)
    }

    /// Takes a booted test flavour.
    ///
    /// # Errors
    /// When it does not take the image.
    pub fn over(vm: Vm) -> Result<Self> {
        vm.import_busybox()?;
        vm.docker(&["create", "--name", DOOR, "-v", "workbench:/bench", "busybox", "true"])?.ok()?;
        Ok(Self { vm, orders: AtomicU32::new(0) })
    }

    /// Starts a script. Until `patience` is over it tries again while the engine does not answer.
    ///
    /// # Errors
    /// When the engine does not take it.
    pub fn order(&self, script: &str, patience: Duration) -> Result<Order> {
        let name = self.orders.fetch_add(1, Ordering::Relaxed).to_string();
        let mut archive = tar::Builder::new(Vec::new());
        let ready = format!("orders/{name}.ready");
        for (path, kind, bytes) in [
            ("orders/", tar::EntryType::Directory, ""),
            (&format!("orders/{name}"), tar::EntryType::Regular, script),
            (&ready, tar::EntryType::Regular, ""),
        ] {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o755);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, path, bytes.as_bytes())?;
        }
        let archive = archive.into_inner()?;
        let started = Instant::now();
        loop {
            let outcome = self.vm.docker_with(&["cp", "-", &format!("{DOOR}:/bench")], &archive)?;
            match outcome.ok() {
                Ok(_) => return Ok(Order(name)),
                Err(error) if started.elapsed() > patience => return Err(error),
                Err(_) => thread::sleep(PAUSE),
            }
        }
    }

    /// Waits until a script has ended.
    ///
    /// # Errors
    /// When it has not within `patience`, with what it has printed so far.
    pub fn answer(&self, order: &Order, patience: Duration) -> Result<Answer> {
        let started = Instant::now();
        loop {
            if let Some(code) = self.file(&format!("{}.code", order.0))? {
                let code = code.trim().parse().with_context(|| format!("`{code}` is no exit code"))?;
                let text = self.file(&order.0)?.context("a script that has ended has an answer")?;
                return Ok(Answer { code, text });
            }
            if started.elapsed() > patience {
                let so_far = self.file(&order.0)?.unwrap_or_default();
                bail!("the script has not ended within {patience:?}; it printed\n{so_far}");
            }
            thread::sleep(PAUSE);
        }
    }

    /// Runs a script to its end.
    ///
    /// # Errors
    /// When it does not end in time, or with what it printed when it fails.
    pub fn run(&self, script: &str, patience: Duration) -> Result<String> {
        let answer = self.answer(&self.order(script, patience)?, patience)?;
        ensure!(answer.code == 0, "the script ended with {}\n{}", answer.code, answer.text);
        Ok(answer.text)
    }

    /// A file of the answers; none while it is not there, or the engine does not answer.
    fn file(&self, name: &str) -> Result<Option<String>> {
        let outcome = self.vm.docker(&["cp", &format!("{DOOR}:/bench/answers/{name}"), "-"])?;
        if outcome.code != 0 {
            return Ok(None);
        }
        let mut archive = tar::Archive::new(outcome.bytes.as_slice());
        let mut entry = archive.entries()?.next().context("an archive of one file has an entry")??;
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }
}
