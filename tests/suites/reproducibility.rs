//! Two builds from one lock, in different folders, give the same bytes, and so does one that is signed by others afterwards.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use eci_tests::suite::row;
use eci_tests::{command, image, suite};

/// Exit codes of `eci-builder --help`.
const CONFIG: i32 = 3;
const UNTRUSTED: i32 = 5;

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("a_second_build_elsewhere_has_the_same_sums", second_build),
        row("a_build_without_private_keys_that_is_signed_elsewhere_has_the_same_sums", signed_elsewhere),
    ])
}

fn second_build(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("elsewhere/out");
    fs::create_dir_all(folder.path().join("elsewhere"))?;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut build = Command::new(image::builder()?);
    build
        .current_dir(&root)
        .args(["build", "--offline", "--format", "raw,qcow2,vhdx", "--out"])
        .arg(&out)
        .arg("--programs")
        .arg(image::programs()?);
    command::run(&mut build, &[])?.ok()?;
    let (first, second) = (sums(&image::out()?)?, sums(&out)?);
    ensure!(first == second, "the sums differ:\n{first}\n{second}");
    ensure!(second.lines().count() >= 6, "few artifacts: {second}");
    let mut check = Command::new("sha256sum");
    command::run(check.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out), &[])?.ok().map(drop)
}

fn sums(out: &Path) -> Result<String> {
    fs::read_to_string(out.join("SHA256SUMS")).with_context(|| format!("no sums in {}", out.display()))
}

/// The build knows public halves alone; OpenSSL makes the signatures with the keys of the image under test.
fn signed_elsewhere(_: &()) -> Result<()> {
    let project = Project::with_public_halves()?;
    let programs = image::programs()?.to_string_lossy().into_owned();
    project.eci(&["build", "--offline", "--unsigned", "--format", "raw", "--programs", &programs])?.ok()?;

    for verb in [&["verify", "out", "--key", "image.pub"][..], &["run", "out", "--name", "unsigned"]] {
        let said = project.eci(verb)?;
        ensure!(said.code == UNTRUSTED, "{verb:?}: exit code {}: {}", said.code, said.stderr);
        said.refused(&["`out` is not signed yet", "hint: `eci-builder sign DIR`"])?;
    }

    let sign = |manifest: &str| {
        let signatures = ["--manifest-signature", manifest, "--secure-boot-signature", "uki.sig"];
        project.eci(&[&["sign", "out"], &signatures[..]].concat())
    };
    let before = sums(&project.path("out"))?;
    project.openssl(&["pkeyutl", "-sign", "-rawin"], "image.key", "eci.toml", "wrong.sig")?;
    project.openssl(&["pkeyutl", "-sign", "-rawin"], "image.key", "out/manifest.json", "manifest.sig")?;
    project.openssl(
        &["pkeyutl", "-sign", "-rawin", "-digest", "sha256"],
        "secure-boot/db.key",
        "out/eci.efi.tbs",
        "uki.sig",
    )?;
    let said = sign("wrong.sig")?;
    ensure!(said.code == UNTRUSTED, "exit code {}: {}", said.code, said.stderr);
    said.refused(&["`wrong.sig` is not a signature of `out/manifest.json` by key ", "hint: "])?;
    ensure!(sums(&project.path("out"))? == before, "a wrong signature changed the folder");

    sign("manifest.sig")?.ok()?;
    let (built, signed) = (sums(&image::out()?)?, sums(&project.path("out"))?);
    let differ: Vec<_> = signed.lines().filter(|line| !built.lines().any(|other| other == *line)).collect();
    ensure!(differ.is_empty(), "not as a build with the keys has them: {differ:?}\n{built}");
    ensure!(
        signed.lines().count() + 2 == built.lines().count(),
        "qcow2 and VHDX are missing, no more:\n{signed}"
    );
    project.eci(&["verify", "out", "--key", "image.pub", "--certificate", "out/secure-boot.crt"])?.ok()?;
    let said = sign("manifest.sig")?;
    ensure!(said.code == CONFIG, "exit code {}: {}", said.code, said.stderr);
    said.refused(&["`out` is signed already", "build --unsigned"]).map(drop)
}

/// A copy of the project's data in a folder of its own.
struct Project(tempfile::TempDir);

impl Project {
    /// With the public halves of the development keys, named in `eci.toml`.
    fn with_public_halves() -> Result<Self> {
        let project = Self(tempfile::tempdir()?);
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for name in ["eci.toml", "rootfs", "kernel-config"] {
            let mut copy = Command::new("cp");
            command::run(copy.arg("-r").arg(root.join(name)).arg(project.0.path()), &[])?.ok()?;
        }
        let keys = image::development_keys()?;
        fs::copy(keys.join("image.pub"), project.path("image.pub"))?;
        fs::copy(keys.join("secure-boot/db.crt"), project.path("db.crt"))?;
        let toml = fs::read_to_string(project.path("eci.toml"))?
            .replacen("[signing]", "[signing]\nkey = \"image.pub\"", 1)
            .replacen("[secure_boot]", "[secure_boot]\ncertificate = \"db.crt\"", 1);
        fs::write(project.path("eci.toml"), toml)?;
        Ok(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn eci(&self, arguments: &[&str]) -> Result<command::Outcome> {
        let mut eci = Command::new(image::builder()?);
        eci.current_dir(self.0.path()).args(arguments);
        // Keys of this host would be in the folder that is empty here.
        eci.env("XDG_DATA_HOME", self.path("data")).env("XDG_STATE_HOME", self.path("state"));
        command::run(&mut eci, &[])
    }

    fn openssl(&self, arguments: &[&str], key: &str, from: &str, to: &str) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.0.path()).args(arguments).args(["-in", from, "-out", to]);
        openssl.arg("-inkey").arg(image::development_keys()?.join(key));
        command::run(&mut openssl, &[])?.ok().map(drop)
    }
}
