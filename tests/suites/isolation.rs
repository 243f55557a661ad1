//! Isolation that holds: what code in a container may do and what not, by the kernel's answer to each attempt, and every
//! option of `docker run` that comes near to a wall, with its refused neighbour.
//!
//! A row of the tables below states what an attempt (see `eci-probe --list`) comes to in four kinds of containers. The
//! allowed neighbours stand in the same tables: a wall that stops everything would pass the rest.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eci_tests::attempts::{self, REFUSED, UNCONFINED};
use eci_tests::image;
use eci_tests::suite::{Row, row, thorough_row};
use eci_tests::vm::{self, Vm};

/// An attempt and what it comes to: in a plain container, with every capability, with `--privileged`, and with every
/// capability and no profile or mask of Docker's.
type Line = (&'static str, &'static str, &'static str, &'static str, &'static str);

/// What all four kinds of containers have in common: a read-only and a writable volume, a folder in memory to play in.
const COMMON: &[&str] = &["-v", "locked:/ro:ro", "-v", "open:/rw", "--tmpfs", "/tmp", "-m", "256m"];

/// Mounts. Docker's profiles stop plain and capable containers before the kernel's locks are asked: seccomp says EPERM,
/// AppArmor EACCES.
const MOUNTS: &[Line] = &[
    ("remount-rw:/ro", "EPERM", "EACCES", "EPERM", "EPERM"),
    ("mount-setattr-clear-ro:/ro", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("open-tree-clear-ro:/ro", "EPERM at open_tree", "EPERM", "EPERM", "EPERM"),
    ("bind-remount-rw:/ro", "EPERM at bind", "EACCES at bind", "EPERM", "EPERM"),
    ("umount:/ro", "EPERM", "EINVAL", "EINVAL", "EINVAL"),
    ("umount-lazy:/ro", "EPERM", "EINVAL", "EINVAL", "EINVAL"),
    ("umount:/rw", "EPERM", "EINVAL", "EINVAL", "EINVAL"),
    ("umount:/etc/hosts", "EPERM", "EINVAL", "EINVAL", "EINVAL"),
    ("bind-over:/ro", "EPERM", "EACCES", "allowed", "allowed"),
    ("bind-root", "EPERM", "EACCES", "EINVAL", "EINVAL"),
    ("bind-root-recursive", "EPERM", "EACCES", "allowed", "allowed"),
    ("open-tree-root", "EPERM", "EINVAL", "EINVAL", "EINVAL"),
    ("move-mount:/ro", "EPERM", "EACCES", "EINVAL", "EINVAL"),
    // AppArmor mediates the new call from Linux 6.8 on; without it the lock answers.
    ("move-mount-new-api:/ro", "EPERM", "EACCES|EINVAL", "EINVAL", "EINVAL"),
    ("make-shared:/rw", "EPERM", "EACCES", "allowed", "allowed"),
    ("fsopen-block:/dev/vda", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("mount-ext4:/dev/vda", "EPERM", "ENOENT", "EPERM", "EPERM"),
    ("mount-erofs:/dev/dm-0", "EPERM", "ENOENT", "EPERM", "EPERM"),
    ("mount-9p:eci", "EPERM", "EACCES", "EPERM", "EPERM"),
    ("mount-virtiofs:eci", "EPERM", "EACCES", "EPERM", "EPERM"),
    ("mount-devtmpfs", "EPERM", "EACCES", "EPERM", "EPERM"),
    // ENODEV where the kernel has no cgroup v1 at all.
    ("mount-cgroup1", "EPERM", "EACCES", "EPERM|ENODEV", "EPERM|ENODEV"),
    ("mount-tmpfs", "EPERM", "EACCES", "allowed", "allowed"),
    ("mount-mqueue", "EPERM", "EACCES", "allowed", "allowed"),
    ("mount-bpffs", "EPERM", "EACCES", "EPERM", "EPERM"),
    ("mount-cgroup2", "EPERM", "EACCES", "allowed", "allowed"),
    // Where /sys is read-only, a new one may not be writable (`mount_too_revealing`).
    ("mount-sysfs", "EPERM", "EACCES", "allowed", "allowed|EPERM"),
    ("mount-overlay", "EPERM at mounting a tmpfs", "EACCES at mounting a tmpfs", "allowed", "allowed"),
    ("mount-proc", "EPERM", "EACCES", "allowed", "allowed"),
    ("mount-proc-nested", "EPERM at unshare", "EACCES", "allowed", "allowed"),
    ("pivot-root", "EPERM at unshare", "EACCES at mount", "allowed", "allowed"),
    ("chroot-escape", "no effect", "no effect", "no effect", "no effect"),
];

/// Namespaces and ids.
const NAMESPACES: &[Line] = &[
    ("setns-pid1:user", "EPERM", "EINVAL", "EINVAL", "EINVAL"),
    // Pid 1 is the container's own init: that one can be entered is the neighbour of the next two.
    ("setns-pid1:mnt", "EPERM", "allowed", "allowed", "allowed"),
    ("setns-initial", "nothing there", "nothing there", "nothing there", "nothing there"),
    ("setns-foreign", "nothing there", "nothing there", "nothing there", "nothing there"),
    ("userns-parent", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("unshare-user", "EPERM", "allowed", "allowed", "allowed"),
    ("unshare-user-mount", "EPERM at unshare", "EACCES", "allowed", "allowed"),
    ("unshare-all", "EPERM", "allowed", "allowed", "allowed"),
    ("userns-map-own", "EPERM at unshare", "allowed", "allowed", "allowed"),
    ("userns-map-beyond", "EPERM at unshare", "EPERM", "EPERM", "EPERM"),
    ("userns-map-vm-root", "EPERM at unshare", "EPERM", "EPERM", "EPERM"),
    ("setuid-last", "allowed", "allowed", "allowed", "allowed"),
    ("setuid-beyond", "EINVAL", "EINVAL", "EINVAL", "EINVAL"),
    ("setgid-beyond", "EINVAL", "EINVAL", "EINVAL", "EINVAL"),
    ("setgroups-beyond", "EINVAL", "EINVAL", "EINVAL", "EINVAL"),
    ("chown-last", "allowed", "allowed", "allowed", "allowed"),
    ("chown-beyond", "EINVAL", "EINVAL", "EINVAL", "EINVAL"),
    ("file-capabilities", "allowed", "allowed", "allowed", "allowed"),
    ("file-capabilities-foreign", "EINVAL", "EINVAL", "EINVAL", "EINVAL"),
    ("trusted-attribute", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("overlay-attribute", "EPERM", "EPERM", "EPERM", "EPERM"),
];

/// Calls that Docker's seccomp profile refuses and that a privileged container is to be refused by ours.
///
/// A nested engine's runtime joins a session keyring, so keyrings are not refused: they belong to users, and users to the
/// container.
const CALLS: &[Line] = &[
    ("handle-make:/rw", "allowed", "allowed", "allowed", "allowed"),
    // With `--cap-add ALL` Docker's own profile lets it through, and Linux from 6.11 on opens what is below the mount.
    ("handle-open-own:/rw", "EPERM", "allowed|EPERM", "EPERM", "EPERM"),
    ("handle-open-root:/rw", "EPERM", REFUSED, "EPERM", "EPERM"),
    ("handle-open-guess:/rw", "EPERM", REFUSED, "EPERM", "EPERM"),
    ("keyctl-session", "EPERM", "EPERM", "allowed", "allowed"),
    ("keyctl-user", "EPERM", "EPERM", "allowed", "allowed"),
    ("keyctl-search", "EPERM", "EPERM", "ENOKEY", "ENOKEY"),
    ("keyctl-read-foreign", "nothing there", "nothing there", "EACCES at open", "EACCES at open"),
    ("add-key", "EPERM", "EPERM", "allowed", "allowed"),
    ("bpf-prog-load", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("bpf-map-create", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("io-uring-setup", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("userfaultfd", "EPERM", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    ("perf-event-self", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("perf-event-cpu", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("syslog-read", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("init-module", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("finit-module", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("delete-module", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("kexec-load", "EPERM", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    ("clock-settime", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("settimeofday", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("adjtimex", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("adjtimex-read", "allowed", "allowed", "allowed", "allowed"),
    ("sethostname", "EPERM", "allowed", "allowed", "allowed"),
    ("setdomainname", "EPERM", "allowed", "allowed", "allowed"),
    ("swapon:/tmp/none", "EPERM", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    ("acct", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    ("quotactl:/dev/vda", "EPERM", REFUSED, REFUSED, REFUSED),
    // The kernel hears the right to reboot as one over the caller's own pid namespace, so the magic is looked at.
    ("reboot-wrong-magic", "EPERM", "EINVAL", "EINVAL|EPERM", "EINVAL|EPERM"),
    ("reboot", "EPERM at unshare", "allowed", "allowed", "allowed"),
    ("iopl", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    ("ioperm", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    // The kernel has no x32, and no filter knows it.
    ("x32-keyctl", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS"),
    ("x32-bpf", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS"),
    ("x32-unshare", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS"),
    ("x32-perf-event", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS"),
    ("x32-io-uring", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS"),
    ("x32-handle-open", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS"),
    ("i386-keyctl", "EPERM", "EPERM", "allowed", "allowed"),
    ("i386-bpf", "EPERM", REFUSED, "EPERM", "EPERM"),
    ("i386-unshare", "EPERM", "allowed", "allowed", "allowed"),
    ("i386-perf-event", "EPERM", REFUSED, "EPERM", "EPERM"),
    ("i386-io-uring", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("i386-handle-open", "EPERM", REFUSED, "EPERM", "EPERM"),
    ("i386-userfaultfd", "EPERM", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    ("i386-iopl", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS", "EPERM|ENOSYS"),
    ("i386-reboot", "EPERM", "EINVAL", "EINVAL|EPERM", "EINVAL|EPERM"),
    ("i386-kexec", "EPERM", "EPERM", "EPERM|ENOSYS", "EPERM|ENOSYS"),
];

/// Processes, sockets and devices.
const OTHERS: &[Line] = &[
    // Pid 1 is the container's own: another process of the same user, which Yama keeps apart without CAP_SYS_PTRACE.
    ("ptrace", "EPERM", "allowed", "allowed", "allowed"),
    ("ptrace-child", "allowed", "allowed", "allowed", "allowed"),
    ("process-vm-readv", "EPERM", "allowed", "allowed", "allowed"),
    ("pidfd-getfd", "EPERM", "allowed", "allowed", "allowed"),
    // ENOSYS: the kernel is built without it.
    ("kcmp", "EPERM", "allowed|ENOSYS", "allowed|ENOSYS", "allowed|ENOSYS"),
    ("descriptors", "nothing there", "nothing there", "nothing there", "nothing there"),
    ("directory", "nothing there", "nothing there", "nothing there", "nothing there"),
    ("oom-score-lower", "EACCES", "EACCES", "EACCES", "EACCES"),
    ("rlimit-raise", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("nice-lower", "EACCES", "EACCES", "EACCES", "EACCES"),
    // ENODEV and its like where the machine has no such device.
    ("vsock:2:1024", "EPERM at socket", REFUSED, REFUSED, REFUSED),
    ("vsock:2:2375", "EPERM at socket", REFUSED, REFUSED, REFUSED),
    ("vsock:1:1024", "EPERM at socket", REFUSED, REFUSED, REFUSED),
    ("tcp-gateway:1024", REFUSED, REFUSED, REFUSED, REFUSED),
    ("tcp-gateway:2375", REFUSED, REFUSED, REFUSED, REFUSED),
    ("tcp-gateway:2376", REFUSED, REFUSED, REFUSED, REFUSED),
    ("packet-socket", "allowed", "allowed", "allowed", "allowed"),
    ("audit", REFUSED, REFUSED, REFUSED, REFUSED),
    ("abstract-sockets", "nothing there", "nothing there", "nothing there", "nothing there"),
    ("mknod-block", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("mknod-null", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("mknod-whiteout", "allowed", "allowed", "allowed", "allowed"),
    ("mknod-fifo", "allowed", "allowed", "allowed", "allowed"),
    ("block-devices", "nothing there", "nothing there", "nothing there", "nothing there"),
    ("open-device:/dev/null", "allowed", "allowed", "allowed", "allowed"),
    ("open-device:/dev/fuse", "ENOENT", "ENOENT", "allowed", "ENOENT"),
    ("open-device:/dev/net/tun", "ENOENT", "ENOENT", "allowed", "ENOENT"),
    ("open-read:/dev/mem", "ENOENT at open", "ENOENT at open", "ENOENT at open", "ENOENT at open"),
    // A system container has an empty log of its own there.
    ("open-read:/dev/kmsg", "ENOENT at open", "ENOENT at open", "no effect", "no effect"),
];

/// Device nodes that are made on the root filesystem: a row of the table, and one number off it.
const MAKING: &[Line] = &[
    ("make-node:c:1:3", "allowed", "allowed", "allowed", "allowed"),
    ("make-node:c:1:5", "allowed", "allowed", "allowed", "allowed"),
    ("make-node:c:1:7", "allowed", "allowed", "allowed", "allowed"),
    ("make-node:c:1:8", "allowed", "allowed", "allowed", "allowed"),
    ("make-node:c:1:9", "allowed", "allowed", "allowed", "allowed"),
    ("make-node:c:5:0", "allowed", "allowed", "allowed", "allowed"),
    ("make-node:c:5:2", "allowed", "allowed", "allowed", "allowed"),
    ("make-node:c:1:1", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:1:2", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:1:4", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:1:6", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:1:10", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:1:11", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:1:259", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:2:3", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:4:0", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:5:1", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:5:3", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:6:0", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:10:200", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:10:229", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:136:0", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:c:257:3", "EPERM", "EPERM", "EPERM", "EPERM"),
    // A whiteout is overlayfs' own business on an overlay.
    ("make-node:c:0:0", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:b:1:3", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node:b:254:0", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-i386:c:1:3", "allowed", "allowed", "allowed", "allowed"),
    ("make-node-i386:c:1:1", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-i386:b:1:3", "EPERM", "EPERM", "EPERM", "EPERM"),
    // The kernel has no x32.
    ("make-node-x32:c:1:3", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS", "killed SIGSYS"),
    ("make-node-wide:c:1:3", "allowed", "allowed", "allowed", "allowed"),
    ("make-node-wide:c:1:1", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-wide:c:0:0", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-bad-pointer", "EFAULT", "EFAULT", "EFAULT", "EFAULT"),
    ("make-node-empty", "ENOENT", "ENOENT", "ENOENT", "ENOENT"),
    ("make-node-long", "ENAMETOOLONG", "ENAMETOOLONG", "ENAMETOOLONG", "ENAMETOOLONG"),
    ("make-node-taken", "EEXIST", "EEXIST", "EEXIST", "EEXIST"),
    ("make-node-taken-by-link", "EEXIST", "EEXIST", "EEXIST", "EEXIST"),
    ("make-node-nowhere", "ENOENT", "ENOENT", "ENOENT", "ENOENT"),
    ("make-node-below-file", "ENOTDIR", "ENOTDIR", "ENOTDIR", "ENOTDIR"),
    ("make-node-at", "allowed", "allowed", "allowed", "allowed"),
    ("make-node-at-file", "ENOTDIR", "ENOTDIR", "ENOTDIR", "ENOTDIR"),
    ("make-node-at-nothing", "EBADF", "EBADF", "EBADF", "EBADF"),
    ("make-node-umask", "allowed", "allowed", "allowed", "allowed"),
    ("make-node-chroot", "allowed", "allowed", "allowed", "allowed"),
    ("make-node-through-proc:/proc/self/root", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-through-proc:/proc/1/root", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-on:/rw", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-on:/ro", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-on:/dev", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-on:/dev/shm", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-closed-folder", "EACCES", "EACCES", "EACCES", "EACCES"),
    ("make-node-thread", "EPERM", "EPERM", "EPERM", "EPERM"),
    ("make-node-nested", "EPERM", "EPERM", "EPERM", "EPERM"),
    // The kernel asks a container's own file system nothing in the name of the VM's root.
    ("make-node-held-memory", "ENOENT at open", "ENOENT at open", "EFAULT", "ENOENT at open"),
    ("make-node-held-folder", "ENOENT at open", "ENOENT at open", "EPERM", "ENOENT at open"),
    ("make-node-signals", "allowed", "allowed", "allowed", "allowed"),
    ("make-node-killed", "allowed", "allowed", "allowed", "allowed"),
];

/// Nodes of /proc, /sys and the control group.
const NODES: &[Line] = &[
    ("core-pattern", REFUSED, REFUSED, REFUSED, REFUSED),
    ("modprobe", REFUSED, REFUSED, REFUSED, REFUSED),
    ("uevent-helper", REFUSED, REFUSED, REFUSED, REFUSED),
    ("sysrq-trigger", REFUSED, REFUSED, REFUSED, REFUSED),
    ("vm-settings", "EACCES", "EACCES", "allowed", "allowed"),
    // A setting of the container's own network namespace.
    ("write:/proc/sys/net/ipv4/ip_default_ttl=63", "EACCES", "EROFS", "allowed", "allowed"),
    ("kernel-addresses", REFUSED, REFUSED, REFUSED, REFUSED),
    ("read:/proc/kcore", REFUSED, REFUSED, REFUSED, REFUSED),
    ("read:/proc/timer_list", REFUSED, REFUSED, REFUSED, REFUSED),
    ("read:/proc/kmsg", REFUSED, REFUSED, REFUSED, REFUSED),
    ("read:/sys/class/dmi/id/product_uuid", REFUSED, REFUSED, REFUSED, REFUSED),
    ("list:/sys/firmware", "no effect", "no effect", "no effect", "no effect"),
    ("list:/sys/kernel/security", REFUSED, REFUSED, REFUSED, REFUSED),
    ("list:/sys/kernel/debug", REFUSED, REFUSED, REFUSED, REFUSED),
    ("cgroup-raise", "EROFS", "EROFS", REFUSED, REFUSED),
    ("cgroup-freeze", "EROFS", "EROFS", REFUSED, REFUSED),
    ("cgroup-leave", REFUSED, REFUSED, REFUSED, REFUSED),
    ("cgroup-child", "EROFS", "EROFS", "allowed", "allowed"),
    ("cgroup-release-agent", "nothing there", "nothing there", "nothing there", "nothing there"),
];

const TABLES: [&[Line]; 6] = [MOUNTS, NAMESPACES, CALLS, OTHERS, MAKING, NODES];

fn main() -> ExitCode {
    vm::run_suite("isolation", rows())
}

fn rows() -> Vec<Row<Vm>> {
    let mut rows = vec![
        row("an_image_without_a_registry_is_imported", Vm::import_busybox),
        row("attempts_of_a_plain_container", |vm| column(vm, &[], |line| line.1)),
        row("attempts_of_a_container_with_every_capability", |vm| {
            column(vm, &["--cap-add", "ALL"], |line| line.2)
        }),
        row("attempts_of_a_privileged_container", |vm| column(vm, &["--privileged"], |line| line.3)),
        row("attempts_of_a_container_without_any_profile", |vm| {
            column(vm, &[UNCONFINED, &["--cap-add", "ALL"]].concat(), |line| line.4)
        }),
        row("attempts_of_a_user_who_is_not_root", |vm| {
            let expected = [
                ("unshare-user", "EPERM"),
                ("mount-tmpfs", "EPERM"),
                ("setuid-last", "EPERM"),
                ("packet-socket", "EPERM"),
                ("chroot-escape", "EPERM"),
                ("mknod-fifo", "allowed"),
            ];
            attempts::expect(vm, &["-u", "1000:1000", "--tmpfs", "/tmp"], &expected)
        }),
    ];
    rows.extend(mounts());
    rows.extend(namespaces());
    rows.extend(devices_and_settings());
    rows.extend(made_nodes());
    rows.extend(figures());
    rows.extend(ids());
    rows.extend(lifetime());
    rows.push(row("every_promise_of_immutability_holds", Vm::every_check_holds));
    rows
}

/// One container start for a whole column: that is the expensive part.
fn column(vm: &Vm, flags: &[&str], expected: fn(&Line) -> &'static str) -> Result<()> {
    let lines: Vec<_> = TABLES.into_iter().flatten().map(|line| (line.0, expected(line))).collect();
    attempts::expect(vm, &[COMMON, flags].concat(), &lines)
}

fn mounts() -> Vec<Row<Vm>> {
    vec![
        row("a_read_only_root_is_read_only_and_a_tmpfs_in_it_is_not", |vm| {
            run(vm, &["--read-only"], "touch /x").refused(&["Read-only file system"])?;
            run(vm, &["--read-only", "--tmpfs", "/t"], "touch /t/x && test -e /t/x").ok()
        }),
        row("a_tmpfs_over_proc_is_refused_and_one_beside_it_is_not", |vm| {
            for place in ["/proc", "/proc/sys", "/proc/self/attr"] {
                run(vm, &["--tmpfs", place], "true").refused(&["can't mount over", place])?;
            }
            run(vm, &["--tmpfs", "/process"], "true").ok()
        }),
        row("a_tmpfs_has_the_size_the_mode_and_the_owner_asked_for", |vm| {
            let flags = ["--tmpfs", "/t:size=8m,mode=1770,uid=1000,noexec"];
            says(vm, &flags, "stat -c %a:%u /t", "1770:1000")?;
            run(vm, &flags, "dd if=/dev/zero of=/t/f bs=1M count=9").refused(&["No space left on device"])?;
            run(vm, &flags, "cp /bin/busybox /t/true && /t/true").refused(&["Permission denied"])
        }),
        row("a_volume_may_be_asked_for_read_only_in_both_spellings", |vm| {
            run(vm, &["-v", "twice:/v"], "touch /v/f").ok()?;
            for flags in [["-v", "twice:/v:ro"], ["--mount", "type=volume,src=twice,dst=/v,readonly"]] {
                run(vm, &flags, "touch /v/f").refused(&["Read-only file system"])?;
            }
            Ok(())
        }),
        row("a_part_of_a_volume_is_mounted_and_nothing_outside_of_it", |vm| {
            run(vm, &["-v", "parts:/v"], "mkdir /v/in && echo inner >/v/in/f && ln -s /etc /v/out").ok()?;
            let part = |path: &str| format!("type=volume,src=parts,dst=/p,volume-subpath={path}");
            says(vm, &["--mount", &part("in")], "cat /p/f", "inner")?;
            for path in ["..", "../..", "/etc", "in/../../..", "out", "out/docker", "missing"] {
                run(vm, &["--mount", &part(path)], "ls /p").refused(&[])?;
            }
            Ok(())
        }),
        row("a_new_volume_gets_the_image_s_files_unless_asked_not_to", |vm| {
            says(vm, &["--mount", "type=volume,src=copied,dst=/home"], "stat -c %u /home/theirs", "1000")?;
            says(vm, &["--mount", "type=volume,src=bare,dst=/home,volume-nocopy"], "ls /home", "")
        }),
        row("a_volume_in_a_volume_hides_what_is_below_it", |vm| {
            let script = "echo outer >/a/f && echo inner >/a/b/f && cat /a/f /a/b/f";
            says(vm, &["-v", "outer:/a", "-v", "inner:/a/b"], script, "outer\ninner")?;
            says(vm, &["-v", "outer:/a"], "ls /a /a/b", "/a:\nb\nf\n\n/a/b:")?;
            says(vm, &["-v", "inner:/b"], "cat /b/f", "inner")
        }),
        row("a_read_only_volume_in_a_writable_one_stays_read_only", |vm| {
            let expected = [
                ("umount:/a/b", "EINVAL"),
                ("mount-setattr-clear-ro:/a/b", "EPERM"),
                ("umount:/a", "EINVAL"),
                ("move-mount:/a/b", "EINVAL"),
            ];
            attempts::expect(vm, &["--privileged", "-v", "outer:/a", "-v", "inner:/a/b:ro"], &expected)
        }),
        row("mounts_of_a_container_reach_no_other_whatever_propagation_is_asked_for", |vm| {
            run(vm, &["-v", "spread:/v"], "mkdir /v/m").ok()?;
            // The folder of a volume: the only path of the VM that may be named. dockerd has no private one below its own.
            let bind = |propagation| {
                format!(
                    "type=bind,src=/var/lib/docker/volumes/spread/_data,dst=/v,bind-propagation={propagation}"
                )
            };
            run(vm, &["--mount", &bind("rprivate")], "true")
                .refused(&["must use either propagation mode"])?;
            for propagation in ["rslave", "rshared"] {
                let bind = bind(propagation);
                let name = format!("spread-{propagation}");
                let arguments =
                    ["run", "-d", "--privileged", "--name", &name, "--mount", &bind, "busybox", "sh", "-c"];
                let script = "mount -t tmpfs none /v/m && touch /v/m/seen && echo mounted && sleep 600";
                let outcome = vm.docker(&[&arguments[..], &[script]].concat())?;
                if outcome.code != 0 {
                    // dockerd itself wants the VM's mount to be shared.
                    outcome.refused(&["shared"])?;
                    drop(vm.docker(&["rm", "-f", &name])?);
                    continue;
                }
                wait_for(|| Ok(vm.docker(&["logs", &name])?.stdout() == "mounted"))?;
                let seen = vm.sh(&["-v", "spread:/v"], "ls /v/m");
                vm.docker(&["rm", "-f", &name])?.ok()?;
                ensure!(seen?.is_empty(), "a mount of one container shows in another with {propagation}");
            }
            Ok(())
        }),
        thorough_row("an_image_of_120_layers_runs_and_shows_the_topmost", |vm| {
            vm.docker_with(&["load"], &image::layered_tar("layered:120", 120)?)?.ok()?;
            let script = "cat /layers/top; ls /layers | wc -l; touch /layers/new && stat -c %u /layers/new";
            let text = vm.docker(&["run", "--rm", "layered:120", "sh", "-c", script])?.ok()?;
            vm.docker(&["rmi", "layered:120"])?.ok()?;
            ensure!(text == "119120\n0", "{text}");
            Ok(())
        }),
    ]
}

fn namespaces() -> Vec<Row<Vm>> {
    vec![
        row("who_joins_one_container_s_namespaces_joins_its_user_namespace", |vm| {
            vm.docker(&["run", "-d", "--name", "host-1", "--ipc", "shareable", "busybox", "sleep", "600"])?
                .ok()?;
            let theirs = vm.docker(&["exec", "host-1", "readlink", "/proc/self/ns/user"])?.ok()?;
            let all = ["--network", "--ipc", "--pid"].map(|flag| [flag, "container:host-1"]);
            for flags in [&all[0][..], &all[1], &all[2], &all.concat()] {
                says(vm, flags, "readlink /proc/self/ns/user", &theirs)?;
            }
            let processes = vm.sh(&["--pid", "container:host-1"], "ps")?;
            ensure!(processes.contains("sleep 600"), "{processes}");
            // Joining gives no way into the mounts of the other, which belong to the same user namespace.
            let outcome =
                attempts::make(vm, &["--privileged", "--pid", "container:host-1"], &["setns-pid1:mnt"]);
            vm.docker(&["rm", "-f", "host-1"])?.ok()?;
            ensure!(outcome.is_ok(), "{outcome:?}");
            Ok(())
        }),
        row("namespaces_of_two_containers_cannot_be_joined_at_once", |vm| {
            for name in ["host-1", "host-2"] {
                vm.docker(&["run", "-d", "--name", name, "busybox", "sleep", "600"])?.ok()?;
            }
            let outcome = run(vm, &["--network", "container:host-1", "--pid", "container:host-2"], "true")
                .into_outcome();
            vm.docker(&["rm", "-f", "host-1", "host-2"])?.ok()?;
            outcome?
                .refused(&["the namespaces to be joined do not belong to one running container"])
                .map(drop)
        }),
        row("names_of_the_machine_are_the_container_s_own", |vm| {
            let flags = ["--hostname", "here", "--domainname", "example.org"];
            says(vm, &flags, "hostname; cat /proc/sys/kernel/domainname", "here\nexample.org")
        }),
        row("an_init_of_docker_s_reaps", |vm| says(vm, &["--init"], "cat /proc/1/comm", "docker-init")),
    ]
}

fn devices_and_settings() -> Vec<Row<Vm>> {
    vec![
        row("safe_devices_are_of_use_and_others_are_refused", |vm| {
            let named = ["--device", "/dev/fuse", "--device", "/dev/net/tun"];
            let expected = [("open-device:/dev/fuse", "allowed"), ("open-device:/dev/net/tun", "allowed")];
            attempts::expect(vm, &named, &expected)?;
            // A safe number under another name: crun may bind what the VM has at that path.
            for device in [
                "/dev/kmsg",
                "/dev/hvc0",
                "/dev/vda:/dev/null",
                "/dev/loop-control",
                "/dev/null:/dev/mine",
                "/dev/null:/etc/passwd",
            ] {
                run(vm, &["--device", device], "true").refused(&[])?;
            }
            Ok(())
        }),
        row("a_user_may_open_the_devices_that_are_for_users", |vm| {
            let flags = ["--device", "/dev/fuse", "--device", "/dev/net/tun", "-u", "1000"];
            says(vm, &flags, "stat -c %a /dev/fuse /dev/net/tun; head -c 0 /dev/fuse", "666\n666")
        }),
        row("the_kernel_log_of_a_system_container_is_empty", |vm| {
            says(vm, &["--privileged"], "echo x >/dev/kmsg; cat /dev/kmsg; stat -c %t:%T /dev/kmsg", "1:3")
        }),
        thorough_row("connection_tracking_of_a_system_container_is_set_for_nobody_else", |vm| {
            for node in [
                "/proc/sys/net/netfilter/nf_conntrack_max",
                "/proc/sys/net/netfilter/nf_conntrack_buckets",
                "/sys/module/nf_conntrack/parameters/hashsize",
            ] {
                let before = vm.sh(&["--privileged"], &format!("cat {node}"))?;
                says(vm, &["--privileged"], &format!("echo 4096 >{node}; cat {node}"), "4096")?;
                says(vm, &["--privileged"], &format!("cat {node}"), &before)?;
                run(vm, &["--cap-add", "ALL"], &format!("echo 4096 >{node}")).refused(&[])?;
            }
            Ok(())
        }),
        row("a_device_rule_gives_no_device", |vm| {
            let flags = ["--device-cgroup-rule", "a *:* rwm", "--cap-add", "ALL"];
            attempts::expect(vm, &flags, &[("mknod-block", "EPERM"), ("block-devices", "nothing there")])
        }),
        row("settings_of_namespaces_are_set_and_the_vm_s_are_refused", |vm| {
            let flags = ["--sysctl", "net.ipv4.ip_forward=0", "--sysctl", "kernel.shmmax=1048576"];
            let script = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax";
            says(vm, &flags, script, "0\n1048576")?;
            for setting in
                ["kernel.panic=1", "vm.overcommit_memory=1", "kernel.core_pattern=|/x", "fs.file-max=1"]
            {
                run(vm, &["--sysctl", setting], "true").refused(&[])?;
            }
            Ok(())
        }),
        row("limits_of_processes_are_set", |vm| {
            says(vm, &["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn", "100\n200")
        }),
        row("no_container_outlives_the_vm_s_services_when_memory_ends", |vm| {
            says(vm, &["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500")?;
            // Unsure: the engine passes it on, and crun writes it as the VM's root. A refusal is as good as a clamp.
            let outcome =
                run(vm, &["--oom-score-adj", "-1000"], "cat /proc/self/oom_score_adj").into_outcome()?;
            ensure!(outcome.code != 0 || outcome.stdout() == "0", "a container has {}", outcome.stdout());
            Ok(())
        }),
        row("a_writable_cgroup_tree_is_the_container_s_own_and_lifts_no_limit", |vm| {
            let writable = ["-m", "64m", "--tmpfs", "/tmp", "-v", "/sys/fs/cgroup:/sys/fs/cgroup:rw"];
            for flags in [&[][..], &["--privileged"], &["--cap-add", "ALL"]] {
                let flags = [flags, &writable].concat();
                says(vm, &flags, "cat /sys/fs/cgroup/memory.max /proc/self/cgroup", "67108864\n0::/")?;
                let expected = [
                    ("cgroup-child", "allowed"),
                    ("cgroup-raise", REFUSED),
                    ("cgroup-freeze", REFUSED),
                    ("cgroup-leave", REFUSED),
                    ("cgroup-release-agent", "nothing there"),
                ];
                attempts::expect(vm, &flags, &expected)?;
            }
            let read_only = ["-v", "/sys/fs/cgroup:/sys/fs/cgroup:ro"];
            attempts::expect(vm, &read_only, &[("cgroup-child", "EROFS")])
        }),
        row("a_control_group_elsewhere_lifts_no_limit", |vm| {
            for parent in ["/eci", "/eci/dockerd", "../..", "/../../eci"] {
                let flags = ["--cgroup-parent", parent, "-m", "64m"];
                // A refusal would do as well.
                let outcome =
                    run(vm, &flags, "cat /sys/fs/cgroup/memory.max /proc/self/cgroup").into_outcome()?;
                let expected = "67108864\n0::/";
                ensure!(outcome.code != 0 || outcome.stdout() == expected, "{parent}: {}", outcome.stdout());
            }
            vm.every_check_holds()
        }),
        row("annotations_for_crun_are_not_obeyed", |vm| {
            for annotation in [
                "run.oci.handler=wasm",
                "run.oci.seccomp.plugins=/x.so",
                "run.oci.hooks.stdout=/x",
                "run.oci.keep_original_groups=1",
                "run.oci.systemd.force_cgroup_v1=/sys/fs/cgroup",
                "run.oci.mount_context_type=rootcontext",
            ] {
                says(vm, &["--annotation", annotation], "echo started", "started")?;
            }
            Ok(())
        }),
    ]
}

/// Device nodes that the VM makes for containers, and those that an image brings along.
fn made_nodes() -> Vec<Row<Vm>> {
    vec![
        row("a_node_is_of_use_and_lives_on_in_an_image", |vm| {
            let script = "mknod /made c 1 3 && echo x >/made && ls -l /made | grep -q '1, *3'";
            vm.docker(&["run", "--name", "maker", "busybox", "sh", "-c", script])?.ok()?;
            let changes = vm.docker(&["diff", "maker"])?.ok();
            vm.docker(&["commit", "maker", "made"])?.ok()?;
            vm.docker(&["rm", "maker"])?.ok()?;
            let again =
                vm.docker(&["run", "--rm", "made", "sh", "-c", "echo x >/made && stat -c %t:%T:%u /made"]);
            vm.docker(&["rmi", "-f", "made"])?.ok()?;
            ensure!(changes?.lines().any(|line| line == "A /made"), "`docker diff` does not show it");
            let again = again?.ok()?;
            ensure!(again == "1:3:0", "{again}");
            Ok(())
        }),
        row("a_build_step_makes_nodes", |vm| {
            let steps =
                "FROM busybox\nRUN mknod /made c 1 5 && head -c 3 /made | wc -c\nRUN ! mknod /mem c 1 1\n";
            for builder in ["0", "1"] {
                let mut command = vm.docker_command();
                command.env("DOCKER_BUILDKIT", builder).args([
                    "build",
                    "--network",
                    "none",
                    "-t",
                    "built",
                    "-",
                ]);
                eci_tests::command::run(&mut command, steps.as_bytes())?.ok()?;
                let made = vm.docker(&["run", "--rm", "built", "stat", "-c", "%t:%T", "/made"]);
                vm.docker(&["rmi", "-f", "built"])?.ok()?;
                ensure!(made?.ok()? == "1:5", "builder {builder} made another node");
            }
            Ok(())
        }),
        row("an_archive_of_nodes_is_unpacked", |vm| {
            let archive = image::nodes_tar(&[('c', 1, 3), ('c', 1, 9), ('c', 5, 0), ('c', 5, 2)])?;
            let script = "mkdir /x && cd /x && busybox tar xf - && echo x >c-1-3 && stat -c %n:%t:%T *";
            let arguments = ["run", "--rm", "-i", "busybox", "sh", "-c", script];
            let text = vm.docker_with(&arguments, &archive)?.ok()?;
            ensure!(text == "c-1-3:1:3\nc-1-9:1:9\nc-5-0:5:0\nc-5-2:5:2", "{text}");
            // busybox' tar says so, and goes on.
            let foreign = vm.docker_with(&arguments, &image::nodes_tar(&[('c', 1, 1)])?)?;
            ensure!(foreign.stderr.contains("Operation not permitted"), "{foreign:?}");
            ensure!(!foreign.stdout().contains("c-1-1"), "{foreign:?}");
            Ok(())
        }),
        row("without_the_capability_nobody_makes_a_node", |vm| {
            for flags in [["--cap-drop", "MKNOD"], ["--cap-drop", "ALL"]] {
                attempts::expect(
                    vm,
                    &flags,
                    &[("make-node:c:1:3", "EPERM"), ("make-node-i386:c:1:3", "EPERM")],
                )?;
            }
            vm.docker(&["run", "-d", "--name", "maker", "--cap-drop", "MKNOD", "busybox", "sleep", "600"])?
                .ok()?;
            let outcome = attempts::make_in(vm, "maker", &["--privileged"], &["make-node:c:1:3"]);
            vm.docker(&["rm", "-f", "maker"])?.ok()?;
            attempts::check(&outcome?, &[("make-node:c:1:3", "EPERM")])
        }),
        row("exec_makes_nodes_as_root_and_not_as_another_user", |vm| {
            let script = "mkdir -m 777 /open; exec sleep 600";
            vm.docker(&["run", "-d", "--name", "maker", "busybox", "sh", "-c", script])?.ok()?;
            let exec = |user, name| vm.docker(&["exec", "-u", user, "maker", "mknod", name, "c", "1", "3"]);
            let outcomes = (exec("0", "/open/mine"), exec("1000", "/open/theirs"));
            let attempts = attempts::make_in(vm, "maker", &[], &["make-node:c:1:3", "make-node:c:1:11"]);
            vm.docker(&["rm", "-f", "maker"])?.ok()?;
            outcomes.0?.ok()?;
            outcomes.1?.refused(&["Operation not permitted"])?;
            attempts::check(&attempts?, &[("make-node:c:1:3", "allowed"), ("make-node:c:1:11", "EPERM")])
        }),
        row("a_read_only_root_takes_no_node", |vm| {
            run(vm, &["--read-only"], "mknod /made c 1 3").refused(&["Read-only file system"])?;
            run(vm, &["--read-only"], "mknod /etc c 1 3").refused(&["File exists"])
        }),
        row("a_profile_of_the_user_s_own_decides_about_mknod", |vm| {
            let folder = tempfile::tempdir()?;
            for (profile, expected) in [
                (r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#, "allowed"),
                (
                    r#"{"defaultAction": "SCMP_ACT_ALLOW",
                        "syscalls": [{"names": ["mknod", "mknodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}"#,
                    "EACCES",
                ),
            ] {
                let path = folder.path().join("profile.json");
                std::fs::write(&path, profile)?;
                let option = format!("seccomp={}", path.display());
                attempts::expect(vm, &["--security-opt", &option], &[("make-node:c:1:3", expected)])?;
            }
            Ok(())
        }),
        row("nodes_that_an_image_brings_along_open_nothing_of_the_vm", |vm| {
            let foreign = [
                ('c', 1, 1),
                ('c', 1, 4),
                ('c', 1, 11),
                ('c', 4, 64),
                ('c', 5, 1),
                ('c', 10, 183),
                ('c', 10, 223),
                ('c', 229, 0),
                ('b', 7, 0),
                ('b', 252, 0),
                ('b', 253, 0),
                ('b', 254, 0),
                ('b', 254, 16),
            ];
            let harmless = [('c', 1, 3), ('c', 10, 200), ('c', 10, 229), ('c', 136, 0)];
            let all = [&foreign[..], &harmless].concat();
            vm.docker_with(&["import", "-", "noded"], &image::noded_tar(&all)?)?.ok()?;
            let open =
                |node: &(char, u32, u32)| format!("open-device:/nodes/{}-{}-{}", node.0, node.1, node.2);
            let verbs: Vec<_> = all.iter().map(open).collect();
            for (flags, given) in
                [(&[][..], "EPERM"), (&["--cap-add", "ALL"], "EPERM"), (&["--privileged"], "allowed")]
            {
                let mut arguments = [&["run", "--rm"][..], flags, &["noded", "/probe"]].concat();
                arguments.extend(verbs.iter().map(String::as_str));
                let text = vm.docker(&arguments)?.ok()?;
                for (verb, node) in verbs.iter().zip(&all) {
                    let expected = match node {
                        ('c', 1, 3) | ('c', 10, 200) => "allowed",
                        // Only their own file system opens ptys.
                        ('c', 136, _) => "EIO",
                        ('c', 10, 229) => given,
                        _ => "EPERM",
                    };
                    let line = format!("{verb}: {expected}");
                    ensure!(text.lines().any(|found| found == line), "with {flags:?} not `{line}`:\n{text}");
                }
            }
            vm.docker(&["rmi", "-f", "noded"])?.ok()?;
            vm.every_check_holds()
        }),
    ]
}

/// What a container reads of the machine's size and load.
fn figures() -> Vec<Row<Vm>> {
    /// Number of processors as each of the files has it.
    const PROCESSORS: &str = "grep -c ^processor /proc/cpuinfo; grep -c ^cpu[0-9] /proc/stat; \
        cat /sys/devices/system/cpu/online";
    vec![
        row("memory_is_the_limit_s_and_without_one_the_vm_s", |vm| {
            let total = "awk '/^MemTotal/ {print $2}' /proc/meminfo";
            says(vm, &["-m", "64m"], total, "65536")?;
            says(vm, &["-m", "64m", "--privileged"], total, "65536")?;
            let whole: u64 = vm.sh(&[], total)?.parse()?;
            ensure!(whole > 500_000, "the VM has {whole} kB");
            Ok(())
        }),
        row("a_procfs_of_its_own_tells_a_container_nothing_of_the_vm", |vm| {
            // With the neighbours that it may read, and the mode that is not its to change.
            let script = "mkdir /p; mount -t proc proc /p || exit 1; cd /p; \
                for proc in /p /.proc /proc; do \
                for name in cmdline diskstats interrupts kallsyms key-users keys partitions; do \
                test -e $proc/$name || echo $name is not there; chmod 444 $proc/$name 2>/dev/null && echo $proc/$name is open; \
                cat $proc/$name 2>/dev/null && echo $proc/$name is read; done; \
                for name in fs scsi; do ls $proc/$name >/dev/null 2>&1 && echo $proc/$name is read; done; \
                grep -c ^MemTotal $proc/meminfo; done; cat /p/self/comm /p/sys/kernel/ostype";
            says(vm, &["--privileged"], script, "1\n1\n1\ncat\nLinux")?;
            let script = "cat /proc/cmdline /proc/interrupts /proc/partitions; ls /proc/fs";
            says(vm, &[], script, "")
        }),
        row("no_sysfs_names_the_vm_s_hardware_wherever_the_platform_has_it", |vm| {
            // Processors, and devices of no hardware, are there to be read: the first line says that it was looked in the right places.
            let look = "for sys in $places; do ls $sys/devices/system/cpu | grep -c online; \
                for top in $sys/devices/*; do case ${top##*/} in system | virtual) continue ;; esac; \
                ls -A $top 2>/dev/null | sed \"s|^|$top: |\"; done; \
                ls -A $sys/devices/virtual/dmi $sys/kernel/boot_params 2>/dev/null | grep -v :$ | grep .; \
                find $sys/devices $sys/bus $sys/class $sys/block $sys/dev -name 'virtio[0-9]*' 2>/dev/null; done; true";
            let mount = "mkdir -p /s; mount -t sysfs sysfs /s || exit 1";
            says(vm, &["--privileged"], &format!("{mount}; places='/s /sys'; {look}"), "1\n1")?;
            says(vm, &[], &format!("places=/sys; {look}"), "1")
        }),
        row("memory_in_use_is_not_free", |vm| {
            let script = "free() { awk '/^MemFree/ {print $2}' /proc/meminfo; }; a=$(free); \
                dd if=/dev/zero of=/dev/shm/f bs=1M count=32 2>/dev/null; sleep 0.2; echo $((a - $(free)))";
            let used: u64 = vm.sh(&["-m", "64m"], script)?.parse()?;
            ensure!((30_000..40_000).contains(&used), "32 MiB took {used} kB");
            Ok(())
        }),
        row("processors_are_those_of_its_set_and_share", |vm| {
            says(vm, &[], PROCESSORS, "2\n2\n0-1")?;
            for (flags, online) in [
                (["--cpus", "1"], "0"),
                (["--cpus", "0.2"], "0"),
                (["--cpuset-cpus", "1"], "1"),
                (["--cpus", "1.5"], "0-1"),
            ] {
                let count = if online == "0-1" { 2 } else { 1 };
                says(vm, &flags, PROCESSORS, &format!("{count}\n{count}\n{online}"))?;
            }
            Ok(())
        }),
        thorough_row("a_load_is_the_container_s_own", |vm| {
            let script = "timeout 6 sh -c 'while :; do :; done'; cut -d' ' -f1 /proc/loadavg; awk '/^cpu / {print $2 + $4}' /proc/stat";
            let busy = vm.sh(&["-d", "--name", "busy"], "while :; do :; done");
            let idle = vm.sh(&[], "sleep 6; cut -d' ' -f1 /proc/loadavg")?;
            vm.docker(&["rm", "-f", "busy"])?.ok()?;
            busy?;
            ensure!(idle.parse::<f64>()? < 0.05, "a container that sleeps beside a busy one has load {idle}");
            let told = vm.sh(&[], script)?;
            let (load, ticks) = told.split_once('\n').context("two lines")?;
            ensure!(load.parse::<f64>()? > 0.05, "6 s of work are load {load}");
            ensure!(ticks.parse::<u64>()? > 300, "6 s of work are {ticks} hundredths of a second");
            Ok(())
        }),
        row("figures_follow_a_limit_that_changes", |vm| {
            vm.sh(&["-d", "--name", "grows", "-m", "64m", "--memory-swap", "64m"], "exec sleep 600")?;
            let total = || vm.docker(&["exec", "grows", "grep", "MemTotal", "/proc/meminfo"])?.ok();
            ensure!(total()?.ends_with(" 65536 kB"), "{}", total()?);
            vm.docker(&["update", "-m", "96m", "--memory-swap", "96m", "grows"])?.ok()?;
            let told = total();
            vm.docker(&["rm", "-f", "grows"])?.ok()?;
            let told = told?;
            ensure!(told.ends_with(" 98304 kB"), "{told}");
            Ok(())
        }),
        row("nobody_writes_a_figure_and_the_kernel_s_files_beside_are_there", |vm| {
            for file in ["/proc/meminfo", "/proc/stat", "/sys/devices/system/cpu/online"] {
                run(vm, &["--privileged"], &format!("echo 1 >{file}")).refused(&["Read-only file system"])?;
            }
            run(vm, &[], "grep -q nodev /proc/filesystems && grep -q ' /proc ' /proc/mounts").ok()?;
            // Another name of the file, or its attributes, lead nowhere.
            run(vm, &["--cap-add", "ALL"], "chmod 777 /proc/meminfo").refused(&[])
        }),
        row("reading_for_ever_is_no_denial_to_others", |vm| {
            let script =
                "for n in 1 2 3 4 5 6 7 8; do while :; do cat /proc/stat; done >/dev/null & done; wait";
            vm.sh(&["-d", "--name", "greedy"], script)?;
            let told = vm.sh(&["-m", "64m"], "grep -c kB /proc/meminfo");
            vm.docker(&["rm", "-f", "greedy"])?.ok()?;
            told.map(drop)
        }),
    ]
}

fn ids() -> Vec<Row<Vm>> {
    vec![
        row("a_user_and_further_groups_are_as_asked_for", |vm| {
            says(vm, &["-u", "user"], "id -u; id -g", "1000\n1000")?;
            says(
                vm,
                &["-u", "1234:5678", "--group-add", "4321"],
                "id -u; id -g; id -G",
                "1234\n5678\n5678 4321",
            )?;
            says(vm, &["-u", "65535:65535"], "id -u", "65535")?;
            run(vm, &["-u", "65536"], "true").refused(&["can't run as user 65536", "end at 65535"])?;
            run(vm, &["-u", "0:65536"], "true").refused(&["can't run as group 65536"])?;
            run(vm, &["--group-add", "65536"], "true").refused(&["can't run as group 65536"])
        }),
        row("an_image_with_rare_files_is_imported", |vm| {
            vm.docker_with(&["import", "-", "odd"], &image::odd_tar()?)?.ok().map(drop)
        }),
        row("ids_that_have_no_place_in_the_map_are_nobody_s_and_stay_so", |vm| {
            let script = "stat -c %u:%g /odd/last /odd/foreign /odd/foreign-folder; cat /odd/foreign; \
                          chown 0 /odd/foreign 2>/dev/null || echo kept; touch /odd/foreign-folder/x 2>/dev/null || echo kept";
            let text = odd(vm, &["sh", "-c", script])?;
            ensure!(text == "65535:65535\n65534:65534\n65534:65534\nforeign\nkept\nkept", "{text}");
            let takes = odd(vm, &["/probe", "chown-foreign:/odd/foreign"])?;
            ensure!(takes.ends_with(": EPERM") || takes.ends_with(": EOVERFLOW"), "{takes}");
            Ok(())
        }),
        row("an_image_s_foreign_ids_survive_commit", |vm| {
            vm.docker(&["run", "--name", "odd-1", "odd", "sh", "-c", "echo x >/odd/new"])?.ok()?;
            vm.docker(&["commit", "odd-1", "odd-2"])?.ok()?;
            let copied = vm.docker(&["cp", "odd-1:/odd/foreign", "-"])?;
            vm.docker(&["rm", "odd-1"])?.ok()?;
            vm.docker(&["rmi", "odd-2"])?.ok()?;
            let mut archive = tar::Archive::new(copied.bytes.as_slice());
            let entry = archive.entries()?.next().context("the tar is empty")??;
            ensure!(entry.header().uid()? == image::FOREIGN_ID, "{:?}", entry.header().uid());
            Ok(())
        }),
        row("hard_links_of_an_image_are_one_file", |vm| {
            let script = "stat -c %h /odd/last; echo more >>/odd/link; cat /odd/last";
            let text = odd(vm, &["sh", "-c", script])?;
            // The first change copies the file up: to both names or, without overlayfs' index, to the one that was named.
            ensure!(text == "2\nlast\nmore" || text == "2\nlast", "{text}");
            Ok(())
        }),
        row("setuid_and_file_capabilities_of_an_image_work_inside", |vm| {
            for (program, verb, expected) in [
                ("/probe", "setuid-last", "EPERM"),
                ("/odd/setuid", "setuid-last", "allowed"),
                ("/probe", "packet-socket", "EPERM"),
                ("/odd/capable", "packet-socket", "allowed"),
                ("/odd/setuid", "setuid-beyond", "EINVAL"),
                ("/odd/setuid", "mknod-block", "EPERM"),
            ] {
                let arguments = ["run", "--rm", "-u", "1000", "--tmpfs", "/tmp", "odd", program, verb];
                let text = vm.docker(&arguments)?.ok()?;
                ensure!(text == format!("{verb}: {expected}"), "{program} {text}");
            }
            Ok(())
        }),
        row("setuid_and_file_capabilities_of_a_volume_work_inside", |vm| {
            // A new volume gets the image's files.
            for (more, program, verb, expected) in [
                ("seccomp=builtin", "/odd/setuid", "setuid-last", "allowed"),
                ("seccomp=builtin", "/odd/capable", "packet-socket", "allowed"),
                ("seccomp=builtin", "/odd/setuid", "setuid-beyond", "EINVAL"),
                ("no-new-privileges", "/odd/setuid", "setuid-last", "EPERM"),
            ] {
                let arguments = [
                    "run",
                    "--rm",
                    "-u",
                    "1000",
                    "-v",
                    "odd:/odd",
                    "--security-opt",
                    more,
                    "odd",
                    program,
                    verb,
                ];
                let text = vm.docker(&arguments)?.ok()?;
                ensure!(text == format!("{verb}: {expected}"), "{more} {program} {text}");
            }
            vm.docker(&["volume", "rm", "odd"])?.ok().map(drop)
        }),
    ]
}

fn lifetime() -> Vec<Row<Vm>> {
    vec![
        row("a_container_lives_on_for_the_next_rows", |vm| {
            let health =
                ["--health-cmd", "test -e /healthy", "--health-interval", "1s", "--health-retries", "1"];
            let begin = ["run", "-d", "-it", "--name", "long", "-m", "64m", "--memory-swap", "64m"];
            let end = ["busybox", "sh", "-c", "touch /healthy; exec sleep 6000"];
            vm.docker(&[&begin[..], &health, &end].concat())?.ok().map(drop)
        }),
        row("a_health_check_runs_inside", |vm| {
            let health = || vm.docker(&["inspect", "-f", "{{.State.Health.Status}}", "long"])?.ok();
            wait_for(|| Ok(health()? == "healthy"))?;
            vm.docker(&["exec", "long", "rm", "/healthy"])?.ok()?;
            wait_for(|| Ok(health()? == "unhealthy"))
        }),
        row("limits_are_updated_while_it_runs", |vm| {
            vm.docker(&["update", "-m", "128m", "--memory-swap", "128m", "--pids-limit", "50", "long"])?
                .ok()?;
            let limits =
                vm.docker(&["exec", "long", "cat", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max"]);
            ensure!(limits?.ok()? == "134217728\n50", "the limits are others");
            Ok(())
        }),
        row("pause_and_unpause_work", |vm| {
            vm.docker(&["pause", "long"])?.ok()?;
            let status = vm.docker(&["inspect", "-f", "{{.State.Status}}", "long"])?.ok();
            vm.docker(&["unpause", "long"])?.ok()?;
            ensure!(status? == "paused", "not paused");
            vm.docker(&["exec", "long", "true"])?.ok().map(drop)
        }),
        row("stats_and_top_show_it", |vm| {
            let stats =
                vm.docker(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "long"])?.ok()?;
            ensure!(stats.starts_with("long "), "{stats}");
            for options in [&[][..], &["-o", "pid,args"], &["aux"]] {
                let top = vm.docker(&[&["top", "long"], options].concat())?.ok()?;
                ensure!(top.contains("sleep 6000") && !top.contains("dockerd"), "{top}");
            }
            // Columns under another's title, and options that make the engine ask again without the container's processes.
            for options in [&["-orss=PID", "-oargs", "-e"][..], &["-oargs=PID", "f", "-p1"], &["f"], &["-p1"]]
            {
                vm.docker(&[&["top", "long"], options].concat())?.refused(&["is not known here"])?;
            }
            Ok(())
        }),
        row("files_are_copied_both_ways", |vm| {
            let folder = tempfile::tempdir()?;
            let (there, back) = (folder.path().join("there"), folder.path().join("back"));
            std::fs::create_dir(&there)?;
            std::fs::write(there.join("f"), vec![7; 100_000])?;
            vm.docker(&["cp", &there.to_string_lossy(), "long:/in"])?.ok()?;
            vm.docker(&["exec", "long", "cp", "-r", "/in", "/out"])?.ok()?;
            vm.docker(&["cp", "long:/out", &back.to_string_lossy()])?.ok()?;
            ensure!(std::fs::read(back.join("f"))? == vec![7; 100_000], "another file came back");
            Ok(())
        }),
        row("copying_follows_no_link_out_of_the_container", |vm| {
            vm.docker(&[
                "exec",
                "long",
                "sh",
                "-c",
                "ln -s /etc/docker /link; ln -s ../../../../etc/docker /up",
            ])?
            .ok()?;
            for link in
                ["long:/link/daemon.json", "long:/up/daemon.json", "long:/../../etc/docker/daemon.json"]
            {
                vm.docker(&["cp", link, "-"])?.refused(&["Could not find the file"])?;
            }
            Ok(())
        }),
        row("exec_with_privileges_gains_nothing", |vm| {
            let verbs = [
                "mount-tmpfs",
                "unshare-user",
                "bpf-prog-load",
                "sethostname",
                "keyctl-session",
                "handle-open-own:/bin",
                "mknod-block",
                "open-read:/dev/kmsg",
                "descriptors",
            ];
            let plain = attempts::make_in(vm, "long", &[], &verbs)?;
            // Expected to fail if crun passes the new capabilities on: `exec` must not gain what `create` took away.
            let privileged = attempts::make_in(vm, "long", &["--privileged"], &verbs)?;
            ensure!(plain == privileged, "plain: {plain:#?}, with privileges: {privileged:#?}");
            Ok(())
        }),
        row("exec_as_another_user_stays_in_the_map", |vm| {
            let id = |user| vm.docker(&["exec", "-u", user, "long", "id", "-u"]);
            ensure!(id("65535")?.ok()? == "65535", "the last id does not work");
            // The engine tells it where the process would have written.
            let refused = id("65536")?;
            let told = refused.stdout();
            ensure!(
                refused.code != 0 && told.contains("can't run as user 65536"),
                "{told}{}",
                refused.stderr
            );
            Ok(())
        }),
        row("a_checkpoint_is_refused", |vm| {
            vm.docker(&["checkpoint", "create", "long", "point"])?.refused(&["checkpoint"])?;
            vm.docker(&["exec", "long", "true"])?.ok()?;
            vm.docker(&["rm", "-f", "long"])?.ok().map(drop)
        }),
    ]
}

/// A script in a new container that may fail.
struct Script(Result<eci_tests::command::Outcome>);

fn run(vm: &Vm, flags: &[&str], script: &str) -> Script {
    let arguments = [&["run", "--rm"][..], flags, &["busybox", "sh", "-c", script]].concat();
    Script(vm.docker(&arguments))
}

impl Script {
    fn into_outcome(self) -> Result<eci_tests::command::Outcome> {
        self.0
    }

    fn ok(self) -> Result<()> {
        self.0?.ok().map(drop)
    }

    fn refused(self, words: &[&str]) -> Result<()> {
        self.0?.refused(words).map(drop)
    }
}

fn says(vm: &Vm, flags: &[&str], script: &str, expected: &str) -> Result<()> {
    let text = vm.sh(flags, script)?;
    ensure!(text == expected, "`{script}` with {flags:?} says `{text}`, not `{expected}`");
    Ok(())
}

fn odd(vm: &Vm, command: &[&str]) -> Result<String> {
    vm.docker(&[&["run", "--rm", "odd"][..], command].concat())?.ok()
}

/// Asks again for half a minute: a container under TCG takes seconds to its first line.
fn wait_for(mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    for _ in 0..60 {
        if holds()? {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(500));
    }
    anyhow::bail!("it did not come to that")
}
