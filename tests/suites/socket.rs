//! The engine's socket in containers: for images that an administrator names, known by what a registry says of them, and for the
//! commands that are not on the list.
//!
//! That no other container gets it, by whatever name, is suite `escape`; how requests are read, unit tests of `eci_gate::api`.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use eci_contract::audit::Denial;
use eci_tests::attempts;
use eci_tests::built::Built;
use eci_tests::command::Outcome;
use eci_tests::registry::Registry;
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::Vm;
use eci_tests::workbench::Workbench;
use serde_json::json;

/// As everybody writes it.
const SOCKET: &str = "/var/run/docker.sock:/var/run/docker.sock";

/// A machine whose settings name images of a registry on the host. It is of the test flavour, for one row that kills the gate.
struct Named {
    bench: Workbench,
    registry: Registry,
    _built: Built,
}

fn main() -> ExitCode {
    match boot() {
        Ok(named) => suite::run(named, rows(), |named| named.vm().last_words()),
        Err(error) => {
            eprintln!("the image with a list of images does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Named> {
    let registry = Registry::start()?;
    let settings = json!({
        "configurationFileVersion": 2,
        "enhancedContainerIsolation": { "value": true, "locked": true, "dockerSocketMount": {
            "imageList": {
                "images": [format!("{}/allowed:1", registry.name()), format!("{}/team/*:*", registry.name())],
                "allowDerivedImages": true
            },
            "commandList": { "type": "deny", "commands": ["push", "exec", "volume*"] }
        } },
        "eci": {
            "engine": { "insecure-registries": [registry.name()] },
            "dockerSocketMount": { "commandLists": [
                { "images": [format!("{}/team/*:*", registry.name())], "type": "allow", "commands": ["ps", "volume ls"] }
            ] }
        }
    });
    let built = Built::flavour(&settings.to_string())?;
    let bench = Workbench::over(Vm::start("socket", &built.out())?)?;
    Ok(Named { bench, registry, _built: built })
}

fn rows() -> Vec<Row<Named>> {
    vec![
        row("the_name_of_an_image_on_the_list_is_not_enough", |named| {
            let allowed = named.image("allowed:1");
            named.vm().docker(&["tag", "busybox", &allowed])?.ok()?;
            named.denied(&allowed)?;
            named.denied("busybox")
        }),
        row("an_image_that_came_from_its_registry_gets_the_socket", |named| {
            for name in ["allowed:1", "team/agent:7"] {
                let image = named.image(name);
                // Another image for each, so that one name does not speak for the other.
                let script = format!("echo {name} >/name");
                named.vm().docker(&["run", "--name", "made", "busybox", "sh", "-c", &script])?.ok()?;
                named.vm().docker(&["commit", "made", &image])?.ok()?;
                named.vm().docker(&["rm", "made"])?.ok()?;
                named.denied(&image)?;
                named.vm().docker(&["push", &image])?.ok()?;
                // The same image, without what its registry said of it.
                named.vm().docker(&["tag", &image, "kept"])?.ok()?;
                named.vm().docker(&["rmi", &image])?.ok()?;
                named.denied("kept")?;
                named.vm().docker(&["pull", &image])?.ok()?;
                named.expect(&image, &[], &[("engine:GET /v1.45/containers/json", "allowed")])?;
            }
            Ok(())
        }),
        row("commands_on_the_list_are_refused_however_they_are_asked_for", |named| {
            let push = format!("engine:POST /v1.45/images/{}/push", named.image("allowed"));
            named.expect(
                &named.image("allowed:1"),
                &[],
                &[
                    ("engine:GET /_ping", "allowed"),
                    ("engine:GET /version", "allowed"),
                    ("engine:GET /v1.45/info", "allowed"),
                    ("engine:GET /images/json", "allowed"),
                    (&push, "EPERM"),
                    ("engine:GET /v1.45/volumes", "EPERM"),
                    ("engine:GET /v1.45/volumes?dangling=1", "EPERM"),
                    ("engine:GET /%76olumes", "EPERM"),
                    ("engine:GET //volumes", "EPERM"),
                    ("engine:GET /v1.45/./volumes", "EPERM"),
                    ("engine:GET /v1.45/images/../volumes", "EPERM"),
                    ("engine:POST /v1.24/volumes/create {}", "EPERM"),
                    ("engine:POST /containers/x/exec {\"Cmd\":[\"true\"]}", "EPERM"),
                    ("engine:GET /debug/vars", "EPERM"),
                ],
            )
        }),
        row("an_image_with_commands_of_its_own_has_those_and_no_others", |named| {
            // Denied to all others, and allowed to this; and the other way about.
            let asked = |volumes, images| {
                [
                    ("engine:GET /v1.45/containers/json", "allowed"),
                    ("engine:GET /v1.45/volumes", volumes),
                    ("engine:GET /v1.45/images/json", images),
                    ("engine:POST /v1.45/volumes/create {}", "EPERM"),
                ]
            };
            named.expect(&named.image("team/agent:7"), &[], &asked("allowed", "EPERM"))?;
            named.expect(&named.image("allowed:1"), &[], &asked("EPERM", "allowed"))?;
            // Neither asks for the other's socket by its name.
            let theirs = "/run/eci/socket-0.sock:/var/run/docker.sock";
            let image = named.image("allowed:1");
            named.vm().docker(&["run", "--rm", "-v", theirs, &image, "true"])?.refused(&[
                "can't mount /run/eci/socket-0.sock because it's configured as a restricted host mount",
            ])?;
            // An image that is made from one has its commands.
            named
                .vm()
                .docker(&["run", "--name", "made", &named.image("team/agent:7"), "sh", "-c", "echo >/more"])?
                .ok()?;
            named.vm().docker(&["commit", "made", "derived-agent"])?.ok()?;
            named.vm().docker(&["rm", "made"])?.ok()?;
            named.expect("derived-agent", &[], &asked("allowed", "EPERM"))
        }),
        row("files_are_copied_out_of_and_into_a_container_that_has_the_socket", |named| {
            let (vm, image) = (named.vm(), named.image("allowed:1"));
            vm.docker(&["run", "-d", "--name", "agent", "-v", SOCKET, &image, "sleep", "600"])?.ok()?;
            let folder = tempfile::tempdir()?;
            let file = folder.path().join("file").to_string_lossy().into_owned();
            fs::write(&file, "mine")?;
            vm.docker(&["cp", &file, "agent:/file"])?.ok()?;
            vm.docker(&["cp", "agent:/file", &format!("{file}.back")])?.ok()?;
            ensure!(fs::read_to_string(format!("{file}.back"))? == "mine", "it is another one");
            vm.docker(&["rm", "-f", "agent"])?.ok().map(drop)
        }),
        row(
            "what_was_refused_to_a_container_is_in_the_audit_log_and_no_more_than_a_handful_a_minute",
            |named| {
                let (image, count) = (named.image("allowed:1"), 60);
                let script = format!(
                    "for n in $(seq {count}); do /probe 'engine:GET /volumes' >/dev/null; done; hostname"
                );
                let id =
                    named.vm().docker(&["run", "--rm", "-v", SOCKET, &image, "sh", "-c", &script])?.ok()?;
                let log = named.vm().builder(&["audit", "--name", "socket", "--json"])?.ok()?;
                let denials: Result<Vec<Denial>, _> = log.lines().map(serde_json::from_str).collect();
                let denials: Vec<_> =
                    denials?.into_iter().filter(|denial| denial.container.starts_with(id.trim())).collect();
                ensure!((10..=40).contains(&denials.len()), "{} lines of {count}:\n{log}", denials.len());
                let of_image = |denial: &Denial| denial.image.as_deref() == Some(&*image);
                let told = |denial: &Denial| {
                    denial.by == "eci-gate"
                        && denial.action == "GET /volumes"
                        && denial.message.contains("is blocked")
                };
                ensure!(denials.iter().all(|denial| told(denial) && of_image(denial)), "{denials:#?}");
                Ok(())
            },
        ),
        row("what_is_started_by_the_socket_is_isolated_as_everything_else", |named| {
            let image = named.image("allowed:1");
            let create = |name: &str, body: serde_json::Value| {
                format!("engine:POST /containers/create?name={name} {body}")
            };
            let inner = create(
                "inner",
                json!({ "Image": "busybox", "Cmd": ["cat", "/proc/self/uid_map"], "HostConfig": { "Privileged": true } }),
            );
            let start = |name: &str| format!("engine:POST /containers/{name}/start");
            named.expect(&image, &[], &[(&inner, "allowed"), (&start("inner"), "allowed")])?;
            named.vm().docker(&["wait", "inner"])?.ok()?;
            let map = named.vm().docker(&["logs", "inner"])?.ok()?;
            let map: Vec<_> = map.split_whitespace().collect();
            ensure!(map.len() == 3 && map[1] != "0" && map[2] == "65536", "{map:?}");
            // Neither a folder of the VM, nor its namespaces, nor the socket for an image that is not on the list.
            for (name, host_config) in [
                ("folder", json!({ "Binds": ["/etc:/x"] })),
                ("network", json!({ "NetworkMode": "host" })),
                ("socket", json!({ "Binds": [SOCKET] })),
                ("raw", json!({ "Binds": ["/run/eci/engine/docker.sock:/s"] })),
            ] {
                let body = json!({ "Image": "busybox", "Cmd": ["true"], "HostConfig": host_config });
                let outcomes = attempts::make_of(
                    named.vm(),
                    &image,
                    &["-v", SOCKET],
                    &[&create(name, body), &start(name)],
                )?;
                let started = outcomes.get(&start(name)).map(String::as_str);
                ensure!(started != Some("allowed"), "{name} was started");
                let told = named.vm().docker(&["start", name])?;
                told.refused(&["enhanced container isolation: "])?;
            }
            Ok(())
        }),
        row("the_socket_is_root_s_in_the_container_and_the_engine_s_own_is_nobody_s", |named| {
            let image = named.image("allowed:1");
            named.expect(&image, &["-u", "1000"], &[("engine:GET /_ping", "EACCES at connect")])?;
            named.expect(&image, &["--privileged"], &[("engine:GET /_ping", "allowed")])?;
            for source in
                ["/run/eci/engine/docker.sock", "/run/containerd/containerd.sock", "/run", "/run/eci"]
            {
                let bind = format!("{source}:/s");
                named
                    .vm()
                    .docker(&["run", "--rm", "-v", &bind, &image, "true"])?
                    .refused(&["enhanced container isolation: "])?;
            }
            let mount = "type=bind,src=/var/run/docker.sock,dst=/var/run/docker.sock,readonly";
            let verb = "engine:GET /_ping";
            let outcomes = attempts::make_of(named.vm(), &image, &["--mount", mount], &[verb])?;
            attempts::check(&outcomes, &[(verb, "allowed")])
        }),
        row(
            "an_image_that_was_made_from_one_on_the_list_gets_it_too_and_a_flattened_one_does_not",
            |named| {
                let image = named.image("allowed:1");
                named.vm().docker(&["run", "--name", "base", &image, "touch", "/own"])?.ok()?;
                named.vm().docker(&["commit", "base", "derived"])?.ok()?;
                named.expect("derived", &[], &[("engine:GET /_ping", "allowed")])?;
                let tar = named.vm().docker(&["export", "base"])?.into_bytes()?;
                named.vm().docker_with(&["import", "-", "flat"], &tar)?.ok()?;
                named.vm().docker(&["rm", "base"])?.ok()?;
                named.denied("flat")
            },
        ),
        row("another_image_that_takes_the_name_does_not_take_the_socket", |named| {
            let image = named.image("allowed:1");
            named.vm().docker(&["tag", "flat", &image])?.ok()?;
            named.denied(&image)?;
            named.vm().docker(&["pull", &image])?.ok()?;
            named.expect(&image, &[], &[("engine:GET /_ping", "allowed")])
        }),
        row("no_container_is_committed_while_it_runs_on", |named| {
            let image = named.image("allowed:1");
            named
                .vm()
                .docker(&["run", "-d", "--name", "long", "-v", SOCKET, &image, "sleep", "600"])?
                .ok()?;
            let expected = [
                ("engine:POST /v1.45/commit?container=long&repo=live&pause=0", "EPERM"),
                ("engine:POST /commit?pause=1&container=long&repo=live&%70ause=False", "EPERM"),
                ("engine:POST /v1.45/commit?container=long&repo=paused", "allowed"),
            ];
            let verbs = expected.map(|(verb, _)| verb);
            attempts::check(&attempts::make_in(named.vm(), "long", &[], &verbs)?, &expected)
        }),
        row("a_gate_that_is_killed_leaves_containers_their_socket", |named| {
            let script = "old=$(pidof eci-gate); kill -9 $old; until new=$(pidof eci-gate) && [ $new != $old ]; do sleep 0.1; done";
            named.bench.run(script, Duration::from_secs(60))?;
            let expected = [("engine:GET /_ping", "allowed"), ("engine:GET /v1.45/volumes", "EPERM")];
            let verbs = expected.map(|(verb, _)| verb);
            attempts::check(&attempts::make_in(named.vm(), "long", &[], &verbs)?, &expected)?;
            named.vm().docker(&["rm", "-f", "long"])?.ok().map(drop)
        }),
        row("status_tells_of_the_list_and_every_promise_holds", |named| {
            let told = named.vm().status()?["settings"]["socket"].clone();
            ensure!(told == json!([named.image("allowed:1"), named.image("team/*:*")]), "{told}");
            named.vm().every_check_holds()
        }),
    ]
}

impl Named {
    fn vm(&self) -> &Vm {
        &self.bench.vm
    }

    fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.name())
    }

    fn with_socket(&self, image: &str) -> Result<Outcome> {
        self.vm().docker(&["run", "--rm", "--pull", "never", "-v", SOCKET, image, "true"])
    }

    /// Refused in Docker's words.
    fn denied(&self, image: &str) -> Result<()> {
        let message = format!(
            "enhanced container isolation: docker socket mount denied for container with image \"{image}\"; image is not in the allowed \
             list; if you wish to allow it, configure the docker socket image list in the admin settings."
        );
        self.with_socket(image)?.refused(&[&message]).map(drop)
    }

    fn expect(&self, image: &str, flags: &[&str], expected: &[(&str, &str)]) -> Result<()> {
        let verbs: Vec<_> = expected.iter().map(|(verb, _)| *verb).collect();
        let flags = [flags, &["-v", SOCKET]].concat();
        attempts::check(&attempts::make_of(self.vm(), image, &flags, &verbs)?, expected)
    }
}
