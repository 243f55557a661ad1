//! A booted instance, driven as a user would: `eci-builder run`, then `docker`.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::clients;
use crate::command::{self, Outcome};
use crate::firmware::Firmware;
use crate::image;
use crate::platform::Platform;
use crate::suite::{self, Row};

/// How many lines of the console a failure shows.
const SHOWN_LINES: usize = 40;

/// Disks of a machine that boots by firmware.
#[derive(Clone, Copy)]
pub enum Disks<'a> {
    /// Those of `run`.
    AsRun,
    /// Only this image, behind a SCSI controller; what is written to it is thrown away.
    Scsi {
        /// The image.
        file: &'a Path,
        /// QEMU's name of its format.
        format: &'a str,
    },
    /// This image in a CD drive, and the data disk of `run`.
    Cd {
        /// The image.
        file: &'a Path,
    },
}

/// Boots the image under test and runs rows of assertions over the instance.
#[must_use]
pub fn run_suite(name: &'static str, rows: Vec<Row<Vm>>) -> ExitCode {
    match image::out().and_then(|out| Vm::start(name, &out)) {
        Ok(vm) => suite::run(vm, rows, Vm::last_words),
        Err(error) => {
            eprintln!("the image does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// A running instance with a home of its own, so that the user's instances and Docker contexts are left alone.
pub struct Vm {
    home: tempfile::TempDir,
    path: String,
    name: &'static str,
    out: PathBuf,
    memory: &'static str,
    answer: Value,
}

impl Vm {
    /// Boots the image of `out` and returns when the engine answers.
    ///
    /// # Errors
    /// With what `eci-builder run` said and the end of the console when it does not.
    pub fn start(name: &'static str, out: &Path) -> Result<Self> {
        let mut vm = Self::prepare(name, out)?;
        vm.boot(&[])?;
        Ok(vm)
    }

    /// The same, on a data disk of the caller's.
    ///
    /// # Errors
    /// As [`Vm::start`].
    pub fn start_on(name: &'static str, out: &Path, data: &Path) -> Result<Self> {
        let mut vm = Self::prepare(name, out)?;
        vm.boot(&["--data", &data.to_string_lossy()])?;
        Ok(vm)
    }

    /// Boots again after [`Vm::stop`] or [`Vm::kill`].
    ///
    /// # Errors
    /// As [`Vm::start`].
    pub fn boot(&mut self, more: &[&str]) -> Result<()> {
        let outcome = self.run(more)?;
        let console = self.console();
        let text = outcome.ok().with_context(|| format!("console:\n{}", tail(&console)))?;
        self.answer = serde_json::from_str(&text).with_context(|| format!("`run --json` printed {text}"))?;
        Ok(())
    }

    /// `eci-builder run --detach --json`, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(&self, more: &[&str]) -> Result<Outcome> {
        let out = self.out.to_string_lossy().into_owned();
        let mut arguments = vec![
            "run",
            &out,
            "--name",
            self.name,
            "--detach",
            "--json",
            "--accel",
            "tcg",
            "--memory",
            self.memory,
        ];
        let cpus = image::cpus();
        arguments.extend(["--cpus", &cpus]);
        arguments.extend(more);
        self.builder(&arguments)
    }

    /// A home without an instance in it yet, for [`Vm::run`] of a boot that is expected to fail.
    ///
    /// # Errors
    /// When the temporary folder cannot be made or Docker's clients are not in the cache.
    pub fn prepare(name: &'static str, out: &Path) -> Result<Self> {
        // Unix socket paths have 107 bytes; a temporary folder is short.
        let home = tempfile::Builder::new().prefix("eci-").tempdir()?;
        let clients = clients::unpacked()?;
        let config = home.path().join("docker");
        fs::create_dir(&config)?;
        symlink(clients::plugins(&clients), config.join("cli-plugins"))?;
        let path = env::var("PATH").unwrap_or_default();
        let path = format!("{}:{path}", clients.join("usr/bin").display());
        Ok(Self { home, path, name, out: out.to_owned(), memory: "2G", answer: Value::Null })
    }

    /// With so much memory, as `run --memory` has it.
    #[must_use]
    pub fn with_memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    /// Has the machine boot by this firmware, from its disk: QEMU is run through a script that leaves out the kernel and initrd that
    /// `run` gives, changes the disks, and adds `more` arguments.
    ///
    /// # Errors
    /// When QEMU is not found or the script cannot be written.
    pub fn boot_by(&mut self, firmware: &Firmware, disks: Disks<'_>, more: &[&str]) -> Result<()> {
        let changes = match disks {
            Disks::AsRun => String::new(),
            Disks::Scsi { file, format } => format!(
                "-drive:*id=image,*) value='if=none,id=image,format={format},snapshot=on,file={}' ;;\n    \
                 -device:*drive=image*) value='virtio-scsi-pci' more='scsi-hd,drive=image' ;;\n    \
                 -drive:*id=data,* | -device:*drive=data,*) continue ;;\n    ",
                file.display()
            ),
            Disks::Cd { file } => {
                let [behind, drive] = Platform::of_image()?.cd_drive;
                format!(
                    "-drive:*id=image,*) value='if=none,id=image,format=raw,readonly=on,media=cdrom,file={}' ;;\n    \
                     -device:*drive=image*) value='{behind}' more='{drive}' ;;\n    ",
                    file.display()
                )
            }
        };
        // The firmware that `run --tpm` gives makes room.
        let changes = format!("-drive:if=pflash,*) continue ;;\n    {changes}");
        let firmware = firmware.arguments();
        let words: Vec<_> = firmware.iter().map(String::as_str).chain(more.iter().copied()).collect();
        self.run_qemu_with(&words, &changes)
    }

    /// Has QEMU run with arguments that `run` does not give.
    ///
    /// # Errors
    /// When QEMU is not found or the script that it is run through cannot be written.
    pub fn add_arguments(&mut self, more: &[&str]) -> Result<()> {
        self.run_qemu_with(more, "")
    }

    fn run_qemu_with(&mut self, more: &[&str], changes: &str) -> Result<()> {
        let name = Platform::of_image()?.qemu;
        let mut folders = env::split_paths(&self.path);
        let qemu = folders.find_map(|folder| Some(folder.join(name)).filter(|file| file.exists()));
        let words: String = more.iter().map(|word| format!(" '{}'", word.replace('\'', r"'\''"))).collect();
        let script = format!(
            "#!/bin/sh\nleft=$#\nwhile [ $left -gt 0 ]; do\n  word=$1 value= more=; shift; left=$((left - 1))\n  \
             case $word in -kernel | -initrd | -drive | -device) value=$1; shift; left=$((left - 1)) ;; esac\n  \
             case $word:$value in\n    -kernel:* | -initrd:*) continue ;;\n    {changes}\n  esac\n  \
             set -- \"$@\" \"$word\" ${{value:+\"$value\"}} ${{more:+-device \"$more\"}}\ndone\n\
             exec {}{words} \"$@\"\n",
            qemu.with_context(|| format!("{name} is not installed"))?.display()
        );
        let folder = self.home.path().join("bin");
        fs::create_dir(&folder)?;
        fs::write(folder.join(name), script)?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o755))?;
        self.path = format!("{}:{}", folder.display(), self.path);
        Ok(())
    }

    /// What `run --json` printed.
    #[must_use]
    pub fn answer(&self) -> &Value {
        &self.answer
    }

    /// Runs a subcommand of `eci-builder` in this instance's home.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn builder(&self, arguments: &[&str]) -> Result<Outcome> {
        command::run(self.builder_command()?.args(arguments), &[])
    }

    /// `eci-builder` in this instance's home, not started yet, for callers that do not wait for its end.
    ///
    /// # Errors
    /// When no variable says where it is.
    pub fn builder_command(&self) -> Result<Command> {
        let mut command = Command::new(image::builder()?);
        self.environment(&mut command);
        Ok(command)
    }

    /// `eci-builder status --json`.
    ///
    /// # Errors
    /// When the instance does not answer, or not with JSON.
    pub fn status(&self) -> Result<Value> {
        let text = self.builder(&["status", "--name", self.name, "--json"])?.ok()?;
        let answer: Value =
            serde_json::from_str(&text).with_context(|| format!("`status --json` printed {text}"))?;
        Ok(answer["status"].clone())
    }

    /// Runs `docker` against the instance, through its context.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn docker(&self, arguments: &[&str]) -> Result<Outcome> {
        self.docker_with(arguments, &[])
    }

    /// The same with bytes on stdin.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn docker_with(&self, arguments: &[&str], input: &[u8]) -> Result<Outcome> {
        command::run(self.docker_command().args(arguments), input)
    }

    /// A `docker` command that is not started yet, for callers with an environment or a terminal of their own.
    #[must_use]
    pub fn docker_command(&self) -> Command {
        // `Command` looks its program up in the PATH that the child gets.
        self.client("docker")
    }

    /// A client of the engine that is not started yet, with Docker's command line in its PATH.
    #[must_use]
    pub fn client(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        self.environment(&mut command).env("DOCKER_HOST", self.docker_host());
        command
    }

    /// The engine's address on the host.
    #[must_use]
    pub fn docker_host(&self) -> String {
        self.answer["docker_host"].as_str().unwrap_or_default().to_owned()
    }

    /// stdout of a command in a new `--rm` container of the busybox image.
    ///
    /// # Errors
    /// When the container does not succeed.
    pub fn sh(&self, flags: &[&str], script: &str) -> Result<String> {
        let mut arguments = vec!["run", "--rm"];
        arguments.extend(flags);
        arguments.extend(["busybox", "sh", "-c", script]);
        self.docker(&arguments)?.ok()
    }

    /// Imports the busybox image as `busybox`. A process that is its container's first ignores signals that it has no handler for, and would be
    /// waited for, ten seconds each time.
    ///
    /// # Errors
    /// When the engine does not take it.
    pub fn import_busybox(&self) -> Result<()> {
        let import = ["import", "--change", "STOPSIGNAL SIGKILL", "-", "busybox"];
        self.docker_with(&import, &image::busybox_tar()?)?.ok().map(drop)
    }

    /// Asks for an orderly shutdown and waits for it.
    ///
    /// # Errors
    /// When it fails.
    pub fn stop(&self) -> Result<()> {
        self.builder(&["stop", "--name", self.name])?.ok().map(drop)
    }

    /// Ends QEMU as a power cut would, and waits until it and its supervisor are gone.
    ///
    /// # Errors
    /// When its process is not found or does not end.
    pub fn kill(&self) -> Result<()> {
        let (supervisor, qemu) = (self.supervisor(), self.qemu()?);
        command::host("kill", &["-KILL", &qemu])?.ok()?;
        for _ in 0..200 {
            if !is_alive(&qemu) && !is_alive(&supervisor) {
                return Ok(());
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        anyhow::bail!("QEMU {qemu} or its supervisor {supervisor} did not end")
    }

    /// Process id of QEMU, which this instance's supervisor has started.
    ///
    /// # Errors
    /// When it is not found.
    pub fn qemu(&self) -> Result<String> {
        let supervisor = self.supervisor();
        let children = Path::new("/proc").join(&supervisor).join("task").join(&supervisor).join("children");
        let children =
            fs::read_to_string(&children).with_context(|| format!("cannot read {}", children.display()))?;
        children.split_whitespace().next().map(str::to_owned).context("the supervisor has no QEMU")
    }

    fn supervisor(&self) -> String {
        self.answer["pid"].to_string()
    }

    /// The instance's state folder.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state/eci").join(self.name)
    }

    /// Everything the console printed in this boot.
    #[must_use]
    pub fn console(&self) -> String {
        fs::read(self.state().join("console.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The end of the console and of the supervisor's log, for failure messages.
    #[must_use]
    pub fn last_words(&self) -> String {
        format!("console:\n{}", tail(&self.console()))
    }

    /// Fails unless every row of the self-check holds.
    ///
    /// # Errors
    /// With the rows that do not hold.
    pub fn every_check_holds(&self) -> Result<()> {
        let status = self.status()?;
        let checks = status["checks"].as_array().context("status has no checks")?;
        ensure!(checks.len() >= 10, "only {} checks were made", checks.len());
        let broken: Vec<_> = checks.iter().filter(|check| check["holds"] != true).collect();
        ensure!(broken.is_empty(), "broken promises: {broken:#?}");
        Ok(())
    }

    fn environment<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("XDG_STATE_HOME", self.home.path().join("state"))
            .env("PATH", &self.path)
            .env("DOCKER_CONFIG", self.home.path().join("docker"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT")
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        keep_console(self.name, &self.console());
        // Nobody asks for its data any more: an orderly end, of which rows of their own tell, takes ten seconds for containers that wait.
        drop(self.kill());
        // The temporary home goes with the instance; a process that stays would be reported by the next suite.
        drop(self.builder(&["rm", "--force", "--name", self.name]));
    }
}

/// Whether a process runs; one that ended and that nobody has waited for does not.
fn is_alive(pid: &str) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid).join("status"));
    status.is_ok_and(|status| !status.lines().any(|line| line.starts_with("State:\tZ")))
}

/// The last lines of a console.
#[must_use]
pub fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}

/// Keeps a console as a test artifact under `target/consoles/`.
pub fn keep_console(name: &str, console: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/consoles");
    // An artifact that cannot be kept must not hide the failure it would have explained.
    drop(fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join(format!("{name}.log")), console)));
}
