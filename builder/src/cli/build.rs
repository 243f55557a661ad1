//! `eci-builder build`: from `eci.toml` and its locks to the artifacts of an image.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Context;
use eci_contract::manifest::{Architecture, Flavour};
use serde_json::json;

use super::exit::{Classify, Exit};
use super::{Arch, artifact_lines, artifact_values, print_data};
use crate::cache::Cache;
use crate::checkout;
use crate::image::apple;
use crate::image::assemble::{self, Assembled, Inputs, Signing, UkiInputs};
use crate::image::digest::Sha256;
use crate::image::disk::Sizes;
use crate::image::formats::Format;
use crate::image::provenance::Origin;
use crate::image::provenance::statement::{Digests, Resource};
use crate::image::sbom;
use crate::image::sbom::licence::Licence;
use crate::image::secure_boot::{self, Certificate, Signer};
use crate::image::signature::{self, PublicKey, SigningKey};
use crate::image::uki;
use crate::kernel::{self, Kernel, config};
use crate::packages::{self, Archive, Offline, deb};
use crate::plan::lock::LockedPackage;
use crate::plan::{Locked, Plan};
use crate::rootfs::{self, Root, tree::Kind};
use crate::settings;
use crate::staging::WorkFolder;
use crate::toolchain::{self, Toolchain};
use crate::ui::Ui;

/// Version of what `--json` prints.
const JSON_VERSION: u32 = 1;
/// File name of PID 1 among the guest's programs.
const INIT: &str = "eci-init";
const KEYGEN_HINT: &str = "make one with `eci-builder keygen DIR`";
const SECURE_BOOT_HINT: &str =
    "`eci-builder keygen DIR` makes both, `secure-boot/db.key` and `secure-boot/db.crt`";
const UNSIGNED_HINT: &str =
    "name the private key, or build with --unsigned and use `eci-builder sign` where the key is";
/// Ubuntu 24.04 is where AppArmor does that.
pub(super) const SANDBOX_HINT: &str = "install bubblewrap; where AppArmor refuses user namespaces, \
     `sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0`, or build as root";
/// Versions that the manifest states: what they are called there, and the package that has them.
const VERSIONS: [(&str, &str); 3] = [("docker", "docker.io"), ("containerd", "containerd"), ("crun", "crun")];

/// Arguments of `build`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration.
    #[arg(long, short, default_value = "eci.toml")]
    config: PathBuf,
    /// Folder for the artifacts.
    #[arg(long, default_value = "out")]
    out: PathBuf,
    /// Architecture to build for; the configuration's otherwise.
    #[arg(long, value_enum)]
    arch: Option<Arch>,
    /// Forms of the image: disks, a distro for WSL 2, a CD, and a folder for Apple's Virtualization framework.
    #[arg(long = "format", value_enum, value_delimiter = ',', default_values = ["raw", "qcow2"])]
    formats: Vec<Format>,
    /// Folder with the guest's programs: eci-init, eci-runc, eci-nodes, eci-procfs, eci-egress, eci-gate and eci-publish, static;
    /// `target/guest-ARCH` otherwise, where `scripts/build` leaves them.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Build only what the lock files say. This is the default and cannot be turned off: `lock` changes them.
    #[arg(long)]
    locked: bool,
    /// Sign nothing and need no private key: `sign` takes the signatures, also from another machine. The configuration may then name the
    /// public key as the signing key, and a certificate without its key.
    #[arg(long)]
    unsigned: bool,
    /// Use the cache alone; nothing is fetched.
    #[arg(long)]
    offline: bool,
    /// Print the artifacts as JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// With the exit code of what went wrong: configuration, host, or a digest that does not match.
pub fn run(args: &Args, ui: &Ui) -> anyhow::Result<()> {
    let plan = Plan::read(&args.config, args.arch.map(Architecture::from)).or_exit(Exit::Config)?;
    let hint = lock_hint(&args.config, [plan.architecture(), plan.tools_architecture()]);
    let plan = plan.read_locks().or_exit_with_hint(Exit::Config, hint)?;
    for feature in plan.settings().settings.iter().flat_map(|settings| &settings.kept_apart) {
        let (key, what) = (feature.key, feature.what);
        ui.warn(&format!("settings: `{key}` is kept apart and not in force: {what}"));
    }
    let required = plan.settings().anchor.as_ref().is_some_and(|anchor| anchor.required);
    if required && args.formats.contains(&Format::Wsl) {
        let never =
            anyhow::anyhow!("a distro for WSL 2 gets no config disk, and this image does not go without");
        return Err(never).or_exit_with_hint(
            Exit::Config,
            "leave out `required` in the table [settings], or the format wsl",
        );
    }
    if plan.architecture() != Architecture::Aarch64 && args.formats.contains(&Format::Apple) {
        let never = anyhow::anyhow!(
            "the format apple is for Macs with Apple's processors, and this image is for {}",
            plan.architecture().as_str()
        );
        return Err(never)
            .or_exit_with_hint(Exit::Config, "build with `--arch aarch64`, or leave out the format apple");
    }
    let programs = args
        .programs
        .clone()
        .unwrap_or_else(|| format!("target/guest-{}", plan.architecture().as_str()).into());
    let keys = if args.unsigned { public_keys(&plan, ui)? } else { private_keys(&plan, ui)? };
    let cache = Cache::open().or_exit(Exit::Host)?;
    let offline = if args.offline { Offline::Yes } else { Offline::No };
    let from = packages::Source { cache: &cache, mirror: plan.config().packages.mirror.as_deref(), offline };
    let archives = packages::fetch("packages", plan.for_the_image(), &from, ui).map_err(fetch_failed)?;
    let kernel = build_kernel(&plan, &archives, from, ui)?;
    let work = WorkFolder::inside(&cache.folder("work").or_exit(Exit::Host)?, "build").or_exit(Exit::Host)?;
    let root =
        rootfs::assemble(&plan, &archives, &programs, (&cache, work.path()), ui).or_exit(Exit::Config)?;
    let initrd = work.path().join("initrd.img");
    rootfs::initrd(&programs.join(INIT), &keys.public().0, &initrd).or_exit(Exit::Config)?;
    let tree = work.path().join("root");
    let contents = contents(&plan, &root, &tree, &kernel)?;
    let stub = stub(&plan, &archives)?;
    let command_line = command_line(&kernel)?;
    let os_release = fs::read_to_string(tree.join("etc/os-release"))
        .context("the root file system has no /etc/os-release")
        .or_exit(Exit::Config)?;
    let config = plan.config();
    let inputs = Inputs {
        name: &config.image.name,
        version: &config.image.version,
        minimum_version: config.image.minimum_version.as_deref(),
        architecture: plan.architecture(),
        flavour: config.image.flavour,
        root: &root.image,
        kernel: &kernel.image,
        kernel_config: &kernel.config,
        initrd: &initrd,
        init: &programs.join(INIT),
        uki: UkiInputs {
            stub: &stub,
            command_line: &command_line,
            os_release: &os_release,
            release: &kernel.release,
        },
        versions: versions(&plan, &kernel),
        signing: keys.signing(),
        sizes: Sizes {
            esp: mib(config.disk.esp_mib),
            root: mib(config.disk.root_mib),
            data: mib(config.disk.data_mib),
        },
        formats: &args.formats,
        contents: &contents,
        origin: &origin(&plan, &contents, ui),
    };
    let assembled = assemble::assemble(&inputs, &args.out, ui).map_err(not_assembled)?;
    report(&assembled, args, ui)
}

/// What does not fit is the configuration's fault.
fn not_assembled(error: assemble::Error) -> anyhow::Error {
    let outcome = match error {
        assemble::Error::Esp(_) => Err::<(), _>(error)
            .or_exit_with_hint(Exit::Config, "raise `esp_mib` in the table [disk] of the configuration"),
        _ => Err(error).or_exit(Exit::Failure),
    };
    outcome.expect_err("an error was given")
}

pub(super) fn lock_hint(config: &Path, [image, tools]: [Architecture; 2]) -> String {
    let more = if image == tools { String::new() } else { format!(",{}", tools.as_str()) };
    let (config, image) = (config.display(), image.as_str());
    format!("run `eci-builder lock --config {config} --arch {image}{more}` and commit what it writes")
}

/// A digest that does not match is not the host's fault; everything else about fetching is.
fn fetch_failed(error: packages::fetch::Error) -> anyhow::Error {
    let exit = match error {
        packages::fetch::Error::Mismatch { .. } => Exit::Untrusted,
        _ => Exit::Host,
    };
    let hint = match error {
        packages::fetch::Error::Offline { .. } => "run it once without --offline",
        _ => "`eci-builder doctor` checks what this host lacks",
    };
    Err::<(), _>(error).or_exit_with_hint(exit, hint).expect_err("an error was given")
}

/// The keys of an image: what is read from the files that [`Signing`] is then made of.
enum Keys {
    Private(SigningKey, Box<Signer>),
    Public(PublicKey, Box<Certificate>),
}

impl Keys {
    fn public(&self) -> PublicKey {
        match self {
            Self::Private(key, _) => key.public(),
            Self::Public(key, _) => *key,
        }
    }

    fn signing(&self) -> Signing<'_> {
        match self {
            Self::Private(key, signer) => Signing::Now { key, signer },
            Self::Public(key, certificate) => Signing::Later { key: *key, certificate },
        }
    }
}

fn private_keys(plan: &Plan<Locked>, ui: &Ui) -> anyhow::Result<Keys> {
    Ok(Keys::Private(signing_key(plan, ui)?, Box::new(signer(plan, ui)?)))
}

/// The public halves of the keys that the configuration names, or, loudly, of this host's development keys.
fn public_keys(plan: &Plan<Locked>, ui: &Ui) -> anyhow::Result<Keys> {
    let key = match plan.signing_key() {
        Some(path) => PublicKey::read_of_either(&path).or_exit_with_hint(Exit::Config, KEYGEN_HINT)?,
        None => signing_key(plan, ui)?.public(),
    };
    let certificate = match plan.certificate() {
        Some(path) => {
            let certificate = Certificate::read(&path).or_exit_with_hint(Exit::Config, SECURE_BOOT_HINT)?;
            refuse_expired(&certificate, path)?;
            certificate
        }
        None => signer(plan, ui)?.certificate().clone(),
    };
    Ok(Keys::Public(key, Box::new(certificate)))
}

/// The key that the configuration names, or, loudly, this host's development key of the flavour.
fn signing_key(plan: &Plan<Locked>, ui: &Ui) -> anyhow::Result<SigningKey> {
    if let Some(path) = plan.signing_key() {
        let key = SigningKey::read(&path);
        let hint = match &key {
            Err(signature::Error::WrongKind { .. }) => UNSIGNED_HINT,
            _ => KEYGEN_HINT,
        };
        return key.or_exit_with_hint(Exit::Config, hint);
    }
    let (name, folder) = host_keys(plan)?;
    ui.warn(&format!(
        "signing key: the {name} key of this host ({}); whoever can read it can sign images like this one. \
         For images that others rely on: `eci-builder keygen DIR`, then `[signing] key` in {}",
        folder.display(),
        plan.path().display()
    ));
    signature::host_key(&folder).or_exit(Exit::Host)
}

/// The Secure Boot key that the configuration names, or, loudly, this host's. The clock says whether the build is refused, and
/// nothing of what is built.
fn signer(plan: &Plan<Locked>, ui: &Ui) -> anyhow::Result<Signer> {
    let Some(certificate) = plan.certificate() else {
        let (name, folder) = host_keys(plan)?;
        ui.warn(&format!(
            "key of {} for Secure Boot: the {name} key of this host ({}). For machines of others: \
             `eci-builder keygen DIR`, then `key` and `certificate` of [secure_boot] in {}",
            uki::FILE,
            folder.join(secure_boot::FOLDER).display(),
            plan.path().display()
        ));
        return secure_boot::host_signer(&folder, ui)
            .or_exit_with_hint(Exit::Host, "`eci-builder doctor` checks what this host lacks");
    };
    let key = plan
        .secure_boot_key()
        .with_context(|| {
            format!("`{}`: secure_boot names a certificate without its key", plan.path().display())
        })
        .or_exit_with_hint(Exit::Config, UNSIGNED_HINT)?;
    let signer = Signer::read(&key, &certificate).or_exit_with_hint(Exit::Config, SECURE_BOOT_HINT)?;
    refuse_expired(signer.certificate(), certificate)?;
    Ok(signer)
}

fn refuse_expired(certificate: &Certificate, path: PathBuf) -> anyhow::Result<()> {
    match certificate.expired(SystemTime::now()) {
        None => Ok(()),
        Some(on) => Err(secure_boot::Error::Expired { path, on }).or_exit_with_hint(
            Exit::Config,
            "make another with `eci-builder keygen DIR` and enrol it, or check this host's clock",
        ),
    }
}

/// Name and folder of this host's keys of a flavour.
fn host_keys(plan: &Plan<Locked>) -> anyhow::Result<(&'static str, PathBuf)> {
    let name = match plan.config().image.flavour {
        Flavour::Shipped => "development",
        Flavour::Test => "test",
    };
    Ok((name, data_home()?.join("eci/keys").join(name)))
}

fn data_home() -> anyhow::Result<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .context("no place for a development key: neither XDG_DATA_HOME nor HOME is an absolute path")
        .or_exit(Exit::Host)
}

fn build_kernel(
    plan: &Plan<Locked>,
    archives: &[Archive],
    from: packages::Source<'_>,
    ui: &Ui,
) -> anyhow::Result<Kernel> {
    let source = plan.kernel_source();
    let archive = archive_of(source, archives);
    let order = kernel::Order {
        source: &archive.path,
        source_sha256: digest(&source.sha256),
        fragments: &plan.fragments(),
        architecture: plan.architecture(),
        toolchain: Toolchain::of(plan, from),
    };
    kernel::build(&order, from.cache, ui).map_err(|error| match error {
        kernel::Error::Toolchain(error) => no_toolchain(error),
        error => Err::<(), _>(error).or_exit(Exit::Config).expect_err("an error was given"),
    })
}

/// Whatever is wrong with a toolchain is the host's fault, but for a digest that does not match.
pub(super) fn no_toolchain(error: toolchain::Error) -> anyhow::Error {
    match error {
        toolchain::Error::Fetch(error) => fetch_failed(error),
        error @ toolchain::Error::Sandbox(_) => {
            Err::<(), _>(error).or_exit_with_hint(Exit::Host, SANDBOX_HINT).expect_err("an error was given")
        }
        error => Err::<(), _>(error).or_exit(Exit::Host).expect_err("an error was given"),
    }
}

fn archive_of<'a>(package: &LockedPackage, archives: &'a [Archive]) -> &'a Archive {
    let mut archives = archives.iter();
    archives.find(|archive| archive.package == *package).expect("fetching gives every package of the plan")
}

/// systemd's stub, out of its package.
fn stub(plan: &Plan<Locked>, archives: &[Archive]) -> anyhow::Result<Vec<u8>> {
    let (package, path) = (plan.stub(), uki::stub_path(plan.architecture()));
    deb::file(&archive_of(package, archives).path, path)
        .or_exit(Exit::Host)?
        .with_context(|| format!("the package `{}` has no `{path}`", package.name))
        .or_exit_with_hint(Exit::Config, "`stub` in the table [uki] names the package with systemd's stub")
}

/// The command line that is built into the kernel, which takes no other.
fn command_line(kernel: &Kernel) -> anyhow::Result<String> {
    let text = fs::read_to_string(&kernel.config)
        .with_context(|| format!("cannot read `{}`", kernel.config.display()))?;
    let line = config::Config::parse(&text).text("CONFIG_CMDLINE");
    line.context("the kernel has no command line of its own, CONFIG_CMDLINE").or_exit(Exit::Config)
}

fn versions(plan: &Plan<Locked>, kernel: &Kernel) -> BTreeMap<String, String> {
    let of = |(shown, package): (&str, &str)| (shown.to_owned(), plan.package(package).version.clone());
    let mut versions: BTreeMap<String, String> = VERSIONS.into_iter().map(of).collect();
    versions.insert("linux".to_owned(), kernel.release.clone());
    versions
}

/// What the bill of materials lists: the root's packages and files, the kernel and our programs.
fn contents(
    plan: &Plan<Locked>,
    root: &Root,
    tree: &Path,
    kernel: &Kernel,
) -> anyhow::Result<sbom::Contents> {
    let packages: Vec<_> =
        root.packages.iter().map(|package| bill_entry(package, licence(package, tree))).collect();
    let source = plan.kernel_source();
    let licence = packages.iter().find(|package| package.name == source.name);
    let mut built = vec![sbom::Built {
        name: "linux".to_owned(),
        version: Some(kernel.release.clone()),
        sha256: Sha256::of_file(&kernel.image)
            .with_context(|| format!("cannot read `{}`", kernel.image.display()))?,
        licence: licence.and_then(|package| package.licence.clone()),
        from: Some(source.name.clone()),
    }];
    let mut files = Vec::new();
    for file in root.files.iter().filter(|file| matches!(file.kind, Kind::File { .. })) {
        let host = tree.join(file.path.trim_start_matches('/'));
        let listed = sbom::File::of_host_file(&file.path, file.package.as_deref(), &host)
            .with_context(|| format!("cannot read `{}` of the root file system", file.path))?;
        if let Some(program) = plan.lists().flat_map(|list| &list.programs).find(|of| of.path == file.path) {
            built.push(sbom::Built::program(&program.name, listed.sha256));
        }
        files.push(listed);
    }
    Ok(sbom::Contents { packages, built, files })
}

/// What the image is made from and with: every locked package, tools and toolchain included, the guest's programs, the administrator's
/// settings where there is a file, and the checkout at its commit where that says it all.
fn origin(plan: &Plan<Locked>, contents: &sbom::Contents, ui: &Ui) -> Origin {
    let mut materials: Vec<_> = plan.packages().map(material).collect();
    for tool in plan.tools().iter().chain(plan.toolchain()).map(material) {
        if !materials.contains(&tool) {
            materials.push(tool);
        }
    }
    let programs = contents.built.iter().filter(|built| built.from.is_none());
    materials.extend(programs.map(|program| Resource::file(&program.name, program.sha256)));
    if plan.config().settings.file.is_some() {
        materials.push(Resource::file("admin-settings.json", settings::digest(&plan.settings().text)));
    }
    match checkout::commit(plan, ui) {
        Ok(commit) => materials.push(Resource::checkout(commit)),
        Err(reason) => ui.debug(&format!("the provenance names no commit: {reason}")),
    }
    Origin { materials, toolchain: toolchain_versions(plan) }
}

/// What the toolchain's list names, at the locked version.
fn toolchain_versions(plan: &Plan<Locked>) -> BTreeMap<String, String> {
    let listed = plan.toolchain_list().wanted(plan.tools_architecture(), plan.architecture());
    let listed = listed.expect("a locked plan has a toolchain");
    let named = plan.toolchain().iter().filter(|package| listed.contains(package.name.as_str()));
    named.map(|package| (package.name.clone(), package.version.clone())).collect()
}

fn material(package: &LockedPackage) -> Resource {
    Resource {
        name: format!("{}:{}", bare_name(package), package.architecture),
        uri: Some(bill_entry(package, None).url()),
        digest: Digests::sha256(digest(&package.sha256)),
    }
}

/// A package as the bill of materials has it.
fn bill_entry(package: &LockedPackage, licence: Option<Licence>) -> sbom::Package {
    sbom::Package {
        name: bare_name(package).to_owned(),
        version: package.version.clone(),
        architecture: package.architecture.clone(),
        source: sbom::Source { name: package.source.clone(), version: package.source_version.clone() },
        sha256: digest(&package.sha256),
        licence,
    }
}

/// Its name without the architecture that a toolchain's foreign package has in it.
fn bare_name(package: &LockedPackage) -> &str {
    package.name.split(':').next().unwrap_or(&package.name)
}

/// Its licence, by its copyright file in the root file system.
fn licence(package: &LockedPackage, tree: &Path) -> Option<Licence> {
    let copyright = tree.join("usr/share/doc").join(&package.name).join("copyright");
    Licence::of_copyright(&package.source, &fs::read_to_string(copyright).unwrap_or_default())
}

fn digest(hexadecimal: &str) -> Sha256 {
    hexadecimal.parse().expect("a lock file is read only with well-formed digests")
}

fn mib(count: u32) -> u64 {
    u64::from(count) << 20
}

fn report(assembled: &Assembled, args: &Args, ui: &Ui) -> anyhow::Result<()> {
    if args.json {
        let artifacts = artifact_values(&assembled.artifacts);
        let root_hash = &assembled.manifest.root.root_hash;
        return print_data(
            &json!({ "version": JSON_VERSION, "rootHash": root_hash, "artifacts": artifacts }).to_string(),
        );
    }
    print_data(&artifact_lines(&assembled.artifacts))?;
    if args.unsigned {
        ui.note(&format!("sign it:  eci-builder sign {} (--help says how)", args.out.display()));
        return Ok(());
    }
    let key = args.out.join(assemble::KEY_FILE);
    ui.note(&format!("check it: eci-builder verify {} --key {}", args.out.display(), key.display()));
    // `run` boots no other disk.
    if args.formats.contains(&Format::Raw) {
        ui.note(&format!("boot it:  eci-builder run {} --detach", args.out.display()));
    }
    if args.formats.contains(&Format::Apple) {
        let (folder, script) = (args.out.join(apple::FOLDER), apple::beside(apple::SCRIPT));
        ui.note(&format!("on a Mac: copy {} there, and run {script}", folder.display()));
    }
    Ok(())
}
