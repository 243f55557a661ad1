//! Nothing is left behind: not after many containers, not after many at once, and not when what supervises them is killed. Scripts on the workbench of the test flavour count inside of the VM, and kill.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eci_tests::suite::{self, Row, row};
use eci_tests::workbench::Workbench;

/// Containers one after the other.
const IN_A_ROW: u32 = 200;
/// Containers at the same time.
const AT_ONCE: usize = 50;
/// Longest time that leftovers may take to go, under TCG: containerd's own clean-up of a killed shim has a timeout of ten
/// seconds.
const PATIENCE: Duration = Duration::from_secs(90);

/// Prints `key=count` of what containers could leave, once none runs.
const COUNT: &str = r#"
while pidof containerd-shim-runc-v2 runc crun >/dev/null; do sleep 0.2; done
sleep 1
entries() { ls "$1" 2>/dev/null | wc -l; }
descriptors() { for pid in $(pidof "$1"); do ls "/proc/$pid/fd"; done | wc -l; }
# Asking for the answer to this mounts a container for a moment.
mounts() { for _ in 1 2 3 4 5 6 7 8; do wc -l </proc/self/mountinfo; sleep 0.2; done | sort -n | head -1; }
processes() { for exe in /proc/[0-9]*/exe; do readlink "$exe"; done 2>/dev/null | wc -l; }
echo "processes=$(processes)"
echo "mounts=$(mounts)"
echo "cgroups=$(find /sys/fs/cgroup -type d | wc -l)"
echo "containers=$(entries /run/eci/containers)"
echo "ranges=$(ls /run/eci/ranges | grep -c '^[0-9]')"
echo "crun=$(find /run/docker/runtime-* /run/crun -mindepth 2 -maxdepth 2 2>/dev/null | wc -l)"
echo "shims=$(find /run/containerd/io.containerd.runtime.v2.task -mindepth 2 -maxdepth 2 2>/dev/null | wc -l)"
echo "networks=$(entries /run/docker/netns)"
echo "listeners=$(descriptors eci-nodes)"
echo "engine_descriptors=$(descriptors dockerd)"
echo "containerd_descriptors=$(descriptors containerd)"
"#;

/// Kills every process that the kernel knows by the name `$target`; prints how many.
const KILL: &str = r#"
hits=0
for comm in /proc/[0-9]*/comm; do
    read -r name 2>/dev/null <"$comm" || continue
    [ "$name" = "$target" ] || continue
    pid=${comm#/proc/}
    kill -9 "${pid%/comm}" 2>/dev/null && hits=$((hits + 1))
done
echo "$hits"
"#;

/// What is counted, by name.
type Counts = BTreeMap<String, u64>;

/// A booted test flavour, and what was there before the first container.
struct Ground {
    bench: Workbench,
    before: Counts,
}

fn main() -> ExitCode {
    match Ground::prepare() {
        Ok(ground) => suite::run(ground, rows(), |ground| ground.bench.vm.last_words()),
        Err(error) => {
            eprintln!("the image does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn rows() -> Vec<Row<Ground>> {
    vec![
        row("two_hundred_containers_in_a_row_leave_nothing", |ground| {
            for _ in 0..IN_A_ROW {
                ground.bench.vm.sh(&[], "true")?;
            }
            ground.nothing_is_left()
        }),
        row("fifty_containers_at_once_have_fifty_ranges_and_leave_nothing", |ground| {
            let vm = &ground.bench.vm;
            let names: Vec<_> = (0..AT_ONCE).map(|number| format!("crowd-{number}")).collect();
            thread::scope(|scope| {
                let start = |name| vm.docker(&["run", "-d", "--name", name, "busybox", "sleep", "900"])?.ok();
                let started: Vec<_> = names.iter().map(|name| scope.spawn(move || start(name))).collect();
                let ends = started.into_iter().map(|one| one.join().expect("no thread panics"));
                ends.collect::<Result<Vec<_>>>()
            })?;
            let mut bases = Vec::new();
            for name in &names {
                let map = vm.docker(&["exec", name, "cat", "/proc/self/uid_map"])?.ok()?;
                bases.push(map.split_whitespace().nth(1).context("a map has a base")?.to_owned());
            }
            bases.sort();
            bases.dedup();
            ensure!(bases.len() == AT_ONCE, "only {} ranges: {bases:?}", bases.len());
            ground.clear()
        }),
        row("a_shim_that_is_killed_leaves_nothing", |ground| ground.survives_killing("containerd-shim")),
        row("containerd_that_is_killed_comes_back_and_leaves_nothing", |ground| {
            ground.survives_killing("containerd")
        }),
        row("an_engine_that_is_killed_comes_back_and_leaves_nothing", |ground| {
            ground.survives_killing("dockerd")
        }),
        row("a_gate_that_is_killed_comes_back", |ground| ground.survives_killing("eci-gate")),
        row("after_all_of_it_every_promise_still_holds", |ground| ground.bench.vm.every_check_holds()),
    ]
}

impl Ground {
    fn prepare() -> Result<Self> {
        let bench = Workbench::start("load")?;
        // The first containers make what stays: the network's namespace, cgroups of the engine, open databases.
        for _ in 0..2 {
            bench.vm.sh(&[], "true")?;
        }
        let mut ground = Self { bench, before: Counts::new() };
        ground.before = ground.count()?;
        Ok(ground)
    }

    fn count(&self) -> Result<Counts> {
        let counted = self.bench.run(COUNT, PATIENCE)?;
        let pairs = counted.lines().map(|line| {
            let (key, value) = line.split_once('=').with_context(|| format!("`{line}` is no count"))?;
            Ok((key.to_owned(), value.parse()?))
        });
        pairs.collect()
    }

    /// No count is above what was there before the first container.
    fn nothing_is_left(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let now = self.count()?;
            let left: Vec<_> = now.iter().filter(|(key, count)| **count > self.allowed(key)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("left behind: {left:?}; before: {:?}", self.before);
            }
            thread::sleep(Duration::from_secs(2));
        }
    }

    /// Descriptors of the two Go programs come and go with idle connections: a leak is one a container, not five in all.
    fn allowed(&self, key: &str) -> u64 {
        let before = self.before.get(key).copied().unwrap_or_default();
        if key.ends_with("_descriptors") { before + 5 } else { before }
    }

    /// A container runs while every process of that name is killed.
    fn survives_killing(&self, target: &str) -> Result<()> {
        self.bench.vm.docker(&["run", "-d", "--name", "bystander", "busybox", "sleep", "900"])?.ok()?;
        let hits = self.bench.run(&format!("target={target}\n{KILL}"), PATIENCE)?;
        ensure!(hits.trim() != "0", "no {target} was there to kill");
        self.clear()
    }

    /// Removes every container that has started, once the engine is there again, and looks for what is left.
    fn clear(&self) -> Result<()> {
        let vm = &self.bench.vm;
        let started = Instant::now();
        while let Err(error) = vm.sh(&[], "true") {
            ensure!(started.elapsed() < PATIENCE, "the engine does not come back: {error:?}");
        }
        let filter = ["--filter", "ancestor=busybox", "--format", "{{.Names}}"];
        let listed = vm.docker(&[&["ps", "-a"][..], &filter].concat())?.ok()?;
        let names: Vec<_> = listed.lines().filter(|name| *name != "workbench").collect();
        if !names.is_empty() {
            vm.docker(&[&["rm", "-f"][..], &names].concat())?.ok()?;
        }
        self.nothing_is_left()
    }
}
