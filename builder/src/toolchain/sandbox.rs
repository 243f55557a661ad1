//! What a compiler sees: bubblewrap's namespaces with the toolchain, device nodes without a device, and what is mounted for it.
//! There is no network, no other process, no environment variable, no descriptor and no file of this host but those. The kernel is the
//! host's, and says so; where mounts come from stands in `/proc/self/mountinfo`.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tool::Tool;

/// The program that makes namespaces, with or without root.
pub const PROGRAM: &str = "bwrap";

/// What every sandbox has; the toolchain's `usr` goes in between. `--new-session`: nothing can type into the user's terminal.
/// `--cap-drop`: started by root, bubblewrap would leave everything to root inside, mounts and the host's settings included.
const NAMESPACES: [&str; 7] =
    ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "eci"];
const ROOT: [[&str; 3]; 4] = [
    ["--symlink", "usr/bin", "/bin"],
    ["--symlink", "usr/sbin", "/sbin"],
    ["--symlink", "usr/lib", "/lib"],
    ["--symlink", "usr/lib64", "/lib64"],
];
const PSEUDO: [&str; 9] = [
    "--proc",
    "/proc",
    // Root writes there without any capability.
    "--ro-bind",
    "/proc/sys",
    "/proc/sys",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
];
const ENVIRONMENT: [(&str, &str); 4] =
    [("PATH", "/usr/bin:/usr/sbin"), ("HOME", "/tmp"), ("LC_ALL", "C"), ("TZ", "UTC")];

/// Whether what is mounted may be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It may not.
    ReadOnly,
    /// It may.
    ReadWrite,
}

/// A sandbox that is being described.
#[derive(Clone, Debug)]
pub struct Sandbox {
    bubblewrap: PathBuf,
    arguments: Vec<OsString>,
}

impl Sandbox {
    /// One with the toolchain in `root`, made by the program `bubblewrap`: a path, for it starts without a PATH. What environment it had,
    /// everyone inside could read.
    pub(super) fn new(root: &Path, bubblewrap: &Path) -> Self {
        let sandbox = Self { bubblewrap: bubblewrap.to_owned(), arguments: Vec::new() };
        let sandbox = sandbox.with(NAMESPACES).with(["--clearenv"]).with([
            OsStr::new("--ro-bind"),
            root.join("usr").as_os_str(),
            OsStr::new("/usr"),
        ]);
        let sandbox = ROOT.into_iter().fold(sandbox, Self::with);
        let sandbox = sandbox.with(PSEUDO);
        ENVIRONMENT.into_iter().fold(sandbox, |sandbox, (name, value)| sandbox.env(name, value))
    }

    /// Puts a file or folder of this host at an absolute path inside.
    #[must_use]
    pub fn mount(self, host: &Path, access: Access, inside: &Path) -> Self {
        let option = match access {
            Access::ReadOnly => "--ro-bind",
            Access::ReadWrite => "--bind",
        };
        self.with([OsStr::new(option), host.as_os_str(), inside.as_os_str()])
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        self.with(["--setenv", name, value])
    }

    /// Sets the folder to run in.
    #[must_use]
    pub fn folder(self, inside: &Path) -> Self {
        self.with([OsStr::new("--chdir"), inside.as_os_str()])
    }

    /// A program inside, for [`Tool`]'s ways to run one.
    #[must_use]
    pub fn tool(self, program: &str) -> Tool {
        let Self { bubblewrap, arguments } = self.with(["--"]);
        Tool::behind(&bubblewrap, arguments, program).without_environment()
    }

    /// A program inside with its arguments, connected as this process is.
    #[must_use]
    pub fn command(self, command: &[OsString]) -> Command {
        let Self { bubblewrap, arguments } = self.with(["--"]);
        let mut bwrap = Command::new(bubblewrap);
        bwrap.env_clear().args(arguments).args(command);
        bwrap
    }

    fn with<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(mut self, arguments: I) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }
}
