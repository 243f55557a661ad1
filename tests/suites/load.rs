//! Nothing is left behind: not after many containers, not after many at once, and not when what starts and supervises them
//! is killed in the middle. A service of the test flavour counts inside of the VM, and kills what it is told to.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eci_tests::image;
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::Vm;

/// Containers one after the other.
const IN_A_ROW: u32 = 200;
/// Containers at the same time.
const AT_ONCE: usize = 50;
/// Longest time that leftovers may take to go, under TCG: containerd's own clean-up of a killed shim has a timeout of ten
/// seconds.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is counted, by name.
type Counts = BTreeMap<String, u64>;

/// A booted test flavour, and what was there before the first container.
struct Ground {
    vm: Vm,
    before: Counts,
    orders: AtomicU32,
}

fn main() -> ExitCode {
    match Ground::prepare() {
        Ok(ground) => suite::run(ground, rows(), |ground| ground.vm.last_words()),
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
                ground.vm.sh(&[], "true")?;
            }
            ground.nothing_is_left()
        }),
        row("fifty_containers_at_once_have_fifty_ranges_and_leave_nothing", |ground| {
            let names: Vec<_> = (0..AT_ONCE).map(|number| format!("crowd-{number}")).collect();
            let outcomes: Vec<_> = thread::scope(|scope| {
                let start = |name| {
                    let vm = &ground.vm;
                    scope.spawn(move || {
                        vm.docker(&["run", "-d", "--name", name, "busybox", "sleep", "900"])?.ok()
                    })
                };
                let started: Vec<_> = names.iter().map(|name| start(name)).collect();
                started
                    .into_iter()
                    .map(|one| one.join().expect("a thread of the suite does not panic"))
                    .collect()
            });
            outcomes.into_iter().collect::<Result<Vec<_>>>()?;
            let mut bases = Vec::new();
            for name in &names {
                let map = ground.vm.docker(&["exec", name, "cat", "/proc/self/uid_map"])?.ok()?;
                bases.push(map.split_whitespace().nth(1).context("a map has a base")?.to_owned());
            }
            bases.sort();
            bases.dedup();
            ensure!(bases.len() == AT_ONCE, "only {} ranges: {bases:?}", bases.len());
            let mut remove = vec!["rm", "-f"];
            remove.extend(names.iter().map(String::as_str));
            ground.vm.docker(&remove)?.ok()?;
            ground.nothing_is_left()
        }),
        row("a_runtime_that_is_killed_leaves_nothing", |ground| ground.survives_sniping("runc")),
        row("crun_that_is_killed_leaves_nothing", |ground| ground.survives_sniping("crun")),
        row("a_shim_that_is_killed_leaves_nothing", |ground| ground.survives_killing("containerd-shim")),
        row("containerd_that_is_killed_comes_back_and_leaves_nothing", |ground| {
            ground.survives_killing("containerd")
        }),
        row("an_engine_that_is_killed_comes_back_and_leaves_nothing", |ground| {
            ground.survives_killing("dockerd")
        }),
        row("a_gate_that_is_killed_comes_back", |ground| ground.survives_killing("eci-gate")),
        row("after_all_of_it_every_promise_still_holds", |ground| ground.vm.every_check_holds()),
    ]
}

impl Ground {
    fn prepare() -> Result<Self> {
        let vm = Vm::start("load", &image::out()?.join("test"))?;
        vm.import_busybox()?;
        let mut ground = Self { vm, before: Counts::new(), orders: AtomicU32::new(0) };
        // The first containers make what stays: the network's namespace, cgroups of the engine, open databases.
        for _ in 0..2 {
            ground.vm.sh(&["-v", "orders:/orders"], "true")?;
        }
        ground.before = ground.count()?;
        Ok(ground)
    }

    /// Gives an order, and waits for its answer: what follows the order's name.
    fn order(&self, kind: &str, target: &str) -> Result<String> {
        let number = self.orders.fetch_add(1, Ordering::Relaxed);
        let name = format!("{kind}-{number}{}{target}", if target.is_empty() { "" } else { "-" });
        self.engine_works(&format!("touch /orders/{name}"))?;
        self.answer(&name)
    }

    fn answer(&self, name: &str) -> Result<String> {
        let wanted = format!("observer: {name} ");
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Ok(logs) = self.vm.builder(&["logs", "--name", "load"])?.ok() {
                if let Some((_, said)) = logs.lines().rev().find_map(|line| line.split_once(&wanted)) {
                    return Ok(said.to_owned());
                }
            }
            thread::sleep(Duration::from_millis(300));
        }
        bail!("no answer to `{name}` within {PATIENCE:?}")
    }

    fn count(&self) -> Result<Counts> {
        let said = self.order("count", "")?;
        let pairs = said.split_whitespace().map(|pair| {
            let (key, value) = pair.split_once('=').context("counts are pairs")?;
            Ok((key.to_owned(), value.parse()?))
        });
        pairs.collect()
    }

    /// No count is above what was there before the first container.
    fn nothing_is_left(&self) -> Result<()> {
        let started = Instant::now();
        loop {
            let now = self.count()?;
            let left: Vec<_> = now.iter().filter(|(key, count)| *count > &self.allowed(key)).collect();
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
        if key.ends_with("_fds") { before + 5 } else { before }
    }

    /// Containers are started while processes of that name are killed; most of them fail, and none leaves anything.
    fn survives_sniping(&self, target: &str) -> Result<()> {
        let number = self.orders.fetch_add(1, Ordering::Relaxed);
        let name = format!("snipe-{number}-{target}");
        self.engine_works(&format!("touch /orders/{name}"))?;
        let started = Instant::now();
        let mut failed = 0;
        while started.elapsed() < Duration::from_secs(12) {
            failed += u32::from(self.vm.docker(&["run", "--rm", "busybox", "true"])?.code != 0);
        }
        let hits = self.answer(&name)?;
        ensure!(hits != "hits=0" && failed > 0, "nothing was hit: {hits}, {failed} containers failed");
        self.clear()
    }

    /// A container runs while every process of that name is killed.
    fn survives_killing(&self, target: &str) -> Result<()> {
        self.vm.docker(&["run", "-d", "--name", "bystander", "busybox", "sleep", "900"])?.ok()?;
        let hits = self.order("kill", target)?;
        ensure!(hits != "hits=0", "nothing was hit");
        self.clear()
    }

    /// Removes every container, once the engine is there again, and looks for what is left.
    fn clear(&self) -> Result<()> {
        self.engine_works("true")?;
        let listed = self.vm.docker(&["ps", "-aq"])?.ok()?;
        let ids: Vec<_> = listed.split_whitespace().collect();
        if !ids.is_empty() {
            self.vm.docker(&[&["rm", "-f"][..], &ids].concat())?.ok()?;
        }
        self.nothing_is_left()
    }

    /// Runs a script in a container, as soon as the engine does that.
    fn engine_works(&self, script: &str) -> Result<()> {
        let started = Instant::now();
        loop {
            match self.vm.sh(&["-v", "orders:/orders"], script) {
                Ok(_) => return Ok(()),
                Err(error) if started.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(Duration::from_millis(500)),
            }
        }
    }
}
