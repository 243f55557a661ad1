//! Clients of the engine, unmodified, each at its ordinary work: Docker's own command line with Compose and Buildx, its SDK for Python,
//! dockerode, Testcontainers for Python and Node, and the Dev Container CLI.

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use eci_tests::built::Built;
use eci_tests::command::{self, Outcome};
use eci_tests::registry::Registry;
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::Vm;
use eci_tests::{clients, image};
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long what is left of a run of tests may stay.
const REMOVED_WITHIN: Duration = Duration::from_secs(60);

/// A machine whose settings give the engine's socket to Ryuk's image, and a folder of the host that it has.
struct Used {
    vm: Vm,
    registry: Registry,
    folder: TempDir,
    _built: Built,
}

fn main() -> ExitCode {
    match boot() {
        Ok(used) => suite::run(used, rows(), |used| used.vm.last_words()),
        Err(error) => {
            eprintln!("the image for clients does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Used> {
    let (registry, folder) = (Registry::start()?, image::shareable_folder()?);
    let settings = json!({
        "configurationFileVersion": 2,
        "enhancedContainerIsolation": { "value": true, "locked": true, "dockerSocketMount": {
            "imageList": { "images": [format!("{}/testcontainers/ryuk:*", registry.name())], "allowDerivedImages": false },
            "commandList": { "type": "deny", "commands": ["push", "build", "exec"] }
        } },
        "eci": { "engine": { "insecure-registries": [registry.name()] } }
    });
    let built = Built::new(&settings.to_string(), &[])?;
    let mut vm = Vm::prepare("clients", &built.out())?;
    vm.boot(&["--share", &folder.path().to_string_lossy()])?;
    vm.import_busybox()?;
    Ok(Used { vm, registry, folder, _built: built })
}

fn rows() -> Vec<Row<Used>> {
    vec![
        row("docker_s_sdk_for_python_does_its_ordinary_work", |used| {
            used.python("sdk.py", &["busybox"])?.done()
        }),
        row("dockerode_does_its_ordinary_work", |used| {
            let image = used.pushed("pulled:1", "FROM busybox\n", &[])?;
            used.node("dockerode.mjs", &["busybox", &image])?.done()
        }),
        row("testcontainers_get_no_socket_for_an_image_that_is_not_on_the_list", |used| {
            // Made here, under the very name.
            let image = used.image("testcontainers/ryuk:1");
            used.build(
                &image,
                "FROM busybox\nCOPY ryuk /ryuk\nENTRYPOINT [\"/ryuk\"]\n",
                &[("ryuk", &image::ryuk()?)],
            )?;
            used.python("testcontainers_run.py", &["busybox"])?
                .0
                .refused(&["docker socket mount denied for container with image"])?;
            // Nobody was there to remove it; and the filter finds what there is.
            let label = ["network", "ls", "-q", "--filter", "label=org.testcontainers.session-id"];
            ensure!(used.vm.docker(&label)?.ok()?.lines().count() == 1, "no network with the label");
            used.vm.docker(&["network", "prune", "--force"])?.ok()?;
            used.vm.docker(&["rmi", &image])?.ok().map(drop)
        }),
        row("testcontainers_for_python_run_and_what_they_leave_is_removed", |used| {
            used.pushed(
                "testcontainers/ryuk:1",
                "FROM busybox\nCOPY ryuk /ryuk\nENTRYPOINT [\"/ryuk\"]\n",
                &[("ryuk", &image::ryuk()?)],
            )?;
            used.leaves_nothing(used.python("testcontainers_run.py", &["busybox"])?)
        }),
        row("testcontainers_for_node_run_and_what_they_leave_is_removed", |used| {
            used.leaves_nothing(used.node("testcontainers_run.mjs", &["busybox"])?)
        }),
        row("a_compose_project_goes_up_and_down", compose),
        row("buildx_builds_what_bake_describes", |used| {
            let bake = json!({
                "group": { "default": { "targets": ["one", "two"] } },
                "target": {
                    "one": { "dockerfile-inline": "FROM busybox\nRUN --mount=type=cache,target=/c --mount=type=secret,id=word cp /run/secrets/word /word",
                        "secret": ["id=word,env=WORD"], "tags": ["bake:one"], "output": ["type=docker"] },
                    "two": { "dockerfile-inline": "FROM bake:one AS base\nFROM scratch\nCOPY --from=base /word /users",
                        "output": [format!("type=local,dest={}", used.folder.path().join("local").display())] }
                }
            });
            let file = used.folder.path().join("bake.json");
            fs::write(&file, bake.to_string())?;
            let mut docker = used.vm.docker_command();
            docker
                .args(["buildx", "bake", "--progress=plain", "--file"])
                .arg(&file)
                .args(["one"])
                .env("WORD", "secret");
            command::run(&mut docker, &[])?.ok()?;
            ensure!(used.vm.docker(&["run", "--rm", "bake:one", "cat", "/word"])?.ok()? == "secret");
            let mut docker = used.vm.docker_command();
            docker.args(["buildx", "bake", "--progress=plain", "--file"]).arg(&file).args(["two"]);
            command::run(&mut docker, &[])?.ok()?;
            let users = fs::read_to_string(used.folder.path().join("local/users"))?;
            ensure!(users == "secret", "{users}");
            Ok(())
        }),
        row("a_dev_container_is_made_over_a_folder_of_the_host", devcontainer),
        row("every_promise_holds", |used| used.vm.every_check_holds()),
    ]
}

/// A program that was run to its end.
struct Ran(Outcome);

impl Ran {
    fn done(self) -> Result<()> {
        let text = self.0.ok()?;
        ensure!(text.lines().last() == Some("done"), "{text}");
        Ok(())
    }
}

impl Used {
    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.name())
    }

    /// Has an image built from a Dockerfile and files beside it.
    fn build(&self, image: &str, dockerfile: &str, files: &[(&str, &[u8])]) -> Result<()> {
        let mut archive = tar::Builder::new(Vec::new());
        for (name, bytes) in [("Dockerfile", dockerfile.as_bytes())].iter().chain(files) {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(bytes.len() as u64);
            archive.append_data(&mut header, name, *bytes)?;
        }
        self.vm
            .docker_with(&["build", "--quiet", "--tag", image, "-"], &archive.into_inner()?)?
            .ok()
            .map(drop)
    }

    /// The same, as it comes from the registry.
    fn pushed(&self, name: &str, dockerfile: &str, files: &[(&str, &[u8])]) -> Result<String> {
        let image = self.image(name);
        self.build(&image, dockerfile, files)?;
        for verb in ["push", "rmi", "pull"] {
            self.vm.docker(&[verb, &image])?.ok()?;
        }
        if !name.contains("ryuk") {
            self.vm.docker(&["rmi", &image])?.ok()?;
        }
        Ok(image)
    }

    fn python(&self, program: &str, arguments: &[&str]) -> Result<Ran> {
        let mut python = self.vm.client(clients::python()?.join("python3"));
        python.arg(clients::programs()?.join(program));
        self.run(python, arguments)
    }

    fn node(&self, program: &str, arguments: &[&str]) -> Result<Ran> {
        let mut node = self.vm.client(clients::python()?.join("node"));
        node.arg(clients::node()?.join(program));
        self.run(node, arguments)
    }

    /// As docs/settings.md says that Testcontainers are told where the engine is.
    fn run(&self, mut program: Command, arguments: &[&str]) -> Result<Ran> {
        program
            .args(arguments)
            .env("TESTCONTAINERS_DOCKER_SOCKET_OVERRIDE", "/var/run/docker.sock")
            // Where the suites run in a container themselves, they would look for the engine on its network.
            .env("TESTCONTAINERS_HOST_OVERRIDE", "localhost")
            .env("TC_HOST", "localhost")
            .env("TESTCONTAINERS_CONNECTION_MODE", "docker_host")
            .env("RYUK_CONTAINER_IMAGE", self.image("testcontainers/ryuk:1"))
            .env("HOME", self.folder.path());
        Ok(Ran(command::run(&mut program, &[])?))
    }

    /// What a run of tests printed is the id of a container that it left; all that it left goes by itself.
    fn leaves_nothing(&self, ran: Ran) -> Result<()> {
        let id = ran.0.ok()?;
        let id = id.lines().last().context("an id")?.to_owned();
        let left = || {
            self.vm
                .docker(&["ps", "-aq", "--no-trunc", "--filter", "label=org.testcontainers.session-id"])?
                .ok()
        };
        let networks = || {
            self.vm.docker(&["network", "ls", "-q", "--filter", "label=org.testcontainers.session-id"])?.ok()
        };
        let begun = Instant::now();
        loop {
            let (containers, networks) = (left()?, networks()?);
            // The one that removes is the last.
            if !containers.contains(&id) && networks.is_empty() && containers.lines().count() <= 1 {
                break;
            }
            ensure!(begun.elapsed() < REMOVED_WITHIN, "left: containers {containers}, networks {networks}");
            thread::sleep(Duration::from_millis(500));
        }
        for container in left()?.lines() {
            drop(self.vm.docker(&["rm", "-f", container])?);
        }
        Ok(())
    }
}

fn compose(used: &Used) -> Result<()> {
    let file = clients::programs()?.join("compose.yaml");
    let run = |arguments: &[&str]| {
        let mut docker = used.vm.docker_command();
        docker
            .args(["compose", "--ansi", "never", "--project-name", "composed", "--file"])
            .arg(&file)
            .args(arguments);
        docker.env("IMAGE", "busybox").env("WORD", "said");
        command::run(&mut docker, &[])?.ok()
    };
    run(&["up", "--detach", "--build", "--wait"])?;
    let mut logs = run(&["logs", "--no-log-prefix", "client"])?;
    for _ in 0..50 {
        if !logs.is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(200));
        logs = run(&["logs", "--no-log-prefix", "client"])?;
    }
    // Lines are cleared before they are written, on a terminal or not.
    let lines: Vec<_> = logs.lines().map(|line| line.trim_start_matches("\u{1b}[2K")).collect();
    ensure!(lines == ["built", "said"], "{logs:?}");
    let port = run(&["port", "server", "80"])?;
    let mut page = String::new();
    let begun = Instant::now();
    while page.is_empty() && begun.elapsed() < REMOVED_WITHIN {
        // Between two connections nobody listens there.
        let mut stream = TcpStream::connect(&port)?;
        stream.set_read_timeout(Some(REMOVED_WITHIN))?;
        drop(stream.read_to_string(&mut page));
    }
    ensure!(page.split_whitespace().eq(["built", "said"]), "{page:?}");
    let map = run(&["exec", "-T", "server", "cat", "/proc/self/uid_map"])?;
    ensure!(map.trim_end().ends_with("65536"), "{map}");
    let processes: Vec<Value> =
        run(&["ps", "--format", "json"])?.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    ensure!(processes.len() == 2 && processes.iter().all(|one| one["State"] == "running"), "{processes:?}");
    ensure!(run(&["run", "--rm", "--no-deps", "-T", "client", "echo", "once"])?.contains("once"));
    run(&["restart", "--timeout", "0", "client"])?;
    run(&["down", "--volumes", "--timeout", "0", "--rmi", "local"])?;
    let left =
        used.vm.docker(&["ps", "-aq", "--filter", "label=com.docker.compose.project=composed"])?.ok()?;
    let volumes = used
        .vm
        .docker(&["volume", "ls", "-q", "--filter", "label=com.docker.compose.project=composed"])?
        .ok()?;
    ensure!(left.is_empty() && volumes.is_empty(), "left: {left} {volumes}");
    Ok(())
}

fn devcontainer(used: &Used) -> Result<()> {
    let workspace = used.folder.path().join("project");
    let settings = workspace.join(".devcontainer");
    fs::create_dir_all(&settings)?;
    fs::copy(clients::programs()?.join("devcontainer.json"), settings.join("devcontainer.json"))?;
    fs::write(workspace.join("source"), "of the host\n")?;
    let run = |verb: &str, arguments: &[&str]| {
        let mut cli = used.vm.client(clients::python()?.join("node"));
        cli.arg(clients::node()?.join("node_modules/@devcontainers/cli/devcontainer.js"));
        cli.args([verb, "--workspace-folder"]).arg(&workspace).args(arguments);
        command::run(&mut cli, &[])
    };
    let up: Value = serde_json::from_str(run("up", &[])?.ok()?.lines().last().context("an answer")?)?;
    ensure!(up["outcome"] == "success", "{up}");
    let inside =
        "cat source && echo of the container >answer && cat /workspaces/made && tail -n 1 /proc/self/uid_map";
    let said = run("exec", &["sh", "-c", inside])?.ok()?;
    ensure!(said.starts_with("of the host\nmade\n") && said.trim_end().ends_with("65536"), "{said}");
    ensure!(fs::read_to_string(workspace.join("answer"))? == "of the container\n");
    let id = up["containerId"].as_str().context("an id")?;
    used.vm.docker(&["rm", "-f", id])?.ok().map(drop)
}
