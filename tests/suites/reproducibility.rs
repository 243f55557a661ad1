//! Two builds from one lock, in different folders, give the same bytes, and so does one that is signed by others afterwards. What is
//! compiled sees nothing of the host, so that another host would give the same.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use eci_contract::manifest::Architecture;
use eci_tests::differences::same_files;
use eci_tests::provenance::Provenance;
use eci_tests::suite::row;
use eci_tests::{command, image, suite};
use tempfile::TempDir;

/// Exit codes of `eci-builder --help`.
const CONFIG: i32 = 3;
const UNTRUSTED: i32 = 5;
/// The guest's programs.
const PROGRAMS: [&str; 7] =
    ["eci-init", "eci-runc", "eci-nodes", "eci-procfs", "eci-egress", "eci-gate", "eci-publish"];
/// Library of the package libfaketime, which shows programs another time.
const FAKETIME: &str = "faketime/libfaketime.so.1";
/// Library of the package softhsm2.
const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("a_compiler_sees_nothing_of_this_host", sandbox),
        row("programs_compiled_elsewhere_by_another_clock_are_the_same", compiled_elsewhere),
        row("a_second_build_elsewhere_has_the_same_sums", second_build),
        row("what_would_differ_is_shown_where_it_does", shown),
        row("a_build_without_private_keys_that_is_signed_elsewhere_has_the_same_sums", signed_elsewhere),
    ])
}

/// What is mounted is there, and may be written where that was said; the toolchain runs; nothing else is there.
fn sandbox(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    for name in ["given", "read-only"] {
        fs::create_dir(folder.path().join(name))?;
        fs::write(folder.path().join(name).join("file"), name)?;
    }
    let inside = |script: &str| -> Result<command::Outcome> {
        // With the host's root as an open descriptor, as a careless caller leaves one.
        let mut sandbox = Command::new("sh");
        sandbox.args(["-c", "exec 9</ && exec \"$@\"", "sh"]).arg(image::builder()?);
        let mount = |name: &str| format!("{}=/{name}", folder.path().join(name).display());
        sandbox
            .current_dir(image::repository()?)
            .env("SECRET_OF_THE_HOST", "1")
            .args(["sandbox", "--offline", "--bind", &mount("given"), "--ro-bind", &mount("read-only")])
            .args(["--setenv", "GIVEN=yes", "--", "sh", "-c", script]);
        command::run(&mut sandbox, &[])
    };
    let seen =
        inside("cat /given/file /read-only/file; echo $GIVEN > /given/made; rustc --version; gcc --version")?
            .ok()?;
    ensure!(seen.starts_with("givenread-onlyrustc 1."), "{seen}");
    ensure!(fs::read_to_string(folder.path().join("given/made"))? == "yes\n", "nothing was written");
    // mount(2) with MS_REMOUNT | MS_BIND, for who has the capability.
    let number = if cfg!(target_arch = "aarch64") { 40 } else { 165 };
    let remount = format!(
        "exec perl -e 'my $at = \"/read-only\"; syscall({number}, 0, $at, 0, 0x1020, 0) == 0 or die \"refused: $!\"'"
    );
    for (script, words) in [
        ("echo x > /read-only/file", "Read-only file system"),
        ("echo x > /usr/bin/gcc", "Read-only file system"),
        ("exec cat /etc/passwd", "No such file"),
        ("exec ls /home /root /var /sys /run", "cannot access '/home'"),
        ("exec cat /proc/1/root/etc/passwd", "No such file"),
        ("exec cat /dev/kmsg", "No such file"),
        (
            "cat /proc/*/environ | tr '\\0' '\\n' | grep SECRET || { echo nothing of the host >&2; exit 1; }",
            "nothing of the host",
        ),
        ("exec sed -n 1p /proc/self/fd/9/etc/passwd", "No such file"),
        (&remount, "refused: Operation not permitted"),
        ("echo x > /proc/sys/kernel/core_pattern", "Read-only file system"),
        (
            "grep CapEff /proc/self/status >&2; grep -q 'CapEff:.*[1-9a-f]' /proc/self/status",
            "CapEff:\t0000000000000000",
        ),
    ] {
        inside(script)?.refused(&[words])?;
    }
    let world = inside(
        "env | cut -d= -f1 | sort | tr '\\n' ' '; ls /proc | grep -c '^[0-9]'; grep -c : /proc/net/dev; cat /proc/sys/kernel/hostname; ls /",
    )?;
    let world = world.ok()?;
    // The shell, `ls` and `grep` beside bubblewrap; loopback alone.
    let expected = "GIVEN HOME LC_ALL PATH PWD TZ 4\n1\neci\nbin\ndev\ngiven\nlib\nlib64\nproc\nread-only\nsbin\ntmp\nusr";
    ensure!(world == expected, "there is more, or less:\n{world}\ninstead of\n{expected}");
    Ok(())
}

/// From a copy of the sources in another folder, made under another umask, with a clock that is years away: the same bytes.
fn compiled_elsewhere(_: &()) -> Result<()> {
    let (folder, root) = (tempfile::tempdir()?, image::repository()?);
    let [sources, target] = ["another/folder", "target"].map(|name| folder.path().join(name));
    fs::create_dir_all(&sources)?;
    fs::create_dir(&target)?;
    let script = format!(
        "set -eu; umask 077; cd '{}'; tar -c --exclude=./out --exclude=./target --exclude=./.git . | tar -x -C '{}' --no-same-permissions",
        root.display(),
        sources.display()
    );
    command::host("sh", &["-c", &script])?.ok()?;
    let cache = image::cache()?;
    let lock = command::host("sha256sum", &[&root.join("Cargo.lock").to_string_lossy()])?.ok()?;
    let crates = cache.join("crates").join(&lock[..16]);
    let architecture = image::manifest(&image::out()?)?.architecture.as_str();
    let triple = format!("{architecture}-unknown-linux-gnu");
    let mut build = Command::new(image::builder()?);
    build
        .current_dir(&sources)
        .env("TZ", "Pacific/Kiritimati")
        .args(["sandbox", "--offline", "--arch", architecture, "--chdir", "/eci"])
        .args(["--ro-bind", &format!("{}=/eci", sources.display())])
        .args(["--ro-bind", &format!("{}=/vendor", crates.display())])
        .args([
            "--ro-bind",
            &format!("/usr/lib/{}-linux-gnu/{FAKETIME}=/faketime.so", std::env::consts::ARCH),
        ])
        .args(["--bind", &format!("{}=/target", target.display())])
        .args(["--setenv", "FAKETIME=+3000d", "--setenv", "LD_PRELOAD=/faketime.so"])
        .args(["--", "sh", "-c", "umask 077 && date +%Y && exec \"$@\"", "sh"])
        .args(["cargo", "build", "--config", "toolchain/cargo.toml", "--quiet", "--locked"])
        .args(["--profile", "guest", "--target", &triple])
        // Together, as always: features that one of them asks for are there for all.
        .args(PROGRAMS.iter().flat_map(|program| ["-p", program]));
    let year = command::run(&mut build, &[])?.ok()?;
    let now = command::host("date", &["+%Y"])?.ok()?;
    ensure!(
        year.trim().parse::<u32>()? >= now.trim().parse::<u32>()? + 8,
        "the clock is this host's: {year}"
    );
    same_files(&image::programs()?, &target.join(&triple).join("guest"), PROGRAMS)
}

fn second_build(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("elsewhere/out");
    fs::create_dir_all(folder.path().join("elsewhere"))?;
    let root = image::repository()?;
    // The forms that `scripts/test` has it built in.
    let (architecture, formats) = match image::manifest(&image::out()?)?.architecture {
        Architecture::X86_64 => ("x86_64", "raw,qcow2,vhdx,wsl,iso"),
        Architecture::Aarch64 => ("aarch64", "raw,qcow2,vhdx,wsl,iso,apple"),
    };
    let mut build = Command::new(image::builder()?);
    build
        .current_dir(&root)
        .args(["build", "--offline", "--arch", architecture, "--format", formats, "--out"])
        .arg(&out)
        .arg("--programs")
        .arg(image::programs()?);
    command::run(&mut build, &[])?.ok()?;
    let (first, second) = (sums(&image::out()?)?, sums(&out)?);
    same_files(&image::out()?, &out, second.lines().filter_map(|line| line.split_whitespace().nth(1)))?;
    ensure!(first == second, "the sums differ:\n{first}\n{second}");
    ensure!(second.lines().count() >= 6, "few artifacts: {second}");
    let mut check = Command::new("sha256sum");
    command::run(check.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out), &[])?.ok().map(drop)
}

/// A file that is the same, and one with an option changed inside of what a compressed archive holds.
fn shown(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = fs::read_to_string(image::out()?.join("kernel.config"))?;
    for (name, changed) in [("one", config.clone()), ("other", config.replacen("=y", "=n", 1))] {
        let inside = folder.path().join(name);
        fs::create_dir(&inside)?;
        fs::write(inside.join("same"), &config)?;
        fs::write(inside.join("config"), changed)?;
        let mut pack = Command::new("tar");
        pack.current_dir(&inside).args(["-czf", "packed", "config"]);
        command::run(&mut pack, &[])?.ok()?;
    }
    let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
    same_files(&one, &other, ["same"])?;
    let said = same_files(&one, &other, ["same", "packed"]).err().context("it differs")?.to_string();
    let option = config.lines().find_map(|line| line.strip_suffix("=y")).context("a kernel has options")?;
    for wanted in ["not the same bytes: packed\n", &format!("-{option}=y"), &format!("+{option}=n")] {
        ensure!(said.contains(wanted), "no `{wanted}` in\n{said}");
    }
    Ok(())
}

fn sums(out: &Path) -> Result<String> {
    fs::read_to_string(out.join("SHA256SUMS")).with_context(|| format!("no sums in {}", out.display()))
}

/// The build knows public halves alone; OpenSSL, and then a token, makes the signatures with the keys of the image under test.
fn signed_elsewhere(_: &()) -> Result<()> {
    let project = Project::with_public_halves()?;
    let programs = image::programs()?.to_string_lossy().into_owned();
    project
        .eci(&["build", "--offline", "--unsigned", "--format", "raw,wsl", "--programs", &programs])?
        .ok()?;

    let key = project.halves.path().join("image.pub").to_string_lossy().into_owned();
    for verb in [&["verify", "out", "--key", &key][..], &["run", "out", "--name", "unsigned"]] {
        let said = project.eci(verb)?;
        ensure!(said.code == UNTRUSTED, "{verb:?}: exit code {}: {}", said.code, said.stderr);
        said.refused(&["`out` is not signed yet", "hint: `eci-builder sign DIR`"])?;
    }

    let sign = |manifest: &str, provenance: &str| {
        let signatures = ["--manifest-signature", manifest, "--provenance-signature", provenance];
        let both = ["--secure-boot-signature", "uki.sig", "--root-hash-signature", "root-hash.sig"];
        project.eci(&[&["sign", "out"], &signatures[..], &both].concat())
    };
    let before = sums(&project.path("out"))?;
    for (from, to) in [
        ("eci.toml", "wrong.sig"),
        ("out/manifest.json", "manifest.sig"),
        ("out/provenance.intoto.json.tbs", "provenance.sig"),
    ] {
        project.openssl(&["pkeyutl", "-sign", "-rawin"], "image.key", from, to)?;
    }
    for (from, to) in [("out/eci.efi.tbs", "uki.sig"), ("out/root-hash.tbs", "root-hash.sig")] {
        let sign = ["pkeyutl", "-sign", "-rawin", "-digest", "sha256"];
        project.openssl(&sign, "secure-boot/db.key", from, to)?;
    }
    for (manifest, provenance, reason) in [
        ("wrong.sig", "provenance.sig", "`wrong.sig` is not a signature of `out/manifest.json` by key "),
        (
            "manifest.sig",
            "manifest.sig",
            "`manifest.sig` is not a signature of `out/provenance.intoto.json.tbs` by key ",
        ),
    ] {
        let said = sign(manifest, provenance)?;
        ensure!(said.code == UNTRUSTED, "exit code {}: {}", said.code, said.stderr);
        said.refused(&[reason, "hint: "])?;
        ensure!(sums(&project.path("out"))? == before, "a wrong signature changed the folder");
    }

    on_a_token(&project)?;
    sign("manifest.sig", "provenance.sig")?.ok()?;
    let (built, signed) = (sums(&image::out()?)?, sums(&project.path("out"))?);
    ensure!(signed == sums(&project.path("by-token"))?, "a token's signatures are other ones");
    let differ: Vec<_> = signed.lines().filter(|line| !built.lines().any(|other| other == *line)).collect();
    ensure!(differ.is_empty(), "not as a build with the keys has them: {differ:?}\n{built}");
    ensure!(
        signed.lines().count() + 3 == built.lines().count(),
        "qcow2, VHDX and CD are missing, no more:\n{signed}"
    );
    let left = fs::read_dir(project.path("out"))?.flatten().map(|entry| entry.file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().ends_with(".tbs")).collect();
    ensure!(left.is_empty(), "still to be signed: {left:?}");
    project.eci(&["verify", "out", "--key", &key, "--certificate", "out/secure-boot.crt"])?.ok()?;
    let said = sign("manifest.sig", "provenance.sig")?;
    ensure!(said.code == CONFIG, "exit code {}: {}", said.code, said.stderr);
    said.refused(&["`out` is signed already", "build --unsigned"]).map(drop)
}

/// A clone at the commit that the image under test names in its provenance; where it names none, a copy, which will name none either.
fn copy_of_project() -> Result<TempDir> {
    let Some(commit) = Provenance::read(&image::out()?)?.commit()? else { return image::copy_of_project() };
    let folder = tempfile::tempdir()?;
    let (from, to) = (image::repository()?.canonicalize()?, folder.path().to_string_lossy());
    command::host("git", &["clone", "--quiet", "--shared", "--no-checkout", &from.to_string_lossy(), &to])?
        .ok()?;
    command::host("git", &["-C", &to, "checkout", "--quiet", "--detach", &commit])?.ok()?;
    Ok(folder)
}

/// Signs a copy of the folder, `by-token`, with the same keys on a token of SoftHSM, beside a key that signed nothing here.
fn on_a_token(project: &Project) -> Result<()> {
    let mut copy = Command::new("cp");
    command::run(
        copy.current_dir(project.folder.path()).args(["-r", "--sparse=always", "out", "by-token"]),
        &[],
    )?
    .ok()?;
    fs::create_dir(project.path("tokens"))?;
    let tokens = project.path("tokens");
    fs::write(project.path("softhsm.conf"), format!("directories.tokendir = {}\n", tokens.display()))?;
    let softhsm = |arguments: &[&str]| {
        let mut softhsm = Command::new("softhsm2-util");
        softhsm.current_dir(project.folder.path()).env("SOFTHSM2_CONF", project.path("softhsm.conf"));
        command::run(softhsm.args(arguments), &[])?.ok()
    };
    softhsm(&["--init-token", "--free", "--label", "eci", "--pin", "1234", "--so-pin", "5678"])?;
    project.eci(&["keygen", "others"])?.ok()?;
    let keys = image::development_keys()?.to_string_lossy().into_owned();
    for (file, label, id) in [
        (format!("{keys}/image.key"), "image", "01"),
        (format!("{keys}/secure-boot/db.key"), "db", "02"),
        ("others/image.key".to_owned(), "other", "03"),
    ] {
        softhsm(&["--import", &file, "--token", "eci", "--label", label, "--id", id, "--pin", "1234"])?;
    }
    fs::write(project.path("pin"), "1234\n")?;
    fs::write(project.path("wrong-pin"), "1235\n")?;
    let uri =
        |key: &str, pin: &str| format!("pkcs11:token=eci;{key}?module-path={SOFTHSM}&pin-source=file:{pin}");
    let sign = |manifest: &str, secure_boot: &str| {
        project.eci(&["sign", "by-token", "--key", manifest, "--secure-boot-key", secure_boot])
    };
    let (image, db) = (uri("object=image", "pin"), uri("id=%02;type=private", "pin"));
    let before = sums(&project.path("by-token"))?;
    for (manifest, secure_boot, code, words) in [
        (uri("object=image", "wrong-pin"), &db, CONFIG, "cannot log in to `pkcs11:"),
        (uri("object=none", "pin"), &db, CONFIG, "0 Ed25519 private keys match `pkcs11:"),
        (uri("", "pin"), &db, CONFIG, "2 Ed25519 private keys match `pkcs11:"),
        (
            uri("object=other", "pin"),
            &db,
            UNTRUSTED,
            "is not a signature of `by-token/manifest.json` by key ",
        ),
        (image.clone(), &image, CONFIG, "0 RSA private keys match `pkcs11:"),
    ] {
        let said = sign(&manifest, secure_boot)?;
        ensure!(said.code == code, "{manifest}: exit code {}: {}", said.code, said.stderr);
        said.refused(&[words, "hint: "])?;
        ensure!(sums(&project.path("by-token"))? == before, "{manifest} changed the folder");
    }
    sign(&image, &db)?.ok().map(drop)
}

/// The project in a folder of its own, as far as a build reads it.
struct Project {
    folder: TempDir,
    /// Public halves of the development keys, which `eci.toml` names: not in the project, so that it is still as it was committed.
    halves: TempDir,
}

impl Project {
    fn with_public_halves() -> Result<Self> {
        let project = Self { folder: copy_of_project()?, halves: tempfile::tempdir()? };
        let keys = image::development_keys()?;
        let half = |from: &str, name: &str| -> Result<String> {
            let path = project.halves.path().join(name);
            fs::copy(keys.join(from), &path)?;
            Ok(path.to_string_lossy().into_owned())
        };
        let (key, certificate) = (half("image.pub", "image.pub")?, half("secure-boot/db.crt", "db.crt")?);
        let toml = fs::read_to_string(project.path("eci.toml"))?
            .replacen("[signing]", &format!("[signing]\nkey = \"{key}\""), 1)
            .replacen("[secure_boot]", &format!("[secure_boot]\ncertificate = \"{certificate}\""), 1);
        fs::write(project.path("eci.toml"), toml)?;
        Ok(project)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn eci(&self, arguments: &[&str]) -> Result<command::Outcome> {
        let mut eci = Command::new(image::builder()?);
        eci.current_dir(self.folder.path()).args(arguments);
        // Keys of this host would be in the folder that is empty here.
        eci.env("SOFTHSM2_CONF", self.path("softhsm.conf"));
        eci.env("XDG_DATA_HOME", self.path("data")).env("XDG_STATE_HOME", self.path("state"));
        command::run(&mut eci, &[])
    }

    fn openssl(&self, arguments: &[&str], key: &str, from: &str, to: &str) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(self.folder.path()).args(arguments).args(["-in", from, "-out", to]);
        openssl.arg("-inkey").arg(image::development_keys()?.join(key));
        command::run(&mut openssl, &[])?.ok().map(drop)
    }
}
