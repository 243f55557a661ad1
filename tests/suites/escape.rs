//! Attacks that broke container engines elsewhere, each against the booted VM: a row for each line of the table "How it was
//! broken elsewhere" and for each CVE. Every one must end without effect, and the VM's promises hold afterwards.
//!
//! Elsewhere: attempts by system call are suite `isolation`; keystrokes and debug shells (CVE-2023-5165), `immutability`.
//! Keys of a policy that are ignored (CVE-2025-10657, CVE-2025-4095) are suite `settings`; bodies that a filter does not see
//! (CVE-2024-41110) belong to the gate, which has no filter yet.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use eci_tests::attempts::{self, REFUSED};
use eci_tests::command::{self, Outcome};
use eci_tests::image;
use eci_tests::suite::{Row, row, thorough_row};
use eci_tests::vm::{self, Vm};

/// Opens every refusal of ours.
const OURS: &str = "enhanced container isolation:";

fn main() -> ExitCode {
    vm::run_suite("escape", rows())
}

fn rows() -> Vec<Row<Vm>> {
    let mut rows = vec![row("an_image_without_a_registry_is_imported", Vm::import_busybox)];
    rows.extend(sources());
    rows.extend(images());
    rows.extend(descriptors());
    rows.extend(races());
    rows.extend(engine());
    rows.push(row("afterwards_a_new_container_is_isolated_still", |vm| {
        let map = vm.sh(&["--privileged"], "cat /proc/self/uid_map")?;
        let fields: Vec<_> = map.split_whitespace().collect();
        ensure!(fields.len() == 3 && fields[0] == "0" && fields[2] == "65536", "{map}");
        ensure!(fields[1].parse::<u32>()? >= 100_000, "{map}");
        Ok(())
    }));
    rows.push(row("afterwards_every_promise_of_immutability_holds", Vm::every_check_holds));
    rows
}

/// What is mounted is judged by what it opens.
fn sources() -> Vec<Row<Vm>> {
    vec![
        row("a_bind_makes_no_folder_where_the_engine_looks_for_a_file", |vm| {
            for (file, words) in [
                ("swarm/docker-state.json", "permission denied"),
                ("image/overlay2/imagedb/content/sha256/0a", "permission denied"),
                ("image/overlay2/layerdb/sha256/0a/0a", "permission denied"),
                // It makes the folder, and our runtime refuses the mount.
                ("swarm/other", "restricted host mount"),
            ] {
                run(vm, &[&format!("-v=/var/lib/docker/{file}:/x")], "true")?.refused(&[words])?;
            }
            Ok(())
        }),
        row("no_container_is_a_plugin_of_the_engine_by_a_driver_s_name", |vm| {
            let name = "../../../var/lib/docker/volumes/evil/_data/evil";
            let refused = ["leads out of the folder of plugins"];
            vm.docker(&["network", "create", "-d", name, "evil-net"])?.refused(&refused)?;
            vm.docker(&["network", "create", "--ipam-driver", name, "evil-net"])?.refused(&refused)?;
            vm.docker(&["volume", "create", "-d", name, "evil-volume"])?.refused(&refused)?;
            let mount = format!("type=volume,volume-driver={name},src=evil-volume,dst=/x");
            run(vm, &["--mount", &mount], "true")?.refused(&refused)?;
            run(vm, &["--volume-driver", name, "-v", "evil-volume:/x"], "true")?.refused(&refused)?;
            run(vm, &["--log-driver", name], "true")?.refused(&refused)?;
            // The engine looks for it, and there is none.
            vm.docker(&["volume", "create", "-d", "evil/evil", "evil-volume"])?
                .refused(&["not found"])
                .map(drop)
        }),
        row("cve_2023_0629_no_spelling_of_an_engine_s_socket_is_mounted", |vm| {
            for socket in [
                "/var/run/docker.sock",
                "/run/docker.sock",
                "/run/containerd/containerd.sock",
                "/run/eci/../eci/engine/docker.sock",
                "/proc/1/root/run/eci/engine/docker.sock",
            ] {
                for source in [format!("-v={socket}:/s"), format!("--mount=type=bind,src={socket},dst=/s")] {
                    let outcome = run(vm, &[&source], "test -S /s && echo socket")?;
                    ensure!(!outcome.stdout().contains("socket"), "{source} gave a socket");
                    // By the names that everybody uses, it is said in Docker's words.
                    if socket.ends_with("run/docker.sock") {
                        outcome.refused(&[
                            "enhanced container isolation: docker socket mount denied for container with image \"busybox\"; image is \
                             not in the allowed list; if you wish to allow it, configure the docker socket image list in the admin \
                             settings.",
                        ])?;
                    }
                }
            }
            Ok(())
        }),
        row("cve_2026_6406_binds_and_mounts_end_at_the_same_wall", |vm| {
            for source in [
                "-v=/:/x",
                "--mount=type=bind,src=/,dst=/x",
                "--mount=type=bind,src=/,dst=/x,readonly",
                "--mount=type=bind,src=/,dst=/x,bind-nonrecursive",
                "-v=/etc:/x",
                "--mount=type=bind,src=/etc,dst=/x,readonly",
                "-v=/var/lib/docker:/x",
                "--mount=type=bind,src=/var/lib/docker,dst=/x",
                "-v=/proc/1/root:/x",
                "--mount=type=bind,src=/proc/self/cwd,dst=/x,bind-nonrecursive",
                "--mount=type=bind,src=/sys/fs/cgroup,dst=/x",
            ] {
                run(vm, &[source], "true")?.refused(&[OURS])?;
            }
            Ok(())
        }),
        row("what_has_a_stand_in_is_given_at_its_place_and_none_of_its_neighbours", |vm| {
            let modules = "-v=/lib/modules:/lib/modules:ro";
            let script = "ls -A /lib/modules | wc -l; touch /lib/modules/x 2>/dev/null || echo read-only";
            ensure!(vm.sh(&["--privileged", modules], script)? == "0\nread-only", "it is another folder");
            let attempts = [("remount-rw:/lib/modules", "EPERM"), ("umount:/lib/modules", "EINVAL")];
            attempts::expect(vm, &["--privileged", modules], &attempts)?;
            for neighbour in [
                "/lib/modules:/lib/modules",
                "/lib/modules:/lib/modules:rw",
                "/lib/modules:/x:ro",
                "/lib/modules/..:/lib/modules:ro",
                "/usr/lib:/lib/modules:ro",
                "/:/lib/modules:ro",
                "/sys/fs/cgroup:/x:ro",
                "/sys/fs/cgroup/eci:/sys/fs/cgroup:ro",
                "/sys/fs/cgroup/..:/sys/fs/cgroup:ro",
                "/sys/fs:/sys/fs:ro",
                "/sys:/sys:ro",
            ] {
                run(vm, &["--privileged", "-v", neighbour], "true")?.refused(&[OURS])?;
            }
            // The VM has no such folder, and no room to make one.
            run(vm, &["-v", "/lib/firmware:/lib/firmware:ro"], "true")?
                .refused(&["read-only file system"])?;
            let outcome = with_volume(vm, "none", "bind,ro", "/lib/modules", "ls /x")?;
            ensure!(outcome.code != 0, "a volume gives {}", outcome.stdout());
            Ok(())
        }),
        row("desktop_4_31_a_volume_with_options_opens_no_folder_or_disk_of_the_vm", |vm| {
            let options = [
                ("none", "bind", "/"),
                ("none", "rbind", "/etc"),
                ("none", "bind,ro", "/var/lib/docker"),
                ("none", "bind", "/proc/1/root/etc"),
                ("none", "bind", "/run/eci/engine"),
                ("none", "bind", "/dev"),
                ("ext4", "", "/dev/vdb"),
                ("ext4", "", "/dev/vda"),
                ("erofs", "ro", "/dev/dm-0"),
                ("proc", "", "proc"),
                ("sysfs", "", "sysfs"),
                ("cgroup2", "", "cgroup2"),
                ("devtmpfs", "", "devtmpfs"),
                ("securityfs", "", "securityfs"),
                ("overlay", "lowerdir=/etc:/usr", "overlay"),
            ];
            for (kind, flags, device) in options {
                let outcome = with_volume(vm, kind, flags, device, "ls /x")?;
                ensure!(outcome.code != 0, "{kind} {flags} {device} gave\n{}", outcome.stdout());
            }
            // The neighbour: a volume in memory.
            with_volume(vm, "tmpfs", "size=1m", "tmpfs", "touch /x/f")?.ok().map(drop)
        }),
        row("a_volume_with_options_makes_the_engine_mount_nothing_of_the_kernel_s", |vm| {
            let cgroups = || vm.sh(&[], "sed -n 's/.* - cgroup2 //p' /proc/self/mountinfo");
            let before = cgroups()?;
            ensure!(before.contains("nsdelegate"), "cgroup2 is mounted with {before}");
            let kinds = ["bpf", "cgroup2", "devpts", "devtmpfs", "mqueue", "proc", "securityfs", "sysfs"];
            for (kind, flags) in kinds.map(|kind| (kind, "")).into_iter().chain([("cgroup2", "nodev,ro")]) {
                with_volume(vm, kind, flags, kind, "true")?.refused(&["permission denied"])?;
            }
            // A second mount of cgroup2 would have changed them, refused or not.
            let after = cgroups()?;
            ensure!(after == before, "the options of cgroup2 were {before}, and are {after}");
            with_volume(vm, "tmpfs", "size=1m,nodev", "tmpfs", "touch /x/f")?.ok().map(drop)
        }),
        row("links_in_a_volume_lead_nowhere_when_its_folder_is_named", |vm| {
            let script = "ln -s /etc /v/etc; ln -s /run/eci/engine/docker.sock /v/sock; ln -s ../../../../../.. /v/up; \
                          ln -s /proc/1/root /v/root; mkdir /v/own";
            vm.sh(&["-v", "links:/v"], script)?;
            let at = |name: &str| format!("/var/lib/docker/volumes/links/_data/{name}:/x");
            for name in ["etc", "etc/docker", "sock", "up", "up/etc", "root", "root/etc"] {
                run(vm, &["-v", &at(name)], "true")?.refused(&["error while creating mount source path"])?;
            }
            for name in ["../../links", "../.."] {
                run(vm, &["-v", &at(name)], "true")?.refused(&[OURS])?;
            }
            run(vm, &["-v", &at("own")], "true")?.ok().map(drop)
        }),
        row("volumes_from_gives_the_other_s_volumes_and_nothing_else", |vm| {
            vm.docker(&["create", "--name", "giver", "-v", "given:/given", "busybox", "true"])?.ok()?;
            let outcome = run(vm, &["--volumes-from", "giver"], "touch /given/f && ls /given")?;
            vm.docker(&["rm", "giver"])?.ok()?;
            ensure!(outcome.ok()? == "f", "another folder");
            Ok(())
        }),
        row("cve_2019_16884_nothing_is_mounted_over_proc", |vm| {
            // Expected to fail for the parts of /proc if crun lets them pass: the policy knows `/proc` itself only.
            for place in
                ["/proc", "/proc/self", "/proc/self/attr", "/proc/sys", "/proc/1/../self/attr", "/x/../proc"]
            {
                let volume = format!("fake:{place}");
                let outcome = run(vm, &["-v", &volume], "cat /proc/self/attr/current")?;
                let confined = outcome.stdout() == "docker-default (enforce)";
                ensure!(outcome.code != 0 || confined, "a volume at {place} gives {}", outcome.stdout());
            }
            run(vm, &["-v", "fake:/"], "true")?.refused(&[]).map(drop)
        }),
        row("a_folder_of_devices_is_refused", |vm| {
            for device in
                ["/dev", "/dev/disk", "/dev/mapper", "/dev/hwrng", "/dev/input", "/proc/1/root/dev/vda"]
            {
                run(vm, &["--device", device], "true")?.refused(&[])?;
            }
            Ok(())
        }),
    ]
}

/// Images that are made to be set up wrongly.
fn images() -> Vec<Row<Vm>> {
    vec![
        row("cve_2025_31133_a_link_for_dev_null_unmasks_nothing", |vm| {
            let links = [("dev/null", "/proc/sys/kernel/core_pattern"), ("dev/zero", "/proc/sysrq-trigger")];
            contained(vm, &links, &[])?;
            contained(vm, &links, &["--privileged"])
        }),
        row("cve_2025_52565_a_link_for_dev_console_lends_no_node", |vm| {
            let links =
                [("dev/console", "/proc/sys/kernel/core_pattern"), ("dev/ptmx", "/proc/sysrq-trigger")];
            contained(vm, &links, &["-t"])
        }),
        row("cve_2025_52881_links_below_proc_redirect_no_write_of_the_runtime", |vm| {
            // Labels, limits and sysctls are written through /proc of the container: a fake one must not be taken.
            let links = [("proc", "/fake"), ("fake/self/attr/current", "/proc/sys/kernel/core_pattern")];
            contained(vm, &links, &[])?;
            contained(vm, &links, &["--sysctl", "net.ipv4.ip_forward=0"])
        }),
        row("an_image_whose_dev_proc_or_sys_is_a_link_is_refused", |vm| {
            for (folder, target) in [("dev", "/tmp"), ("proc", "../../../../etc"), ("sys", "/proc/self/root")]
            {
                vm.docker_with(&["import", "-", "linked"], &image::linked_tar(&[(folder, target)])?)?.ok()?;
                // dockerd puts folders in the place of the links before it asks for a container; BuildKit does not.
                let script = format!("test -d /{folder} && test ! -L /{folder}");
                vm.docker(&["run", "--rm", "linked", "sh", "-c", &script])?.ok()?;
                let outcome = build(vm, "1", &[], "FROM linked\nRUN true\n")?;
                vm.docker(&["rmi", "-f", "linked"])?.ok()?;
                outcome.refused(&["did not complete successfully"])?;
            }
            Ok(())
        }),
        row("cve_2021_30465_a_link_at_a_mount_point_leads_nowhere", |vm| {
            let links =
                [("data", "/proc/1/root/tmp"), ("up", "../../../../../../../tmp"), ("absolute", "/tmp")];
            vm.docker_with(&["import", "-", "linked"], &image::linked_tar(&links)?)?.ok()?;
            for place in ["/data", "/up", "/absolute", "/data/deep/er", "/up/x"] {
                let volume = format!("landed:{place}");
                let script = format!("touch {place}/seen && ls {place}");
                let outcome = vm.docker(&["run", "--rm", "-v", &volume, "linked", "sh", "-c", &script])?;
                ensure!(outcome.code != 0 || outcome.stdout() == "seen", "{place}: {}", outcome.stdout());
            }
            vm.docker(&["rmi", "-f", "linked"])?.ok().map(drop)
        }),
        row("a_name_in_an_image_that_climbs_is_refused_or_stays_inside", |vm| {
            let imported = vm.docker_with(&["import", "-", "climbing"], &image::climbing_tar()?)?;
            if imported.code == 0 {
                drop(vm.docker(&["rmi", "-f", "climbing"])?);
            } else {
                imported.refused(&[])?;
            }
            vm.every_check_holds()
        }),
    ]
}

/// The runtime as seen from inside while it enters.
fn descriptors() -> Vec<Row<Vm>> {
    vec![
        row("cve_2024_21626_no_working_directory_is_outside_of_the_root", |vm| {
            for number in [3, 5, 7, 8, 9, 10] {
                let directory = format!("/proc/self/fd/{number}");
                let outcome =
                    run(vm, &["-w", &directory], "/probe directory; ls ../../../usr/libexec 2>/dev/null")?;
                let inside = outcome.stdout() == "directory: nothing there";
                ensure!(outcome.code != 0 || inside, "{directory}: {}", outcome.stdout());
            }
            Ok(())
        }),
        row("cve_2024_21626_exec_neither_and_no_descriptor_is_left_open", |vm| {
            vm.docker(&["run", "-d", "--name", "entered", "busybox", "sleep", "600"])?.ok()?;
            for number in 3..12 {
                let directory = format!("/proc/self/fd/{number}");
                let outcome = vm.docker(&["exec", "-w", &directory, "entered", "/probe", "directory"])?;
                let inside = outcome.stdout() == "directory: nothing there";
                ensure!(outcome.code != 0 || inside, "{directory}: {}", outcome.stdout());
            }
            for flags in [&[][..], &["--privileged"], &["-u", "1000"]] {
                let outcomes = attempts::make_in(vm, "entered", flags, &["descriptors"])?;
                attempts::check(&outcomes, &[("descriptors", "nothing there")])?;
            }
            vm.docker(&["rm", "-f", "entered"])?.ok().map(drop)
        }),
        row("cve_2019_5736_the_runtime_s_binary_cannot_be_overwritten", |vm| {
            vm.docker_with(&["import", "-", "evil"], &image::scripted_tar("evil", "#!/proc/self/exe\n")?)?
                .ok()?;
            watch(vm, "evil", "overwrite-runtime:25", |name| {
                for _ in 0..3 {
                    drop(vm.docker(&["exec", name, "/evil"])?);
                }
                Ok(())
            })?;
            // As the container's own first program too.
            let outcome = vm.docker(&["run", "--rm", "evil", "/evil"])?;
            ensure!(!outcome.stdout().contains("uid"), "{}", outcome.stdout());
            vm.docker(&["rmi", "-f", "evil"])?.ok()?;
            vm.sh(&[], "true").map(drop)
        }),
        row("whoever_enters_a_container_brings_nothing_of_the_vm_along", |vm| {
            watch(vm, "busybox", "watch-strangers:30", |name| {
                for _ in 0..2 {
                    drop(vm.docker(&["exec", name, "true"])?);
                    drop(vm.docker(&["exec", "--privileged", name, "true"])?);
                    drop(vm.docker(&["top", name])?);
                    drop(vm.docker(&["cp", &format!("{name}:/etc/passwd"), "-"])?);
                    drop(vm.docker(&["stats", "--no-stream", name])?);
                }
                Ok(())
            })
        }),
    ]
}

/// Names that change while the engine follows them.
fn races() -> Vec<Row<Vm>> {
    vec![
        row("cve_2021_30465_a_mount_point_that_turns_into_a_link_leads_nowhere", |vm| {
            let swap = "mkdir -p /s/a; while :; do mv /s/a /s/b; ln -s /proc/1/root /s/a; rm /s/a; mv /s/b /s/a; done";
            vm.docker(&["run", "-d", "--name", "swapper", "-v", "swapped:/s", "busybox", "sh", "-c", swap])?
                .ok()?;
            let flags = ["-v", "swapped:/s", "-v", "inner:/s/a/deep"];
            let outcomes: Result<Vec<_>> =
                (0..5).map(|_| run(vm, &flags, "ls /s/a/ /s/a/deep/ 2>/dev/null; true")).collect();
            vm.docker(&["rm", "-f", "swapper"])?.ok()?;
            for outcome in outcomes? {
                ensure!(!outcome.stdout().contains("libexec"), "the VM shows:\n{}", outcome.stdout());
            }
            vm.every_check_holds()
        }),
        row("a_node_s_folder_or_path_that_changes_meanwhile_leads_nowhere", |vm| {
            for flags in [&[][..], &["--privileged"]] {
                let flags = [flags, &["-v", "forbidden:/forbidden"]].concat();
                // `no effect`: nodes were made, none of them where none may be.
                attempts::expect(
                    vm,
                    &flags,
                    &[
                        ("make-node-swap:/forbidden", "no effect"),
                        ("make-node-rewrite:/forbidden", "no effect"),
                    ],
                )?;
            }
            vm.every_check_holds()
        }),
        row("a_flood_of_nodes_in_one_container_holds_no_other_up", |vm| {
            let flood = ["run", "-d", "--name", "flood", "busybox", "/probe", "make-node-flood:40"];
            vm.docker(&flood)?.ok()?;
            let begin = std::time::Instant::now();
            let outcome = vm.sh(&[], "for i in $(seq 20); do mknod /n$i c 1 3 || exit 1; done; ls /n1 /n20");
            let took = begin.elapsed();
            let state = vm.docker(&["inspect", "-f", "{{.State.Running}}", "flood"])?.ok();
            vm.docker(&["rm", "-f", "flood"])?.ok()?;
            outcome?;
            ensure!(state? == "true", "the flood was over before");
            ensure!(took < Duration::from_secs(30), "it took {took:?}");
            // With its container, a flood ends.
            vm.sh(&[], "mknod /n c 1 3").map(drop)
        }),
        row("cve_2018_15664_a_link_that_appears_during_a_copy_leads_nowhere", |vm| {
            let swap = "mkdir -p /w/a; echo own >/w/a/daemon.json; \
                        while :; do mv /w/a /w/b; ln -s /etc/docker /w/a; rm /w/a; mv /w/b /w/a; done";
            vm.docker(&["run", "-d", "--name", "swapper", "busybox", "sh", "-c", swap])?.ok()?;
            let copies: Result<Vec<_>> =
                (0..20).map(|_| vm.docker(&["cp", "swapper:/w/a/daemon.json", "-"])).collect();
            let written = vm.docker_with(&["cp", "-", "swapper:/w/a"], &image::linked_tar(&[])?);
            vm.docker(&["rm", "-f", "swapper"])?.ok()?;
            for copy in copies? {
                // The engine's own file names its sockets.
                let text = String::from_utf8_lossy(&copy.bytes).into_owned();
                ensure!(!text.contains("data-root"), "the VM's file came back:\n{text}");
            }
            drop(written);
            vm.every_check_holds()
        }),
        row("a_link_that_appears_in_a_volume_while_it_is_filled_leads_nowhere", links_while_filling),
        row(
            "a_commit_reads_nothing_of_the_vm_whoever_changes_the_container_meanwhile",
            commit_while_changing,
        ),
        row("a_folder_of_a_build_step_in_other_hands_leads_tidying_up_nowhere", tidying_up_while_changing),
        row("a_first_step_on_scratch_shares_no_cache_with_others", step_on_scratch),
        // The price of it: no layer of a tree that was ever there has one.
        row("a_file_that_is_named_through_a_link_of_its_own_layer_is_not_unpacked", |vm| {
            let import = |archive: &[u8]| vm.docker_with(&["import", "-", "through"], archive);
            import(&image::through_tar("through")?)?.refused(&["too many levels of symbolic links"])?;
            import(&image::through_tar("bin")?)?.ok()?;
            vm.docker(&["rmi", "through"])?.ok().map(drop)
        }),
        row("a_copy_into_a_container_that_never_started_opens_no_folder_of_the_vm", copies_without_a_start),
        row("a_copy_into_a_container_s_proc_writes_no_node_of_the_vm", |vm| {
            vm.docker(&["run", "-d", "--privileged", "--name", "target", "busybox", "sleep", "600"])?.ok()?;
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("file");
            fs::write(&file, "|/probe")?;
            for node in
                ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/1/root/probed", "/dev/vda"]
            {
                drop(vm.docker(&["cp", &file.to_string_lossy(), &format!("target:{node}")])?);
            }
            let verbs = ["core-pattern", "sysrq-trigger", "block-devices"];
            let outcomes = attempts::make_in(vm, "target", &[], &verbs)?;
            vm.docker(&["rm", "-f", "target"])?.ok()?;
            attempts::check(&outcomes, &[verbs[0], verbs[1]].map(|verb| (verb, REFUSED)))?;
            attempts::check(&outcomes, &[(verbs[2], "nothing there")])?;
            vm.every_check_holds()
        }),
    ]
}

/// The engine's other doors.
fn engine() -> Vec<Row<Vm>> {
    vec![
        row("cve_2025_9074_no_address_answers_for_the_engine", |vm| {
            let ports = ["22", "80", "1024", "2375", "2376", "2377", "4243", "5555", "9323", "10000"];
            let verbs: Vec<_> = ports.iter().map(|port| format!("tcp-gateway:{port}")).collect();
            let sockets = ["vsock:2:1024", "vsock:1:1024", "vsock:2:2375", "vsock:1:2375"];
            let expected: Vec<_> =
                verbs.iter().map(String::as_str).chain(sockets).map(|verb| (verb, REFUSED)).collect();
            vm.docker(&["network", "create", "apart"])?.ok()?;
            // What is dropped is waited for: both at once.
            let outcomes = thread::scope(|scope| {
                let other =
                    scope.spawn(|| attempts::expect(vm, &["--privileged", "--network", "apart"], &expected));
                let this = attempts::expect(vm, &["--privileged"], &expected);
                this.and(other.join().expect("no thread panics"))
            });
            vm.docker(&["network", "rm", "apart"])?.ok()?;
            outcomes
        }),
        row("cve_2020_15257_no_abstract_socket_of_the_vm_is_heard", |vm| {
            attempts::expect(vm, &["--privileged"], &[("abstract-sockets", "nothing there")])
        }),
        row("cve_2022_0492_no_release_agent_can_be_named", |vm| {
            let expected = [("mount-cgroup1", REFUSED), ("cgroup-release-agent", "nothing there")];
            attempts::expect(vm, &["--privileged"], &expected)
        }),
        thorough_row("a_request_of_megabytes_is_judged_like_any_other", |vm| {
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("environment");
            let lines: Vec<_> = (0..60).map(|number| format!("V{number}={}", "x".repeat(60_000))).collect();
            fs::write(&file, lines.join("\n"))?;
            let environment = ["--env-file", &file.to_string_lossy()];
            for flags in [["--pid", "host"], ["-v", "/etc:/x"], ["--device", "/dev/vda"]] {
                run(vm, &[&environment[..], &flags].concat(), "true")?.refused(&[])?;
            }
            Ok(())
        }),
        row("no_other_runtime_or_shim_can_be_named", |vm| {
            let outcome = run(vm, &["--runtime", "io.containerd.runc.v2"], "cat /proc/self/uid_map")?;
            ensure!(outcome.code != 0 || outcome.stdout().contains(" 65536"), "{}", outcome.stdout());
            for runtime in [
                "io.containerd.runtime.v1.linux",
                "io.containerd.runhcs.v1",
                "crun",
                "/usr/libexec/eci/crun",
                "../crun",
            ] {
                run(vm, &["--runtime", runtime], "true")?.refused(&[])?;
            }
            Ok(())
        }),
        row("a_plugin_gets_no_more_than_a_container", plugin),
        row("a_build_step_is_given_nothing_of_the_vm", |vm| {
            for buildkit in ["0", "1"] {
                build(vm, buildkit, &["--network", "host"], "FROM busybox\nRUN true\n")?.refused(&[])?;
            }
            for step in [
                "RUN --security=insecure true",
                "RUN --network=host true",
                "RUN --mount=type=bind,source=/../../../../etc,target=/x test -e /x/docker/daemon.json",
                "RUN --mount=type=cache,source=../../../../../../etc,target=/x test -e /x/docker/daemon.json",
            ] {
                let dockerfile = format!("# syntax-less\nFROM busybox\n{step}\n");
                build(vm, "1", &[], &dockerfile)?.refused(&[])?;
            }
            // CVE-2024-23653 asked for privileges behind the client's back; a step tells what it has.
            let verbs = "mount-tmpfs unshare-user bpf-prog-load mknod-block block-devices descriptors";
            let dockerfile = format!("FROM busybox\nRUN /probe {verbs} >/said\n");
            build(vm, "1", &["-t", "said"], &dockerfile)?.ok()?;
            let said = vm.docker(&["run", "--rm", "said", "cat", "/said"])?.ok()?;
            vm.docker(&["rmi", "-f", "said"])?.ok()?;
            ensure!(said.lines().count() == 6 && !said.contains("allowed"), "{said}");
            Ok(())
        }),
        row("a_swarm_opens_no_control_port", |vm| {
            // The engine listens on 2377 of every address then: the firewall drops what containers send there.
            vm.docker(&["swarm", "init", "--advertise-addr", "127.0.0.1"])?.ok()?;
            let reached = attempts::make(vm, &[], &["tcp-gateway:2377"]);
            vm.docker(&["swarm", "leave", "--force"])?.ok()?;
            attempts::check(&reached?, &[("tcp-gateway:2377", REFUSED)])
        }),
    ]
}

/// A plugin of the engine is a container whose configuration its author writes.
fn plugin(vm: &Vm) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let root = folder.path().join("rootfs");
    fs::create_dir_all(&root)?;
    fs::write(root.join("probe"), image::probe()?)?;
    command::host("chmod", &["755", &root.join("probe").to_string_lossy()])?.ok()?;
    let wishes = [
        ("network", serde_json::json!({"network": {"type": "host"}})),
        ("pid", serde_json::json!({"pidhost": true})),
        ("ipc", serde_json::json!({"ipchost": true})),
        (
            "mount",
            serde_json::json!({"mounts": [{"source": "/", "destination": "/vm", "type": "bind", "options": ["rbind"]}]}),
        ),
        (
            "devices",
            serde_json::json!({"linux": {"allowAllDevices": true, "devices": [{"path": "/dev/vda"}]}}),
        ),
    ];
    for (name, wish) in wishes {
        let mut configuration = serde_json::json!({
            "description": "attack",
            "entrypoint": ["/probe", "descriptors"],
            "interface": {"types": ["docker.volumedriver/1.0"], "socket": "attack.sock"},
            "network": {"type": "none"},
            "linux": {"capabilities": ["CAP_SYS_ADMIN"]},
        });
        let object = configuration.as_object_mut().context("an object")?;
        object.extend(wish.as_object().context("an object")?.clone());
        fs::write(folder.path().join("config.json"), configuration.to_string())?;
        let name = format!("attack-{name}");
        vm.docker(&["plugin", "create", &name, &folder.path().to_string_lossy()])?.ok()?;
        let outcome = vm.docker(&["plugin", "enable", "--timeout", "5", &name])?;
        drop(vm.docker(&["plugin", "rm", "-f", &name])?);
        // A plugin that does not open its socket fails to be enabled anyway: only our own words show the wall.
        outcome.refused(&[OURS])?;
    }
    Ok(())
}

/// The engine copies what an image has at a volume's place into the volume, as root of the VM and by names, while another container has it.
fn links_while_filling(vm: &Vm) -> Result<()> {
    let fill =
        "mkdir -p /v/z && echo caught >/v/z/caught && dd if=/dev/zero of=/v/a bs=1M count=64 2>/dev/null";
    vm.docker(&["run", "--name", "filled", "busybox", "sh", "-c", fill])?.ok()?;
    vm.docker(&["commit", "filled", "filled"])?.ok()?;
    vm.docker(&["volume", "create", "others"])?.ok()?;
    // A folder of the data disk, and a file system of its own.
    for options in [&[][..], &["-o", "type=tmpfs", "-o", "device=tmpfs"]] {
        let mut won = false;
        for _ in 0..5 {
            if won {
                break;
            }
            vm.docker(&[&["volume", "create"], options, &["filling"]].concat())?.ok()?;
            let race = "until [ -e /x/a ]; do :; done; ln -s /var/lib/docker/volumes/others/_data /x/z && echo won; sleep 600";
            vm.docker(&["run", "-d", "--name", "racer", "-v", "filling:/x", "busybox", "sh", "-c", race])?
                .ok()?;
            drop(vm.docker(&["create", "--name", "filler", "-v", "filling:/v", "filled", "true"])?);
            won = vm.docker(&["logs", "racer"])?.ok()?.contains("won");
            drop(vm.docker(&["rm", "-f", "racer", "filler"])?);
            vm.docker(&["volume", "rm", "filling"])?.ok()?;
        }
        ensure!(won, "no link was there in time");
        let found = vm.sh(&["-v", "others:/x"], "ls /x")?;
        ensure!(found.is_empty(), "another volume has {found}");
        // A container follows links in its volumes, as everywhere.
        vm.docker(&[&["volume", "create"], options, &["linked"]].concat())?.ok()?;
        let own = vm.sh(&["-v", "linked:/x"], "echo own >/x/file && ln -s file /x/link && cat /x/link")?;
        ensure!(own == "own", "{own}");
        vm.docker(&["volume", "rm", "linked"])?.ok()?;
    }
    vm.docker(&["rm", "filled"])?.ok()?;
    vm.docker(&["volume", "rm", "others"])?.ok().map(drop)
}

/// A commit pauses the container, and not who shares its processes. It reads a folder's names, a large file, and then the rest by name.
fn commit_while_changing(vm: &Vm) -> Result<()> {
    let own = "mkdir -p /w/p && dd if=/dev/zero of=/w/p/a bs=1M count=100 2>/dev/null; for f in group hostname passwd; do echo own >/w/p/$f; done; \
        ln -s /etc /w/l; while :; do echo $((i++)) >/tick; usleep 20000; done";
    let other = "cd /proc/1/root; until [ -e w/l ] && seen=$(cat tick) && usleep 300000 && [ \"$seen\" = \"$(cat tick)\" ]; do :; done; \
        mv w/p w/old && mv w/l w/p && echo changed; sleep 600";
    let mut in_time = false;
    for _ in 0..6 {
        vm.docker(&["run", "-d", "--name", "committed", "busybox", "sh", "-c", own])?.ok()?;
        let is_ready = "until [ -e /w/l ]; do usleep 50000; done";
        vm.docker(&["exec", "committed", "sh", "-c", is_ready])?.ok()?;
        let beside = ["run", "-d", "--name", "beside", "--pid", "container:committed", "busybox", "sh", "-c"];
        vm.docker(&[&beside[..], &[other]].concat())?.ok()?;
        drop(vm.docker(&["commit", "committed", "committed"])?);
        let changed = vm.docker(&["logs", "beside"])?.ok()?.contains("changed");
        vm.docker(&["rm", "-f", "beside", "committed"])?.ok()?;
        // What no commit made is not there either.
        let found = vm.docker(&["run", "--rm", "committed", "sh", "-c", "cd /w/p && ls -d a && cat *"])?;
        let text = found.stdout();
        ensure!(!text.contains("root:") && !text.contains("eci"), "the image has of the VM: {text}");
        drop(vm.docker(&["rmi", "-f", "committed"])?);
        in_time |= changed && (found.code != 0 || !text.contains("own"));
        if in_time {
            return Ok(());
        }
    }
    bail!("nothing was changed in time")
}

/// What BuildKit made for mounts of a step it removes by name when the step has ended.
fn tidying_up_while_changing(vm: &Vm) -> Result<()> {
    let files = "for i in 1 2 3 4 5 6 7 8 9; do : >/v/n$i; done; ls /v | wc -l";
    vm.sh(&["-v", "tidied:/v"], files)?;
    let places: String = (1..10).map(|number| format!("--mount=type=tmpfs,target=/w/p/n{number} ")).collect();
    let cache = "--mount=type=cache,target=/c,sharing=shared";
    let dockerfile = format!(
        "FROM busybox AS one\n\
         RUN {cache} {places} rm -f /c/s; ln -s /var/lib/docker/volumes/tidied/_data /w/q; chmod 777 /w /w/p; /probe hand-folder:/c/s:/w\n\
         FROM busybox AS other\n\
         RUN {cache} sleep 2; /probe exchange-names:/c/s:p:q >/done\n\
         FROM busybox\n\
         COPY --from=other /done /done\n\
         RUN --mount=type=bind,from=one,target=/one true\n"
    );
    let mut command = vm.docker_command();
    command.args(["build", "-q", "--no-cache", "-t", "tidied", "-"]);
    command::run(&mut command, dockerfile.as_bytes())?.ok()?;
    let done = vm.docker(&["run", "--rm", "tidied", "cat", "/done"])?.ok()?;
    ensure!(done.contains("allowed"), "{done}");
    let left = vm.sh(&["-v", "tidied:/v"], "ls /v | wc -l")?;
    ensure!(left.trim() == "9", "of a volume's nine files {left} are left");
    vm.docker(&["rmi", "-f", "tidied"])?.ok()?;
    vm.docker(&["volume", "rm", "tidied"])?.ok().map(drop)
}

fn step_on_scratch(vm: &Vm) -> Result<()> {
    let build = |before: &str, mounts: &str| {
        let dockerfile = format!(
            "FROM scratch\n{before}RUN --mount=type=bind,from=busybox,target=/t {mounts} [\"/t/bin/busybox\", \"true\"]\n"
        );
        vm.docker_with(&["build", "--progress=plain", "--no-cache", "-"], dockerfile.as_bytes())
    };
    let cache = "--mount=type=cache,target=/c";
    build("", "")?.ok()?;
    build("", cache)?.refused(&["the first on `scratch`", "(/c)"])?;
    build("COPY --from=busybox /probe /probe\n", cache)?.ok()?;
    Ok(())
}

/// The engine lays the mounts of a container for `docker cp` by itself: the runtime, which judges them, is not asked.
fn copies_without_a_start(vm: &Vm) -> Result<()> {
    let script = "echo own >/v/own; ln -s /etc /v/etc; ln -s /run /v/run";
    vm.sh(&["-v", "copied:/v"], script)?;
    let data = "/var/lib/docker/volumes/copied/_data";
    let options = ["volume", "create", "-o", "type=none", "-o", "o=bind", "-o", "device=/run", "bound"];
    vm.docker(&options)?.ok()?;
    let bind = |source: &str| format!("{source}:/x");
    let folders = [
        "/",
        "/run",
        "/etc",
        "/var/lib/docker",
        "/var/lib/docker/overlay2",
        "/var/lib/docker/eci",
        "/sys/fs/cgroup",
    ];
    let links = ["etc", "run"].map(|link| bind(&format!("{data}/{link}")));
    let refused: Vec<_> = folders.into_iter().map(bind).chain([bind("bound")]).collect();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("file");
    fs::write(&file, "text")?;
    let file = file.to_string_lossy();
    let copies = |mount: &str| -> Result<[Outcome; 2]> {
        vm.docker(&["create", "--name", "unborn", "-v", mount, "busybox", "true"])?.ok()?;
        let out = vm.docker(&["cp", "unborn:/x/.", "-"])?;
        let into = vm.docker(&["cp", &file, "unborn:/x/file"])?;
        vm.docker(&["rm", "unborn"])?.ok()?;
        Ok([out, into])
    };
    for mount in &refused {
        for outcome in copies(mount)? {
            outcome.refused(&["permission denied"]).with_context(|| mount.clone())?;
        }
    }
    for mount in &links {
        for outcome in copies(mount)? {
            outcome.refused(&["error while creating mount source path"]).with_context(|| mount.clone())?;
        }
    }
    // The neighbour: a volume's own data, by its name and by its path.
    for mount in ["copied:/x", &bind(data)] {
        let [out, into] = copies(mount)?;
        ensure!(out.stdout().contains("own"), "{mount}: nothing of the volume");
        into.ok().context("into a volume")?;
    }
    vm.docker(&["volume", "rm", "bound", "copied"])?.ok().map(drop)
}

fn run(vm: &Vm, flags: &[&str], script: &str) -> Result<Outcome> {
    vm.docker(&[&["run", "--rm"][..], flags, &["busybox", "sh", "-c", script]].concat())
}

fn build(vm: &Vm, buildkit: &str, flags: &[&str], dockerfile: &str) -> Result<Outcome> {
    let mut command = vm.docker_command();
    command.env("DOCKER_BUILDKIT", buildkit).args(["build", "-q", "--no-cache"]).args(flags).arg("-");
    command::run(&mut command, dockerfile.as_bytes())
}

/// Runs a script with a volume that was made with these options at `/x`.
fn with_volume(vm: &Vm, kind: &str, flags: &str, device: &str, script: &str) -> Result<Outcome> {
    let options = [format!("type={kind}"), format!("o={flags}"), format!("device={device}")];
    let mut arguments = vec!["volume", "create"];
    for option in options.iter().filter(|option| *option != "o=") {
        arguments.extend(["-o", option]);
    }
    arguments.push("optioned");
    let created = vm.docker(&arguments)?;
    if created.code != 0 {
        return Ok(created);
    }
    let outcome = run(vm, &["-v", "optioned:/x"], script)?;
    vm.docker(&["volume", "rm", "-f", "optioned"])?.ok()?;
    Ok(outcome)
}

/// An image with these links is refused, or a container of it can still not touch the kernel's nodes.
fn contained(vm: &Vm, links: &[(&str, &str)], flags: &[&str]) -> Result<()> {
    vm.docker_with(&["import", "-", "linked"], &image::linked_tar(links)?)?.ok()?;
    let attempts = ["core-pattern", "sysrq-trigger", "modprobe"];
    let arguments = [&["run", "--rm"][..], flags, &["linked", "/probe"], &attempts].concat();
    let outcome = vm.docker(&arguments)?;
    vm.docker(&["rmi", "-f", "linked"])?.ok()?;
    ensure!(!outcome.stdout().contains("allowed"), "{links:?} with {flags:?}: {}", outcome.stdout());
    ensure!(outcome.code != 0 || outcome.stdout().lines().count() == attempts.len(), "{outcome:?}");
    vm.every_check_holds()
}

/// Lets a privileged container watch with a verb while `meanwhile` gives it something to see.
fn watch(vm: &Vm, image: &str, verb: &str, meanwhile: impl Fn(&str) -> Result<()>) -> Result<()> {
    let name = "watcher";
    vm.docker(&["run", "-d", "--privileged", "--name", name, image, "/probe", verb])?.ok()?;
    meanwhile(name)?;
    vm.docker_with(&["cp", "-", &format!("{name}:/")], &image::file_tar("stop")?)?.ok()?;
    let mut said = String::new();
    for _ in 0..120 {
        said = vm.docker(&["logs", name])?.stdout();
        if said.contains(verb) {
            break;
        }
        thread::sleep(Duration::from_millis(500));
    }
    vm.docker(&["rm", "-f", name])?.ok()?;
    let outcome = said.lines().find_map(|line| line.strip_prefix(verb)?.strip_prefix(": "));
    let outcome = outcome.with_context(|| format!("the watcher said `{said}`"))?;
    ensure!(outcome == "nothing there" || attempts::is_as_expected(REFUSED, outcome), "{verb}: {outcome}");
    Ok(())
}
