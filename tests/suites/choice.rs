//! Who decides whether containers are isolated, and what it means that they are not: the administrator's settings, the user where those
//! leave it to them, and nobody else.
//!
//! One instance goes through it all: isolated, not isolated, isolated again, and then under settings that are locked.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use eci_tests::attempts;
use eci_tests::built::Built;
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::Vm;
use serde_json::{Value, json};

/// Name of the instance.
const NAME: &str = "choice";
/// What root of the VM reads, and no other.
const WHOLE_MAP: [&str; 3] = ["0", "0", "4294967295"];
/// What a container is told that ran while isolation was off.
const REFUSED: &str = "enhanced container isolation: this container ran while isolation was off, and can't be started while it is on";

/// An image whose settings leave the choice to its user, and a machine of it.
struct Chosen {
    vm: Vm,
    built: Built,
}

fn main() -> ExitCode {
    match boot() {
        Ok(chosen) => suite::run(chosen, rows(), |chosen| chosen.vm.last_words()),
        Err(error) => {
            eprintln!("the image whose isolation is not locked does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Chosen> {
    let built = Built::new(&settings(true, false).to_string(), &[])?;
    let vm = Vm::start(NAME, &built.out())?;
    vm.import_busybox()?;
    Ok(Chosen { vm, built })
}

fn settings(value: bool, locked: bool) -> Value {
    json!({ "configurationFileVersion": 2, "enhancedContainerIsolation": { "value": value, "locked": locked } })
}

fn rows() -> Vec<Row<Chosen>> {
    vec![
        row("nobody_chose_and_the_settings_are_in_force", |chosen| {
            chosen.is("on", false)?;
            chosen.run_forever("isolated", &[])?;
            chosen.is_isolated("isolated", "eci-runc")?;
            chosen.run_forever("by-name", &["--runtime", "runc"])?;
            chosen.is_isolated("by-name", "runc")?;
            chosen.nobody_switches_off()
        }),
        row("the_user_switches_off_what_is_not_locked", |chosen| {
            chosen.again(&["--isolation", "off"])?;
            chosen.is("off", false)?;
            let info =
                chosen.vm.docker(&["info", "--format", "{{.DefaultRuntime}} {{json .Labels}}"])?.ok()?;
            ensure!(info.starts_with("runc ") && info.contains("org.eci.isolation=off"), "{info}");
            let told = chosen.vm.builder(&["status", "--name", NAME])?.ok()?;
            ensure!(told.contains("isolation off (not locked)"), "{told}");
            chosen.run_forever("free", &["--restart", "always"])?;
            ensure!(chosen.map("free")? == WHOLE_MAP, "{:?}", chosen.map("free")?);
            ensure!(chosen.runtime("free")? == "runc");
            chosen.what_containers_cannot_change_holds()
        }),
        row("containers_and_builds_are_then_as_on_any_machine", |chosen| {
            let vm = &chosen.vm;
            let mine = vm.sh(
                &["--pid", "host", "--network", "host", "--privileged"],
                "cat /proc/1/comm; ls /dev/vda",
            )?;
            ensure!(mine.starts_with("init\n") && mine.contains("/dev/vda"), "{mine}");
            let settings = vm.sh(&["-v", "/etc/eci:/x"], "cat /x/admin-settings.json")?;
            ensure!(settings.contains("\"locked\":false"), "{settings}");
            let socket = ["-v", "/var/run/docker.sock:/var/run/docker.sock"];
            let verbs = ["engine:GET /v1.45/containers/json", "engine:GET /v1.45/volumes"];
            attempts::check(&attempts::make(vm, &socket, &verbs)?, &verbs.map(|verb| (verb, "allowed")))?;
            let build = ["build", "--progress=plain", "--no-cache", "-"];
            let build = vm.docker_with(&build, b"FROM busybox\nRUN cat /proc/self/uid_map\n")?;
            ensure!(build.stderr.contains("4294967295"), "{}", build.stderr);
            build.ok()?;
            let exec = ["exec", "--privileged", "free", "grep", "CapEff", "/proc/self/status"];
            let capabilities = vm.docker(&exec)?.ok()?;
            ensure!(capabilities.trim().ends_with("1ffffffffff"), "{capabilities}");
            vm.docker(&["update", "--memory", "64m", "--memory-swap", "64m", "free"])?.ok()?;
            vm.docker(&["restart", "-t", "0", "free"])?.ok()?;
            ensure!(chosen.map("free")? == WHOLE_MAP);
            vm.docker(&["create", "--name", "idle", "busybox", "sleep", "600"])?.ok().map(drop)
        }),
        row("a_container_that_was_made_isolated_stays_so_and_one_can_be_by_name", |chosen| {
            for (container, runtime) in [("isolated", "eci-runc"), ("by-name", "runc")] {
                chosen.vm.docker(&["start", container])?.ok()?;
                chosen.is_isolated(container, runtime)?;
                chosen.vm.docker(&["exec", container, "true"])?.ok()?;
            }
            for runtime in ["eci-runc", "sysbox-runc"] {
                let map = chosen.vm.sh(&["--privileged", "--runtime", runtime], "cat /proc/self/uid_map")?;
                ensure!(map.split_whitespace().last() == Some("65536"), "{map}");
            }
            let host = ["--runtime", "eci-runc", "--rm", "--pid", "host", "busybox", "true"];
            let told = chosen.vm.docker(&[&["run"], &host[..]].concat())?;
            told.refused(&["can't share namespaces [pid] with the host"])?;
            // Nor does it join one that is not isolated.
            let joins =
                ["run", "--runtime", "eci-runc", "--rm", "--network", "container:free", "busybox", "true"];
            chosen.vm.docker(&joins)?.refused(&["can't share namespaces [network] with the host"]).map(drop)
        }),
        row("the_root_of_the_vm_is_not_changed_by_its_root", |chosen| {
            let attack = "touch /vm/usr/x; mount -o remount,rw /vm; touch /vm/usr/bin/y; echo x >/vm/etc/eci/admin-settings.json; \
                mount --bind /vm /vm && mount -o remount,rw,bind /vm; touch /vm/usr/z; dd if=/dev/zero of=/dev/dm-0 bs=4096 count=1 conv=fsync; \
                dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync; echo done";
            // A library that containerd would load as it starts, and not start with one like this.
            let planted = "for name in amd64 arm64; do mkdir -p /vm/var/lib/docker/containerd/daemon/plugins &&                 echo x >/vm/var/lib/docker/containerd/daemon/plugins/x-linux-$name.so; done";
            chosen.vm.sh(&["-v", "/:/vm"], planted)?;
            let outcome = chosen.vm.docker(&[
                "run",
                "--rm",
                "--privileged",
                "-v",
                "/:/vm",
                "busybox",
                "sh",
                "-c",
                attack,
            ])?;
            let said = outcome.stderr.clone();
            ensure!(outcome.ok()?.trim() == "done", "{said}");
            for file in ["/vm/usr/x", "/vm/usr/bin/y", "/vm/usr/z"] {
                ensure!(said.contains(&format!("touch: {file}: Read-only file system")), "{file}: {said}");
            }
            let seen =
                chosen.vm.sh(&["-v", "/:/vm:ro"], "ls /vm/usr; cat /vm/etc/eci/admin-settings.json")?;
            ensure!(seen.contains("\"value\":true") && !seen.contains("\nx\n"), "{seen}");
            let kernel = "cat /proc/sys/kernel/modules_disabled 2>/dev/null; dd if=/dev/mem of=/dev/null bs=1 count=1; \
                mknod /m c 1 1; dd if=/m of=/dev/null bs=1 count=1; echo b >/proc/sysrq-trigger; ls /sys/kernel/security/lockdown; sleep 1; echo alive";
            let lives = chosen.vm.sh(&["--privileged", "-v", "/sys:/sys"], kernel)?;
            ensure!(lives.trim().ends_with("alive"), "{lives}");
            chosen.what_containers_cannot_change_holds()
        }),
        row("the_choice_is_remembered", |chosen| {
            // It breaks two promises as soon as the engine starts it, which its user is free to.
            let breaks = "echo 1 >/proc/sys/kernel/dmesg_restrict; sysctl -w kernel.kptr_restrict=0; nc -ll -p 8099 -e true";
            let flags = ["--privileged", "--network", "host", "--restart", "always"];
            let command =
                [&["run", "-d", "--name", "loud"][..], &flags, &["busybox", "sh", "-c", breaks]].concat();
            chosen.vm.docker(&command)?.ok()?;
            chosen.again(&[])?;
            chosen.is("off", false)?;
            ensure!(chosen.map("free")? == WHOLE_MAP, "it has come up again");
            chosen.what_containers_cannot_change_holds()?;
            chosen.vm.docker(&["rm", "-f", "loud"])?.ok().map(drop)
        }),
        row("what_ran_without_isolation_does_not_start_with_it", |chosen| {
            let vm = &chosen.vm;
            chosen.again(&["--isolation", "on"])?;
            chosen.is("on", false)?;
            let free = vm.docker(&["inspect", "-f", "{{.State.Running}} {{.State.Error}}", "free"])?.ok()?;
            ensure!(free.starts_with("false ") && free.contains(REFUSED), "it was to restart always: {free}");
            vm.docker(&["start", "free"])?.refused(&[REFUSED])?;
            let audit = vm.builder(&["audit", "--name", NAME])?.ok()?;
            ensure!(audit.contains("ran while isolation was off") && audit.contains("docker rm"), "{audit}");
            // One that never ran has nothing of it, and starts as everything does.
            vm.docker(&["start", "idle"])?.ok()?;
            ensure!(
                chosen.map("idle")?.last().is_some_and(|count| count == "65536"),
                "{:?}",
                chosen.map("idle")?
            );
            vm.docker(&["start", "isolated"])?.ok()?;
            chosen.is_isolated("isolated", "eci-runc")?;
            chosen.nobody_switches_off()?;
            // Made anew it runs.
            vm.docker(&["rm", "-f", "free"])?.ok()?;
            chosen.run_forever("free", &[])?;
            chosen.is_isolated("free", "eci-runc")?;
            vm.every_check_holds()
        }),
        row("locked_on_is_not_switched_off", |chosen| {
            chosen.vm.stop()?;
            let disk = chosen.disk(1, &settings(true, true))?;
            let outcome = chosen.vm.run(&["--settings", &disk, "--isolation", "off"])?;
            let locked =
                "isolation of containers cannot be switched off: the administrator's settings lock it on";
            ensure!(
                outcome.stderr.contains(locked) && !outcome.stderr.contains("NOT isolated"),
                "{}",
                outcome.stderr
            );
            outcome.ok()?;
            chosen.is("on", true)?;
            chosen.nobody_switches_off()
        }),
        row("locked_off_is_not_switched_on", |chosen| {
            chosen.vm.stop()?;
            let disk = chosen.disk(2, &settings(false, true))?;
            let outcome = chosen.vm.run(&["--settings", &disk, "--isolation", "on"])?;
            let locked =
                "isolation of containers cannot be switched on: the administrator's settings lock it off";
            for words in
                [locked, "`--isolation settings` takes the choice back", "containers are NOT isolated"]
            {
                ensure!(outcome.stderr.contains(words), "no {words} in {}", outcome.stderr);
            }
            outcome.ok()?;
            chosen.is("off", true)?;
            let map = chosen.vm.sh(&[], "cat /proc/self/uid_map")?;
            ensure!(map.split_whitespace().eq(WHOLE_MAP), "{map}");
            chosen.what_containers_cannot_change_holds()
        }),
    ]
}

impl Chosen {
    /// Stops the machine and starts it with these flags.
    fn again(&self, flags: &[&str]) -> Result<()> {
        self.vm.stop()?;
        self.vm.run(flags)?.ok().map(drop)
    }

    /// The engine makes folders for mounts whose source is missing, wherever its user says; none of them says that isolation is off.
    fn nobody_switches_off(&self) -> Result<()> {
        for source in ["/run/eci/isolation", "/run/eci/isolation-off", "/run/eci/isolation/off"] {
            let bind = format!("{source}:/x");
            let outcome = self.vm.docker(&["run", "--rm", "-v", &bind, "busybox", "true"])?;
            ensure!(outcome.code != 0, "{source} was mounted");
        }
        for runtime in ["runc", "io.containerd.runc.v2", "eci-runc"] {
            let map = self.vm.sh(&["--privileged", "--runtime", runtime], "cat /proc/self/uid_map")?;
            ensure!(map.split_whitespace().last() == Some("65536"), "{runtime}: {map}");
        }
        let build = ["build", "--progress=plain", "--no-cache", "-"];
        let build = self.vm.docker_with(&build, b"FROM busybox\nRUN cat /proc/self/uid_map\n")?;
        ensure!(build.stderr.contains("65536") && !build.stderr.contains("4294967295"), "{}", build.stderr);
        build.ok().map(drop)
    }

    /// Of the promises, those that not even root of the VM can break hold; status says why the others are not asked for again.
    fn what_containers_cannot_change_holds(&self) -> Result<()> {
        let status = self.vm.status()?;
        let checks = status["checks"].as_array().context("status has no checks")?;
        for check in checks {
            let lasting = ["root-verity", "root-signed", "verity-panics", "root-read-only", "lockdown"];
            let lasts = check["id"].as_str().is_some_and(|id| lasting.contains(&id));
            let left_out = check["left_out"].as_str().unwrap_or_default();
            ensure!(
                if lasts { check["holds"] == true } else { left_out.starts_with("isolation is off") },
                "{check}"
            );
        }
        ensure!(checks.len() >= 10 && status["state"] == "ready", "{status}");
        Ok(())
    }

    /// What `status` says is in force.
    fn is(&self, isolation: &str, locked: bool) -> Result<()> {
        let settings = self.vm.status()?["settings"].clone();
        let found = (&settings["isolation"], &settings["locked"]);
        ensure!(found == (&json!(isolation), &json!(locked)), "{settings}");
        Ok(())
    }

    fn run_forever(&self, name: &str, flags: &[&str]) -> Result<()> {
        let command = [&["run", "-d", "--name", name][..], flags, &["busybox", "sleep", "6000"]].concat();
        self.vm.docker(&command)?.ok().map(drop)
    }

    /// The user namespace's map of a running container.
    fn map(&self, container: &str) -> Result<Vec<String>> {
        let map = self.vm.docker(&["exec", container, "cat", "/proc/1/uid_map"])?.ok()?;
        Ok(map.split_whitespace().map(str::to_owned).collect())
    }

    fn runtime(&self, container: &str) -> Result<String> {
        self.vm
            .docker(&["inspect", "-f", "{{.HostConfig.Runtime}}", container])?
            .ok()
            .map(|text| text.trim().to_owned())
    }

    fn is_isolated(&self, container: &str, runtime: &str) -> Result<()> {
        let (map, found) = (self.map(container)?, self.runtime(container)?);
        ensure!(map.len() == 3 && map[1] != "0" && map[2] == "65536", "{map:?}");
        ensure!(found == runtime, "the runtime is {found}");
        Ok(())
    }

    /// A config disk with these settings.
    fn disk(&self, edition: u64, settings: &Value) -> Result<String> {
        let folder = self.built.folder();
        fs::write(folder.join("disk.json"), settings.to_string())?;
        let (edition, name) = (edition.to_string(), format!("disk-{edition}.img"));
        let sign = [
            "settings",
            "sign",
            "disk.json",
            "--key",
            "keys/image.key",
            "--edition",
            &edition,
            "--out",
            &name,
        ];
        self.built.builder(&sign)?.ok()?;
        folder.join(name).into_os_string().into_string().ok().context("a path that is text")
    }
}
