//! The commit of the project's checkout that a build is of.
//!
//! Invariant: a commit is named only when it has everything that the build takes from the checkout. The keys that the configuration
//! names, and the mirror, may differ from the committed ones: who builds has their own, and what they are changes nothing that is built
//! from, as packages are held against their locked digests.

use std::path::{Component, Path};

use crate::plan::config::{Config, SecureBoot, Signing};
use crate::plan::{Locked, Plan, document};
use crate::tool::Tool;
use crate::ui::Ui;

/// The commit, or why none can be named, as a phrase.
///
/// # Errors
/// The phrase. A build goes on without a commit.
pub fn commit(plan: &Plan<Locked>, ui: &Ui) -> Result<String, String> {
    of_configuration(plan.path(), plan.config(), ui)
}

fn of_configuration(path: &Path, config: &Config, ui: &Ui) -> Result<String, String> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let git = |arguments: &[&str]| {
        // A build is no reason to write into the repository, not even an index that git has refreshed.
        let tool = Tool::new("git").folder(folder).env("GIT_OPTIONAL_LOCKS", "0").args(arguments);
        let output = tool.output(ui).map_err(|error| error.to_string())?;
        String::from_utf8(output).map_err(|_| "git names files that are no text".to_owned())
    };
    let commit = git(&["rev-parse", "--verify", "HEAD"])?.trim().to_owned();
    let committed = git(&["show", &format!("HEAD:./{name}")])?;
    let committed: Config = document::parse(path, &committed).map_err(|error| error.to_string())?;
    if of_content(committed) != of_content(config.clone()) {
        return Err(format!(
            "`{}` differs from the committed one in more than keys and mirror",
            path.display()
        ));
    }
    let prefix = git(&["rev-parse", "--show-prefix"])?.trim_end_matches('\n').to_owned();
    let inputs = inputs(config, &prefix)?;
    let status = git(&["status", "--porcelain=v1", "-z", "--untracked-files=all", "--ignored=matching"])?;
    match changed(&status, &format!("{prefix}{name}"), &inputs) {
        Some(entry) => Err(format!("`{entry}` is not as it was committed")),
        None => Ok(commit),
    }
}

/// A configuration without what may differ.
fn of_content(config: Config) -> Config {
    let packages = crate::plan::config::Packages { mirror: None, ..config.packages };
    Config { packages, signing: Signing::default(), secure_boot: SecureBoot::default(), ..config }
}

/// Files and folders that a build takes from the checkout, from its root.
fn inputs(config: &Config, prefix: &str) -> Result<Vec<String>, String> {
    let Config { packages, rootfs, settings, kernel, toolchain, .. } = config;
    let lists = [&packages.lists, &packages.locks, &rootfs.overlays].into_iter().flatten();
    let all = lists
        .chain([&rootfs.apparmor, &rootfs.folders, &rootfs.refused, &kernel.fragments, &toolchain.folder])
        .chain(&settings.file);
    all.map(|path| {
        let inside = path.components().all(|component| matches!(component, Component::Normal(_)));
        let text = path.to_str().filter(|_| inside);
        let outside = || format!("`{}` is not in the checkout", path.display());
        text.map(|text| format!("{prefix}{}", text.trim_end_matches('/'))).ok_or_else(outside)
    })
    .collect()
}

/// The first entry of git's status that makes the checkout another one than was committed. The configuration itself is compared by
/// its content, and what git ignores matters where a build would take it.
fn changed<'a>(status: &'a str, configuration: &str, inputs: &[String]) -> Option<&'a str> {
    let lies_in = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let matters = |entry: &str| {
        let (state, path) = entry.split_at_checked(3).unwrap_or((entry, ""));
        let path = path.trim_end_matches('/');
        match state {
            "!! " => inputs.iter().any(|input| lies_in(path, input) || lies_in(input, path)),
            // Changed and nothing else: not added, removed or renamed.
            " M " | "M  " | "MM " => path != configuration,
            _ => true,
        }
    };
    status.split('\0').filter(|entry| !entry.is_empty()).find(|entry| matters(entry))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    /// The project's own configuration, committed in a folder of a repository.
    struct Repository(TempDir);

    impl Repository {
        fn new() -> Self {
            let repository = Self(tempfile::tempdir().expect("temporary folder"));
            for folder in ["rootfs/overlay/etc", "rootfs/apparmor", "kernel-config"] {
                fs::create_dir_all(repository.path(folder)).expect("folder");
                fs::write(repository.path(folder).join("file"), "content").expect("file");
            }
            let text = include_str!("../../eci.toml");
            fs::write(repository.path("eci.toml"), text).expect("configuration");
            fs::write(repository.0.path().join(".gitignore"), "*.swp\n/out\n").expect("ignored");
            repository.git(&["init", "--quiet"]);
            repository.git(&["add", "."]);
            repository.git(&["commit", "--quiet", "--message", "first"]);
            repository
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join("product").join(name)
        }

        fn git(&self, arguments: &[&str]) -> String {
            let mut git = Command::new("git");
            let identity =
                ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"];
            let output = git.arg("-C").arg(self.0.path()).args(identity).args(arguments).output();
            let output = output.expect("git is installed");
            assert!(output.status.success(), "{output:?}");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }

        fn replace(&self, from: &str, to: &str) {
            let path = self.path("eci.toml");
            let text = fs::read_to_string(&path).expect("configuration");
            assert!(text.contains(from));
            fs::write(&path, text.replacen(from, to, 1)).expect("written");
        }

        fn commit(&self) -> Result<String, String> {
            let path = self.path("eci.toml");
            let config: Config = document::read(&path).expect("sound");
            let commit = of_configuration(&path, &config, &Ui::silent());
            commit.map_err(|reason| reason.replace(&format!("{}/", self.0.path().display()), ""))
        }
    }

    #[test]
    fn a_clean_checkout_is_its_commit_with_other_keys_and_another_mirror_too() {
        let repository = Repository::new();
        let head = repository.git(&["rev-parse", "HEAD"]);
        assert_eq!(repository.commit(), Ok(head.clone()));
        repository.replace("[signing]", "[signing]\nkey = \"/keys/image.pub\"");
        repository.replace("[secure_boot]", "[secure_boot]\ncertificate = \"/keys/db.crt\"");
        repository.replace("[packages]", "[packages]\nmirror = \"file:///mirror\"");
        assert_eq!(repository.commit(), Ok(head.clone()));
        fs::create_dir(repository.path("../out")).expect("folder");
        fs::write(repository.path("../out/vmlinuz"), "ignored").expect("file");
        fs::write(repository.path("x.swp"), "ignored").expect("file");
        assert_eq!(repository.commit(), Ok(head));
    }

    #[test]
    fn whatever_is_not_as_it_was_committed_takes_the_commit_away() {
        for (name, reason) in [
            ("rootfs/overlay/etc/file", " M product/rootfs/overlay/etc/file"),
            ("rootfs/overlay/etc/new", "?? product/rootfs/overlay/etc/new"),
            ("rootfs/overlay/etc/x.swp", "!! product/rootfs/overlay/etc/x.swp"),
            ("../README.md", "?? README.md"),
        ] {
            let repository = Repository::new();
            fs::write(repository.path(name), "changed").expect("written");
            assert_eq!(repository.commit(), Err(format!("`{reason}` is not as it was committed")));
        }
        let repository = Repository::new();
        repository.replace("data_mib = 1024", "data_mib = 2048");
        assert_eq!(
            repository.commit(),
            Err("`product/eci.toml` differs from the committed one in more than keys and mirror".to_owned())
        );
        let repository = Repository::new();
        repository.replace("[\"rootfs/overlay\"]", "[\"../overlay\"]");
        repository.git(&["commit", "--quiet", "--all", "--message", "outside"]);
        assert_eq!(repository.commit(), Err("`../overlay` is not in the checkout".to_owned()));
    }

    #[test]
    fn a_folder_without_a_repository_has_no_commit() {
        let repository = Repository::new();
        fs::remove_dir_all(repository.0.path().join(".git")).expect("removed");
        let reason = repository.commit().expect_err("no repository");
        assert!(reason.starts_with("`git` failed"), "{reason}");
    }
}
