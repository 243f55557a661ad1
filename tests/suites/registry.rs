//! The image in an OCI registry: what comes out is what went in, by whatever way, or nothing does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use eci_tests::command::{self, Outcome};
use eci_tests::disk::copy_sparse;
use eci_tests::image;
use eci_tests::registry::Registry;
use eci_tests::suite::{self, Row, row};
use serde_json::Value;
use tempfile::TempDir;

/// Exit codes of `eci-builder --help`.
const HOST: i32 = 4;
const UNTRUSTED: i32 = 5;

/// A registry that has the image under test, and folders to pull into.
struct Shelf {
    registry: Registry,
    folder: TempDir,
    digest: String,
}

fn main() -> ExitCode {
    match Shelf::new() {
        Ok(shelf) => suite::run(shelf, rows(), |_| String::new()),
        Err(error) => {
            eprintln!("the image is not pushed: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn rows() -> Vec<Row<Shelf>> {
    vec![
        row("what_is_pulled_by_tag_or_digest_is_what_was_pushed", |shelf| {
            let tag = shelf.reference("eci:0.1.0");
            let by_digest = shelf.reference(&format!("eci@{}", shelf.digest));
            let pushed = sums(&image::out()?)?;
            for reference in [tag, by_digest] {
                let out = shelf.path("pulled");
                shelf.pull(&reference, &image::out()?.join("image.pub"), &out)?.ok()?;
                let pulled = sums(&out)?;
                let missing: Vec<_> = pushed.lines().filter(|line| !pulled.contains(line)).collect();
                let forms = |line: &&str| [".qcow2", ".vhdx", ".iso"].iter().any(|form| line.ends_with(form));
                ensure!(missing.iter().all(forms) && missing.len() == 3, "{reference} lacks {missing:?}");
                ensure!(pulled.lines().all(|line| pushed.contains(line)), "{reference} is another one");
                let mut check = Command::new("sha256sum");
                command::run(check.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(&out), &[])?
                    .ok()?;
                let raw = image::raw(&out)?;
                let (length, on_disk) = extent(&raw)?;
                ensure!(on_disk * 4 < length, "the disk has no holes: {on_disk} bytes of {length}");
                fs::remove_dir_all(out)?;
            }
            Ok(())
        }),
        row("the_same_folder_has_the_same_digest", |shelf| {
            let again = shelf.push("again:1", &[&image::out()?])?;
            ensure!(again == shelf.digest, "{again} instead of {}", shelf.digest);
            Ok(())
        }),
        row("an_image_that_another_key_signed_takes_no_good_one_s_place", |shelf| {
            let (out, keys) = (shelf.path("good"), shelf.path("keys"));
            shelf.pull(&shelf.reference("eci:0.1.0"), &image::out()?.join("image.pub"), &out)?.ok()?;
            command::run(Command::new(image::builder()?).arg("keygen").arg(&keys), &[])?.ok()?;
            let before = files(&out)?;
            let said = shelf.pull(&shelf.reference("eci:0.1.0"), &keys.join("image.pub"), &out)?;
            ensure!(said.code == UNTRUSTED, "exit code {}: {}", said.code, said.stderr);
            said.refused(&["`manifest.json` is not signed by key", "nothing was put in place"])?;
            ensure!(files(&out)? == before, "the folder is another one");
            Ok(())
        }),
        row("a_registry_that_changes_a_blob_is_found_out", |shelf| {
            shelf.push("changed:1", &[&image::out()?])?;
            let kernel = image::out()?.join("vmlinuz").to_string_lossy().into_owned();
            let digest = command::host("sha256sum", &[&kernel])?.ok()?;
            let blob = shelf.registry.blob(digest.get(..64).context("a digest")?);
            let mut bytes = fs::read(&blob).with_context(|| format!("no blob {}", blob.display()))?;
            let whole = bytes.clone();
            *bytes.last_mut().context("a kernel has bytes")? ^= 1;
            fs::write(&blob, bytes)?;
            let out = shelf.path("changed");
            let said = shelf.pull(&shelf.reference("changed:1"), &image::out()?.join("image.pub"), &out)?;
            // Blobs are shared by all references.
            fs::write(&blob, whole)?;
            ensure!(said.code == HOST, "exit code {}: {}", said.code, said.stderr);
            ensure!(!out.exists(), "something was put in place");
            said.refused(&["`skopeo` failed", "Digest did not match"]).map(drop)
        }),
        row("a_folder_that_is_not_as_it_was_built_is_not_pushed", |shelf| {
            let copy = shelf.path("copy");
            fs::create_dir(&copy)?;
            for entry in fs::read_dir(image::out()?)?.flatten() {
                if entry.file_type()?.is_file() {
                    copy_sparse(&entry.path(), &copy.join(entry.file_name()))?;
                }
            }
            fs::write(copy.join("initrd.img"), "another")?;
            let said = shelf.pushed("spoilt:1", &[&copy])?;
            ensure!(said.code == UNTRUSTED, "exit code {}: {}", said.code, said.stderr);
            said.refused(&["initrd.img` is not what SHA256SUMS says", "nothing was pushed"])?;
            let said = shelf.pull(&shelf.reference("spoilt:1"), &image::out()?.join("image.pub"), &copy)?;
            ensure!(said.code == HOST, "exit code {}: {}", said.code, said.stderr);
            said.refused(&["`skopeo` failed", "hint: "]).map(drop)
        }),
        row("without_skopeo_there_is_a_line_that_helps", |shelf| {
            let mut push = Command::new(image::builder()?);
            push.args(["push", &shelf.reference("x:1")]).arg(image::out()?).env("PATH", shelf.folder.path());
            let said = command::run(&mut push, &[])?;
            ensure!(said.code == HOST, "exit code {}: {}", said.code, said.stderr);
            said.refused(&["`skopeo` was not found in PATH", "hint: install skopeo"]).map(drop)
        }),
    ]
}

impl Shelf {
    fn new() -> Result<Self> {
        let (registry, folder) = (Registry::start()?, tempfile::tempdir()?);
        let mut shelf = Self { registry, folder, digest: String::new() };
        shelf.digest = shelf.push("eci:0.1.0", &[&image::out()?])?;
        Ok(shelf)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reference(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry.on_loopback())
    }

    fn pushed(&self, rest: &str, folders: &[&Path]) -> Result<Outcome> {
        let mut push = Command::new(image::builder()?);
        push.args(["push", "--insecure", "--json", &self.reference(rest)]).args(folders);
        command::run(&mut push, &[])
    }

    /// The digest of what was pushed.
    fn push(&self, rest: &str, folders: &[&Path]) -> Result<String> {
        let said: Value = serde_json::from_str(&self.pushed(rest, folders)?.ok()?)?;
        Ok(said["digest"].as_str().context("no digest")?.to_owned())
    }

    fn pull(&self, reference: &str, key: &Path, out: &Path) -> Result<Outcome> {
        let architecture = image::manifest(&image::out()?)?.architecture.as_str();
        let mut pull = Command::new(image::builder()?);
        pull.args(["pull", "--insecure", reference, "--arch", architecture, "--key"]).arg(key);
        command::run(pull.arg("--out").arg(out), &[])
    }
}

fn sums(out: &Path) -> Result<String> {
    Ok(fs::read_to_string(out.join("SHA256SUMS"))?)
}

/// Sizes and times of all files of a folder: of any that is put in place, one of them is another.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, (u64, std::time::SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        files.insert(entry.path(), (metadata.len(), metadata.modified()?));
    }
    Ok(files)
}

/// Length, and what is taken on disk, in bytes.
fn extent(file: &Path) -> Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(file)?;
    Ok((metadata.len(), metadata.blocks() * 512))
}
