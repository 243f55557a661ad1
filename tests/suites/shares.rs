//! Folders of the host in containers: at their own paths, with owners that make sense on both sides, and a wall around each.
//!
//! Which folders an administrator lets be shared is suite `settings`; which arguments are refused without a machine, unit tests of
//! `eci_builder::instance::shares` as well.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eci_tests::attempts;
use eci_tests::command::{self, Outcome};
use eci_tests::image;
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::Vm;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Exit code of `eci-builder --help` for settings and folders that cannot be used.
const CONFIG: i32 = 3;

/// A machine with two folders, one of them to be read only.
struct Shared {
    vm: Vm,
    folder: TempDir,
}

fn main() -> ExitCode {
    match boot() {
        Ok(shared) => suite::run(shared, rows(), |shared| shared.vm.last_words()),
        Err(error) => {
            eprintln!("the image does not boot with folders of the host: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Shared> {
    let folder = image::shareable_folder()?;
    let path = |name: &str| folder.path().join(name);
    for name in ["src", "read", "beside"] {
        fs::create_dir(path(name))?;
        fs::write(path(name).join("file"), name)?;
    }
    let (src, read) = (path("src"), path("read"));
    let mut vm = Vm::prepare("shares", &image::out()?)?;
    vm.boot(&["--share", &src.to_string_lossy(), "--share", &format!("{}:ro", read.display())])?;
    vm.import_busybox()?;
    Ok(Shared { vm, folder })
}

fn rows() -> Vec<Row<Shared>> {
    vec![
        row("a_folder_is_at_its_own_path_and_root_s_own", |shared| {
            shared.says("src", &[], "cat /s/file; stat -c %u:%g /s /s/file", "src0:0\n0:0")?;
            shared.says("src", &["--privileged"], "cat /s/file; stat -c %u /s/file", "src0")?;
            let source = ["inspect", "-f", "{{(index .Mounts 0).Source}}", "kept"];
            shared
                .vm
                .docker(&["create", "--name", "kept", "-v", &shared.bind("src"), "busybox", "true"])?
                .ok()?;
            let told = shared.vm.docker(&source)?.ok()?;
            ensure!(Path::new(&told) == shared.path("src"), "{told}");
            Ok(())
        }),
        row("what_containers_make_is_the_user_s_on_the_host", |shared| {
            fs::set_permissions(shared.path("src"), Permissions::from_mode(0o777))?;
            shared.says(
                "src",
                &[],
                "echo one >/s/by-root; chown 5:6 /s/by-root; stat -c %u /s/by-root",
                "0",
            )?;
            shared.says("src", &["-u", "1000"], "echo two >/s/by-user; cat /s/by-root", "one")?;
            let own = fs::metadata(shared.path("src"))?;
            for name in ["by-root", "by-user"] {
                let made = fs::metadata(shared.path("src").join(name))?;
                ensure!(
                    (made.uid(), made.gid()) == (own.uid(), own.gid()),
                    "{name} is {}:{}",
                    made.uid(),
                    made.gid()
                );
            }
            // Where the host's modes let nobody but the user, a container's other users are nobody's either.
            fs::set_permissions(shared.path("src"), Permissions::from_mode(0o755))?;
            shared.run("src", &["-u", "1000"], "echo >/s/denied")?.refused(&["Permission denied"]).map(drop)
        }),
        row("a_folder_that_is_to_be_read_is_read", |shared| {
            shared.says("read", &["--privileged"], "cat /s/file", "read")?;
            for flags in [&[][..], &["--privileged"]] {
                let script =
                    "mount -o remount,bind,rw /s 2>/dev/null; rm /s/file; chmod 777 /s; echo >/s/new";
                shared.run("read", flags, script)?.refused(&["Read-only file system"])?;
            }
            ensure!(fs::read_dir(shared.path("read"))?.count() == 1, "something was written");
            let one = shared.path("src").join("file");
            let flags = ["-v", &format!("{}:/one:ro", one.display())];
            shared.vm.sh(&flags, "cat /one; ! echo x >/one 2>/dev/null").map(drop)
        }),
        row("no_link_and_no_path_leads_out_of_a_folder", |shared| {
            symlink("/etc", shared.path("src").join("out"))?;
            symlink("../beside", shared.path("src").join("up"))?;
            let marked =
                "echo own >/etc/mark; cat /s/out/mark; ls /s/up/file /s/../beside 2>/dev/null; exit 0";
            shared.says("src", &[], marked, "own")?;
            let denied = |source: &Path, why: &str| {
                let mount = format!("type=bind,src={},dst=/s", source.display());
                let run = shared.vm.docker(&["run", "--rm", "--mount", &mount, "busybox", "ls", "/s"])?;
                run.refused(&[why]).map(drop)
            };
            let around = "because it's configured as a restricted host mount";
            denied(shared.folder.path(), around)?;
            denied(shared.folder.path().parent().context("a parent")?, around)?;
            denied(&shared.path("beside"), "bind source path does not exist")?;
            // What a container puts into its folder is not what another one gets, or it the next time.
            shared.vm.sh(&["-v", "others:/v"], "echo secret >/v/file")?;
            symlink("/var/lib/docker/volumes/others/_data", shared.path("src").join("volume"))?;
            symlink(shared.path("read"), shared.path("src").join("share"))?;
            symlink("file", shared.path("src").join("name"))?;
            for link in ["out", "up", "volume", "share", "name"] {
                denied(&shared.path("src").join(link), "too many levels of symbolic links")?;
                let bind = format!("{}:/s", shared.path("src").join(link).display());
                let run =
                    shared.vm.docker(&["run", "--rm", "-v", &bind, "busybox", "cat", "/s", "/s/file"])?;
                run.refused(&["error while creating mount source path", "file exists"])?;
            }
            // In the container it is a link as any.
            shared.says("src", &[], "cat /s/name", "src")
        }),
        row("no_container_mounts_a_folder_by_itself", |shared| {
            let script = "mkdir /x; mount -t virtiofs eci-share-0 /x && ls /x";
            for flags in [&["--cap-add", "ALL"][..], &["--privileged"]] {
                let run = [&["run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
                shared.vm.docker(&run)?.refused(&["mount: "])?;
            }
            let volume = ["volume", "create", "-o", "type=virtiofs", "-o", "device=eci-share-1", "taken"];
            shared.vm.docker(&volume)?.ok()?;
            let run = shared.vm.docker(&["run", "--rm", "-v", "taken:/x", "busybox", "ls", "/x"])?;
            run.refused(&["permission denied"])?;
            shared.vm.docker(&["volume", "rm", "taken"])?.ok().map(drop)
        }),
        row("a_file_system_that_is_mounted_in_a_folder_is_part_of_it", |shared| {
            let inner = shared.path("src").join("inner");
            fs::create_dir(&inner)?;
            // Only root mounts one here.
            let at = inner.to_string_lossy();
            if command::host("mount", &["-t", "tmpfs", "-o", "mode=0755", "inner", &at])?.code != 0 {
                return Ok(());
            }
            let outcome =
                shared.says("src", &[], "echo x >/s/inner/new; stat -c %u /s/inner /s/inner/new", "0\n0");
            command::host("umount", &["--lazy", &at])?.ok()?;
            outcome
        }),
        row("a_name_that_is_no_text_keeps_no_container_from_starting", |shared| {
            let (before, after) =
                (shared.path("src").join("named"), shared.path("src").join(OsStr::from_bytes(b"\xff")));
            fs::create_dir(&before)?;
            let device = format!("device={}", before.display());
            shared
                .vm
                .docker(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "named"])?
                .ok()?;
            shared
                .vm
                .docker(&["run", "-d", "--name", "namer", "-v", "named:/v", "busybox", "sleep", "600"])?
                .ok()?;
            fs::rename(&before, &after)?;
            shared.says("src", &[], "cat /s/file", "src")?;
            shared.vm.docker(&["rm", "-f", "namer"])?.ok().map(drop)
        }),
        row("neither_setuid_files_nor_device_nodes_of_the_host_have_an_effect", |shared| {
            let tool = shared.path("src").join("busybox");
            fs::copy("/bin/busybox", &tool)?;
            fs::set_permissions(&tool, Permissions::from_mode(0o4755))?;
            shared.says("src", &["-u", "1000"], "/s/busybox id -u", "1000")?;
            attempts::expect(&shared.vm, &["-v", &shared.bind("src")], &[("make-node-on:/s", "EPERM")])?;
            // Only root makes one here.
            let node = shared.path("src").join("null");
            if command::host("mknod", &[&node.to_string_lossy(), "c", "1", "3"])?.code == 0 {
                shared.run("src", &["--privileged"], "cat /s/null")?.refused(&["Permission denied"])?;
            }
            Ok(())
        }),
        row("files_are_copied_to_and_from_containers_that_have_a_folder", |shared| {
            let (there, back) = (shared.folder.path().join("there"), shared.folder.path().join("back"));
            fs::write(&there, "copied")?;
            // `kept` never started: the engine looks into it by itself.
            shared.vm.docker(&["cp", &there.to_string_lossy(), "kept:/s/there"])?.ok()?;
            ensure!(fs::read(shared.path("src").join("there"))? == b"copied");
            shared.vm.docker(&["cp", "kept:/s/there", &back.to_string_lossy()])?.ok()?;
            ensure!(fs::read(&back)? == b"copied");
            let device = format!("device={}", shared.path("src").display());
            shared
                .vm
                .docker(&["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", &device, "bound"])?
                .ok()?;
            let text = shared.vm.sh(&["-v", "bound:/v"], "cat /v/there; stat -c %u /v/there")?;
            ensure!(text == "copied0", "{text}");
            Ok(())
        }),
        row("locks_and_watchers_of_two_containers_work_together", |shared| {
            let bind = shared.bind("src");
            let probe = |name: &str, verb: &str| {
                shared.vm.docker(&["run", "-d", "--name", name, "-v", &bind, "busybox", "/probe", verb])?.ok()
            };
            let src = shared.path("src");
            probe("holder", "hold-lock:/s/lock")?;
            appears(&src.join("lock.held"))?;
            let expected = [("take-lock:/s/lock", "EAGAIN"), ("take-lock:/s/other", "allowed")];
            attempts::expect(&shared.vm, &["-v", &bind], &expected)?;
            probe("watcher", "watch:/s")?;
            appears(&src.join("watched"))?;
            shared.says("src", &[], "echo >/s/changed; echo >/s/lock.let-go", "")?;
            for name in ["holder", "watcher"] {
                shared.vm.docker(&["wait", name])?.ok()?;
                let said = shared.vm.docker(&["logs", name])?.ok()?;
                ensure!(said.ends_with(": allowed"), "{name}: {said}");
                shared.vm.docker(&["rm", name])?.ok()?;
            }
            attempts::expect(&shared.vm, &["-v", &bind], &[("take-lock:/s/lock", "allowed")])
        }),
        row("what_changes_on_the_host_changes_in_containers", |shared| {
            let script = "until grep -q second /s/seen 2>/dev/null; do sleep 0.2; done; echo seen";
            let src = shared.path("src");
            fs::write(src.join("seen"), "first")?;
            shared
                .vm
                .docker(&[
                    "run",
                    "-d",
                    "--name",
                    "reader",
                    "-v",
                    &shared.bind("src"),
                    "busybox",
                    "sh",
                    "-c",
                    script,
                ])?
                .ok()?;
            fs::write(src.join("seen"), "second")?;
            shared.vm.docker(&["wait", "reader"])?.ok()?;
            let said = shared.vm.docker(&["logs", "reader"])?.ok()?;
            ensure!(said == "seen", "{said}");
            Ok(())
        }),
        row("status_tells_of_the_folders_and_every_promise_holds", |shared| {
            let told = shared.vm.status()?["shares"].clone();
            let expected = json!([
                { "path": shared.path("src"), "readOnly": false }, { "path": shared.path("read"), "readOnly": true }
            ]);
            ensure!(told == expected, "{told}");
            shared.vm.every_check_holds()
        }),
        row("folders_that_cannot_be_shared_are_refused_with_the_reason_and_nothing_boots", refused),
        row("folders_are_remembered_and_a_machine_does_not_go_on_without_what_serves_them", |shared| {
            let vm = &shared.vm;
            vm.stop()?;
            let text = vm.run(&[])?.ok()?;
            let answer: Value = serde_json::from_str(&text)?;
            ensure!(vm.status()?["shares"].as_array().is_some_and(|shares| shares.len() == 2), "forgotten");
            let supervisor = answer["pid"].to_string();
            let server = command::host("pgrep", &["-P", &supervisor, "-o", "virtiofsd"])?.ok()?;
            command::host("kill", &["-KILL", &server])?.ok()?;
            let log = vm.state().join("supervisor.log");
            let begin = Instant::now();
            let words =
                format!("error: what serves the folder `{}` to the VM ended", shared.path("src").display());
            while !fs::read_to_string(&log)?.contains(&words) {
                ensure!(begin.elapsed() < Duration::from_secs(120), "{}", fs::read_to_string(&log)?);
                thread::sleep(Duration::from_millis(200));
            }
            ensure!(vm.console().contains("shutting down"), "the VM was not asked to stop");
            // The parent is told by the kernel that they end with it.
            let left = command::host("pgrep", &["-f", &shared.path("src").to_string_lossy()])?;
            ensure!(left.code != 0, "something still serves the folder: {}", left.stdout());
            vm.run(&["--no-shares"])?.ok()?;
            ensure!(vm.status()?.get("shares").is_none(), "the folders were not forgotten");
            shared.run("src", &[], "true")?.refused(&["read-only file system"])?;
            let record: Value = serde_json::from_slice(&fs::read(vm.state().join("instance.json"))?)?;
            ensure!(record.get("shares").is_none(), "{record}");
            Ok(())
        }),
    ]
}

/// Nothing of it starts a machine.
fn refused(shared: &Shared) -> Result<()> {
    let path = |name: &str| shared.path(name).display().to_string();
    let (file, missing, inside) =
        (format!("{}/file", path("src")), path("missing"), format!("{}/sub", path("src")));
    fs::create_dir(&inside)?;
    let vm = Vm::prepare("unshared", &image::out()?)?;
    let state = vm.state();
    fs::create_dir_all(&state)?;
    let state = state.parent().context("a parent")?.display().to_string();
    let link = format!("{}/link", path("src"));
    symlink("../read", &link)?;
    let cases: [(&[&str], &str); 8] = [
        (&[&link], "by a link it is"),
        (&[&missing], "No such file or directory"),
        (&[&file], "it is not a folder"),
        (&["/etc"], "it has places below /Users"),
        (&["/"], "it is no plain absolute path"),
        (&[&path("src"), &inside], "is shared, too"),
        (&[&path("src"), &path("src")], "is shared, too"),
        // Elsewhere than shares may be, and the reason is the first that is found.
        (&[&state], "it has places below"),
    ];
    for (folders, reason) in cases {
        let arguments: Vec<_> = folders.iter().flat_map(|folder| ["--share", *folder]).collect();
        let outcome = vm.run(&arguments)?;
        ensure!(outcome.code == CONFIG, "{folders:?}: exit code {}: {}", outcome.code, outcome.stderr);
        outcome.refused(&[reason, "hint: "])?;
    }
    ensure!(vm.console().is_empty(), "a machine was started");
    Ok(())
}

/// Waits for a file that a container makes.
fn appears(path: &Path) -> Result<()> {
    let begin = Instant::now();
    while !path.exists() {
        ensure!(begin.elapsed() < Duration::from_secs(60), "{} does not appear", path.display());
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

impl Shared {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// As `docker run -v` has it.
    fn bind(&self, name: &str) -> String {
        format!("{}:/s", self.path(name).display())
    }

    /// A script in a container that has the folder at `/s`.
    fn run(&self, name: &str, flags: &[&str], script: &str) -> Result<Outcome> {
        let bind = self.bind(name);
        let arguments = [&["run", "--rm", "-v", &bind], flags, &["busybox", "sh", "-c", script]].concat();
        self.vm.docker(&arguments)
    }

    fn says(&self, name: &str, flags: &[&str], script: &str, expected: &str) -> Result<()> {
        let said = self.run(name, flags, script)?.ok()?;
        ensure!(said == expected, "said\n{said}\nexpected\n{expected}");
        Ok(())
    }
}
