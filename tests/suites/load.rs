//! Nothing is left behind: not after many containers, not after many at once, and not when what starts and supervises them
//! is killed at any moment. Scripts on the workbench of the test flavour count inside of the VM, and kill.

use std::collections::BTreeMap;
use std::io::Read;
use std::process::{ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use eci_tests::image;
use eci_tests::suite::{self, Row, row, thorough_row};
use eci_tests::vm::Vm;
use eci_tests::workbench::Workbench;

/// Containers one after the other, and at the same time: a leak of one each is above what is allowed.
const FEW: Many = Many { in_a_row: 8, at_once: 8 };
/// With `scripts/test --all`.
const ALL: Many = Many { in_a_row: 200, at_once: 50 };
/// Longest time that leftovers may take to go, under TCG: containerd's own clean-up of a killed shim has a timeout of ten
/// seconds.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often a container is started to take away what others left: more often it is left for good.
const STARTS: u32 = 4;
/// How long a sniper shoots: under TCG at some dozen processes.
const SNIPED: Duration = Duration::from_secs(30);
/// Processes that a sniper has to hit at least, so that they are not all hit at the same moment of their lives.
const HITS: u32 = 5;
/// Who starts containers while a sniper shoots.
const LANES: usize = 2;

/// Prints `key=count` of what containers could leave, once none runs.
const COUNT: &str = r#"
while pidof containerd-shim-runc-v2 runc crun >/dev/null; do sleep 0.2; done
sleep 1
entries() { ls "$1" 2>/dev/null | wc -l; }
descriptors() { for pid in $(pidof "$1"); do ls "/proc/$pid/fd" 2>/dev/null; done | wc -l; }
# Asking for the answer to this mounts a container for a moment.
mounts() { for _ in 1 2 3 4 5 6 7 8; do wc -l </proc/self/mountinfo; sleep 0.2; done | sort -n | head -1; }
processes() { for exe in /proc/[0-9]*/exe; do readlink "$exe"; done 2>/dev/null | wc -l; }
echo "processes=$(processes)"
echo "mounts=$(mounts)"
echo "cgroups=$(find /sys/fs/cgroup -type d | wc -l)"
echo "containers=$(entries /run/eci/containers)"
echo "figures=$(entries /run/eci/procfs)"
echo "ranges=$(ls /run/eci/ranges | grep -c '^[0-9]')"
echo "crun=$(find /run/docker/runtime-* /run/crun -mindepth 2 -maxdepth 2 2>/dev/null | wc -l)"
echo "shims=$(find /run/containerd/io.containerd.runtime.v2.task -mindepth 2 -maxdepth 2 2>/dev/null | wc -l)"
# Mounted ones: the engine takes the empty files away later, and that of a start that was killed at times never.
echo "networks=$(grep -c ' /run/docker/netns/' /proc/self/mountinfo)"
echo "listeners=$(descriptors eci-nodes)"
echo "gate_descriptors=$(descriptors eci-gate)"
echo "engine_descriptors=$(descriptors dockerd)"
echo "containerd_descriptors=$(descriptors containerd)"
"#;

/// Prints how many listeners PID 1 keeps.
const KEPT: &str =
    r#"for file in /proc/1/fd/*; do readlink "$file" 2>/dev/null; done | grep -c 'seccomp notify'"#;

/// Kills every process that the kernel knows by the name `$target`, and for `$seconds` those that come after it, with pauses of
/// random length, so that each is hit at another moment of its life; prints how many.
const KILL: &str = r#"
hits=0
end=$(($(date +%s) + seconds))
while :; do
    for comm in /proc/[0-9]*/comm; do
        read -r name 2>/dev/null <"$comm" || continue
        [ "$name" = "$target" ] || continue
        pid=${comm#/proc/}
        kill -9 "${pid%/comm}" 2>/dev/null && hits=$((hits + 1))
    done
    [ "$(date +%s)" -lt "$end" ] || break
    usleep $((RANDOM % 100 * 3000))
done
echo "$hits"
"#;

/// Kills `eci-nodes` at a moment at which it works on an answer, `$times` times: its cgroup is stopped until there is a child of
/// it. Prints how often it was stopped.
const KILL_WORKING: &str = r#"
nodes=/sys/fs/cgroup/eci/nodes
stops=0
while [ "$times" -gt 0 ]; do
    echo 1 >$nodes/cgroup.freeze
    until grep -q 'frozen 1' $nodes/cgroup.events; do :; done
    stops=$((stops + 1))
    if [ "$(wc -l <$nodes/cgroup.procs)" -gt 1 ]; then
        for pid in $(cat $nodes/cgroup.procs); do
            grep -qs '^PPid:.1$' "/proc/$pid/status" && kill -9 "$pid" 2>/dev/null && times=$((times - 1))
        done
    fi
    echo 0 >$nodes/cgroup.freeze
    usleep 20000
    until pidof eci-nodes >/dev/null; do usleep 20000; done
done
echo "$stops"
"#;

/// Kills the program `$service` as soon as it is there, so often that PID 1 waits its longest before it starts it again.
const KILL_AGAIN: &str = r#"
for _ in 1 2 3 4 5 6 7; do
    until kill -9 $(pidof "$service") 2>/dev/null; do usleep 20000; done
done
"#;

/// Kills three engines, each as soon as it is there: one that was ready, and two that never get so.
const KILL_ENGINES: &str = r#"
old=
for _ in 1 2 3; do
    until pid=$(pidof dockerd) && [ "$pid" != "$old" ]; do usleep 20000; done
    kill -9 $pid
    old=$pid
done
"#;

/// Has PID 1 keep 20 descriptors, as a process of root's that is no service; prints how many it has before and after.
const INTRUDE: &str = r#"
count() { ls /proc/1/fd 2>/dev/null | wc -l; }
before=$(count)
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    /var/lib/docker/volumes/workbench/_data/probe store-descriptor:/run/eci/notify.sock | grep -q allowed || exit 1
done
sleep 1
echo "$before $(count)"
"#;

/// Has PID 1 keep a thousand listeners more, kills `eci-nodes`, and waits until that has found out that they are none; prints how
/// many descriptors PID 1 has before, with them, and after.
const CROWD: &str = r#"
count() { ls /proc/1/fd 2>/dev/null | wc -l; }
before=$(count)
/var/lib/docker/volumes/workbench/_data/probe hold-listeners:/run/eci/nodes.sock >/dev/null &
probe=$!
until [ "$(count)" -ge $((before + 1000)) ]; do sleep 0.2; done
crowded=$(count)
kill -9 $(pidof eci-nodes)
until [ "$(count)" -le $((before + 5)) ]; do sleep 0.2; done
kill $probe
echo "$before $crowded $(count)"
"#;

/// What the next start of a container takes away, should nobody else.
const SWEPT: [&str; 5] = ["cgroups", "containers", "crun", "figures", "ranges"];

/// What is counted, by name.
type Counts = BTreeMap<String, u64>;

/// How many containers.
struct Many {
    in_a_row: usize,
    at_once: usize,
}

impl Many {
    fn wanted() -> Self {
        if suite::everything() { ALL } else { FEW }
    }
}

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
        row("containers_in_a_row_leave_nothing", |ground| {
            for _ in 0..Many::wanted().in_a_row {
                ground.bench.vm.sh(&[], "true")?;
            }
            ground.nothing_is_left()
        }),
        row("containers_at_once_have_a_range_each_and_leave_nothing", |ground| {
            let count = Many::wanted().at_once;
            crowd(ground, count, count)
        }),
        thorough_row("a_thousand_containers_at_once_have_a_range_each_and_leave_nothing", |_| {
            let mut vm = Vm::prepare("thousand", &image::out()?.join("test"))?.with_memory("16G");
            vm.boot(&[])?;
            crowd(&Ground::over(Workbench::over(vm)?)?, 1000, 8)
        }),
        thorough_row("a_runtime_that_is_killed_at_any_moment_leaves_nothing", |ground| {
            ground.survives_sniping("runc")
        }),
        thorough_row("crun_that_is_killed_at_any_moment_leaves_nothing", |ground| {
            ground.survives_sniping("crun")
        }),
        row("a_shim_that_is_killed_leaves_nothing", |ground| ground.survives_killing("containerd-shim")),
        thorough_row("containerd_that_is_killed_comes_back_and_leaves_nothing", |ground| {
            ground.survives_killing("containerd")
        }),
        row("an_engine_that_is_killed_comes_back_and_leaves_nothing", |ground| {
            ground.survives_killing("dockerd")
        }),
        row("an_engine_that_does_not_get_ready_is_started_without_containers_that_would_be", |ground| {
            let vm = &ground.bench.vm;
            let always = ["run", "-d", "--restart", "always", "--name", "again", "busybox", "sleep", "36000"];
            vm.docker(&always)?.ok()?;
            ground.bench.run(KILL_ENGINES, PATIENCE)?;
            ground.engine_is_back()?;
            let state = vm.docker(&["inspect", "-f", "{{.State.Status}}", "again"])?.ok()?;
            ensure!(state == "exited", "the container is {state}");
            let logs = vm.builder(&["logs", "--name", "load"])?.ok()?;
            ensure!(logs.contains("service engine: started with --restart=false"), "no line says so");
            vm.docker(&["start", "again"])?.ok()?;
            ground.clear()
        }),
        row("a_maker_of_nodes_that_is_killed_comes_back_and_serves_old_and_new_containers", |ground| {
            ground.serves_on_after(&killer("eci-nodes", Duration::ZERO))?;
            ground.bench.vm.sh(&[], "mknod /null c 1 3 && echo x >/null").map(drop)
        }),
        thorough_row(
            "a_call_that_is_worked_on_while_the_maker_of_nodes_is_killed_is_answered",
            answers_what_it_worked_on,
        ),
        thorough_row("a_container_starts_while_there_is_no_maker_of_nodes", |ground| {
            ground.bench.run(&format!("service=eci-nodes\n{KILL_AGAIN}"), PATIENCE)?;
            let state = ground.state_of("nodes")?;
            ensure!(state == "backing-off", "it is {state}: nothing is shown");
            ground.bench.vm.sh(&[], "mknod /null c 1 3 && echo x >/null")?;
            ground.clear()
        }),
        thorough_row("a_maker_of_nodes_that_is_killed_has_a_thousand_listeners", |ground| {
            ground.bring_probe()?;
            ground.serves_on_after(CROWD)
        }),
        row("nobody_but_a_service_leaves_descriptors_with_pid_1", |ground| {
            ground.bring_probe()?;
            let counts = ground.bench.run(INTRUDE, PATIENCE)?;
            let (before, after) = counts.trim().split_once(' ').context("two counts")?;
            let (before, after): (u32, u32) = (before.parse()?, after.parse()?);
            ensure!(after <= before + 5, "PID 1 had {before} descriptors and has {after}");
            Ok(())
        }),
        thorough_row("containers_read_on_while_what_keeps_their_figures_is_killed", read_on),
        row("a_gate_that_is_killed_comes_back", |ground| ground.survives_killing("eci-gate")),
        row("clients_that_are_killed_while_they_are_answered_leave_nothing", clients_are_killed),
        row("after_all_of_it_every_promise_still_holds", |ground| ground.bench.vm.every_check_holds()),
    ]
}

/// Starts so many containers, in so many threads; they run at once, each with ids of its own.
fn crowd(ground: &Ground, count: usize, threads: usize) -> Result<()> {
    let vm = &ground.bench.vm;
    let names: Vec<_> = (0..count).map(|number| format!("crowd-{number}")).collect();
    thread::scope(|scope| {
        let start =
            |name: &String| vm.docker(&["run", "-d", "--name", name, "busybox", "sleep", "36000"])?.ok();
        let each = names.chunks(count.div_ceil(threads));
        let started: Vec<_> = each
            .map(|names| scope.spawn(move || names.iter().try_for_each(|name| start(name).map(drop))))
            .collect();
        started.into_iter().try_for_each(|one| one.join().expect("no thread panics"))
    })?;
    let mut bases = Vec::new();
    for names in names.chunks(100) {
        let begin = ["inspect", "-f", "/proc/{{.State.Pid}}/uid_map"];
        let inspect = begin.into_iter().chain(names.iter().map(String::as_str)).collect::<Vec<_>>();
        let maps = vm.docker(&inspect)?.ok()?.replace('\n', " ");
        let maps = ground.bench.run(&format!("cat {maps}"), PATIENCE)?;
        for map in maps.lines() {
            bases.push(map.split_whitespace().nth(1).context("a map has a base")?.to_owned());
        }
    }
    ensure!(bases.len() == count, "{} of {count} run", bases.len());
    bases.sort();
    bases.dedup();
    ensure!(bases.len() == count, "only {} ranges", bases.len());
    ground.clear()
}

/// Far more than any buffer on the way holds is still to come when the client goes. More clients than the descriptors that
/// [`Ground::allowed`] lets come and go.
fn clients_are_killed(ground: &Ground) -> Result<()> {
    let vm = &ground.bench.vm;
    let script = "head -c 4000000 /dev/zero | tr '\\0' x";
    vm.docker(&["run", "--name", "told", "busybox", "sh", "-c", script])?.ok()?;
    for _ in 0..12 {
        let mut client = vm.docker_command();
        let mut client =
            client.args(["logs", "told"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let begun = client.stdout.as_mut().context("a pipe")?.read_exact(&mut [0; 1024]);
        client.kill()?;
        client.wait()?;
        begun.context("nothing is told")?;
    }
    ground.clear()
}

/// While nobody keeps them, figures are those of the last time; then they follow the limit again.
fn read_on(ground: &Ground) -> Result<()> {
    let vm = &ground.bench.vm;
    vm.docker(&[
        "run",
        "-d",
        "--name",
        "reader",
        "-m",
        "64m",
        "--memory-swap",
        "64m",
        "busybox",
        "sleep",
        "900",
    ])?
    .ok()?;
    let total = || vm.docker(&["exec", "reader", "grep", "MemTotal", "/proc/meminfo"])?.ok();
    ensure!(total()?.ends_with(" 65536 kB"), "{}", total()?);
    ground.bench.run(&format!("service=eci-procfs\n{KILL_AGAIN}"), PATIENCE)?;
    let state = ground.state_of("procfs")?;
    ensure!(state == "backing-off", "it is {state}: nothing is shown");
    let meanwhile = total()?;
    ensure!(meanwhile.ends_with(" 65536 kB"), "{meanwhile}");
    vm.docker(&["update", "-m", "96m", "--memory-swap", "96m", "reader"])?.ok()?;
    let deadline = Instant::now() + PATIENCE;
    while !total()?.ends_with(" 98304 kB") {
        ensure!(Instant::now() < deadline, "nobody keeps the figures any more: {}", total()?);
        thread::sleep(Duration::from_secs(1));
    }
    ground.clear()
}

/// Calls that come one after the other are all answered while the one who answers is killed between question and answer: it
/// is asked again, and when the node was made already, says that it is there.
fn answers_what_it_worked_on(ground: &Ground) -> Result<()> {
    const CALLS: &str = r#"
        number=0
        while [ ! -e /stop ]; do
            mknod /node c 1 3 2>>/errors
            rm -f /node
            number=$((number + 1))
        done
        cat /errors
        mknod /last c 1 3 && echo x >/last && echo "last after $number"
    "#;
    let vm = &ground.bench.vm;
    vm.docker(&["run", "-d", "--name", "caller", "busybox", "sh", "-c", CALLS])?.ok()?;
    let stops = ground.bench.run(&format!("times=3\n{KILL_WORKING}"), PATIENCE)?;
    let said = ground.end_of("caller", "touch /stop")?;
    eprintln!("stopped {} times for 3 kills; the caller: {said}", stops.trim());
    let (errors, last) = said.rsplit_once('\n').unwrap_or(("", &said));
    ensure!(last.starts_with("last after "), "{said}");
    ensure!(errors.lines().all(|line| line.ends_with("File exists")), "{said}");
    ensure!(errors.lines().count() <= 3, "{said}");
    ground.clear()
}

impl Ground {
    fn prepare() -> Result<Self> {
        Self::over(Workbench::start("load")?)
    }

    fn over(bench: Workbench) -> Result<Self> {
        // The first containers make what stays: the network's namespace, cgroups of the engine, open databases.
        for _ in 0..2 {
            bench.vm.sh(&[], "true")?;
        }
        let mut ground = Self { bench, before: Counts::new() };
        ground.before = ground.count()?;
        Ok(ground)
    }

    fn count(&self) -> Result<Counts> {
        let counted = self.bench.run(&format!("{COUNT}echo \"kept_listeners=$({KEPT})\""), PATIENCE)?;
        let pairs = counted.lines().map(|line| {
            let (key, value) = line.split_once('=').with_context(|| format!("`{line}` is no count"))?;
            Ok((key.to_owned(), value.parse()?))
        });
        pairs.collect()
    }

    /// No count is above what was there before the first container.
    fn nothing_is_left(&self) -> Result<()> {
        let mut started = Instant::now();
        let mut starts = 0;
        loop {
            let now = self.count()?;
            let left: Vec<_> = now.iter().filter(|(key, count)| **count > self.allowed(key)).collect();
            if left.is_empty() {
                return Ok(());
            }
            if started.elapsed() > PATIENCE {
                bail!("left behind: {left:?}; before: {:?}", self.before);
            }
            if starts < STARTS && left.iter().any(|(key, _)| SWEPT.contains(&key.as_str())) {
                self.bench.vm.sh(&[], "true")?;
                starts += 1;
                started = Instant::now();
            }
            thread::sleep(Duration::from_secs(2));
        }
    }

    /// Descriptors of gate, engine and containerd come and go with idle connections: a leak is one a container, not five in all.
    fn allowed(&self, key: &str) -> u64 {
        let before = self.before.get(key).copied().unwrap_or_default();
        if key.ends_with("_descriptors") { before + 5 } else { before }
    }

    /// Containers are started while processes of that name are killed: some of them fail, none leaves anything, and one that
    /// was there before runs on.
    fn survives_sniping(&self, target: &str) -> Result<()> {
        let vm = &self.bench.vm;
        vm.docker(&["run", "-d", "--name", "bystander", "busybox", "sleep", "900"])?.ok()?;
        let order = self.bench.order(&killer(target, SNIPED), PATIENCE)?;
        let started = Instant::now();
        let lane = || {
            let mut outcomes = (0, 0);
            while started.elapsed() < SNIPED {
                match vm.docker(&["run", "--rm", "busybox", "true"])?.code {
                    0 => outcomes.0 += 1,
                    _ => outcomes.1 += 1,
                }
            }
            Ok(outcomes)
        };
        let outcomes: Result<Vec<(u32, u32)>> = thread::scope(|scope| {
            let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
            lanes.into_iter().map(|lane| lane.join().expect("no thread panics")).collect()
        });
        let outcomes = outcomes?;
        let (good, failed) = outcomes.iter().fold((0, 0), |sum, lane| (sum.0 + lane.0, sum.1 + lane.1));
        let hits: u32 = self.bench.answer(&order, PATIENCE)?.text.trim().parse()?;
        eprintln!("{target}: {hits} killed, {failed} containers failed, {good} did not");
        ensure!(
            hits >= HITS && failed > 0,
            "{target}: {hits} killed, {failed} containers failed, {good} did not"
        );
        vm.docker(&["exec", "bystander", "true"])?
            .ok()
            .context("another container did not live through it")?;
        self.remove_containers()?;
        // containerd keeps the shim of a container whose `delete` was killed, whatever the runtime.
        let shims = self.bench.run(&killer("containerd-shim", Duration::ZERO), PATIENCE)?;
        eprintln!("{} shims of removed containers were left", shims.trim());
        self.nothing_is_left()
    }

    /// A container runs while every process of that name is killed.
    fn survives_killing(&self, target: &str) -> Result<()> {
        self.bench.vm.docker(&["run", "-d", "--name", "bystander", "busybox", "sleep", "900"])?.ok()?;
        let hits = self.bench.run(&killer(target, Duration::ZERO), PATIENCE)?;
        ensure!(hits.trim() != "0", "no {target} was there to kill");
        self.clear()
    }

    /// A container, and a process that was started in it by `exec`, are served after `kill` as before.
    fn serves_on_after(&self, kill: &str) -> Result<()> {
        const FIRST: &str = r#"
            exec 2>&1
            until [ -e /go ]; do sleep 0.1; done
            mknod /made c 1 3 && echo x >/made && echo made
            mknod /memory c 1 1
            ls /memory
            until [ -e /made-by-exec ]; do sleep 0.1; done
        "#;
        const SECOND: &str = "until [ -e /go ]; do sleep 0.1; done; mknod /made-by-exec c 1 5";
        let vm = &self.bench.vm;
        vm.docker(&["run", "-d", "--name", "served", "busybox", "sh", "-c", FIRST])?.ok()?;
        vm.docker(&["exec", "-d", "served", "sh", "-c", SECOND])?.ok()?;
        let kept = self.bench.run(KEPT, PATIENCE)?;
        ensure!(kept.trim() == "2", "PID 1 keeps {kept} listeners, not 2");
        let killed = self.bench.run(kill, PATIENCE)?;
        ensure!(killed.trim() != "0", "nothing was there to kill");
        eprintln!("the script said {}", killed.trim());
        let said = self.end_of("served", "touch /go")?;
        let expected =
            "made\nmknod: /memory: Operation not permitted\nls: /memory: No such file or directory";
        ensure!(said == expected, "{said}");
        self.clear()
    }

    /// What a container has said when it has ended, after a script in it.
    fn end_of(&self, name: &str, script: &str) -> Result<String> {
        let vm = &self.bench.vm;
        vm.docker(&["exec", name, "sh", "-c", script])?.ok()?;
        let started = Instant::now();
        while vm.docker(&["inspect", "-f", "{{.State.Running}}", name])?.ok()? == "true" {
            ensure!(started.elapsed() < PATIENCE, "the container does not end");
            thread::sleep(Duration::from_millis(500));
        }
        vm.docker(&["logs", name])?.ok()
    }

    /// Puts the program of attacks where scripts of the workbench find it.
    fn bring_probe(&self) -> Result<()> {
        // Renamed into place: the one that was brought before may still be running.
        let bring = "cp /probe /bench/new && mv /bench/new /bench/probe";
        self.bench.vm.sh(&["-v", "workbench:/bench"], bring).map(drop)
    }

    fn state_of(&self, name: &str) -> Result<String> {
        let status = self.bench.vm.status()?;
        let mut services = status["services"].as_array().into_iter().flatten();
        let service = services.find(|service| service["name"] == name).context("there is no such service")?;
        Ok(service["state"].as_str().unwrap_or_default().to_owned())
    }

    /// Removes every container that has started, once the engine is there again, and looks for what is left.
    fn clear(&self) -> Result<()> {
        self.remove_containers()?;
        self.nothing_is_left()
    }

    fn engine_is_back(&self) -> Result<()> {
        let started = Instant::now();
        while let Err(error) = self.bench.vm.sh(&[], "true") {
            ensure!(started.elapsed() < PATIENCE, "the engine does not come back: {error:?}");
        }
        Ok(())
    }

    fn remove_containers(&self) -> Result<()> {
        let vm = &self.bench.vm;
        self.engine_is_back()?;
        let filter = ["--filter", "ancestor=busybox", "--format", "{{.Names}}"];
        let listed = vm.docker(&[&["ps", "-a"][..], &filter].concat())?.ok()?;
        let names: Vec<_> = listed.lines().filter(|name| *name != "workbench").collect();
        if !names.is_empty() {
            vm.docker(&[&["rm", "-f"][..], &names].concat())?.ok()?;
        }
        Ok(())
    }
}

fn killer(target: &str, time: Duration) -> String {
    format!("target={target} seconds={}\n{KILL}", time.as_secs())
}
