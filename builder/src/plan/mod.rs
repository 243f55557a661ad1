//! What to build: `eci.toml`, its lists and its lock files, read into a plan that cannot be wrong.
//!
//! Invariant: nothing is built from a plan that is not [`Locked`], and a plan only becomes so when lists and lock
//! files agree. A plan never resolves a version.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use eci_contract::manifest::{Architecture, Flavour};
use eci_contract::version::is_at_least;

pub mod config;
pub mod document;
pub mod list;
pub mod lock;
pub mod settings;
pub mod toolchain;

use crate::image::esp::MIN_BYTES;
use config::Config;
use list::List;
use lock::{Lock, LockedPackage};
use settings::Baked;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file is not well formed.
    #[error(transparent)]
    Document(#[from] document::Error),
    /// A list is wrong.
    #[error(transparent)]
    List(#[from] list::Error),
    /// A value cannot be used.
    #[error("`{}`: {key} {problem}", .path.display())]
    BadValue {
        /// The configuration.
        path: PathBuf,
        /// The key, with its table.
        key: &'static str,
        /// What is wrong with its value.
        problem: &'static str,
    },
    /// The administrator's settings cannot be used.
    #[error(transparent)]
    Settings(#[from] crate::settings::Error),
    /// Nothing on this host compiles for the architecture.
    #[error("`{}` has no compiler for {} on {}", .folder.display(), .target.as_str(), .host.as_str())]
    NoCompiler {
        /// The toolchain's folder.
        folder: PathBuf,
        /// What the image is for.
        target: Architecture,
        /// What this host is.
        host: Architecture,
    },
    /// A list that lifts a refusal is used for a shipped image.
    #[error("`{}` has a `permits`, which only an image of the test flavour may use", .list.display())]
    PermitInShipped {
        /// The list.
        list: PathBuf,
    },
    /// Lists and lock files disagree.
    #[error("`{}` does not agree with what is asked for: {}", .lock.display(), .drift.join(", "))]
    Drift {
        /// The lock file to bring up to date.
        lock: PathBuf,
        /// A phrase for each package.
        drift: Vec<String>,
    },
}

/// The state of a plan whose packages have no versions yet.
#[derive(Clone, Copy, Debug)]
pub struct Unlocked;

/// The state of a plan that can be built.
#[derive(Clone, Debug)]
pub struct Locked {
    packages: BTreeMap<String, LockedPackage>,
    tools: Vec<LockedPackage>,
    toolchain: Vec<LockedPackage>,
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Plan<State> {
    path: PathBuf,
    config: Config,
    architecture: Architecture,
    lists: Vec<(PathBuf, List)>,
    toolchain: toolchain::List,
    settings: Baked,
    state: State,
}

impl<State> Plan<State> {
    /// The configuration's values. Paths in it are as written; see [`Plan::resolve`].
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The configuration's own path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The architecture that tools of the build are run on: this host's.
    #[must_use]
    pub fn tools_architecture(&self) -> Architecture {
        host()
    }

    /// The architecture that is built for.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// The allow-lists in order.
    pub fn lists(&self) -> impl Iterator<Item = &List> {
        self.lists.iter().map(|(_, list)| list)
    }

    /// The administrator's settings that are baked in.
    #[must_use]
    pub fn settings(&self) -> &Baked {
        &self.settings
    }

    /// A path of the configuration, from the folder that the configuration is in.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.path.parent().unwrap_or(Path::new("")).join(path)
    }

    /// What is compiled with.
    #[must_use]
    pub fn toolchain_list(&self) -> &toolchain::List {
        &self.toolchain
    }

    /// Path of the toolchain's lock for build machines of an architecture.
    #[must_use]
    pub fn toolchain_lock_path(&self, host: Architecture) -> PathBuf {
        toolchain::lock_path(&self.resolve(&self.config.toolchain.folder), host)
    }

    /// Folder of the kernel's configuration fragments.
    #[must_use]
    pub fn fragments(&self) -> PathBuf {
        self.resolve(&self.config.kernel.fragments)
    }

    /// The signing key, if the configuration names one.
    #[must_use]
    pub fn signing_key(&self) -> Option<PathBuf> {
        self.config.signing.key.as_deref().map(|key| self.resolve(key))
    }

    /// The key that the unified kernel image is signed with, if the configuration names one.
    #[must_use]
    pub fn secure_boot_key(&self) -> Option<PathBuf> {
        self.config.secure_boot.key.as_deref().map(|key| self.resolve(key))
    }

    /// Its certificate: a key is never named without one.
    #[must_use]
    pub fn certificate(&self) -> Option<PathBuf> {
        self.config.secure_boot.certificate.as_deref().map(|certificate| self.resolve(certificate))
    }

    /// Paths of the lock files in order.
    #[must_use]
    pub fn lock_paths(&self) -> Vec<PathBuf> {
        self.config.packages.locks.iter().map(|path| self.resolve(path)).collect()
    }

    /// Every package that the plan asks for, with the file that asks for it.
    #[must_use]
    pub fn wanted(&self) -> BTreeMap<&str, &Path> {
        let mut wanted = BTreeMap::new();
        for (path, list) in &self.lists {
            for name in list.package_names() {
                wanted.entry(name).or_insert(path.as_path());
            }
        }
        let tools = self.config.tools.packages.iter().map(String::as_str);
        for name in tools.chain([self.config.kernel.source.as_str(), self.config.uki.stub.as_str()]) {
            wanted.entry(name).or_insert(self.path.as_path());
        }
        wanted
    }
}

impl Plan<Unlocked> {
    /// Reads `eci.toml` and its lists. `architecture` overrides the configuration's.
    ///
    /// # Errors
    /// Every variant of [`Error`] but the drift.
    pub fn read(path: &Path, architecture: Option<Architecture>) -> Result<Self, Error> {
        let config: Config = document::read(path)?;
        document::check_version(path, config.version, config::VERSION)?;
        check(path, &config)?;
        let architecture = architecture.unwrap_or(config.image.arch);
        let folder = path.parent().unwrap_or(Path::new(""));
        let settings = settings::read(path, folder, &config)?;
        let toolchain = toolchain::List::read(&folder.join(&config.toolchain.folder))?;
        let (path, lists) = (path.to_owned(), Vec::new());
        let mut plan = Self { path, config, architecture, lists, toolchain, settings, state: Unlocked };
        for list in &plan.config.packages.lists {
            plan.lists.push((list.clone(), List::read(&plan.resolve(list))?));
        }
        for (list, content) in &plan.lists {
            if content.permits_anything() && plan.config.image.flavour == Flavour::Shipped {
                return Err(Error::PermitInShipped { list: list.clone() });
            }
        }
        Ok(plan)
    }

    /// Reads the lock files and locks the plan with them.
    ///
    /// # Errors
    /// [`Error::Document`] and [`Error::Drift`].
    pub fn read_locks(self) -> Result<Plan<Locked>, Error> {
        let mut locks = Vec::new();
        for path in self.lock_paths() {
            locks.push(Lock::read(&path)?);
        }
        let toolchain = Lock::read(&self.toolchain_lock_path(host()))?;
        self.lock(&locks, &toolchain)
    }

    /// Locks the plan with the content of its lock files, in order, and of the toolchain's for this host.
    ///
    /// # Errors
    /// [`Error::Drift`] when they do not have exactly the packages that are asked for, or the toolchain's lacks one by name;
    /// [`Error::NoCompiler`].
    pub fn lock(self, locks: &[Lock], toolchain: &Lock) -> Result<Plan<Locked>, Error> {
        let mut drift = drift(&self.wanted(), locks, self.architecture);
        let host = self.tools_architecture();
        let by_name: BTreeMap<&str, &LockedPackage> = locks.iter().flat_map(|lock| lock.of(host)).collect();
        let mut tools = Vec::new();
        for name in &self.config.tools.packages {
            match by_name.get(name.as_str()) {
                Some(package) => tools.push((*package).clone()),
                None if host == self.architecture => {}
                None => drift.push(format!("`{name}`, a tool, is not locked for {}", host.as_str())),
            }
        }
        if !drift.is_empty() {
            let lock = self.config.packages.locks.last().cloned().unwrap_or_default();
            return Err(Error::Drift { lock, drift });
        }
        let compilers = self.toolchain.wanted(host, self.architecture).ok_or_else(|| Error::NoCompiler {
            folder: self.config.toolchain.folder.clone(),
            target: self.architecture,
            host,
        })?;
        let (compilers, drift) = toolchain::choose(&compilers, toolchain, self.architecture);
        if !drift.is_empty() {
            let lock = toolchain::lock_path(&self.config.toolchain.folder, host);
            return Err(Error::Drift { lock, drift });
        }
        let packages = locks
            .iter()
            .flat_map(|lock| lock.of(self.architecture))
            .map(|(name, package)| (name.to_owned(), package.clone()))
            .collect();
        let state = Locked { packages, tools, toolchain: compilers };
        let Self { path, config, architecture, lists, toolchain, settings, state: Unlocked } = self;
        Ok(Plan { path, config, architecture, lists, toolchain, settings, state })
    }
}

impl Plan<Locked> {
    /// Every locked package for the image's architecture, sorted by name; tools and the kernel's source are among them.
    pub fn packages(&self) -> impl Iterator<Item = &LockedPackage> {
        self.state.packages.values()
    }

    /// Packages with tools of the build, for this host's architecture.
    #[must_use]
    pub fn tools(&self) -> &[LockedPackage] {
        &self.state.tools
    }

    /// Packages of the toolchain, dependencies included: for this host's architecture, and to compile for the image's.
    #[must_use]
    pub fn toolchain(&self) -> &[LockedPackage] {
        &self.state.toolchain
    }

    /// All that goes into the image or is run to make it, but for the toolchain.
    pub fn for_the_image(&self) -> impl Iterator<Item = &LockedPackage> {
        let foreign = self.state.tools.iter().filter(|tool| tool.target != self.architecture);
        self.packages().chain(foreign)
    }

    /// The locked package of this name.
    ///
    /// # Panics
    /// When the plan does not ask for it: locking made sure of all that it asks for.
    #[must_use]
    pub fn package(&self, name: &str) -> &LockedPackage {
        self.state.packages.get(name).expect("a locked plan has every package that it asks for")
    }

    /// The package with the kernel's source.
    #[must_use]
    pub fn kernel_source(&self) -> &LockedPackage {
        self.package(&self.config.kernel.source)
    }

    /// The package with the stub of the unified kernel image.
    #[must_use]
    pub fn stub(&self) -> &LockedPackage {
        self.package(&self.config.uki.stub)
    }
}

/// This host's architecture.
#[must_use]
pub fn host() -> Architecture {
    if cfg!(target_arch = "aarch64") { Architecture::Aarch64 } else { Architecture::X86_64 }
}

/// A phrase for each package that lists and locks disagree on.
fn drift(wanted: &BTreeMap<&str, &Path>, locks: &[Lock], architecture: Architecture) -> Vec<String> {
    let mut drift = Vec::new();
    let mut seen = BTreeSet::new();
    let locked = locks.iter().flat_map(|lock| &lock.packages).filter(|of| of.target == architecture);
    for name in locked.map(|package| package.name.as_str()) {
        if !seen.insert(name) {
            drift.push(format!("`{name}` is locked twice"));
        }
        if !wanted.contains_key(name) {
            drift.push(format!("`{name}` is locked and nothing asks for it"));
        }
    }
    let missing = wanted.iter().filter(|(name, _)| !seen.contains(*name));
    drift.extend(missing.map(|(name, path)| {
        format!("`{name}`, asked for by `{}`, is not locked for {}", path.display(), architecture.as_str())
    }));
    drift
}

fn check(path: &Path, config: &Config) -> Result<(), Error> {
    let rules: [(&'static str, bool, &'static str); 9] = [
        ("image.name", is_plain(&config.image.name), "has to be of letters, digits, `.`, `_`, `+` and `-`"),
        (
            "image.version",
            is_plain(&config.image.version),
            "has to be of letters, digits, `.`, `_`, `+` and `-`",
        ),
        (
            "image.minimum_version",
            config
                .image
                .minimum_version
                .as_ref()
                .is_none_or(|least| is_at_least(&config.image.version, least)),
            "has to be dotted whole numbers, such as 1.4, and not above image.version",
        ),
        ("image.name", is_marked(config), "has to contain `test` for the test flavour, and only for that"),
        ("packages.lists", !config.packages.lists.is_empty(), "is empty"),
        ("packages.locks", !config.packages.locks.is_empty(), "is empty"),
        ("disk", config.disk.root_mib > 0 && config.disk.data_mib > 0, "has a partition of no size"),
        (
            "secure_boot",
            config.secure_boot.key.is_none() || config.secure_boot.certificate.is_some(),
            "names a key without its certificate",
        ),
        (
            "disk.esp_mib",
            u64::from(config.disk.esp_mib) << 20 >= MIN_BYTES,
            "is too small for the FAT32 file system that firmware boots from: 33 is the least, 64 has room for two kernels",
        ),
    ];
    match rules.into_iter().find(|(_, holds, _)| !holds) {
        Some((key, _, problem)) => Err(Error::BadValue { path: path.to_owned(), key, problem }),
        None => Ok(()),
    }
}

/// Names and versions become parts of file names.
fn is_plain(value: &str) -> bool {
    let first = value.chars().next().is_some_and(|first| first.is_ascii_alphanumeric());
    first && value.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '-'))
}

/// Nobody shall take a test image for a shipped one.
fn is_marked(config: &Config) -> bool {
    config.image.name.contains("test") == (config.image.flavour == Flavour::Test)
}

#[cfg(test)]
mod tests;
