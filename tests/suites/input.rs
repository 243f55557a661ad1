//! Bad input: a message that names the thing, the reason and the fix, the documented exit code, and nothing lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use eci_tests::command::{self, Outcome};
use eci_tests::suite::row;
use eci_tests::{image, suite};

/// Exit codes of `eci-builder --help`.
const CONFIG: i32 = 3;
const HOST: i32 = 4;
const UNTRUSTED: i32 = 5;
const INSTANCE: i32 = 7;

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("an_unknown_key_in_eci_toml_is_named", |()| {
            let project = Project::copy()?;
            project.append("eci.toml", "\n[imagge]\nname = \"x\"\n")?;
            project.build(&[])?.is(CONFIG, &["imagge", "eci.toml"])
        }),
        row("a_version_from_the_future_is_refused", |()| {
            let project = Project::copy()?;
            project.replace("eci.toml", "version = 1", "version = 99")?;
            project.build(&[])?.is(CONFIG, &["99", "eci.toml"])
        }),
        row("a_missing_eci_toml_is_named", |()| {
            let project = Project::copy()?;
            fs::remove_file(project.path("eci.toml"))?;
            project.build(&[])?.is(CONFIG, &["eci.toml"])
        }),
        row("a_package_that_the_lock_lacks_is_drift", |()| {
            let project = Project::copy()?;
            project.append(
                "rootfs/files.toml",
                "\n[[package]]\nname = \"hello\"\n[[package.files]]\nwhy = \"Drift.\"\npaths = [\"/usr/bin/hello\"]\n",
            )?;
            project.build(&[])?.is(CONFIG, &["hello", "eci-builder lock"])
        }),
        row("a_hash_that_does_not_match_is_named_and_nothing_is_built", |()| {
            let project = Project::copy()?;
            let lock = project.lock_file()?;
            let text = fs::read_to_string(&lock)?;
            let at = text.find("sha256 = \"").context("the lock has digests")? + "sha256 = \"".len();
            let flipped = if &text[at..=at] == "0" { "1" } else { "0" };
            fs::write(&lock, format!("{}{flipped}{}", &text[..at], &text[at + 1..]))?;
            let outcome = project.build(&[])?;
            ensure!(
                outcome.0.code == UNTRUSTED || outcome.0.code == HOST,
                "{}: {}",
                outcome.0.code,
                outcome.0.stderr
            );
            outcome.0.clone().refused(&["sha256"]).or_else(|_| outcome.0.refused(&["SHA256"]))?;
            project.nothing_was_built()
        }),
        row("offline_with_an_empty_cache_lists_what_is_missing", |()| {
            let project = Project::copy()?;
            let mut build = project.command(&["build", "--offline"]);
            build.env("XDG_CACHE_HOME", project.path("cache"));
            Said(command::run(&mut build, &[])?).is(HOST, &["--offline"])?;
            project.nothing_was_built()
        }),
        row("an_unreadable_key_is_named", |()| {
            let project = Project::copy()?;
            project.replace("eci.toml", "[signing]", "[signing]\nkey = \"no/such.key\"")?;
            project.build(&[])?.is(CONFIG, &["no/such.key"])
        }),
        row("a_key_of_another_kind_is_named", |()| {
            let project = Project::copy()?;
            project.replace("eci.toml", "[signing]", "[signing]\nkey = \"rsa.key\"")?;
            let key = project.path("rsa.key");
            command::host(
                "openssl",
                &["genpkey", "-quiet", "-algorithm", "RSA", "-out", &key.to_string_lossy()],
            )?;
            project.build(&[])?.is(CONFIG, &["rsa.key", "Ed25519"])
        }),
        row("keygen_never_overwrites_a_key", |()| {
            let project = Project::copy()?;
            let keys = project.path("keys").to_string_lossy().into_owned();
            project.run(&["keygen", &keys])?.0.ok()?;
            let before = fs::read(project.path("keys/image.key"))?;
            project.run(&["keygen", &keys])?.0.refused(&["image.key"])?;
            ensure!(fs::read(project.path("keys/image.key"))? == before, "the key was overwritten");
            Ok(())
        }),
        row("a_full_disk_while_building_leaves_the_last_good_output", full_disk),
        row("an_interrupted_build_leaves_the_last_good_output", interrupted),
        row("run_without_artifacts_says_what_to_do", |()| {
            let project = Project::copy()?;
            project.run(&["run", "nowhere", "--name", "input"])?.0.refused(&["nowhere", "build"]).map(drop)
        }),
        row("a_name_that_is_no_name_is_refused", |()| {
            let project = Project::copy()?;
            project.run(&["status", "--name", "../x"])?.0.refused(&["../x"]).map(drop)
        }),
        row("an_instance_that_does_not_exist_is_named", |()| {
            let project = Project::copy()?;
            for verb in ["status", "logs", "stop", "rm"] {
                project.run(&[verb, "--name", "nobody"])?.is(INSTANCE, &["nobody"])?;
            }
            Ok(())
        }),
        row("without_qemu_run_says_which_package", |()| {
            let project = Project::copy()?;
            let out = image::out()?.to_string_lossy().into_owned();
            let mut run = project.command(&["run", &out, "--name", "input", "--accel", "tcg", "--detach"]);
            run.env("PATH", project.path("empty"));
            Said(command::run(&mut run, &[])?).is(HOST, &["qemu-system-x86"])
        }),
        row("memory_that_is_no_size_is_a_usage_error", |()| {
            let project = Project::copy()?;
            project.run(&["run", "--memory", "lots"])?.is(2, &["lots"])
        }),
    ])
}

/// A command's outcome, to be compared with what is documented.
struct Said(Outcome);

impl Said {
    fn is(self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(self.0.code == code, "exit code {}, not {code}:\n{}", self.0.code, self.0.stderr);
        ensure!(!self.0.stderr.contains("panicked"), "{}", self.0.stderr);
        self.0.refused(words).map(drop)
    }
}

/// A copy of the project's data that can be spoilt.
struct Project(tempfile::TempDir);

impl Project {
    fn copy() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for name in ["eci.toml", "rootfs", "kernel-config"] {
            let from = root.join(name);
            command::host("cp", &["-r", &from.to_string_lossy(), &folder.path().to_string_lossy()])?.ok()?;
        }
        fs::create_dir(folder.path().join("empty"))?;
        Ok(Self(folder))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn append(&self, name: &str, text: &str) -> Result<()> {
        let path = self.path(name);
        fs::write(&path, fs::read_to_string(&path)? + text)?;
        Ok(())
    }

    fn replace(&self, name: &str, from: &str, to: &str) -> Result<()> {
        let path = self.path(name);
        let text = fs::read_to_string(&path)?;
        ensure!(text.contains(from), "{name} has no `{from}`");
        fs::write(&path, text.replacen(from, to, 1))?;
        Ok(())
    }

    fn lock_file(&self) -> Result<PathBuf> {
        fs::read_dir(self.path("rootfs"))?
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "lock"))
            .context("rootfs/ has no lock file")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(image::builder().unwrap_or_default());
        command.current_dir(self.0.path()).args(arguments).env("XDG_STATE_HOME", self.path("state"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Said> {
        Ok(Said(command::run(&mut self.command(arguments), &[])?))
    }

    fn build(&self, more: &[&str]) -> Result<Said> {
        let programs = image::programs()?.to_string_lossy().into_owned();
        let mut arguments = vec!["build", "--programs", &programs];
        arguments.extend(more);
        self.run(&arguments)
    }

    fn nothing_was_built(&self) -> Result<()> {
        let out = self.path("out");
        let found: Vec<_> =
            fs::read_dir(&out).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        ensure!(found.is_empty(), "there is a partial output: {found:?}");
        let staged: Vec<_> = fs::read_dir(self.0.path())?
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().contains("staging"))
            .collect();
        ensure!(staged.is_empty(), "a staging folder stayed: {staged:?}");
        Ok(())
    }
}

/// Builds into a tmpfs that is too small. Needs the right to mount one, which CI has.
fn full_disk(_: &()) -> Result<()> {
    let project = Project::copy()?;
    let small = project.path("small");
    fs::create_dir(&small)?;
    let shown = small.to_string_lossy().into_owned();
    command::host("mount", &["-t", "tmpfs", "-o", "size=20m", "none", &shown])?.ok()?;
    let result = (|| {
        let out = small.join("out");
        fs::create_dir(&out)?;
        fs::write(out.join("manifest.json"), "good")?;
        let outcome = project.build(&["--out", &out.to_string_lossy()])?;
        outcome.0.refused(&["No space left on device"])?;
        ensure!(fs::read_to_string(out.join("manifest.json"))? == "good", "the good output was lost");
        ensure!(fs::read_dir(&out)?.count() == 1, "a partial output stayed");
        ensure!(fs::read_dir(&small)?.count() == 1, "a staging folder stayed");
        Ok(())
    })();
    command::host("umount", &[&shown])?.ok()?;
    result
}

/// Sends SIGINT to a build at several moments.
fn interrupted(_: &()) -> Result<()> {
    let project = Project::copy()?;
    let out = project.path("out");
    fs::create_dir(&out)?;
    fs::write(out.join("manifest.json"), "good")?;
    let programs = image::programs()?.to_string_lossy().into_owned();
    for moment in [50, 300, 1000, 2500] {
        let mut build = project.command(&["build", "--offline", "--programs", &programs]).spawn()?;
        std::thread::sleep(std::time::Duration::from_millis(moment));
        command::host("kill", &["-INT", &build.id().to_string()])?;
        if build.wait()?.success() {
            // It was done before the signal: then the new output is whole, which the sums show.
            let mut sums = Command::new("sha256sum");
            return command::run(sums.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out), &[])?
                .ok()
                .map(drop);
        }
        ensure!(
            fs::read_to_string(out.join("manifest.json"))? == "good",
            "the good output was lost at {moment} ms"
        );
        ensure!(fs::read_dir(&out)?.count() == 1, "a partial output stands in out/ at {moment} ms");
    }
    Ok(())
}
