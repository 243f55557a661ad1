//! `eci-builder verify` and the field's own tools agree, on good images and on damaged ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use eci_tests::command::{self, Outcome};
use eci_tests::disk::{Partition, copy_sparse, flip};
use eci_tests::provenance::{self, Provenance};
use eci_tests::suite::row;
use eci_tests::{image, suite, validators};
use serde_json::{Value, json};

/// Exit code for "a digest or signature does not match".
const UNTRUSTED: i32 = 5;

fn main() -> ExitCode {
    suite::run_alone(vec![
        row("a_good_folder_and_a_good_disk_of_each_format_are_accepted", good),
        row("a_distro_that_somebody_packed_again_is_refused", repacked_distro),
        row("veritysetup_accepts_what_we_accept", |()| {
            Parts::cut()?.veritysetup().map(|outcome| outcome.ok())?.map(drop)
        }),
        row("a_changed_data_block_is_refused_by_both", |()| both_refuse(Part::Data, 4096 * 77 + 3)),
        row("a_changed_hash_block_is_refused_by_both", |()| both_refuse(Part::Tree, 4096 * 3 + 9)),
        row("another_key_is_refused", another_key),
        row("a_changed_manifest_is_refused", |()| changed_file("manifest.json")),
        row("a_changed_signature_is_refused", |()| changed_file("manifest.json.sig")),
        row("a_changed_kernel_is_refused", |()| changed_file("vmlinuz")),
        row("a_changed_initrd_is_refused", |()| changed_file("initrd.img")),
        row("a_changed_unified_kernel_image_is_refused", |()| changed_file("eci.efi")),
        row("the_field_s_tools_read_the_efi_system_partition", efi_system_partition),
        row("whatever_is_added_to_the_efi_system_partition_is_refused", added_file),
        row("objdump_reads_the_sections_of_the_unified_kernel_image", sections),
        row("the_test_flavour_is_refused_without_its_own_key", test_flavour),
        row("diff_tells_what_the_test_flavour_adds_and_nothing_of_equal_images", diff),
        row("inspect_tells_the_licences_and_the_provenance_that_are_in_the_files", inspect),
        row("vulnerabilities_are_those_of_versions_that_dpkg_puts_before_the_fixed_one", vulnerabilities),
        row("every_file_of_the_root_is_in_the_bill_with_one_owner", owners),
        row("spdx_s_own_tools_accept_the_bill_of_materials_and_refuse_it_damaged", |()| {
            validated("sbom.spdx.json", validators::spdx, ("\"SPDX-2.3\"", "\"SPDX-9.9\""))
        }),
        row("cyclonedx_s_own_library_accepts_the_bill_of_materials_and_refuses_it_damaged", |()| {
            validated("sbom.cdx.json", validators::cyclonedx, ("\"library\"", "\"bookshop\""))
        }),
        row("json_schema_and_the_reader_agree_on_examples_of_settings", settings),
        row("openssl_accepts_the_manifest_s_signature", openssl),
        row("openssl_accepts_the_provenance_s_signature", |()| {
            Provenance::read(&image::out()?)?.verified_by_openssl(&key()?)?.ok().map(drop)
        }),
        row("in_toto_s_own_libraries_accept_the_provenance_and_refuse_it_damaged", judged_provenance),
        row("a_provenance_that_its_key_signs_again_is_accepted", |()| {
            let copy = copy_of_out()?;
            let mut provenance = Provenance::read(copy.path())?;
            provenance.sign(&image::development_keys()?.join("image.key"))?;
            provenance.write()?;
            verify(copy.path(), &key()?)?.ok().map(drop)
        }),
        row("a_provenance_with_a_changed_byte_is_refused", |()| {
            refused_provenance("signature", |provenance| {
                let text = provenance.statement()?.replacen("eci-builder", "eci-buildes", 1);
                provenance.replace_statement(&text);
                Ok(())
            })
        }),
        row("a_provenance_without_a_signature_is_refused", |()| {
            refused_provenance("signature", |provenance| {
                provenance.envelope["signatures"] = Value::Array(Vec::new());
                Ok(())
            })
        }),
        row("a_provenance_that_another_key_signs_is_refused", |()| {
            let folder = tempfile::tempdir()?;
            let keys = folder.path().join("keys");
            command::run(Command::new(image::builder()?).arg("keygen").arg(&keys), &[])?.ok()?;
            refused_provenance("signature", |provenance| provenance.sign(&keys.join("image.key")))
        }),
        row("a_provenance_of_another_artifact_is_refused_whoever_signs_it", |()| {
            refused_provenance("subjects", |provenance| {
                let kernel = image::manifest(&image::out()?)?.kernel.sha256;
                let last = if kernel.ends_with('0') { "1" } else { "0" };
                let text = provenance.statement()?;
                ensure!(text.contains(&kernel), "it is not about the kernel:\n{text}");
                provenance.replace_statement(&text.replacen(&kernel, &format!("{}{last}", &kernel[..63]), 1));
                provenance.sign(&image::development_keys()?.join("image.key"))
            })
        }),
        row("an_image_without_its_provenance_is_refused", |()| {
            let copy = copy_of_out()?;
            fs::remove_file(copy.path().join(provenance::FILE))?;
            refused_check(verify(copy.path(), &key()?)?, "signature")
        }),
        row("other_programs_read_the_cd_as_a_disk_and_as_a_cd", others_read_the_cd),
        row("sgdisk_and_qemu_img_are_content", |()| {
            let raw = image::raw(&image::out()?)?;
            let said = command::host("sgdisk", &["-v", &raw.to_string_lossy()])?.ok()?;
            ensure!(said.contains("No problems found"), "{said}");
            for format in ["qcow2", "vhdx"] {
                let disk = raw.with_extension(format);
                command::host("qemu-img", &["check", "-f", format, &disk.to_string_lossy()])?.ok()?;
                command::host("qemu-img", &["compare", &raw.to_string_lossy(), &disk.to_string_lossy()])?
                    .ok()?;
            }
            Ok(())
        }),
    ])
}

fn diff(_: &()) -> Result<()> {
    let out = image::out()?;
    let diff = |after: &Path| {
        command::run(Command::new(image::builder()?).arg("diff").arg(&out).arg(after), &[])?.ok()
    };
    let said = diff(&out.join("test"))?;
    ensure!(said.contains("  name: eci -> eci-test") && said.contains("  + busybox-static: "), "{said}");
    ensure!(!said.contains("  - "), "the test flavour lacks something:\n{said}");
    let said = diff(&image::raw(&out)?)?;
    ensure!(said == "no difference", "the disk is another image than its folder:\n{said}");
    Ok(())
}

fn inspected(arguments: &[&str]) -> Result<Value> {
    let out = image::out()?;
    let mut inspect = Command::new(image::builder()?);
    let said = command::run(inspect.arg("inspect").arg(&out).arg("--json").args(arguments), &[])?.ok()?;
    Ok(serde_json::from_str(&said)?)
}

fn inspect(_: &()) -> Result<()> {
    let (out, said) = (image::out()?, inspected(&[])?);
    let bill: Value = serde_json::from_slice(&fs::read(out.join("sbom.spdx.json"))?)?;
    let stated = |package: &str| {
        let mut entries = bill["packages"].as_array().into_iter().flatten();
        entries
            .find(|entry| entry["name"] == package && entry["primaryPackagePurpose"] != "SOURCE")
            .map_or(Value::Null, |entry| entry["licenseDeclared"].clone())
    };
    for package in ["containerd", "crun", "eci-init", "linux"] {
        let (told, stated) = (&said["licences"][package], stated(package));
        ensure!(stated.is_string() && *told == stated, "{package} is under {stated}, not {told}");
    }
    let provenance = Provenance::read(&out)?;
    let statement: Value = serde_json::from_str(&provenance.statement()?)?;
    let materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"].as_array();
    let (told, there) = (&said["provenance"], materials.map_or(0, Vec::len));
    let count = told["materials"].as_object().map_or(0, |materials| materials.len());
    ensure!(there > 20 && count == there, "{count} materials of {there}");
    ensure!(told["commit"].as_str() == provenance.commit()?.as_deref(), "another commit: {}", told["commit"]);
    ensure!(told["signer"].is_string() && told["signer"] == said["signer"], "signers: {said}");
    let linux = told["materials"]["linux-source-6.12:all"].as_str().unwrap_or_default();
    ensure!(linux.contains(", sha256 "), "the kernel's source is not among them: `{linux}`");
    Ok(())
}

/// Of each source package, one vulnerability that its own version fixes and one that a later version does.
fn vulnerabilities(_: &()) -> Result<()> {
    let said = inspected(&[])?;
    let sources = said["sources"].as_array().filter(|sources| sources.len() > 5).cloned();
    let mut data = serde_json::Map::new();
    let mut wanted = Vec::new();
    for source in sources.context("few sources")? {
        let field = |name: &str| source[name].as_str().unwrap_or_default().to_owned();
        let (name, version) = (field("name"), field("version"));
        let later = format!("{version}+deb13u9");
        command::host("dpkg", &["--compare-versions", &version, "lt", &later])?.ok()?;
        let resolved = |fixed: &str| json!({ "releases": { "trixie": { "status": "resolved", "fixed_version": fixed } } });
        data.insert(name.clone(), json!({ "CVE-1": resolved(&version), "CVE-2": resolved(&later) }));
        wanted.push((name, version));
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("data.json");
    fs::write(&file, Value::Object(data).to_string())?;
    let said = inspected(&["--vulnerabilities", &file.to_string_lossy()])?;
    let found = said["vulnerabilities"].as_array().context("no list of vulnerabilities")?;
    let field = |found: &Value, name: &str| found[name].as_str().unwrap_or_default().to_owned();
    let mut listed: Vec<_> =
        found.iter().map(|found| (field(found, "source"), field(found, "version"))).collect();
    listed.sort();
    wanted.sort();
    ensure!(wanted.iter().any(|(name, _)| name == "linux"), "the kernel is no source: {wanted:?}");
    ensure!(found.iter().all(|found| found["name"] == "CVE-2"), "{found:?}");
    ensure!(listed == wanted, "{listed:?} are listed, not {wanted:?}");
    Ok(())
}

fn verify(artifact: &Path, key: &Path) -> Result<Outcome> {
    command::run(Command::new(image::builder()?).arg("verify").arg(artifact).arg("--key").arg(key), &[])
}

fn key() -> Result<PathBuf> {
    Ok(image::out()?.join("image.pub"))
}

fn good(_: &()) -> Result<()> {
    let out = image::out()?;
    let raw = image::raw(&out)?;
    for artifact in
        [&out, &raw, &raw.with_extension("qcow2"), &raw.with_extension("vhdx"), &cd()?, &distro()?]
    {
        verify(artifact, &key()?)?.ok()?;
    }
    Ok(())
}

fn cd() -> Result<PathBuf> {
    Ok(image::raw(&image::out()?)?.with_extension("iso"))
}

/// The CD is a whole disk, and its files are the partitions.
fn others_read_the_cd(_: &()) -> Result<()> {
    let (cd, folder) = (cd()?, tempfile::tempdir()?);
    let path = cd.to_string_lossy();
    let said = command::host("sgdisk", &["-v", &path])?.ok()?;
    ensure!(said.contains("No problems found"), "{said}");
    let into = folder.path().to_string_lossy();
    command::host("bsdtar", &["-xf", &path, "-C", &into])?.ok()?;
    for (number, file) in (1..).zip(["ECI_ESP", "ECI_ROOT_A", "ECI_VERITY_A", "ECI_SIGNATURE_A"]) {
        let copy = folder.path().join("copy");
        Partition::of(&cd, number)?.copy(&cd, &copy)?;
        let extracted = folder.path().join(format!("{file}.IMG"));
        command::host("cmp", &[&copy.to_string_lossy(), &extracted.to_string_lossy()])?.ok()?;
    }
    ensure!(fs::read_dir(folder.path())?.count() == 5, "it has other files");
    Ok(())
}

fn distro() -> Result<PathBuf> {
    Ok(image::raw(&image::out()?)?.with_extension("wsl"))
}

/// Packed by tar and gzip as anybody would, it is refused with another file, and with another PID 1.
fn repacked_distro(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let repacked = folder.path().join("eci.wsl");
    for (change, says) in [
        ("echo x >etc/profile", "`etc/profile` is where `etc/wsl-distribution.conf` should be"),
        ("rm etc/wsl.conf", "`mnt` is where `etc/wsl.conf` should be"),
        ("echo command=/bin/sh >>etc/wsl.conf", "`etc/wsl.conf` differs"),
        ("chmod u+s usr/sbin/init", "a member's metadata"),
    ] {
        let tree = folder.path().join("tree");
        fs::create_dir(&tree)?;
        // Names in the order of the original, so that what is found is the change.
        let script = format!(
            "tar -xzpf \"$1\" && tar -tzf \"$1\" | sed 's|/$||' >../names && {{ {change}; }} && \
             {{ cat ../names; find etc -type f; }} | LC_ALL=C sort -u | while read -r name; do \
             [ ! -e \"$name\" ] && [ ! -L \"$name\" ] || echo \"$name\"; done >../all && \
             tar -cf - --format=ustar --owner=0 --group=0 --numeric-owner --mtime=@0 --no-recursion -T ../all | gzip >\"$2\""
        );
        let mut repack = Command::new("sh");
        repack.args(["-ec", &script, "sh"]).arg(distro()?).arg(&repacked).current_dir(&tree);
        command::run(&mut repack, &[])?.ok()?;
        let said = verify(&repacked, &key()?)?;
        ensure!(said.code == UNTRUSTED, "{change}: {}: {}{}", said.code, said.stdout(), said.stderr);
        let shown = said.stdout();
        ensure!(
            shown.lines().any(|line| line.contains("FAILED") && line.contains(says)),
            "{change}: {shown}"
        );
        fs::remove_dir_all(&tree)?;
    }
    Ok(())
}

/// Root and verity partition of the disk, cut out for veritysetup.
struct Parts {
    folder: tempfile::TempDir,
    offsets: [u64; 2],
}

#[derive(Clone, Copy)]
enum Part {
    Data,
    Tree,
}

impl Parts {
    fn cut() -> Result<Self> {
        let raw = image::raw(&image::out()?)?;
        let folder = tempfile::tempdir()?;
        let mut offsets = [0; 2];
        for (index, (number, name)) in [(2, "data"), (3, "tree")].into_iter().enumerate() {
            let partition = Partition::of(&raw, number)?;
            offsets[index] = partition.start;
            partition.copy(&raw, &folder.path().join(name))?;
        }
        Ok(Self { folder, offsets })
    }

    fn veritysetup(&self) -> Result<Outcome> {
        let root = image::manifest(&image::out()?)?.root.root_hash;
        let path = |name: &str| self.folder.path().join(name).to_string_lossy().into_owned();
        command::host("/sbin/veritysetup", &["verify", &path("data"), &path("tree"), &root])
    }
}

fn both_refuse(part: Part, offset: u64) -> Result<()> {
    let parts = Parts::cut()?;
    let index = part as usize;
    flip(&parts.folder.path().join(["data", "tree"][index]), offset)?;
    parts.veritysetup()?.refused(&[])?;
    let raw = image::raw(&image::out()?)?;
    let copy = parts.folder.path().join("disk.raw");
    copy_sparse(&raw, &copy)?;
    flip(&copy, parts.offsets[index] + offset)?;
    untrusted(verify(&copy, &key()?)?)
}

fn untrusted(outcome: Outcome) -> Result<()> {
    ensure!(outcome.code == UNTRUSTED, "exit code {}:\n{}{}", outcome.code, outcome.stdout(), outcome.stderr);
    outcome.refused(&[]).map(drop)
}

/// A copy of the artifacts without the large disks' data copied twice.
fn copy_of_out() -> Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    let out = image::out()?;
    for entry in fs::read_dir(&out)? {
        let path = entry?.path();
        if path.is_file() {
            copy_sparse(&path, folder.path())?;
        }
    }
    Ok(folder)
}

fn changed_file(name: &str) -> Result<()> {
    let copy = copy_of_out()?;
    flip(&copy.path().join(name), 20)?;
    untrusted(verify(copy.path(), &key()?)?)
}

/// Refused for its provenance, whose sum is that of the changed file.
fn refused_provenance(check: &str, change: impl Fn(&mut Provenance) -> Result<()>) -> Result<()> {
    let copy = copy_of_out()?;
    let mut provenance = Provenance::read(copy.path())?;
    change(&mut provenance)?;
    provenance.write()?;
    let outcome = verify(copy.path(), &key()?)?;
    let said = outcome.stdout();
    let failed = said.lines().filter(|line| line.starts_with("FAILED")).count();
    ensure!(failed == 1, "{failed} checks failed:\n{said}");
    refused_check(outcome, check)
}

fn refused_check(outcome: Outcome, check: &str) -> Result<()> {
    let (said, wanted) = (outcome.stdout(), format!("FAILED  {}: {check}: ", provenance::FILE));
    ensure!(said.contains(&wanted), "no `{wanted}`:\n{said}");
    untrusted(outcome)
}

fn judged_provenance(_: &()) -> Result<()> {
    let (copy, key) = (copy_of_out()?, key()?);
    let path = copy.path().join(provenance::FILE);
    validators::provenance(&path, &key)?.ok()?;
    let other = image::out()?.join("test/image.pub");
    validators::provenance(&path, &other)?.refused(&["VerificationError"])?;
    // Signed, and with a field that the format does not have.
    let mut provenance = Provenance::read(copy.path())?;
    let text = provenance.statement()?;
    ensure!(text.contains("\"buildType\""), "no build type:\n{text}");
    for (field, signed, reason) in
        [("\"buildTipe\"", true, "buildTipe"), ("\"buildType\" ", false, "VerificationError")]
    {
        provenance.replace_statement(&text.replacen("\"buildType\"", field, 1));
        if signed {
            provenance.sign(&image::development_keys()?.join("image.key"))?;
        }
        provenance.write()?;
        validators::provenance(&path, &key)?.refused(&[reason])?;
    }
    Ok(())
}

/// The partition, cut out of a disk image.
fn cut_esp(raw: &Path, to: &Path) -> Result<Partition> {
    let partition = Partition::of(raw, 1)?;
    ensure!(partition.name == "eci-esp", "partition 1 is `{}`", partition.name);
    partition.copy(raw, to)?;
    Ok(partition)
}

fn efi_system_partition(_: &()) -> Result<()> {
    let (out, folder) = (image::out()?, tempfile::tempdir()?);
    let esp = folder.path().join("esp");
    cut_esp(&image::raw(&out)?, &esp)?;
    let esp = esp.to_string_lossy().into_owned();
    command::host("/sbin/fsck.fat", &["-n", &esp])?.ok()?;
    let read = command::host("mtype", &["-i", &esp, "::/EFI/BOOT/BOOTX64.EFI"])?;
    ensure!(read.code == 0 && read.bytes == fs::read(out.join("eci.efi"))?, "mtype: {}", read.stderr);
    let listed = command::host("mdir", &["-/", "-b", "-i", &esp])?.ok()?;
    let files: Vec<_> = listed.lines().filter(|line| !line.ends_with('/')).collect();
    ensure!(files == ["::/EFI/BOOT/BOOTX64.EFI"], "{files:?}");
    Ok(())
}

/// systemd's stub would take credentials and command lines from files beside it.
fn added_file(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (raw, copy) = (image::raw(&image::out()?)?, folder.path().join("disk.raw"));
    copy_sparse(&raw, &copy)?;
    let partition = Partition::of(&raw, 1)?;
    let place = format!("{}@@{}", copy.display(), partition.start);
    let mut mcopy = Command::new("mcopy");
    mcopy.args(["-i", &place, "-", "::/EFI/BOOT/extra.cred"]);
    command::run(&mut mcopy, b"credential")?.ok()?;
    untrusted(verify(&copy, &key()?)?)
}

fn sections(_: &()) -> Result<()> {
    let image = image::out()?.join("eci.efi").to_string_lossy().into_owned();
    let said = command::host("objdump", &["-h", &image])?.ok()?;
    for section in [".sbat", ".osrel", ".cmdline", ".uname", ".initrd", ".linux"] {
        let count = said.split_whitespace().filter(|word| *word == section).count();
        ensure!(count == 1, "{count} sections {section}:\n{said}");
    }
    Ok(())
}

fn another_key(_: &()) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let keys = folder.path().join("keys");
    command::run(Command::new(image::builder()?).arg("keygen").arg(&keys), &[])?.ok()?;
    untrusted(verify(&image::out()?, &keys.join("image.pub"))?)
}

fn test_flavour(_: &()) -> Result<()> {
    let test = image::out()?.join("test");
    ensure!(
        image::manifest(&test)?.name != image::manifest(&image::out()?)?.name,
        "the test image has the shipped name"
    );
    untrusted(verify(&test, &key()?)?)?;
    // Even its own key is not enough for an image that calls itself a test.
    let own = test.join("image.pub");
    ensure!(fs::read(&own)? != fs::read(key()?)?, "both flavours are signed with one key");
    verify(&test, &own)?.refused(&["test"])?;
    let mut told = Command::new(image::builder()?);
    told.arg("verify").arg(&test).arg("--key").arg(&own).args(["--flavour", "test"]);
    command::run(&mut told, &[])?.ok().map(drop)
}

fn openssl(_: &()) -> Result<()> {
    let out = image::out()?;
    let path = |name: &str| out.join(name).to_string_lossy().into_owned();
    let (key, signature, manifest) = (path("image.pub"), path("manifest.json.sig"), path("manifest.json"));
    command::host(
        "openssl",
        &["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", &key, "-sigfile", &signature, "-in", &manifest],
    )?
    .ok()
    .map(drop)
}

/// EROFS's own tool lists the root; each regular file is in the bill, and belongs to exactly one package.
fn owners(_: &()) -> Result<()> {
    let (out, folder) = (image::out()?, tempfile::tempdir()?);
    let root = folder.path().join("root");
    let raw = image::raw(&out)?;
    Partition::of(&raw, 2)?.copy(&raw, &root)?;
    let tree = folder.path().join("tree");
    let extract = format!("--extract={}", tree.display());
    command::host("fsck.erofs", &[&extract, &root.to_string_lossy()])?.ok()?;
    let found =
        command::host("find", &[&tree.to_string_lossy(), "-type", "f", "-printf", "./%P\\n"])?.ok()?;
    let bill: Value = serde_json::from_slice(&fs::read(out.join("sbom.spdx.json"))?)?;
    let entries = |name: &str| bill[name].as_array().cloned().unwrap_or_default();
    let owned: Vec<_> = entries("relationships")
        .into_iter()
        .filter(|relationship| relationship["relationshipType"] == "CONTAINS")
        .map(|relationship| relationship["relatedSpdxElement"].clone())
        .collect();
    let mut listed: Vec<_> = entries("files")
        .iter()
        .map(|file| {
            let owners = owned.iter().filter(|id| **id == file["SPDXID"]).count();
            ensure!(owners == 1, "{} has {owners} owners", file["fileName"]);
            Ok(file["fileName"].as_str().unwrap_or_default().to_owned())
        })
        .collect::<Result<_>>()?;
    let mut found: Vec<_> = found.lines().map(str::to_owned).collect();
    listed.sort();
    found.sort();
    ensure!(
        found.len() > 100 && listed == found,
        "{} files are listed, {} are there",
        listed.len(),
        found.len()
    );
    for package in ["containerd", "docker.io", "linux-source-6.12"] {
        let terms = format!("./usr/share/doc/{package}/copyright");
        ensure!(found.contains(&terms), "the root has no {terms}");
    }
    Ok(())
}

/// The published schema and `settings check` accept each example, and neither accepts one with something wrong in it.
fn settings(_: &()) -> Result<()> {
    for (folder, is_good) in [("settings/examples", true), ("settings/refused", false)] {
        let entries = fs::read_dir(image::repository()?.join(folder))?;
        let files: Vec<_> = entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        ensure!(files.len() >= 3, "{} in {folder}", files.len());
        for (file, by_schema) in files.iter().zip(validators::settings(&files)?) {
            let mut check = Command::new(image::builder()?);
            let by_reader = command::run(check.args(["settings", "check"]).arg(file), &[])?;
            let (shown, said) = (file.display(), by_reader.stdout());
            ensure!((by_schema == "accepted") == is_good, "the schema of {shown}: {by_schema}");
            ensure!((by_reader.code == 0) == is_good, "the reader of {shown}: {said}{}", by_reader.stderr);
        }
    }
    Ok(())
}

/// A validator accepts a document, and not the same with one thing replaced.
fn validated(name: &str, judge: fn(&Path) -> Result<Outcome>, (from, to): (&str, &str)) -> Result<()> {
    let document = image::out()?.join(name);
    judge(&document)?.ok()?;
    let text = fs::read_to_string(&document)?;
    ensure!(text.contains(from), "{name} has no {from}");
    let folder = tempfile::tempdir()?;
    let damaged = folder.path().join(name);
    fs::write(&damaged, text.replacen(from, to, 1))?;
    judge(&damaged)?.refused(&[]).map(drop)
}
