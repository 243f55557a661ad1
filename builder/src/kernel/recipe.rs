//! What a built kernel depends on, and the commands that build it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eci_contract::manifest::Architecture;

use super::config::{Config, Lost};
use super::fragments::Fragments;
use crate::image::digest::Sha256;
use crate::tool::{self, Tool};
use crate::toolchain::{Access, Sandbox};
use crate::ui::{Stage, Ui};

/// Changes whenever the commands below give other bytes from the same input.
const RECIPE_VERSION: &str = "2";
/// The one moment at which every kernel of ours was built.
const BUILD_TIMESTAMP: &str = "Thu Jan  1 00:00:00 UTC 1970";
/// Where the source is while it is compiled: every kernel's path is the same.
const TREE: &str = "/linux";
/// Lines that `make` prints for our configuration; only the progress bar depends on it.
const EXPECTED_LINES: u64 = 2900;

/// Why a configured source tree does not become a kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program failed.
    #[error("cannot {step} the kernel")]
    Tool {
        /// What was being done: "configure", "compile".
        step: &'static str,
        /// What the program said.
        source: tool::Error,
    },
    /// A configuration cannot be read or written.
    #[error("cannot access the kernel configuration `{}`", .path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The resolved configuration is not what the fragments ask for.
    #[error("{} kernel options did not get the value that was asked for:{}", .lost.len(), list(.lost))]
    Lost {
        /// Every such option.
        lost: Vec<Lost>,
    },
}

/// The name under which a kernel is cached: a digest of everything that decides its bytes.
#[must_use]
pub fn key(architecture: Architecture, source: Sha256, fragments: &Fragments, toolchain: Sha256) -> Sha256 {
    let mut parts = vec![RECIPE_VERSION.to_owned(), architecture.as_str().to_owned(), source.to_string()];
    parts.push(toolchain.to_string());
    for (name, text) in fragments.sources() {
        parts.extend([name.clone(), Sha256::of(&[text.as_bytes()]).to_string()]);
    }
    Sha256::of(&[parts.join("\n").as_bytes()])
}

/// How `make` is called for an architecture.
#[derive(Clone, Debug)]
pub struct Recipe {
    architecture: Architecture,
    cross_prefix: &'static str,
    sandbox: Sandbox,
    tree: PathBuf,
}

impl Recipe {
    /// The recipe for an architecture and a fresh source tree: a cross compiler where this host has another architecture.
    #[must_use]
    pub fn new(architecture: Architecture, sandbox: Sandbox, tree: PathBuf) -> Self {
        let native = architecture.as_str() == std::env::consts::ARCH;
        let cross_prefix = match architecture {
            _ if native => "",
            Architecture::X86_64 => "x86_64-linux-gnu-",
            Architecture::Aarch64 => "aarch64-linux-gnu-",
        };
        Self { architecture, cross_prefix, sandbox, tree }
    }

    /// Configures the tree, checks that everything that was asked for survived, and gives the configuration's path.
    ///
    /// # Errors
    /// [`Error`]; [`Error::Lost`] lists every lost option, not only the first.
    pub fn configure(&self, fragments: &Fragments, ui: &Ui) -> Result<PathBuf, Error> {
        let failed = |source| Error::Tool { step: "configure", source };
        let path = self.tree.join(".config");
        let access = |source| Error::Config { path: path.clone(), source };
        self.make().arg("allnoconfig").run(ui).map_err(failed)?;
        let base = fs::read_to_string(&path).map_err(access)?;
        fs::write(&path, fragments.merge_into(&base)).map_err(access)?;
        self.make().arg("olddefconfig").run(ui).map_err(failed)?;
        let resolved = Config::parse(&fs::read_to_string(&path).map_err(access)?);
        let lost = resolved.lost(fragments.requests());
        if lost.is_empty() { Ok(path) } else { Err(Error::Lost { lost }) }
    }

    /// Compiles the configured tree and gives the kernel image's path.
    ///
    /// # Errors
    /// [`Error::Tool`] with the compiler's last words.
    pub fn compile(&self, stage: &Stage, ui: &Ui) -> Result<PathBuf, Error> {
        let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (target, image) = match self.architecture {
            Architecture::X86_64 => ("bzImage", "arch/x86/boot/bzImage"),
            Architecture::Aarch64 => ("Image", "arch/arm64/boot/Image"),
        };
        let mut lines = 0;
        let count = |line: &str| {
            lines += 1;
            stage.progress(lines, EXPECTED_LINES.max(lines));
            stage.message(line.rsplit_once('/').map_or(line, |(_, name)| name));
        };
        self.make()
            .arg(format!("-j{jobs}"))
            .arg(target)
            .lines(ui, count)
            .map_err(|source| Error::Tool { step: "compile", source })?;
        Ok(self.tree.join(image))
    }

    /// The release that `uname -r` will print.
    ///
    /// # Errors
    /// [`Error::Tool`].
    pub fn release(&self, ui: &Ui) -> Result<String, Error> {
        let output = self.make().args(["-s", "kernelrelease"]).output(ui);
        let output = output.map_err(|source| Error::Tool { step: "ask for the release of", source })?;
        Ok(String::from_utf8_lossy(&output).trim().to_owned())
    }

    /// `make` in the tree, with no user or moment in its environment that could reach the kernel.
    fn make(&self) -> Tool {
        let architecture = match self.architecture {
            // Not "x86_64": from a 32-bit start the 64-bit options are new to olddefconfig and take their defaults,
            // protection keys and the virtual memory map among them.
            Architecture::X86_64 => "x86",
            Architecture::Aarch64 => "arm64",
        };
        self.sandbox
            .clone()
            .mount(&self.tree, Access::ReadWrite, Path::new(TREE))
            .folder(Path::new(TREE))
            .env("ARCH", architecture)
            .env("CROSS_COMPILE", self.cross_prefix)
            .env("KBUILD_BUILD_TIMESTAMP", BUILD_TIMESTAMP)
            .env("KBUILD_BUILD_USER", "eci")
            .env("KBUILD_BUILD_HOST", "eci")
            .env("KBUILD_BUILD_VERSION", "1")
            .env("KCONFIG_CONFIG", ".config")
            .env("LOCALVERSION", "")
            .tool("make")
            // Its version would be written into the configuration that the kernel carries, which no Rust is compiled into.
            .arg("RUSTC=no-rustc")
    }
}

fn list(lost: &[Lost]) -> String {
    lost.iter().map(|lost| format!("\n    {lost}")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fragments::Place;
    use super::*;

    fn fragments(name: &str, text: &str) -> Fragments {
        Fragments::parse(vec![(name.to_owned(), text.to_owned())]).expect("sound")
    }

    #[test]
    fn the_cache_key_depends_on_source_fragments_architecture_and_toolchain() {
        let key = |byte, name, text| {
            super::key(Architecture::X86_64, Sha256([byte; 32]), &fragments(name, text), Sha256([9; 32]))
        };
        let text = "# why: x\nCONFIG_A=y\n";
        assert_eq!(key(1, "a", text), key(1, "a", text));
        assert_ne!(key(1, "a", text), key(2, "a", text));
        assert_ne!(key(1, "a", text), key(1, "b", text));
        assert_ne!(key(1, "a", text), key(1, "a", "# why: x\nCONFIG_A=n\n"));
        for (architecture, toolchain) in [(Architecture::X86_64, 8), (Architecture::Aarch64, 9)] {
            let other =
                super::key(architecture, Sha256([1; 32]), &fragments("a", text), Sha256([toolchain; 32]));
            assert_ne!(key(1, "a", text), other);
        }
    }

    #[test]
    fn lost_options_are_listed_one_a_line() {
        let place = Place { file: "f".to_owned(), line: 2 };
        let lost = Lost { option: "CONFIG_A".to_owned(), asked: "y".to_owned(), got: "n".to_owned(), place };
        let error = Error::Lost { lost: vec![lost.clone(), lost] };
        assert_eq!(
            error.to_string(),
            "2 kernel options did not get the value that was asked for:\n    CONFIG_A=y, got n (f:2)\n    CONFIG_A=y, got n (f:2)"
        );
    }
}
