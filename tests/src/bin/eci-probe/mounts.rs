//! Mounts: undoing the locked ones, looking under masks, and file systems of one's own.

use std::ffi::CString;
use std::fs;
use std::path::{Path, PathBuf};

use eci_sys::mounts::{MountAttributes, READ_ONLY, set_attributes};
use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{
    FsOpenFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsopen, mount, mount_bind, mount_bind_recursive, mount_change,
    mount_move, mount_remount, move_mount, open_tree, unmount,
};

use crate::attempt::{At, Attempt, Failure, Verb, best_effort, effective, in_second_process, scratch};

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb { name: "remount-rw", why: "a read-only volume would be written to", run: remount_rw },
    Verb {
        name: "mount-setattr-clear-ro",
        why: "the same through the new mount API",
        run: |path| {
            let mount = open_path(path)?;
            set_attributes(rustix::fd::AsFd::as_fd(&mount), &clear_read_only())?;
            effective(is_writable(Path::new(path))?)
        },
    },
    Verb {
        name: "open-tree-clear-ro",
        why: "a detached copy of a mount may not lose its lock",
        run: open_tree_clear,
    },
    Verb { name: "bind-remount-rw", why: "nor may an attached copy", run: bind_remount_rw },
    Verb {
        name: "umount",
        why: "what is under a mask or a read-only mount would show",
        run: |path| Ok(unmount(path, UnmountFlags::empty())?),
    },
    Verb {
        name: "umount-lazy",
        why: "the same, detached at once",
        run: |path| Ok(unmount(path, UnmountFlags::DETACH)?),
    },
    Verb {
        name: "bind-over",
        why: "covering a mount with one of one's own harms nobody",
        run: |path| {
            mount("tmpfs", path, "tmpfs", MountFlags::empty(), None)?;
            Ok(unmount(path, UnmountFlags::empty())?)
        },
    },
    Verb {
        name: "bind-root",
        why: "a copy of the root without the mounts in it has no masks",
        run: |_| {
            let folder = scratch()?;
            mount_bind("/", &folder)?;
            leave(&folder);
            Ok(())
        },
    },
    Verb {
        name: "bind-root-recursive",
        why: "a copy of the root with its mounts shows nothing new",
        run: |_| {
            let folder = scratch()?;
            mount_bind_recursive("/", &folder)?;
            leave(&folder);
            Ok(())
        },
    },
    Verb {
        name: "open-tree-root",
        why: "a detached copy of the root without the mounts in it has no masks",
        run: |_| Ok(open_tree(CWD, "/", clone_flags()).map(drop)?),
    },
    Verb {
        name: "move-mount",
        why: "a mask that is moved away masks nothing",
        run: |path| {
            let folder = scratch()?;
            mount_move(path, &folder)?;
            // Put back, so that later attempts find what they expect.
            mount_move(&folder, path).at("moving it back")
        },
    },
    Verb {
        name: "move-mount-new-api",
        why: "the same through the new mount API",
        run: |path| {
            let folder = scratch()?;
            move_mount(CWD, path, CWD, &folder, MoveMountFlags::empty())?;
            move_mount(CWD, &folder, CWD, path, MoveMountFlags::empty()).at("moving it back")
        },
    },
    Verb {
        name: "make-shared",
        why: "mounts made below would show in another container or in the VM",
        run: |path| Ok(mount_change(path, MountPropagationFlags::SHARED)?),
    },
    Verb {
        name: "fsopen-block",
        why: "a file system of the VM's disk, and a parser of the kernel fed by a container",
        run: |device| {
            let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
            fsconfig_set_string(&context, "source", device)?;
            Ok(fsconfig_create(&context)?)
        },
    },
    Verb {
        name: "mount-ext4",
        why: "the same through the classic call",
        run: |device| try_mount("ext4", device, ""),
    },
    Verb {
        name: "mount-erofs",
        why: "the VM's root file system",
        run: |device| try_mount("erofs", device, ""),
    },
    Verb { name: "mount-9p", why: "a share of the host", run: |tag| try_mount("9p", tag, "trans=virtio") },
    Verb { name: "mount-virtiofs", why: "a share of the host", run: |tag| try_mount("virtiofs", tag, "") },
    Verb {
        name: "mount-devtmpfs",
        why: "every device node of the VM",
        run: |_| try_mount("devtmpfs", "none", ""),
    },
    Verb {
        name: "mount-cgroup1",
        why: "`release_agent` runs a program in the VM",
        run: |_| try_mount("cgroup", "none", "none,name=probe"),
    },
    Verb { name: "mount-bpffs", why: "pinned programs of the VM", run: |_| try_mount("bpf", "none", "") },
    Verb {
        name: "mount-cgroup2",
        why: "systemd and nested engines mount their own view",
        run: |_| try_mount("cgroup2", "none", ""),
    },
    Verb {
        name: "mount-tmpfs",
        why: "a tmpfs of one's own harms nobody",
        run: |_| try_mount("tmpfs", "none", ""),
    },
    Verb {
        name: "mount-mqueue",
        why: "message queues of one's own",
        run: |_| try_mount("mqueue", "none", ""),
    },
    Verb { name: "mount-sysfs", why: "nested engines mount it", run: |_| try_mount("sysfs", "none", "") },
    Verb { name: "mount-overlay", why: "nested engines need layers", run: mount_overlay },
    Verb {
        name: "mount-proc",
        why: "a procfs without the masks, of the pid namespace that one is in",
        run: |_| try_mount("proc", "proc", ""),
    },
    Verb {
        name: "mount-proc-nested",
        why: "nested engines mount procfs for their containers",
        run: |_| {
            nix::sched::unshare(CloneFlags::CLONE_NEWPID).at("unshare")?;
            in_second_process(|| try_mount("proc", "proc", ""))
        },
    },
    Verb {
        name: "pivot-root",
        why: "nested engines change their root; it leads nowhere new",
        run: |_| {
            nix::sched::unshare(CloneFlags::CLONE_NEWNS).at("unshare")?;
            let folder = scratch()?;
            mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), None).at("mount")?;
            fs::create_dir(folder.join("old")).at("mkdir")?;
            Ok(rustix::process::pivot_root(&folder, folder.join("old"))?)
        },
    },
    Verb {
        name: "chroot-escape",
        why: "the classic way out of a root: `chroot` below, then climb",
        run: chroot_escape,
    },
];

fn clear_read_only() -> MountAttributes<'static> {
    MountAttributes { clear: READ_ONLY, ..MountAttributes::default() }
}

fn clone_flags() -> OpenTreeFlags {
    OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC
}

fn open_path(path: &str) -> Result<rustix::fd::OwnedFd, Failure> {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).at("open")
}

fn is_writable(path: &Path) -> Result<bool, Failure> {
    Ok(!rustix::fs::statvfs(path).at("statvfs")?.f_flag.contains(StatVfsMountFlags::RDONLY))
}

/// What an attempt that was allowed leaves behind must not change the next one's chances.
fn leave(folder: &Path) {
    best_effort("unmount", unmount(folder, UnmountFlags::DETACH));
}

fn remount_rw(path: &str) -> Attempt {
    mount_remount(path, MountFlags::BIND, "")?;
    effective(is_writable(Path::new(path))?)
}

fn open_tree_clear(path: &str) -> Attempt {
    let copy = open_tree(CWD, path, clone_flags()).at("open_tree")?;
    set_attributes(rustix::fd::AsFd::as_fd(&copy), &clear_read_only())?;
    let flags = rustix::fs::fstatvfs(&copy).at("statvfs")?.f_flag;
    effective(!flags.contains(StatVfsMountFlags::RDONLY))
}

fn bind_remount_rw(path: &str) -> Attempt {
    let at = if Path::new(path).is_dir() {
        scratch()?
    } else {
        let file = scratch()?.join("file");
        fs::write(&file, "").at("write")?;
        file
    };
    mount_bind(path, &at).at("bind")?;
    let outcome = mount_remount(&at, MountFlags::BIND, "")
        .map_err(Failure::from)
        .and_then(|()| effective(is_writable(&at)?));
    leave(&at);
    outcome
}

/// Mounts a new file system somewhere, and takes it away again.
fn try_mount(kind: &str, source: &str, options: &str) -> Attempt {
    let folder = scratch()?;
    let options = CString::new(options).map_err(|_| Failure::NotUnderstood("options"))?;
    let options = (!options.is_empty()).then_some(options.as_c_str());
    mount(source, &folder, kind, MountFlags::empty(), options)?;
    leave(&folder);
    Ok(())
}

fn mount_overlay(_: &str) -> Attempt {
    let folder = scratch()?;
    mount("tmpfs", &folder, "tmpfs", MountFlags::empty(), None).at("mounting a tmpfs")?;
    let [lower, upper, work, merged]: [PathBuf; 4] =
        ["lower", "upper", "work", "merged"].map(|name| folder.join(name));
    for part in [&lower, &upper, &work, &merged] {
        fs::create_dir(part).at("mkdir")?;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
    let options = CString::new(options).map_err(|_| Failure::NotUnderstood("options"))?;
    let outcome = mount("overlay", &merged, "overlay", MountFlags::empty(), options.as_c_str())
        .map_err(Failure::from)
        .and_then(|()| Ok(fs::write(merged.join("file"), "x")?))
        .and_then(|()| effective(upper.join("file").exists()));
    leave(&merged);
    leave(&folder);
    outcome
}

/// The folder that is held open stays outside of the new root, so that `..` from it is not stopped there. What has to hold
/// is that the climb ends at the container's own root.
fn chroot_escape(_: &str) -> Attempt {
    let own = root_identity()?;
    let folder = scratch()?;
    let outside = rustix::fs::open("/", OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).at("open")?;
    rustix::process::chroot(&folder)?;
    rustix::process::fchdir(&outside).at("fchdir")?;
    for _ in 0..64 {
        rustix::process::chdir("..").at("chdir")?;
    }
    rustix::process::chroot(".").at("second chroot")?;
    effective(root_identity()? != own)
}

fn root_identity() -> Result<(u64, u64), Failure> {
    let root = rustix::fs::stat("/").at("stat")?;
    Ok((root.st_dev, root.st_ino))
}
