//! `eci-builder sandbox`: a command inside the locked toolchain, where nothing else of this host is; how the guest's programs are
//! compiled.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

use anyhow::Context;
use eci_contract::manifest::Architecture;

use super::Arch;
use super::build::{lock_hint, no_toolchain};
use super::exit::{Classify, Exit};
use crate::cache::Cache;
use crate::packages::{self, Offline};
use crate::plan::Plan;
use crate::toolchain::{Access, Toolchain};
use crate::ui::Ui;

/// Arguments of `sandbox`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, short, default_value = "eci.toml")]
    config: PathBuf,
    /// Architecture to compile for; the configuration's otherwise.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Use the cache alone; nothing is fetched.
    #[arg(long)]
    offline: bool,
    /// Mount a folder or file of this host at a path inside, where it can be changed.
    #[arg(long, value_name = "HOST=INSIDE", value_parser = mount)]
    bind: Vec<(PathBuf, PathBuf)>,
    /// The same, read-only.
    #[arg(long, value_name = "HOST=INSIDE", value_parser = mount)]
    ro_bind: Vec<(PathBuf, PathBuf)>,
    /// Set an environment variable; none comes from outside.
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    setenv: Vec<(String, String)>,
    /// Folder inside to run in.
    #[arg(long, value_name = "INSIDE", default_value = "/")]
    chdir: PathBuf,
    /// The command.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// Runs the subcommand; returns only when there is no sandbox. The exit code is the command's.
///
/// # Errors
/// When configuration or locks are wrong, or there is no toolchain.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let plan = Plan::read(&args.config, args.arch.map(Architecture::from)).or_exit(Exit::Config)?;
    let hint = lock_hint(&args.config, [plan.architecture(), plan.tools_architecture()]);
    let plan = plan.read_locks().or_exit_with_hint(Exit::Config, hint)?;
    let cache = Cache::open().or_exit(Exit::Host)?;
    let offline = if args.offline { Offline::Yes } else { Offline::No };
    let from = packages::Source { cache: &cache, mirror: plan.config().packages.mirror.as_deref(), offline };
    let root = Toolchain::of(&plan, from).open(ui).map_err(no_toolchain)?;
    let mut sandbox = root.sandbox().folder(&args.chdir);
    for (mounts, access) in [(&args.ro_bind, Access::ReadOnly), (&args.bind, Access::ReadWrite)] {
        for (host, inside) in mounts {
            let host = host
                .canonicalize()
                .with_context(|| format!("cannot mount `{}`", host.display()))
                .or_exit(Exit::Usage)?;
            sandbox = sandbox.mount(&host, access, inside);
        }
    }
    for (name, value) in &args.setenv {
        sandbox = sandbox.env(name, value);
    }
    // A folder that is there in both worlds.
    env::set_current_dir("/").context("cannot change to `/`").or_exit(Exit::Host)?;
    Err(sandbox.command(&args.command).exec()).context("cannot run `bwrap`").or_exit(Exit::Host)
}

/// `HOST=INSIDE`; what is inside may not hide the toolchain.
fn mount(text: &str) -> Result<(PathBuf, PathBuf), String> {
    let (host, inside) = text.rsplit_once('=').ok_or("is not HOST=INSIDE")?;
    let inside = PathBuf::from(inside);
    if !inside.is_absolute() || inside.parent().is_none() || inside.starts_with("/usr") {
        return Err("INSIDE has to be an absolute path, and not / or below /usr".to_owned());
    }
    Ok((PathBuf::from(host), inside))
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("is not NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_is_absolute_inside_and_hides_no_compiler() {
        assert_eq!(mount("a=b=/c"), Ok((PathBuf::from("a=b"), PathBuf::from("/c"))));
        for text in ["/a", "/a=b", "/a=/", "/a=/usr/bin"] {
            assert!(mount(text).is_err(), "{text}");
        }
    }
}
