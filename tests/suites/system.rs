//! System containers: whole systems inside of a container, as Debian ships them. Docker in Docker, systemd, rootless
//! podman, and the steps of a Kubernetes node. Each runs in the container's own range of ids, as a machine would.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use eci_tests::attempts::UNCONFINED;
use eci_tests::command::Outcome;
use eci_tests::debian::{self, WORKER};
use eci_tests::image;
use eci_tests::suite::{Row, row, thorough_row};
use eci_tests::vm::{self, Vm};

fn main() -> ExitCode {
    vm::run_suite("system", rows())
}

fn rows() -> Vec<Row<Vm>> {
    let mut rows: Vec<Row<Vm>> = vec![
        row("images_without_a_registry_are_imported", |vm| {
            vm.import_busybox()?;
            debian::import(vm)
        }),
        row("a_user_namespace_inside_needs_what_docker_asks_for_it", |vm| {
            let script = "unshare -Urpf --mount-proc sh -c 'id -u; echo $$'";
            let outcome = vm.docker(&["run", "--rm", "busybox", "sh", "-c", script])?;
            outcome.refused(&["Operation not permitted"])?;
            for flags in [&["--privileged"][..], UNCONFINED] {
                let text = vm.sh(flags, script)?;
                ensure!(text == "0\n1", "{flags:?}: {text}");
            }
            Ok(())
        }),
    ];
    rows.extend(docker());
    rows.extend(systemd());
    rows.extend(podman());
    rows.extend(node());
    rows.push(row("every_promise_of_immutability_holds", Vm::every_check_holds));
    rows
}

/// What Docker's own image for Docker in Docker does first: processes leave the container's cgroup, so that it can hand
/// its controllers on.
const ENGINE: &str = "set -e
mkdir -p /sys/fs/cgroup/init
while read -r process; do
    echo $process >/sys/fs/cgroup/init/cgroup.procs || :
done </sys/fs/cgroup/cgroup.procs
sed -e 's/ / +/g' -e 's/^/+/' </sys/fs/cgroup/cgroup.controllers >/sys/fs/cgroup/cgroup.subtree_control
exec dockerd --add-runtime crun=/usr/bin/crun >/var/log/dockerd 2>&1";

/// The engine's runtimes, Debian's own both.
const RUNTIMES: [&str; 2] = ["runc", "crun"];

fn docker() -> Vec<Row<Vm>> {
    vec![
        row("docker_in_docker_gets_ready", |vm| {
            let flags = ["run", "-d", "--privileged", "--name", "outer", "-v", "engine:/var/lib/docker"];
            vm.docker(&[&flags[..], &["debian", "sh", "-c", ENGINE]].concat())?.ok()?;
            wait_for(vm, "outer", &["docker", "version"])?;
            let driver = inside(vm, "outer", &["docker", "info", "-f", "{{.Driver}}"])?.ok()?;
            ensure!(driver == "overlay2", "{driver}");
            give(vm, &["outer", "docker", "import", "-", "busybox"], &image::busybox_tar()?)
        }),
        row("an_inner_container_is_in_the_range_of_the_outer_by_runc_and_by_crun", |vm| {
            let outer = inside(vm, "outer", &["cat", "/proc/self/uid_map"])?.ok()?;
            for runtime in RUNTIMES {
                for flags in [&[][..], &["--privileged"]] {
                    let script = "cat /proc/self/uid_map; ping -c 1 $(ip route | head -n 1 | cut -d ' ' -f 3) | grep -c ttl";
                    let text = inner(vm, &[&["--runtime", runtime], flags].concat(), script)?;
                    ensure!(text == format!("{outer}\n1"), "{runtime} {flags:?}: {text}");
                }
                let limits = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max";
                let text = inner(vm, &["--runtime", runtime, "-m", "50m", "--pids-limit", "20"], limits)?;
                ensure!(text == "52428800\n20", "{runtime}: {text}");
            }
            Ok(())
        }),
        row("an_inner_privileged_container_mounts_and_nests", |vm| {
            let script =
                "mount -t tmpfs none /tmp && mount -t proc none /tmp && unshare -Urpf --mount-proc id -u";
            let text = inner(vm, &["--privileged"], script)?;
            ensure!(text == "0", "{text}");
            Ok(())
        }),
        thorough_row("an_inner_engine_builds_with_both_builders", |vm| {
            let folder = "mkdir -p /b && printf 'FROM busybox\\nRUN id -u >/made && chown user /made\\n' >/b/Dockerfile";
            inside(vm, "outer", &["sh", "-c", folder])?.ok()?;
            for builder in ["0", "1"] {
                let build = format!("DOCKER_BUILDKIT={builder} docker build -q --no-cache -t made /b");
                inside(vm, "outer", &["sh", "-c", &build])?.ok()?;
                let text =
                    inside(vm, "outer", &["docker", "run", "--rm", "made", "stat", "-c", "%u", "/made"])?;
                ensure!(text.ok()? == "1000", "builder {builder}");
            }
            Ok(())
        }),
        thorough_row("a_container_runs_in_a_container_in_a_container", |vm| {
            // The second engine's programs are the first's, so that one import is enough.
            let skeleton = "mkdir -p /s/etc /s/var/lib/docker /s/var/log /s/tmp /s/usr && cd /s && \
                            ln -s usr/bin usr/sbin usr/lib usr/lib64 . && tar c . | docker import - skeleton";
            inside(vm, "outer", &["sh", "-c", skeleton])?.ok()?;
            let flags = ["docker", "run", "-d", "--privileged", "--name", "second", "-v", "/usr:/usr:ro"];
            let volumes = ["-v", "/etc:/etc:ro", "-v", "second:/var/lib/docker"];
            inside(vm, "outer", &[&flags[..], &volumes, &["skeleton", "sh", "-c", ENGINE]].concat())?.ok()?;
            wait_for(vm, "outer", &["docker", "exec", "second", "docker", "version"])?;
            let hand_on = "docker save busybox | docker exec -i second docker load";
            inside(vm, "outer", &["sh", "-c", hand_on])?.ok()?;
            let outer = inside(vm, "outer", &["cat", "/proc/self/uid_map"])?.ok()?;
            for runtime in RUNTIMES {
                for kind in ["--privileged=false", "--privileged=true"] {
                    let run =
                        ["docker", "exec", "second", "docker", "run", "--rm", "--runtime", runtime, kind];
                    let map =
                        inside(vm, "outer", &[&run[..], &["busybox", "cat", "/proc/self/uid_map"]].concat())?;
                    ensure!(map.ok()? == outer, "{runtime} {kind}");
                }
            }
            vm.docker(&["rm", "-fv", "outer"])?.ok().map(drop)
        }),
    ]
}

/// systemd without `--privileged`: it wants its cgroup writable and folders in memory.
const PLAIN_SYSTEMD: &[&str] =
    &["-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp"];

fn systemd() -> Vec<Row<Vm>> {
    vec![
        row("systemd_boots_runs_services_and_shuts_down_in_order", |vm| boot_systemd(vm, &["--privileged"])),
        thorough_row("systemd_does_so_without_privileges_too", |vm| boot_systemd(vm, PLAIN_SYSTEMD)),
    ]
}

fn boot_systemd(vm: &Vm, flags: &[&str]) -> Result<()> {
    let begin = [&["run", "-d", "-t", "--name", "machine"], flags, &["debian", "/sbin/init"]].concat();
    vm.docker(&begin)?.ok()?;
    wait_for_systemd(vm, "machine")?;
    let limited = "cat /sys/fs/cgroup$(cut -d : -f 3 /proc/self/cgroup)/memory.max";
    let run = ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "MemoryMax=20M", "sh", "-c", limited];
    let limit = inside(vm, "machine", &run)?.ok()?;
    ensure!(limit == "20971520", "a service has the limit {limit}");
    let witness =
        ["systemd-run", "--quiet", "-p", "ExecStop=/bin/sh -c 'echo stopped >/witness'", "sleep", "600"];
    inside(vm, "machine", &witness)?.ok()?;
    vm.docker(&["stop", "-t", "60", "machine"])?.ok()?;
    let code = vm.docker(&["inspect", "-f", "{{.State.ExitCode}}", "machine"])?.ok()?;
    // With CAP_SYS_BOOT it halts the container, which the kernel does by SIGINT; without it exits. 137 would be the engine's
    // SIGKILL after a minute.
    ensure!(["0", "130"].contains(&code.as_str()), "it ended with {code}");
    let console = vm.docker(&["logs", "machine"])?.stdout();
    ensure!(console.contains("Halting system."), "{console}");
    let archive = vm.docker(&["cp", "machine:/witness", "-"])?;
    ensure!(archive.stdout().contains("stopped\n"), "its services were not stopped");
    vm.docker(&["rm", "-v", "machine"])?.ok().map(drop)
}

fn podman() -> Vec<Row<Vm>> {
    vec![
        row("rootless_podman_runs_a_container_in_a_privileged_one", |vm| {
            run_podman(vm, &["--privileged"], "true")
        }),
        thorough_row("rootless_podman_runs_a_container_without_privileges", |vm| {
            let devices = ["--device", "/dev/fuse", "--device", "/dev/net/tun"];
            // Without CAP_SYS_ADMIN around them, setuid programs may not write maps; those with file capabilities may.
            let capabilities = "chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap && \
                                setcap cap_setuid=ep /usr/bin/newuidmap && setcap cap_setgid=ep /usr/bin/newgidmap";
            run_podman(vm, &[UNCONFINED, &devices].concat(), capabilities)
        }),
    ]
}

fn run_podman(vm: &Vm, flags: &[&str], before: &str) -> Result<()> {
    let begin = [&["run", "-d", "--name", "pods"], flags, &["debian", "sleep", "6000"]].concat();
    vm.docker(&begin)?.ok()?;
    inside(vm, "pods", &["sh", "-c", before])?.ok()?;
    let user = ["runuser", "-u", WORKER, "--", "env", "HOME=/home/worker", "podman"];
    let import = [&["-w", "/home/worker", "pods"], &user[..], &["import", "-q", "-", "busybox"]].concat();
    give(vm, &import, &image::busybox_tar()?)?;
    let podman = |arguments: &[&str]| {
        let all = [&["exec", "-w", "/home/worker", "pods"], &user[..], arguments].concat();
        vm.docker(&all)?.ok()
    };
    let map = podman(&["run", "--rm", "busybox", "cat", "/proc/self/uid_map"])?;
    let fields: Vec<_> = map.split_whitespace().collect();
    ensure!(fields == ["0", "1000", "1", "1", "10000", "50000"], "{map}");
    let script = "id -u; touch /new && chown 1000 /new && stat -c %u /new";
    let text = podman(&["run", "--rm", "--network", "none", "busybox", "sh", "-c", script])?;
    ensure!(text == "0\n1000", "{text}");
    vm.docker(&["rm", "-fv", "pods"])?.ok().map(drop)
}

/// KinD's flags of `docker run` for a node.
const NODE: &[&str] = &[
    "-t",
    "--hostname",
    "node",
    "--restart",
    "on-failure:1",
    "--init=false",
    "--cgroupns",
    "private",
    "--privileged",
    "--security-opt",
    "seccomp=unconfined",
    "--security-opt",
    "apparmor=unconfined",
    "--tmpfs",
    "/tmp",
    "--tmpfs",
    "/run",
    "-v",
    "/var",
    "-v",
    "/lib/modules:/lib/modules:ro",
    "--device",
    "/dev/fuse",
    "--sysctl",
    "net.ipv6.conf.all.disable_ipv6=0",
    "--sysctl",
    "net.ipv6.conf.all.forwarding=1",
];

/// The steps of KinD's entrypoint. It takes a refused remount of /sys for harmless in a user namespace, as the kernel owns
/// that file system whoever mounts it; the mount itself can be changed.
const ENTRYPOINT: &str = "set -e
chown root:root $(which mount) $(which umount)
chmod -s $(which mount) $(which umount)
grep -Eqv '0[[:space:]]+0[[:space:]]+4294967295' /proc/self/uid_map
test $(ulimit -Hn) -ge 64000
for controller in cpu memory pids; do grep -qw $controller /sys/fs/cgroup/cgroup.controllers; done
mount -o remount,ro /sys || echo refused
mount -o remount,bind,ro /sys
mount -o remount,bind,rw /sys
mount --make-rshared /
rm -f /etc/machine-id
systemd-machine-id-setup
for name in product_name product_uuid; do
    echo own >/$name
    if [ -f /sys/class/dmi/id/$name ]; then mount -o ro,bind /$name /sys/class/dmi/id/$name; fi
done
test -e /dev/kmsg
exec /sbin/init";

/// Settings that kubelet, kube-proxy and KinD write.
const SETTINGS: &[(&str, &str)] = &[
    ("/proc/sys/vm/overcommit_memory", "1"),
    ("/proc/sys/vm/panic_on_oom", "0"),
    ("/proc/sys/kernel/panic", "10"),
    ("/proc/sys/kernel/panic_on_oops", "1"),
    ("/proc/sys/kernel/keys/root_maxkeys", "1000000"),
    ("/proc/sys/kernel/keys/root_maxbytes", "25000000"),
    ("/proc/sys/fs/inotify/max_user_watches", "524288"),
    ("/proc/sys/fs/inotify/max_user_instances", "512"),
    ("/proc/sys/net/ipv4/ip_forward", "1"),
    ("/proc/sys/net/ipv4/conf/all/route_localnet", "1"),
    ("/proc/sys/net/bridge/bridge-nf-call-iptables", "1"),
    ("/proc/sys/net/ipv4/vs/conntrack", "1"),
    ("/proc/sys/net/ipv4/vs/conn_reuse_mode", "0"),
    ("/proc/sys/net/ipv4/vs/expire_nodest_conn", "1"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established", "86400"),
    ("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait", "3600"),
    ("/proc/sys/net/netfilter/nf_conntrack_max", "131072"),
    ("/sys/module/nf_conntrack/parameters/hashsize", "32768"),
];

/// What kubelet does below the root of its cgroups.
const KUBELET: &str = "set -e
cd /sys/fs/cgroup
mkdir -p kubelet/pod
echo '+cpuset +cpu +io +memory +hugetlb +pids' >cgroup.subtree_control
echo '+cpu +memory +pids' >kubelet/cgroup.subtree_control
echo 50000000 >kubelet/pod/memory.max
echo 20 >kubelet/pod/pids.max
echo 50000 100000 >kubelet/pod/cpu.max
sleep 60 &
echo $! >kubelet/pod/cgroup.procs
cat kubelet/pod/pids.current /proc/$!/cgroup
kill $!";

fn node() -> Vec<Row<Vm>> {
    vec![
        row("a_node_of_kubernetes_starts_with_kind_s_flags_and_steps", |vm| {
            let begin = ["run", "-d", "--name", "node"];
            vm.docker(&[&begin[..], NODE, &["debian", "sh", "-c", ENTRYPOINT]].concat())?.ok()?;
            wait_for_systemd(vm, "node")?;
            let script = "ls -A /lib/modules; findmnt -no PROPAGATION /; head -c 9 /dev/kmsg";
            let text = inside(vm, "node", &["sh", "-c", script])?.ok()?;
            ensure!(text == "shared", "{text}");
            Ok(())
        }),
        row("a_node_writes_its_kernel_settings", |vm| {
            let script: String = SETTINGS
                .iter()
                .map(|(path, value)| {
                    format!("echo {value} >{path} && test \"$(cat {path})\" = {value} || echo {path}\n")
                })
                .collect();
            let wrong = inside(vm, "node", &["sh", "-c", &script])?;
            ensure!(wrong.stdout().is_empty(), "not written:\n{}\n{}", wrong.stdout(), wrong.stderr);
            Ok(())
        }),
        row("a_node_limits_its_pods", |vm| {
            let text = inside(vm, "node", &["sh", "-c", KUBELET])?.ok()?;
            ensure!(text == "1\n0::/kubelet/pod", "{text}");
            Ok(())
        }),
        thorough_row("a_node_s_containerd_runs_containers_on_overlayfs", |vm| {
            inside(vm, "node", &["systemctl", "start", "containerd"])?.ok()?;
            let archive = vm.docker(&["save", "busybox"])?;
            ensure!(archive.code == 0, "{}", archive.stderr);
            let import = ["node", "ctr", "images", "import", "--snapshotter", "overlayfs", "-"];
            give(vm, &import, &archive.bytes)?;
            let map = inside(vm, "node", &["cat", "/proc/self/uid_map"])?.ok()?;
            for (runtime, kind) in
                [("runc", "--privileged=false"), ("crun", "--privileged=false"), ("runc", "--privileged")]
            {
                let run =
                    ["ctr", "run", "--rm", "--snapshotter", "overlayfs", "--runc-binary", runtime, kind];
                let pod = ["docker.io/library/busybox:latest", "pod", "cat", "/proc/self/uid_map"];
                let text = inside(vm, "node", &[&run[..], &pod].concat())?.ok()?;
                ensure!(text == map, "{runtime} {kind}: {text}");
            }
            vm.docker(&["rm", "-fv", "node"])?.ok().map(drop)
        }),
        row("a_node_in_the_vm_s_cgroups_is_refused", |vm| {
            let outcome =
                vm.docker(&["run", "--rm", "--privileged", "--cgroupns", "host", "busybox", "true"])?;
            outcome.refused(&["containers can't share namespaces [cgroup] with the host"]).map(drop)
        }),
    ]
}

/// A command in a running container.
fn inside(vm: &Vm, container: &str, command: &[&str]) -> Result<Outcome> {
    vm.docker(&[&["exec", container], command].concat())
}

/// A script in a new container of the engine in `outer`.
fn inner(vm: &Vm, flags: &[&str], script: &str) -> Result<String> {
    let run = [&["docker", "run", "--rm"], flags, &["busybox", "sh", "-c", script]].concat();
    inside(vm, "outer", &run)?.ok()
}

/// `docker exec` with bytes on stdin.
fn give(vm: &Vm, arguments: &[&str], bytes: &[u8]) -> Result<()> {
    vm.docker_with(&[&["exec", "-i"], arguments].concat(), bytes)?.ok().map(drop)
}

/// Asks again for two minutes; a container that has ended fails at once.
fn wait_for(vm: &Vm, container: &str, command: &[&str]) -> Result<()> {
    for _ in 0..120 {
        if inside(vm, container, command)?.code == 0 {
            return Ok(());
        }
        ensure_running(vm, container)?;
        thread::sleep(Duration::from_secs(1));
    }
    bail!("`{}` does not succeed in `{container}`", command.join(" "))
}

fn wait_for_systemd(vm: &Vm, container: &str) -> Result<()> {
    for _ in 0..120 {
        let state = inside(vm, container, &["systemctl", "is-system-running"])?.stdout();
        if state == "running" {
            return Ok(());
        }
        if state == "degraded" {
            let failed =
                inside(vm, container, &["systemctl", "--failed", "--plain", "--no-legend"])?.stdout();
            bail!("units failed:\n{failed}");
        }
        ensure_running(vm, container)?;
        thread::sleep(Duration::from_secs(1));
    }
    bail!("systemd in `{container}` is not up after two minutes")
}

fn ensure_running(vm: &Vm, container: &str) -> Result<()> {
    let running = vm.docker(&["inspect", "-f", "{{.State.Running}}", container])?.ok()?;
    if running != "true" {
        let said = vm.docker(&["logs", container])?;
        bail!("`{container}` has ended:\n{}{}", said.stdout(), said.stderr);
    }
    Ok(())
}
