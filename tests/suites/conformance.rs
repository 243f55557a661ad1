//! crun's and runc's own tests, under crun and under `eci-runc`: where the two differ is in
//! `tests/conformance/differences.toml`, each difference with its why. One that is not there fails the suite, and so does
//! one that is there and is none.
//!
//! The tests run in the VM, beside the engine, as root, in a root of their own (`scripts/conformance-root`,
//! `tests/conformance/enter`). They write bundles that no engine writes; what stands between them and `eci-runc` to make
//! up for that is `tests/src/bin/eci-conformance/engine.rs`.
//!
//! Without `scripts/test --all` those files are left out that are about what crun does by itself, such as states, limits and terminals,
//! about what crun lacks (`events`, runc's help and debug messages), and of runc's those about what crun's own tests ask too: they
//! take several times as long as the others. With `ECI_CONFORMANCE_LOGS=FOLDER` what the tests said is kept there.

use std::env;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eci_tests::command;
use eci_tests::conformance::{Verdict, Verdicts, read, read_differences, surprises};
use eci_tests::image;
use eci_tests::suite::{self, Row, row};
use eci_tests::workbench::{Order, Workbench};

/// Where the volume `workbench` is in the VM, and in it what belongs to this suite.
const HERE: &str = "/var/lib/docker/volumes/workbench/_data/conformance";
/// crun's tests of what `eci-runc` has a hand in.
const CRUN: &[&str] = &[
    "test_capabilities.py",
    "test_cwd.py",
    "test_devices.py",
    "test_exec.py",
    "test_hooks.py",
    "test_mounts.py",
    "test_paths.py",
    "test_pid.py",
    "test_preserve_fds.py",
    "test_seccomp.py",
    "test_uid_gid.py",
];
/// The others, but for those of checkpoints, which need CRIU.
const CRUN_REST: &[&str] = &[
    "test_delete.py",
    "test_detach.py",
    "test_hostname.py",
    "test_limits.py",
    "test_oci_features.py",
    "test_pid_file.py",
    "test_resources.py",
    "test_rlimits.py",
    "test_start.py",
    "test_time.py",
    "test_tty.py",
    "test_update.py",
];
/// runc's tests of what `eci-runc` makes itself: the root, what is hidden in it, and the user namespace.
const RUNC: &[&str] = &["mask.bats", "root.bats", "umask.bats", "userns.bats"];
/// The others, but for cgroups.bats, whose last test does not end under crun, and those that `scripts/conformance-root`
/// leaves out.
const RUNC_REST: &[&str] = &[
    "cgroup_delegation.bats",
    "create.bats",
    "cwd.bats",
    "debug.bats",
    "delete.bats",
    "dev.bats",
    "events.bats",
    "exec.bats",
    "help.bats",
    "kill.bats",
    "list.bats",
    "mounts.bats",
    "mounts_recursive.bats",
    "no_pivot.bats",
    "pause.bats",
    "ps.bats",
    "rlimits.bats",
    "run.bats",
    "seccomp-notify-compat.bats",
    "seccomp.bats",
    "spec.bats",
    "start.bats",
    "start_detached.bats",
    "start_hello.bats",
    "state.bats",
    "tty.bats",
    "update.bats",
    "version.bats",
];
/// For one runtime and one suite, on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_secs(3600);

fn main() -> ExitCode {
    let rows: Vec<Row<Workbench>> = vec![
        row("crun_tests_differ_only_where_the_list_says_so", |bench| {
            compare(bench, "crun", asked(&[CRUN, CRUN_REST]))
        }),
        row("runc_tests_differ_only_where_the_list_says_so", |bench| {
            compare(bench, "runc", asked(&[RUNC, RUNC_REST]))
        }),
        row("the_machine_s_devices_stay_root_s_when_they_are_a_container_s_input", devices_stay),
    ];
    match prepare() {
        Ok(bench) => suite::run(bench, rows, |bench| bench.vm.last_words()),
        Err(error) => {
            eprintln!("the tests cannot be brought into the VM: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// The first list, and with `scripts/test --all` the others.
fn asked<'a>(lists: &'a [&'a [&'a str]]) -> &'a [&'a [&'a str]] {
    let count = if suite::everything() { lists.len() } else { 1 };
    lists.get(..count).unwrap_or(lists)
}

/// crun gives the input and output of a container to the container's user. runc had a flaw there with the machine's own
/// /dev/null, for which it has a test; here /dev is read-only.
fn devices_stay(bench: &Workbench) -> Result<()> {
    bench.vm.docker(&["run", "--rm", "-u", "1000", "busybox", "true"])?.ok()?;
    let script = "stat -c %u:%g /dev/null /dev/zero; chown 1 /dev/null 2>/dev/null || echo refused";
    let owners = bench.run(script, Duration::from_secs(60))?;
    ensure!(owners == "0:0\n0:0\nrefused\n", "{owners}");
    Ok(())
}

/// Boots the test flavour and brings the root of the tests into it.
fn prepare() -> Result<Workbench> {
    let repository = image::repository()?;
    let script = repository.join("scripts/conformance-root");
    let root = command::host(&script.to_string_lossy(), &[])?.ok()?;
    let enter = repository.join("tests/conformance/enter");
    let program = image::programs()?.join("eci-conformance");
    let mut archive = tar::Builder::new(Vec::new());
    for (name, path) in [
        ("root.erofs", Path::new(&root)),
        ("enter", &enter),
        ("engine-runc", &program),
        ("recvtty", &program),
    ] {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o755);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, format!("conformance/{name}"), bytes.as_slice())?;
    }
    let bench = Workbench::start("conformance")?;
    bench.vm.docker_with(&["cp", "-", "workbench:/bench"], &archive.into_inner()?)?.ok()?;
    Ok(bench)
}

/// Runs the files of the suite `tests` under both runtimes at once, and compares.
fn compare(bench: &Workbench, tests: &str, files: &[&[&str]]) -> Result<()> {
    let files = files.concat();
    let orders = ["crun", "eci-runc"].map(|runtime| order(bench, tests, runtime, &files));
    let [crun, ours] = orders;
    let (crun, ours) = (verdicts(bench, "crun", &crun?)?, verdicts(bench, "eci-runc", &ours?)?);
    let passed = |verdicts: &Verdicts| verdicts.values().filter(|verdict| **verdict == Verdict::Pass).count();
    eprintln!("{} tests; passed: {} under crun, {} under eci-runc", crun.len(), passed(&crun), passed(&ours));
    let list = image::repository()?.join("tests/conformance/differences.toml");
    let surprises = surprises(&crun, &ours, &read_differences(&list)?, &files);
    ensure!(surprises.is_empty(), "{}", surprises.join("\n"));
    Ok(())
}

fn order(bench: &Workbench, tests: &str, runtime: &str, files: &[&str]) -> Result<Order> {
    bench.order(
        &format!("sh {HERE}/enter {tests}-{runtime} /conformance/lane {runtime} {}", files.join(" ")),
        PATIENCE,
    )
}

fn verdicts(bench: &Workbench, runtime: &str, order: &Order) -> Result<Verdicts> {
    let answer = bench.answer(order, PATIENCE)?;
    if let Some(folder) = env::var_os("ECI_CONFORMANCE_LOGS") {
        let first = answer.text.lines().next().unwrap_or_default().trim_start_matches("== ");
        fs::write(Path::new(&folder).join(format!("{runtime}-{first}.log")), &answer.text)?;
    }
    ensure!(answer.code == 0, "the tests ended with {}\n{}", answer.code, answer.text);
    read(&answer.text).with_context(|| format!("under {runtime}\n{}", answer.text))
}
