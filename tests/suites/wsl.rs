//! The image as a distro of WSL 2: the engine gets ready in it and isolates containers, and a damaged distro never gets an engine.

use std::process::ExitCode;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use eci_contract::wsl::{HASH_TREE, MANIFEST, ROOT_IMAGE, SIGNATURE};
use eci_tests::suite::row;
use eci_tests::wsl::Wsl;
use eci_tests::{image, suite};
use serde_json::Value;

fn main() -> ExitCode {
    // In this order: one machine, whose distro is damaged in the end.
    let rows = vec![
        row("wsl_finds_the_distro_running", running),
        row("status_has_the_root_hash_of_the_build_and_says_what_is_left_out", status),
        row("a_container_of_another_distro_s_client_has_its_own_user_namespace", container),
        row("the_engine_opens_no_folder_of_the_distro_by_itself", no_folder),
        row("input_copies_and_builds_go_through_the_gate", through),
        row("systemctl_answers_and_there_is_no_shell", systemctl),
        row("neither_mounts_nor_sockets_of_the_system_are_in_the_distro", hidden),
        row("poweroff_stops_in_order_and_leaves_nothing_behind", poweroff),
        row("it_starts_again_with_its_data", again),
        row("a_changed_byte_of_the_manifest_gets_no_engine", |machine: &Machine| {
            machine.refused(
                MANIFEST,
                40,
                "verify signature: `/usr/lib/eci/manifest.json`: manifest signature does not verify",
            )
        }),
        row("a_changed_byte_of_the_signature_gets_no_engine", |machine| {
            machine.refused(
                SIGNATURE,
                9,
                "verify signature: `/usr/lib/eci/manifest.json`: manifest signature does not verify",
            )
        }),
        row("a_changed_superblock_of_the_root_gets_no_engine", |machine| {
            machine.refused(ROOT_IMAGE, 1024, "mount root: cannot mount erofs")
        }),
        row("a_changed_top_of_the_tree_gets_no_engine", |machine| {
            machine.refused(HASH_TREE, 4096, "mount root: cannot mount erofs")
        }),
    ];
    suite::run(Machine::default(), rows, |machine| machine.console())
}

/// The machine, by the first row that asks for it.
#[derive(Default)]
struct Machine(Mutex<Option<Wsl>>);

impl Machine {
    fn with<T>(&self, act: impl FnOnce(&mut Wsl) -> Result<T>) -> Result<T> {
        let mut wsl = self.0.lock().ok().context("another row panicked")?;
        let wsl = match &mut *wsl {
            Some(wsl) => wsl,
            none => {
                let archive = image::raw(&image::out()?)?.with_extension("wsl");
                none.insert(Wsl::start(&archive)?)
            }
        };
        act(wsl)
    }

    fn console(&self) -> String {
        let wsl = self.0.lock();
        wsl.ok().and_then(|wsl| wsl.as_ref().map(Wsl::console)).unwrap_or_default()
    }

    /// With one bit of this file's byte changed, the distro ends and says why; then the byte is put back.
    fn refused(&self, file: &str, at: u64, why: &str) -> Result<()> {
        self.with(|wsl| {
            let before = wsl.console().len();
            wsl.outside(&format!("flip /distro{file} {at}"))?;
            wsl.outside("start-distro")?;
            let after = wsl.says(before, "wsl: the distro has ended")?;
            wsl.outside(&format!("flip /distro{file} {at}"))?;
            let console = wsl.console();
            let said = console.get(before..after).unwrap_or_default();
            ensure!(said.contains(&format!("start refused: {why}")), "it says something else:\n{said}");
            ensure!(!said.contains("eci: boot "), "the engine was started:\n{said}");
            Ok(())
        })
    }
}

fn running(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        wsl.says(0, "WSL 2: containers are isolated")?;
        wsl.says(0, "wsl: the distro is running").map(drop)
    })
}

fn status(machine: &Machine) -> Result<()> {
    let status = machine.with(|wsl| wsl.session("/usr/bin/systemctl status"))?;
    ensure!(status.1 == 0, "{status:?}");
    let status: Value = serde_json::from_str(&status.0).with_context(|| status.0.clone())?;
    let root_hash = image::manifest(&image::out()?)?.root.root_hash;
    ensure!(status["image"]["root_hash"] == root_hash.as_str(), "another root: {}", status["image"]);
    ensure!(status["state"] == "ready", "{}", status["reason"]);
    let checks = status["checks"].as_array().context("a list of checks")?;
    let check = |id: &str| checks.iter().find(|check| check["id"] == id).context("it is listed");
    for id in ["root-verity", "root-read-only", "mount-flags"] {
        ensure!(check(id)?["holds"] == true, "{}", check(id)?);
    }
    for id in ["lockdown", "verity-panics", "apparmor"] {
        ensure!(check(id)?["left_out"].is_string() && check(id)?["holds"] == false, "{}", check(id)?);
    }
    ensure!(checks.iter().all(|check| check["holds"] == true || check["left_out"].is_string()), "{checks:?}");
    Ok(())
}

fn container(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        wsl.docker(&["import", "-", "busybox"], &image::busybox_tar()?)?.ok()?;
        let run = ["run", "--rm", "--privileged", "busybox", "cat", "/proc/self/uid_map"];
        let map = wsl.docker(&run, &[])?.ok()?;
        let words: Vec<_> = map.split_whitespace().collect();
        ensure!(words == ["0", "100000", "65536"], "{map}");
        let mount = ["run", "--rm", "-v", "/:/distro", "busybox", "true"];
        wsl.docker(&mount, &[])?.refused(&["restricted host mount"])?;
        let named = ["run", "--rm", "-v", "kept:/kept", "busybox", "sh", "-c", "echo data >/kept/file"];
        wsl.docker(&named, &[])?.ok().map(drop)
    })
}

/// There is no AppArmor here: the gate reads what is asked. The neighbours, which are allowed, are in the next row.
fn no_folder(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        wsl.docker(&["create", "--name", "bound", "-v", "/run:/x", "busybox", "true"], &[])?.ok()?;
        let why =
            &["enhanced container isolation: can't copy from or to container `bound`: it mounts `/run`"];
        wsl.docker(&["cp", "bound:/x", "-"], &[])?.refused(why)?;
        wsl.docker(&["cp", "bound:/etc", "-"], &[])?.refused(why)?;
        // The client asks by HEAD first, whose answers have no words.
        wsl.docker(&["cp", "-", "bound:/x"], &image::busybox_tar()?)?.refused(&["bound:/x"])?;
        wsl.docker(&["rm", "bound"], &[])?.ok()?;
        let why = &["enhanced container isolation: can't make a volume with `"];
        for options in [
            ["none", "bind", "/run"],
            ["tmpfs", "bind", "/run"],
            ["overlay", "lowerdir=/run:/etc", "overlay"],
        ] {
            let [kind, o, device] = options;
            let create = ["volume", "create", "-o"];
            let (kind, o, device) = (format!("type={kind}"), format!("o={o}"), format!("device={device}"));
            wsl.docker(&[&create[..], &[&kind, "-o", &o, "-o", &device]].concat(), &[])?.refused(why)?;
            let mount =
                format!("type=volume,dst=/x,volume-opt={kind},\"volume-opt={o}\",volume-opt={device}");
            wsl.docker(&["create", "--mount", &mount, "busybox", "true"], &[])?.refused(why)?;
        }
        wsl.docker(&["create", "-v", "kept:/etc/hosts", "busybox", "true"], &[])?
            .refused(&["can't mount anything at `/etc/hosts`"])?;
        let id = "0a".repeat(32);
        wsl.docker(&["create", "--name", &id, "busybox", "true"], &[])?
            .refused(&["can't name a container `0a"])?;
        let volumes = wsl.docker(&["volume", "ls", "-q"], &[])?.ok()?;
        ensure!(volumes == "kept", "{volumes}");
        let containers = wsl.docker(&["ps", "-aq"], &[])?.ok()?;
        ensure!(containers.is_empty(), "{containers}");
        let odd = ["service", "create", "busybox"];
        wsl.docker(&odd, &[])?
            .refused(&["neither swarms and services nor plugins in a distro of WSL 2"])
            .map(drop)
    })
}

fn through(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        let echo = ["run", "--rm", "-i", "busybox", "sh", "-c", "cat; echo end"];
        let said = wsl.docker(&echo, b"input\n")?.ok()?;
        ensure!(said == "input\nend", "{said}");
        let create = ["create", "--name", "plain", "-v", "kept:/kept", "busybox", "cat", "/kept/bin/busybox"];
        wsl.docker(&create, &[])?.ok()?;
        wsl.docker(&["cp", "-", "plain:/kept"], &image::busybox_tar()?)?.ok()?;
        let back = wsl.docker(&["start", "-a", "plain"], &[])?;
        ensure!(back.code == 0 && back.bytes.len() > 100_000, "{} bytes: {}", back.bytes.len(), back.stderr);
        let copied = wsl.docker(&["cp", "plain:/kept/bin/busybox", "-"], &[])?;
        ensure!(copied.code == 0 && copied.bytes.len() > back.bytes.len(), "{}", copied.stderr);
        wsl.docker(&["rm", "plain"], &[])?.ok()?;
        let tmpfs =
            ["volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m", "small"];
        wsl.docker(&tmpfs, &[])?.ok()?;
        let size = ["run", "--rm", "-v", "small:/s", "busybox", "sh", "-c", "df -k /s | tail -n 1"];
        let said = wsl.docker(&size, &[])?.ok()?;
        ensure!(said.contains(" 1024 "), "{said}");
        wsl.docker(&["volume", "rm", "small"], &[])?.ok()?;
        let made = wsl.docker(&["build", "-q", "-t", "made", "-"], b"FROM busybox\nRUN id -u >/made\n")?;
        made.ok()?;
        let said = wsl.docker(&["run", "--rm", "made", "cat", "/made"], &[])?.ok()?;
        ensure!(said == "0", "{said}");
        Ok(())
    })
}

fn systemctl(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        let said = wsl.session("/usr/bin/systemctl is-system-running")?;
        ensure!(said == ("running".to_owned(), 0), "{said:?}");
        for line in ["/usr/bin/systemctl start x", "/bin/sh -c id", "/bin/sh", "/sbin/init network"] {
            let said = wsl.session(line)?;
            ensure!(said.1 == 64 && said.0.contains("no shell"), "`{line}`: {said:?}");
        }
        Ok(())
    })
}

/// A session sees the archive's files and the two sockets, and the system's own folders are not there.
fn hidden(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        let mounts = wsl.outside("cat /proc/$(pid-2)/mountinfo")?;
        for text in ["erofs", "/var/lib/docker", "overlay"] {
            ensure!(!mounts.contains(text), "`{text}` is among the distro's mounts:\n{mounts}");
        }
        let shared = wsl.outside("ls /proc/$(pid-2)/cwd/run/eci")?;
        ensure!(shared == "docker.sock\ninit.sock", "{shared}");
        let socket = wsl.outside("stat -c %A%u /shared/eci/docker.sock")?;
        ensure!(socket == "srw-------0", "{socket}");
        let link = wsl.outside("readlink /proc/$(pid-2)/cwd/run/docker.sock")?;
        ensure!(link == "/run/eci/docker.sock", "{link}");
        Ok(())
    })
}

fn poweroff(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        let before = wsl.console().len();
        // The session ends with the distro, so it has no exit code.
        drop(wsl.session("/usr/bin/systemctl poweroff"));
        let after = wsl.says(before, "wsl: the distro has ended")?;
        let console = wsl.console();
        let said = console.get(before..after).unwrap_or_default();
        ensure!(said.contains("eci: all services have stopped"), "services were killed:\n{said}");
        // The kernel takes them away some time after the last mount.
        let devices = "{ losetup -a; ls /sys/block | grep ^dm-; }";
        let wait = format!(
            "for i in $(seq 100); do [ \"$({devices})\" ] || break; sleep 0.1; done; {devices} || true"
        );
        let left = wsl.outside(&wait)?;
        ensure!(left.is_empty(), "devices are left:\n{left}");
        Ok(())
    })
}

fn again(machine: &Machine) -> Result<()> {
    machine.with(|wsl| {
        let before = wsl.console().len();
        wsl.outside("start-distro")?;
        wsl.says(before, "wsl: the distro is running")?;
        let read = ["run", "--rm", "-v", "kept:/kept", "busybox", "cat", "/kept/file"];
        let said = wsl.docker(&read, &[])?.ok()?;
        ensure!(said == "data", "{said}");
        let before = wsl.console().len();
        // As WSL does when it ends a distro.
        drop(wsl.session("/bin/sh -c 'systemctl reboot'"));
        wsl.says(before, "wsl: the distro has ended").map(drop)
    })
}
