//! The main job: the image boots, `docker` works as it always did, and every container is isolated.

use std::fs;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use eci_contract::audit::Denial;
use eci_tests::command;
use eci_tests::suite::{Row, row};
use eci_tests::vm::{self, Vm};

fn main() -> ExitCode {
    vm::run_suite("boot", rows())
}

fn rows() -> Vec<Row<Vm>> {
    let mut rows = vec![
        row("run_answers_with_the_engine_s_address_and_the_boot_s_milliseconds", answer),
        row("every_promise_of_immutability_holds", Vm::every_check_holds),
        row("an_image_without_a_registry_is_imported", Vm::import_busybox),
    ];
    rows.extend(isolation());
    rows.extend(owners());
    rows.extend(refusals());
    rows.extend(everyday());
    rows.push(row("stopped_and_booted_again_nothing_is_lost", stop_and_boot));
    rows.push(row("rm_removes_the_instance_and_its_context", remove));
    rows
}

fn isolation() -> Vec<Row<Vm>> {
    vec![
        row("the_first_container_has_the_first_range", |vm| {
            let map = vm.sh(&[], "cat /proc/self/uid_map")?;
            ensure!(words(&map) == ["0", "100000", "65536"], "{map}");
            Ok(())
        }),
        row("the_second_container_has_another_range", |vm| {
            let map = vm.sh(&[], "cat /proc/self/uid_map")?;
            isolated(&map)?;
            ensure!(words(&map)[1] != "100000", "{map}");
            Ok(())
        }),
        row("containers_side_by_side_have_exclusive_ranges", |vm| {
            for name in ["side-1", "side-2"] {
                vm.docker(&["run", "-d", "--name", name, "busybox", "sleep", "600"])?.ok()?;
            }
            let maps: Vec<_> = ["side-1", "side-2"]
                .iter()
                .map(|name| vm.docker(&["exec", name, "cat", "/proc/self/uid_map"])?.ok())
                .collect::<Result<_>>()?;
            vm.docker(&["rm", "-f", "side-1", "side-2"])?.ok()?;
            ensure!(words(&maps[0])[1] != words(&maps[1])[1], "{maps:?}");
            Ok(())
        }),
        row("a_privileged_container_is_isolated_too", |vm| {
            isolated(&vm.sh(&["--privileged"], "cat /proc/self/uid_map /proc/self/gid_map")?)
        }),
        row("a_classic_build_step_is_isolated_too", |vm| isolated(&build(vm, "0")?)),
        row("a_buildkit_build_step_is_isolated_too", |vm| isolated(&build(vm, "1")?)),
        row("docker_inspect_shows_the_isolated_runtime", |vm| {
            vm.docker(&["create", "--name", "inspected", "busybox", "true"])?.ok()?;
            let runtime = vm.docker(&["inspect", "-f", "{{.HostConfig.Runtime}}", "inspected"])?.ok()?;
            vm.docker(&["rm", "inspected"])?.ok()?;
            ensure!(runtime == "eci-runc", "{runtime}");
            Ok(())
        }),
        row("runtime_runc_and_userns_host_change_nothing", |vm| {
            isolated(&vm.sh(&["--runtime", "runc"], "cat /proc/self/uid_map")?)?;
            isolated(&vm.sh(&["--userns", "host"], "cat /proc/self/uid_map")?)
        }),
        row("docker_s_apparmor_profile_is_in_force", |vm| {
            let profile = vm.sh(&[], "cat /proc/self/attr/current")?;
            ensure!(profile == "docker-default (enforce)", "{profile}");
            Ok(())
        }),
        row("ping_group_range_is_clamped_to_the_map", |vm| {
            let range = vm.sh(&[], "cat /proc/sys/net/ipv4/ping_group_range")?;
            ensure!(words(&range) == ["0", "65535"], "{range}");
            Ok(())
        }),
        row("a_setuid_program_of_an_image_works_inside", |vm| {
            let id = vm
                .sh(&["-u", "1000"], "ln -s /bin/setuid-id /tmp/id 2>/dev/null; stat -c %a /bin/setuid-id")?;
            ensure!(id == "4755", "{id}");
            Ok(())
        }),
    ]
}

fn owners() -> Vec<Row<Vm>> {
    vec![
        row("files_of_the_image_have_their_true_owners", |vm| {
            let owners = vm.sh(&[], "stat -c %u:%g /home/theirs /etc/passwd")?;
            ensure!(owners == "1000:1000\n0:0", "{owners}");
            Ok(())
        }),
        row("commit_diff_and_cp_see_true_owners", |vm| {
            vm.docker(&[
                "run",
                "--name",
                "maker",
                "busybox",
                "sh",
                "-c",
                "echo x >/made && chown 1234:5678 /made",
            ])?
            .ok()?;
            let diff = vm.docker(&["diff", "maker"])?.ok()?;
            ensure!(diff.lines().any(|line| line == "A /made"), "{diff}");
            let copied = vm.docker(&["cp", "maker:/made", "-"])?;
            ensure!(copied.code == 0, "{}", copied.stderr);
            ensure!(owner_in_tar(&copied.bytes)? == (1234, 5678), "docker cp gives another owner");
            vm.docker(&["commit", "maker", "made"])?.ok()?;
            let owner = vm.docker(&["run", "--rm", "made", "stat", "-c", "%u:%g", "/made"])?.ok()?;
            vm.docker(&["rm", "maker"])?.ok()?;
            ensure!(owner == "1234:5678", "{owner}");
            Ok(())
        }),
        row("a_file_copied_into_a_running_container_is_seen_by_who_has_missed_it", |vm| {
            let wait = "cat /etc/group; while [ ! -e /late ]; do sleep 0.2; done; cat /late /etc/group";
            vm.docker(&["run", "-d", "--name", "waiting", "busybox", "sh", "-c", wait])?.ok()?;
            let folder = tempfile::tempdir()?;
            for (name, place) in [("group", "/etc/group"), ("late", "/late")] {
                let path = folder.path().join(name);
                fs::write(&path, format!("{name} was copied\n"))?;
                vm.docker(&["cp", &path.to_string_lossy(), &format!("waiting:{place}")])?.ok()?;
            }
            vm.docker(&["wait", "waiting"])?.ok()?;
            let seen = vm.docker(&["logs", "waiting"])?.ok()?;
            ensure!(seen.ends_with("late was copied\ngroup was copied"), "the container saw\n{seen}");
            vm.docker(&["rm", "waiting"])?.ok().map(drop)
        }),
        row("a_file_that_a_running_container_makes_is_copied_out_when_it_was_missing_before", |vm| {
            vm.docker(&["run", "-d", "--name", "maker", "busybox", "sleep", "900"])?.ok()?;
            vm.docker(&["cp", "maker:/root/late", "-"])?.refused(&["Could not find the file"])?;
            vm.docker(&["exec", "maker", "sh", "-c", "echo made >/root/late"])?.ok()?;
            let copied = vm.docker(&["cp", "maker:/root/late", "-"])?.ok()?;
            ensure!(copied.contains("made"), "copied out:\n{copied}");
            vm.docker(&["rm", "-f", "maker"])?.ok().map(drop)
        }),
        row("a_container_goes_on_making_files_in_a_folder_that_was_copied_into", |vm| {
            vm.docker(&["run", "-d", "--name", "taker", "busybox", "sleep", "900"])?.ok()?;
            let changes = vm.docker(&["diff", "taker"])?.ok()?;
            ensure!(changes.is_empty(), "a new container has changes:\n{changes}");
            let file = tempfile::NamedTempFile::new()?;
            for folder in ["/etc", "/root"] {
                let place = format!("taker:{folder}/copied");
                vm.docker(&["exec", "taker", "ls", folder])?.ok()?;
                vm.docker(&["cp", &file.path().to_string_lossy(), &place])?.ok()?;
                let make = format!("ls {folder}/copied && echo x >{folder}/made");
                vm.docker(&["exec", "taker", "sh", "-c", &make])?.ok()?;
            }
            vm.docker(&["rm", "-f", "taker"])?.ok().map(drop)
        }),
        row("a_file_copied_into_a_running_container_has_its_owner", |vm| {
            vm.docker(&["run", "-d", "--name", "taker", "busybox", "sleep", "600"])?.ok()?;
            vm.docker_with(&["cp", "-a", "-", "taker:/"], &tar_of("given", 1234)?)?.ok()?;
            let owner = vm.docker(&["exec", "taker", "stat", "-c", "%u", "/given"])?.ok()?;
            vm.docker(&["rm", "-f", "taker"])?.ok()?;
            ensure!(owner == "1234", "{owner}");
            Ok(())
        }),
        row("a_user_who_was_added_while_it_runs_is_found_by_exec", |vm| {
            vm.docker(&["run", "-d", "--name", "users", "busybox", "sleep", "600"])?.ok()?;
            let id = |user| vm.docker(&["exec", "-u", user, "users", "id", "-u"]);
            // The engine tells it where the process would have written.
            let missing = id("nobody-yet")?;
            let told = missing.stdout();
            ensure!(missing.code != 0 && told.contains("unable to find user"), "{told}{}", missing.stderr);
            let add = "echo nobody-yet:x:4321:4321::/:/bin/sh >/etc/new && cat /etc/passwd /etc/new >/etc/all && mv /etc/all /etc/passwd";
            vm.docker(&["exec", "users", "sh", "-c", add])?.ok()?;
            let found = id("nobody-yet");
            vm.docker(&["rm", "-f", "users"])?.ok()?;
            let found = found?.ok()?;
            ensure!(found == "4321", "{found}");
            Ok(())
        }),
        row("a_volume_shared_by_two_containers_has_one_owner_in_both", |vm| {
            vm.sh(&["-v", "shared:/v"], "touch /v/root /v/user && chown 1000:1000 /v/user")?;
            let owners = vm.sh(&["-v", "shared:/v"], "stat -c %u:%g /v/root /v/user")?;
            ensure!(owners == "0:0\n1000:1000", "{owners}");
            Ok(())
        }),
        row("a_read_only_volume_stays_read_only_for_a_privileged_root", |vm| {
            vm.sh(&["-v", "shared:/v"], "echo kept >/v/kept")?;
            let script = "mount -o remount,bind,rw /v 2>&1; umount /v 2>&1; touch /v/kept 2>&1; cat /v/kept";
            let text = vm.sh(&["--privileged", "-v", "shared:/v:ro"], script)?;
            ensure!(text.ends_with("kept") && text.contains("Read-only file system"), "{text}");
            Ok(())
        }),
    ]
}

fn refusals() -> Vec<Row<Vm>> {
    vec![
        row("host_network_is_refused_in_words", |vm| shares(vm, &["--network", "host"], "network")),
        row("host_pid_is_refused_in_words", |vm| shares(vm, &["--pid", "host"], "pid")),
        row("host_ipc_is_refused_in_words", |vm| shares(vm, &["--ipc", "host"], "ipc")),
        row("host_uts_is_refused_in_words", |vm| shares(vm, &["--uts", "host"], "uts")),
        row("host_cgroup_namespace_is_refused_in_words", |vm| shares(vm, &["--cgroupns", "host"], "cgroup")),
        row("a_privileged_container_shares_no_namespace_either", |vm| {
            shares(vm, &["--privileged", "--pid", "host"], "pid")
        }),
        row("another_container_s_network_is_joined", |vm| {
            vm.docker(&["run", "-d", "--name", "owner", "busybox", "sleep", "600"])?.ok()?;
            let theirs = vm.docker(&["exec", "owner", "readlink", "/proc/self/ns/net"])?.ok()?;
            let ours = vm.sh(&["--network", "container:owner"], "readlink /proc/self/ns/net")?;
            vm.docker(&["rm", "-f", "owner"])?.ok()?;
            ensure!(ours == theirs, "{ours} is not {theirs}");
            Ok(())
        }),
        row("folders_of_the_vm_are_refused_in_words", |vm| {
            for path in [
                "/",
                "/etc",
                "/etc/docker/daemon.json",
                "/usr",
                "/run",
                "/proc",
                "/sys",
                "/dev",
                "/var/lib/docker",
                "/var/lib/docker/eci",
            ] {
                let bind = format!("{path}:/x");
                vm.docker(&["run", "--rm", "-v", &bind, "busybox", "true"])?.refused(&[
                    "enhanced container isolation: can't mount",
                    "because it's configured as a restricted host mount",
                ])?;
            }
            Ok(())
        }),
        row("the_engine_s_socket_is_refused_in_words", |vm| {
            for path in ["/run/eci/engine/docker.sock", "/run/eci/engine", "/run/eci"] {
                let bind = format!("{path}:/x");
                vm.docker(&["run", "--rm", "-v", &bind, "busybox", "true"])?
                    .refused(&["enhanced container isolation:"])?;
            }
            Ok(())
        }),
        row("a_volume_that_points_at_a_folder_of_the_vm_is_refused", |vm| {
            vm.docker(&[
                "volume",
                "create",
                "-o",
                "type=none",
                "-o",
                "o=bind",
                "-o",
                "device=/etc",
                "sneaky",
            ])?
            .ok()?;
            let outcome = vm.docker(&["run", "--rm", "-v", "sneaky:/x", "busybox", "cat", "/x/passwd"])?;
            vm.docker(&["volume", "rm", "sneaky"])?.ok()?;
            // By the engine's own profile: it has not even mounted it.
            outcome.refused(&["failed to mount local volume", "permission denied"]).map(drop)
        }),
        row("a_device_of_the_vm_is_refused", |vm| {
            vm.docker(&["run", "--rm", "--device", "/dev/vda", "busybox", "true"])?
                .refused(&["enhanced container isolation:"])
                .map(drop)
        }),
        row("a_harmless_device_is_allowed", |vm| {
            vm.sh(&["--device", "/dev/fuse"], "test -c /dev/fuse && dd if=/dev/fuse count=0 2>&1").map(drop)
        }),
    ]
}

fn everyday() -> Vec<Row<Vm>> {
    vec![
        row("exec_and_restart_work", |vm| {
            vm.docker(&["run", "-d", "--name", "daily", "busybox", "sh", "-c", "echo started; sleep 600"])?
                .ok()?;
            ensure!(
                vm.docker(&["exec", "daily", "echo", "hello"])?.ok()? == "hello",
                "exec says something else"
            );
            vm.docker(&["restart", "-t", "0", "daily"])?.ok()?;
            isolated(&vm.docker(&["exec", "daily", "cat", "/proc/self/uid_map"])?.ok()?)?;
            let logs = vm.docker(&["logs", "daily"])?.ok()?;
            vm.docker(&["rm", "-f", "daily"])?.ok()?;
            ensure!(logs == "started\nstarted", "{logs}");
            Ok(())
        }),
        row("stdin_reaches_a_container_and_its_end_too", |vm| {
            let sum =
                vm.docker_with(&["run", "-i", "--rm", "busybox", "wc", "-c"], &vec![b'x'; 3 << 20])?.ok()?;
            ensure!(sum == (3 << 20).to_string(), "{sum}");
            Ok(())
        }),
        row("a_terminal_works", |vm| {
            let text = terminal(vm, "docker run -it --rm busybox tty")?;
            ensure!(text.contains("/dev/pts/0"), "{text}");
            Ok(())
        }),
        row("an_image_survives_save_and_load", |vm| {
            let saved = vm.docker(&["save", "busybox"])?;
            ensure!(saved.code == 0, "{}", saved.stderr);
            let loaded = vm.docker_with(&["load"], &saved.bytes)?.ok()?;
            ensure!(loaded.contains("busybox"), "{loaded}");
            Ok(())
        }),
        row("containers_of_one_network_reach_each_other_by_name", |vm| {
            vm.docker(&["network", "create", "net"])?.ok()?;
            vm.docker(&[
                "run",
                "-d",
                "--name",
                "server",
                "--network",
                "net",
                "busybox",
                "nc",
                "-ll",
                "-p",
                "80",
                "-e",
                "echo",
                "served",
            ])?
            .ok()?;
            let text = vm.sh(&["--network", "net"], "nc server 80 </dev/null")?;
            vm.docker(&["rm", "-f", "server"])?.ok()?;
            vm.docker(&["network", "rm", "net"])?.ok()?;
            ensure!(text == "served", "{text}");
            Ok(())
        }),
        row("limits_are_enforced", |vm| {
            let limit = vm.sh(
                &["-m", "64m", "--pids-limit", "40"],
                "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max",
            )?;
            ensure!(limit == "67108864\n40", "{limit}");
            Ok(())
        }),
        row("the_vm_s_clock_is_the_host_s", |vm| {
            let theirs: i64 = vm.sh(&[], "date +%s")?.parse().context("date prints seconds")?;
            let ours: i64 = command::host("date", &["+%s"])?.ok()?.parse().context("date prints seconds")?;
            ensure!((theirs - ours).abs() <= 10, "{theirs} is not {ours}");
            Ok(())
        }),
        row("what_was_refused_is_in_the_audit_log", |vm| {
            the_audit_log_tells(vm)?;
            let told = vm.builder(&["audit", "--name", "boot"])?.ok()?;
            ensure!(told.contains(" of busybox\n") && told.contains("\n    instead: "), "{told}");
            Ok(())
        }),
        row("logs_show_the_boot", |vm| {
            let logs = vm.builder(&["logs", "--name", "boot"])?.ok()?;
            ensure!(logs.contains("eci: boot"), "no boot line:\n{logs}");
            Ok(())
        }),
    ]
}

fn answer(vm: &Vm) -> Result<()> {
    let answer = vm.answer();
    ensure!(answer["version"] == 1 && answer["name"] == "boot", "{answer}");
    for key in ["kernel", "init", "engine"] {
        ensure!(answer["boot_ms"][key].as_u64().is_some_and(|ms| ms > 0), "boot_ms.{key} in {answer}");
    }
    let socket = vm.docker_host();
    let path = socket.strip_prefix("unix://").context("docker_host is a Unix socket")?;
    let mode = command::host("stat", &["-c", "%a", path])?.ok()?;
    ensure!(mode == "600", "the socket's mode is {mode}");
    Ok(())
}

/// That `docker run --pid host` was refused twice, with everything that somebody needs to act on it.
fn the_audit_log_tells(vm: &Vm) -> Result<()> {
    let log = vm.builder(&["audit", "--name", "boot", "--json"])?.ok()?;
    let denials: Result<Vec<Denial>, _> = log.lines().map(serde_json::from_str).collect();
    let denials: Vec<_> = denials?.into_iter().filter(|denial| denial.message.contains("[pid]")).collect();
    ensure!(denials.len() == 2, "{log}");
    for Denial { action, container, image, rule, remedy, .. } in &denials {
        ensure!(action == "create" && container.len() == 64 && !remedy.is_empty(), "{log}");
        ensure!(image.as_deref() == Some("busybox") && rule == "no-host-namespace", "{log}");
    }
    Ok(())
}

fn stop_and_boot(vm: &Vm) -> Result<()> {
    vm.docker(&[
        "run",
        "--name",
        "keeper",
        "-v",
        "kept:/v",
        "busybox",
        "sh",
        "-c",
        "echo here >/v/f; echo said",
    ])?
    .ok()?;
    vm.stop()?;
    vm.builder(&["audit", "--name", "boot"])?.refused(&["is not running"])?;
    vm.run(&[])?.ok()?;
    the_audit_log_tells(vm)?;
    ensure!(vm.docker(&["logs", "keeper"])?.ok()? == "said", "the container's log is lost");
    ensure!(vm.docker(&["start", "-a", "keeper"])?.ok()? == "said", "the container does not start again");
    ensure!(vm.sh(&["-v", "kept:/v"], "cat /v/f")? == "here", "the volume is lost");
    vm.every_check_holds()
}

fn remove(vm: &Vm) -> Result<()> {
    let contexts = |vm: &Vm| {
        command::run(vm.docker_command().env_remove("DOCKER_HOST").args(["context", "ls", "-q"]), &[])?.ok()
    };
    ensure!(contexts(vm)?.lines().any(|name| name == "eci-boot"), "no context while the instance is there");
    vm.builder(&["rm", "--name", "boot"])?.refused(&["boot"])?;
    vm.builder(&["rm", "--force", "--name", "boot"])?.ok()?;
    ensure!(!contexts(vm)?.lines().any(|name| name == "eci-boot"), "the context stayed");
    ensure!(!vm.state().exists(), "{} stayed", vm.state().display());
    Ok(())
}

/// Builds an image whose RUN step prints its uid map, and gives what the step printed.
fn build(vm: &Vm, buildkit: &str) -> Result<String> {
    let dockerfile = "FROM busybox\nRUN chown 1000 /etc/group && cat /proc/self/uid_map >/map\n";
    let mut command = vm.docker_command();
    command.env("DOCKER_BUILDKIT", buildkit).args(["build", "-q", "--no-cache", "-t", "built", "-"]);
    command::run(&mut command, dockerfile.as_bytes())?.ok()?;
    let text = vm.docker(&["run", "--rm", "built", "sh", "-c", "cat /map; stat -c %u /etc/group"])?.ok()?;
    vm.docker(&["rmi", "built"])?.ok()?;
    let (map, owner) = text.rsplit_once('\n').context("two lines")?;
    ensure!(owner == "1000", "the step's chown is not in the layer: {owner}");
    Ok(map.to_owned())
}

fn shares(vm: &Vm, flags: &[&str], namespace: &str) -> Result<()> {
    let mut arguments = vec!["run", "--rm"];
    arguments.extend(flags);
    arguments.extend(["busybox", "true"]);
    let words = format!(
        "enhanced container isolation: containers can't share namespaces [{namespace}] with the host \
         (because they use the linux user-namespace for isolation)"
    );
    vm.docker(&arguments)?.refused(&[&words]).map(drop)
}

/// Every map in `text` starts at a host id of ours and has 65,536 ids.
fn isolated(text: &str) -> Result<()> {
    for line in text.lines() {
        let fields = words(line);
        ensure!(fields.len() == 3 && fields[0] == "0" && fields[2] == "65536", "{text}");
        let base: u32 = fields[1].parse().context("a map has numbers")?;
        ensure!(base >= 100_000 && (base - 100_000) % 65_536 == 0, "{text}");
    }
    ensure!(!text.is_empty(), "no map");
    Ok(())
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn owner_in_tar(bytes: &[u8]) -> Result<(u64, u64)> {
    let mut archive = tar::Archive::new(bytes);
    let entry = archive.entries()?.next().context("the tar is empty")??;
    Ok((entry.header().uid()?, entry.header().gid()?))
}

fn tar_of(name: &str, owner: u64) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_uid(owner);
    header.set_gid(owner);
    header.set_size(1);
    archive.append_data(&mut header, name, &b"x"[..])?;
    Ok(archive.into_inner()?)
}

/// Runs a shell line on a terminal of its own (`script` of util-linux).
fn terminal(vm: &Vm, line: &str) -> Result<String> {
    let mut command = Command::new("script");
    for (name, value) in vm.docker_command().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command::run(command.args(["-qec", line, "/dev/null"]), &[])?.ok()
}
