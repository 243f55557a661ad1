//! Bad input: a message that names the thing, the reason and the fix, the documented exit code, and nothing lost.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use eci_contract::manifest::Architecture;
use eci_tests::command::{self, Outcome};
use eci_tests::suite::row;
use eci_tests::{image, suite};

/// Exit codes of `eci-builder --help`.
const USAGE: i32 = 2;
const CONFIG: i32 = 3;
const HOST: i32 = 4;
const UNTRUSTED: i32 = 5;
const BOOT: i32 = 6;
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
        row("a_compiler_that_the_lock_lacks_is_drift_and_one_for_another_host_is_missed", |()| {
            let project = Project::copy()?;
            project.append("toolchain/packages.toml", "\n[cross.x86_64]\npackages = []\n")?;
            project.replace("toolchain/packages.toml", "\"make\"", "\"make\", \"hello\"")?;
            let lock = format!("toolchain/{}.lock", std::env::consts::ARCH);
            let words = ["`hello` is not locked for", &lock, "eci-builder lock"];
            project.build(&[])?.is(CONFIG, &words)?;
            project.run(&["sandbox", "--", "true"])?.is(CONFIG, &words)?;
            fs::remove_file(project.path(&lock))?;
            project.build(&[])?.is(CONFIG, &["cannot read", &lock, "eci-builder lock"])?;
            project.nothing_was_built()
        }),
        row("without_bubblewrap_nothing_is_compiled", |()| {
            let project = Project::copy()?;
            let mut sandbox = project.command(&["sandbox", "--offline", "--", "true"]);
            Said(command::run(sandbox.env("PATH", project.path("empty")), &[])?)
                .is(HOST, &["cannot make a sandbox", "`bwrap` was not found in PATH", "install bubblewrap"])
        }),
        row("a_mount_that_would_hide_the_compiler_or_is_not_there_is_a_usage_error", |()| {
            let project = Project::copy()?;
            project
                .run(&["sandbox", "--bind", "empty=/usr/bin", "--", "true"])?
                .is(USAGE, &["below /usr"])?;
            project.run(&["sandbox", "--bind", "none=/x", "--", "true"])?.is(USAGE, &["cannot mount `none`"])
        }),
        row("a_hash_that_does_not_match_is_named_and_nothing_is_built", |()| {
            let project = Project::copy()?;
            let lock = project.lock_file()?;
            let text = fs::read_to_string(&lock)?;
            // Of a package for this image: the lock has both architectures.
            let target = format!("target = \"{}\"", image::manifest(&image::out()?)?.architecture.as_str());
            let from = text.find(&target).context("the lock has the architecture")?;
            let digest = "sha256 = \"";
            let at = text[from..].find(digest).context("the lock has digests")? + from + digest.len();
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
        row("an_efi_system_partition_that_is_too_small_is_named_with_what_it_takes", |()| {
            let project = Project::copy()?;
            project.replace("eci.toml", "esp_mib = 64", "esp_mib = 16")?;
            project.build(&[])?.is(CONFIG, &["disk.esp_mib", "too small", "33"])?;
            project.nothing_was_built()
        }),
        row("a_form_for_apple_s_framework_of_an_image_for_another_processor_is_refused_in_words", |()| {
            let project = Project::copy()?;
            let words = ["the format apple is for Macs", "this image is for x86_64", "--arch aarch64"];
            project.build(&["--arch", "x86_64", "--format", "raw,apple"])?.is(CONFIG, &words)?;
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
        row("a_secure_boot_key_that_is_not_there_is_named", |()| {
            let project = Project::copy()?;
            project.secure_boot("no/such.key", "no/such.crt")?;
            project.build(&[])?.is(CONFIG, &["no/such.key", "eci-builder keygen"])
        }),
        row("a_secure_boot_key_without_its_certificate_is_refused", |()| {
            let project = Project::copy()?;
            project.replace("eci.toml", "[secure_boot]", "[secure_boot]\nkey = \"db.key\"")?;
            project.build(&[])?.is(CONFIG, &["secure_boot", "without its certificate"])
        }),
        row("public_keys_alone_sign_nothing_and_lead_to_unsigned_builds", |()| {
            let project = Project::copy()?;
            project.run(&["keygen", "keys"])?.0.ok()?;
            project.replace(
                "eci.toml",
                "[secure_boot]",
                "[secure_boot]\ncertificate = \"keys/secure-boot/db.crt\"",
            )?;
            project
                .build(&[])?
                .is(CONFIG, &["eci.toml", "certificate without its key", "build with --unsigned"])?;
            project.replace("eci.toml", "[signing]", "[signing]\nkey = \"keys/image.pub\"")?;
            project.build(&[])?.is(CONFIG, &["image.pub", "holds a public key", "build with --unsigned"])?;
            fs::write(project.path("keys/image.pub"), "no key")?;
            project
                .build(&["--unsigned"])?
                .is(CONFIG, &["image.pub", "is not a PEM file", "eci-builder keygen"])?;
            project.nothing_was_built()
        }),
        row("an_unsigned_build_for_a_certificate_that_has_expired_is_refused", |()| {
            let project = Project::copy()?;
            project.run(&["keygen", "keys"])?.0.ok()?;
            let certificate = project.path("keys/secure-boot/db.crt");
            fs::write(&certificate, expired(&fs::read_to_string(&certificate)?)?)?;
            project.secure_boot("keys/secure-boot/db.key", "keys/secure-boot/db.crt")?;
            project
                .build(&["--unsigned"])?
                .is(CONFIG, &["db.crt", "has expired on 2020-", "eci-builder keygen"])?;
            project.nothing_was_built()
        }),
        row("sign_asks_for_one_of_each", |()| {
            let project = Project::copy()?;
            project.run(&["sign"])?.is(USAGE, &["--key <FILE|URI>", "--secure-boot-signature <FILE>"])?;
            let both = ["sign", "--key", "x", "--manifest-signature", "y", "--secure-boot-key", "z"];
            project.run(&both)?.is(USAGE, &["--manifest-signature"])?;
            let both = ["sign", "--key", "x", "--provenance-signature", "y", "--secure-boot-key", "z"];
            project.run(&both)?.is(USAGE, &["--provenance-signature"])?;
            // Each key signs two things.
            let two = ["sign", "--key", "x", "--secure-boot-signature", "y"];
            project.run(&two)?.is(USAGE, &["--root-hash-signature <FILE>"])?;
            let two = ["sign", "--key", "x", "--secure-boot-key", "y", "--root-hash-signature", "z"];
            project.run(&two)?.is(USAGE, &["--root-hash-signature"])?;
            let two = ["sign", "--manifest-signature", "x", "--secure-boot-signature", "y"];
            project.run(&two)?.is(USAGE, &["--provenance-signature <FILE>"])?;
            let two = ["sign", "--provenance-signature", "x", "--secure-boot-signature", "y"];
            project.run(&two)?.is(USAGE, &["--manifest-signature <FILE>"])?;
            let pin = ["sign", "--key", "pkcs11:?pin-value=1234", "--secure-boot-key", "z"];
            project.run(&pin)?.is(USAGE, &["`pin-value`", "pin-source"])
        }),
        row("sign_names_a_folder_that_holds_no_image", |()| {
            let project = Project::copy()?;
            project
                .run(&["sign", "empty", "--key", "x", "--secure-boot-key", "y"])?
                .is(CONFIG, &["empty/manifest.json", "build --unsigned"])
        }),
        row("vulnerabilities_out_of_another_file_or_for_no_image_are_refused", |()| {
            let (project, out) = (Project::copy()?, image::out()?);
            let inspect = |artifact: &Path, data: &str| {
                let artifact = artifact.to_string_lossy();
                project.run(&["inspect", &artifact, "--vulnerabilities", data])
            };
            inspect(&out, "none.json")?.is(CONFIG, &["cannot read `none.json`", "tracker"])?;
            inspect(&out, "eci.toml")?.is(CONFIG, &["`eci.toml` is not the data of", "at line 1"])?;
            let bill = out.join("sbom.spdx.json");
            inspect(&out, &bill.to_string_lossy())?.is(CONFIG, &["is not the data of", "vulnerabilities"])?;
            fs::write(project.path("empty.json"), "{}")?;
            inspect(&out, "empty.json")?.is(CONFIG, &["`empty.json` says nothing of Debian trixie"])?;
            // A manifest without a bill of materials beside it.
            fs::copy(out.join("manifest.json"), project.path("empty/manifest.json"))?;
            let alone = inspect(&project.path("empty/manifest.json"), "empty.json")?;
            alone.is(CONFIG, &["no bill of materials beside", "sbom.spdx.json"])
        }),
        row("a_certificate_of_another_key_is_named", |()| {
            let project = Project::copy()?;
            project.run(&["keygen", "keys"])?.0.ok()?;
            project.secure_boot("keys/secure-boot/db.key", "keys/secure-boot/KEK.crt")?;
            project.build(&[])?.is(CONFIG, &["db.key", "KEK.crt", "is not the one of the key"])
        }),
        row("a_certificate_that_has_expired_is_named_with_its_day", |()| {
            let project = Project::copy()?;
            project.run(&["keygen", "keys"])?.0.ok()?;
            let certificate = project.path("keys/secure-boot/db.crt");
            fs::write(&certificate, expired(&fs::read_to_string(&certificate)?)?)?;
            project.secure_boot("keys/secure-boot/db.key", "keys/secure-boot/db.crt")?;
            project.build(&[])?.is(CONFIG, &["db.crt", "has expired on 2020-", "eci-builder keygen"])?;
            project.nothing_was_built()
        }),
        row("keygen_never_overwrites_a_key", |()| {
            let project = Project::copy()?;
            let keys = project.path("keys").to_string_lossy().into_owned();
            project.run(&["keygen", &keys])?.0.ok()?;
            let all = || -> Result<_> {
                Ok((
                    fs::read(project.path("keys/image.key"))?,
                    fs::read(project.path("keys/secure-boot/PK.key"))?,
                ))
            };
            let before = all()?;
            project.run(&["keygen", &keys])?.0.refused(&["image.key"])?;
            fs::rename(project.path("keys/image.key"), project.path("image.key"))?;
            fs::remove_file(project.path("keys/image.pub"))?;
            project.run(&["keygen", &keys])?.0.refused(&["secure-boot"])?;
            fs::rename(project.path("image.key"), project.path("keys/image.key"))?;
            ensure!(all()? == before, "a key was overwritten");
            Ok(())
        }),
        row("a_full_disk_while_building_leaves_the_last_good_output", full_disk),
        row("an_interrupted_build_leaves_the_last_good_output", interrupted),
        row("a_mirror_that_gives_nothing_is_told_with_the_package", |()| {
            let project = Project::copy()?;
            // Port 9 of this host: nothing listens there.
            project.replace("eci.toml", "[packages]", "[packages]\nmirror = \"http://127.0.0.1:9\"")?;
            let mut build = project.build_command(&[])?;
            build.env("XDG_CACHE_HOME", project.path("cache"));
            Said(command::run(&mut build, &[])?).is(HOST, &["cannot fetch `", "127.0.0.1", "hint: "])?;
            project.nothing_was_built()
        }),
        row("a_missing_guest_program_is_named", |()| {
            let project = Project::copy()?;
            let empty = project.path("empty").to_string_lossy().into_owned();
            project.run(&["build", "--offline", "--programs", &empty])?.is(CONFIG, &["eci-"])?;
            project.nothing_was_built()
        }),
        row("run_without_artifacts_says_what_to_do", |()| {
            let project = Project::copy()?;
            project
                .run(&["run", "nowhere", "--name", "input"])?
                .is(INSTANCE, &["nowhere", "eci-builder build"])
        }),
        row("run_refuses_a_kernel_that_is_not_the_manifest_s", |()| {
            let project = Project::copy()?;
            let (out, copy) = (image::out()?, project.path("out"));
            fs::create_dir(&copy)?;
            for name in ["manifest.json", "initrd.img"] {
                fs::copy(out.join(name), copy.join(name))?;
            }
            fs::write(copy.join("vmlinuz"), "another kernel")?;
            project
                .run(&["run", "--name", "input"])?
                .is(UNTRUSTED, &["vmlinuz", "sha256", "eci-builder verify"])
        }),
        row("an_instance_of_another_architecture_is_left_alone", |()| {
            let project = Project::copy()?;
            let (out, folder) = (image::out()?, project.path("state/eci/input"));
            fs::create_dir_all(&folder)?;
            // As a run of such an image leaves it.
            let record = r#"{"version":1,"artifacts":"/out","data":"/data.raw","architecture":"OTHER","accel":"tcg",
                "memory_mib":2048,"cpus":2,"pid":1}"#;
            let own = image::manifest(&out)?.architecture;
            let other =
                if own == Architecture::X86_64 { Architecture::Aarch64 } else { Architecture::X86_64 };
            fs::write(folder.join("instance.json"), record.replace("OTHER", other.as_str()))?;
            let said = project.run(&["run", &out.to_string_lossy(), "--name", "input", "--accel", "tcg"])?;
            let told = format!("`input` is of {}", other.as_str());
            said.is(INSTANCE, &[&told, own.as_str(), "eci-builder rm --name input"])?;
            ensure!(!folder.join("data.raw").exists(), "a data disk was made");
            Ok(())
        }),
        row("the_name_of_a_running_instance_is_taken", |()| {
            let project = Project::copy()?;
            let folder = project.path("state/eci/input");
            fs::create_dir_all(&folder)?;
            // As a supervisor does: the lock is held while the second `run` starts.
            let mut flock = Command::new("flock");
            flock.arg(folder.join("lock")).arg(image::builder()?);
            project.surround(flock.arg("run").arg(image::out()?).args(["--name", "input", "--accel", "tcg"]));
            Said(command::run(&mut flock, &[])?).is(INSTANCE, &["`input` is running", "eci-builder stop"])
        }),
        row("a_docker_context_of_someone_else_is_left_alone", |()| {
            let project = Project::copy()?;
            let context = |words: &[&str]| -> Result<String> {
                let mut docker = Command::new("docker");
                project.surround(docker.arg("context").args(words));
                command::run(&mut docker, &[])?.ok()
            };
            context(&["create", "eci-input", "--docker", "host=tcp://192.0.2.1:2376"])?;
            let out = image::out()?.to_string_lossy().into_owned();
            project
                .run(&["run", &out, "--name", "input", "--accel", "tcg", "--detach"])?
                .is(INSTANCE, &["eci-input", "tcp://192.0.2.1:2376", "docker context rm"])?;
            ensure!(context(&["inspect", "eci-input"])?.contains("tcp://192.0.2.1:2376"), "it was changed");
            Ok(())
        }),
        row("a_kvm_that_hangs_is_given_up", hanging_kvm),
        row("a_name_that_is_no_name_is_refused", |()| {
            let project = Project::copy()?;
            project.run(&["status", "--name", "../x"])?.0.refused(&["../x"]).map(drop)
        }),
        row("an_instance_that_does_not_exist_is_named", |()| {
            let project = Project::copy()?;
            for verb in ["status", "logs", "dashboard", "stop", "rm"] {
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
        row("what_qemu_says_when_it_does_not_start_is_told", |()| {
            let project = Project::copy()?;
            let (out, qemu) = (image::out()?, project.path("empty/qemu-system-x86_64"));
            fs::write(&qemu, "#!/bin/sh\necho 'cannot set up guest memory' >&2\nexit 1\n")?;
            fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755))?;
            for more in [&[][..], &["--detach"]] {
                let mut run = project.command(&["run", &out.to_string_lossy(), "--name", "input"]);
                run.args(["--accel", "tcg"]).args(more).env("PATH", project.path("empty"));
                let words = ["the VM ended by itself", "cannot set up guest memory"];
                Said(command::run(&mut run, &[])?).is(BOOT, &words)?;
            }
            Ok(())
        }),
        row("without_swtpm_no_boot_is_measured_and_none_is_begun", |()| {
            let project = Project::copy()?;
            let out = image::out()?;
            // QEMU is there, by name at least.
            let qemu = project.path("empty/qemu-system-x86_64");
            fs::write(&qemu, "#!/bin/sh\nexit 1\n")?;
            fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755))?;
            let mut run = project.command(&["run", &out.to_string_lossy(), "--tpm", "--accel", "tcg"]);
            run.env("PATH", project.path("empty"));
            Said(command::run(&mut run, &[])?)
                .is(HOST, &["`swtpm` was not found", "apt-get install swtpm"])?;
            ensure!(!project.path("state/eci/default").exists(), "an instance was made");
            Ok(())
        }),
        row("attest_asks_no_machine_with_a_wrong_question_or_for_an_image_that_nobody_signed", |()| {
            let project = Project::copy()?;
            let out = image::out()?.to_string_lossy().into_owned();
            let key = format!("{out}/image.pub");
            fs::write(project.path("evidence"), "{}")?;
            let attest = |more: &[&str]| project.run(&[&["attest", &out, "--key", &key], more].concat());
            attest(&[])?.is(INSTANCE, &["there is no instance `default`", "eci-builder run --tpm"])?;
            for nonce in ["zz", &"00".repeat(15), &"00".repeat(65)] {
                attest(&["--nonce", nonce])?.is(CONFIG, &["nonce is not 16 to 64 bytes", "openssl rand"])?;
            }
            let nonce = "00".repeat(16);
            let words = ["`evidence` is no evidence", "attest --save FILE"];
            attest(&["--reference", "evidence"])?.is(CONFIG, &words)?;
            attest(&["--evidence", "evidence", "--nonce", &nonce])?.is(CONFIG, &words)?;
            attest(&["--evidence", "evidence"])?.is(USAGE, &["--nonce"])?;
            attest(&["--settings", "none"])?.is(CONFIG, &["cannot read the settings"])?;
            project.run(&["attest", &out])?.is(USAGE, &["--key"])
        }),
        row("an_unknown_format_is_a_usage_error_that_names_the_known_ones", |()| {
            let project = Project::copy()?;
            project.build(&["--format", "vmdk"])?.is(USAGE, &["vmdk", "raw", "qcow2", "vhdx", "iso"])?;
            project.nothing_was_built()
        }),
        row("settings_that_no_image_takes_are_named_by_check_and_build", |()| {
            let project = Project::copy()?;
            let text = r#"{"configurationFileVersion": 2, "eci": {"engine": {"userns-remap": "default"}, "shares": []}}"#;
            fs::write(project.path("own.json"), text)?;
            let check = project.run(&["settings", "check", "own.json"])?;
            let found = check.0.stdout();
            check.is(CONFIG, &["`own.json` cannot be used as settings: 2 things are wrong"])?;
            for words in
                ["`eci.engine.userns-remap` is \"default\": ", "`eci.shares` is []: it has to be an object"]
            {
                ensure!(found.contains(words), "no `{words}` in\n{found}");
            }
            project.replace("eci.toml", "[settings]", "[settings]\nfile = \"own.json\"")?;
            project.build(&[])?.is(CONFIG, &["own.json", "`eci.engine.userns-remap`", "`eci.shares`"])?;
            project.nothing_was_built()?;
            project.replace("eci.toml", "own.json", "none.json")?;
            project.build(&[])?.is(CONFIG, &["cannot read", "none.json"])?;
            project.run(&["settings", "check", "none.json"])?.is(CONFIG, &["cannot read `none.json`"])
        }),
        row("settings_that_nobody_checked_are_for_no_shipped_image", |()| {
            let project = Project::copy()?;
            fs::write(project.path("own.json"), "broken")?;
            project.replace("eci.toml", "[settings]", "[settings]\nfile = \"own.json\"\nunchecked = true")?;
            project.build(&[])?.is(CONFIG, &["settings.unchecked", "test flavour"])?;
            project.nothing_was_built()
        }),
        row("memory_that_is_no_size_is_a_usage_error", |()| {
            let project = Project::copy()?;
            project.run(&["run", "--memory", "lots"])?.is(USAGE, &["lots"])
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
        let folder = image::copy_of_project()?;
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

    /// Names key and certificate for Secure Boot in `eci.toml`.
    fn secure_boot(&self, key: &str, certificate: &str) -> Result<()> {
        let table = format!("[secure_boot]\nkey = \"{key}\"\ncertificate = \"{certificate}\"");
        self.replace("eci.toml", "[secure_boot]", &table)
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
        self.surround(command.args(arguments));
        command
    }

    /// Keeps the user's instances and Docker contexts out of it.
    fn surround(&self, command: &mut Command) {
        command
            .current_dir(self.0.path())
            .env("XDG_STATE_HOME", self.path("state"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
    }

    fn run(&self, arguments: &[&str]) -> Result<Said> {
        Ok(Said(command::run(&mut self.command(arguments), &[])?))
    }

    fn build(&self, more: &[&str]) -> Result<Said> {
        Ok(Said(command::run(&mut self.build_command(more)?, &[])?))
    }

    fn build_command(&self, more: &[&str]) -> Result<Command> {
        let mut build = self.command(&["build"]);
        build.arg("--programs").arg(image::programs()?).args(more);
        Ok(build)
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

/// The certificate with a last moment in 2020. Nobody looks at a certificate's own signature where the certificate is what is trusted.
fn expired(pem: &str) -> Result<String> {
    let base64: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let mut der = BASE64.decode(base64)?;
    // Both times are `UTCTime` of 13 bytes (RFC 5280, 4.1.2.5), the last moment behind the first.
    let times: Vec<_> = (0..der.len() - 1).filter(|at| der[*at..].starts_with(&[0x17, 13])).collect();
    let [_, last] = times.as_slice() else { anyhow::bail!("the certificate has no two times") };
    der[last + 2..last + 4].copy_from_slice(b"20");
    Ok(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64.encode(der)))
}

/// A QEMU that says nothing under KVM, as some hosts' does, and fails at once without it: `run` has to give the first up,
/// leave nothing of it behind, and go on to the second.
fn hanging_kvm(_: &()) -> Result<()> {
    let project = Project::copy()?;
    let (qemu, pid) = (project.path("empty/qemu-system-x86_64"), project.path("pid"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *'-accel kvm'*) echo $$ >{}; exec sleep 600 ;; esac\necho no more >&2; exit 1\n",
        pid.display()
    );
    fs::write(&qemu, script)?;
    fs::set_permissions(&qemu, fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", project.path("empty").display(), env::var("PATH")?);
    let mut run = project.command(&["run", "--name", "input", "--detach"]);
    run.arg(image::out()?).env("PATH", path).env("XDG_CACHE_HOME", project.path("cache"));
    Said(command::run(&mut run, &[])?).is(BOOT, &["KVM does not run a guest", "the VM ended by itself"])?;
    // Without a /dev/kvm it was not even tried.
    if let Ok(pid) = fs::read_to_string(&pid) {
        ensure!(!Path::new("/proc").join(pid.trim()).exists(), "the hanging QEMU is still there");
    }
    Ok(())
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
        outcome.is(HOST, &["No space left on device", "hint: "])?;
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
    for moment in [50, 300, 1000, 2500, 6000] {
        let mut build = project.build_command(&["--offline"])?.stderr(Stdio::null()).spawn()?;
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
