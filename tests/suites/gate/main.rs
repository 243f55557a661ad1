//! The gate beside the engine itself: a long list of calls is made at the engine's own socket and at each door of the gate, and the answers are
//! the same but where a rule says otherwise. What could be read in two ways is refused, or is to the gate what it is to the engine.
//!
//! The test flavour's machine has four ways to one engine. The host's is `run`'s own. The other three sockets are in the VM: the workbench, root there,
//! joins each to a port with `eci-relay`, which moves bytes, in the network of a container that publishes the ports. The engine's own is
//! one, that of containers another. The third is what the gate serves in a distro of WSL 2: the image's very program, started a second time
//! beside a folder for a distro, which is all that tells it where it is. Nothing in an image leads to the first or the third.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use eci_tests::suite::{self, Row, row};
use serde_json::Value;

use self::calls::{Call, Expected};
use self::doors::{ALL, Door, Doors, OF_GATE, READ};
use self::exchange::{Answer, Step, Talk};
use self::hostile::Hostile;

mod calls;
mod doors;
mod exchange;
mod hostile;
mod same;
mod table;

/// Hostile requests that are under way at each door: a guest under TCG has two processors.
const AT_ONCE: usize = 3;

/// A body that is longer than any that the gate or the engine has use for.
const BIG: usize = 100 * 1024 * 1024;
/// One that is longer than any that is judged, and short enough to be taken in for politeness.
const LONG: usize = 4 * 1024 * 1024;
/// Clients that do not go on, at each door at the same time.
const SLOW: usize = 40;
/// What is answered at every door.
const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";

/// The machine, and what earlier answers gave, by door and name.
struct Twin {
    doors: Doors,
    kept: Mutex<HashMap<(&'static str, &'static str), String>>,
}

fn main() -> ExitCode {
    match Doors::open() {
        Ok(doors) => {
            suite::run(Twin { doors, kept: Mutex::default() }, rows(), |twin| twin.doors.last_words())
        }
        Err(error) => {
            eprintln!("the machine with four doors does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn rows() -> Vec<Row<Twin>> {
    vec![
        row("what_the_engine_says_of_itself_is_the_same", |twin| twin.same(&table::of_itself())),
        row("of_every_version_of_the_api_it_is_the_same", |twin| {
            twin.same(&table::versions(twin.highest()?))
        }),
        row("containers_live_and_end_the_same", |twin| twin.same(&table::containers())),
        row("images_and_builds_are_the_same", |twin| twin.same(&table::images())),
        row("networks_and_volumes_are_the_same", |twin| twin.same(&table::networks_and_volumes())),
        row("what_wants_a_swarm_or_a_plugin_is_the_same", |twin| twin.same(&table::clusters())),
        row("registries_are_asked_for_the_same", |twin| twin.same(&table::registries())),
        row("http_is_spoken_the_same", |twin| twin.same(&table::http())),
        row("an_end_that_is_said_in_two_ways_lets_nothing_through", |twin| {
            twin.withstands(AT_ONCE, &hostile::ends(), &[hostile::SMUGGLED])
        }),
        row("a_head_that_is_read_in_two_ways_lets_nothing_through", |twin| {
            twin.withstands(AT_ONCE, &hostile::heads(), &[hostile::SMUGGLED])
        }),
        row("a_path_that_is_written_in_another_way_lets_nothing_through", |twin| {
            twin.withstands(AT_ONCE, &hostile::paths(), &[hostile::SMUGGLED])
        }),
        row("a_body_that_is_read_in_two_ways_lets_nothing_through", |twin| {
            twin.withstands(1, &hostile::bodies(), &[hostile::SMUGGLED, hostile::DOUBLED, hostile::ID])
        }),
        row("a_body_of_100_mb_is_refused_unread_or_handed_on_whole", Twin::big),
        row("clients_that_do_not_go_on_hold_up_nobody", Twin::slow),
        row("a_folder_of_the_vm_is_looked_into_by_no_spelling", |twin| twin.looks(&hostile::looks())),
    ]
}

impl Twin {
    /// Makes the calls, each at all doors, and fails with every difference that is not expected.
    fn same(&self, calls: &[Call]) -> Result<()> {
        let mut wrong = Vec::new();
        for call in calls {
            let talks = if call.is_alone {
                ALL.iter().map(|door| self.make(call, *door)).collect::<Result<Vec<_>>>()?
            } else {
                self.doors.at_once(&ALL, |_, door| self.make(call, door))?
            };
            let told: Vec<_> =
                ALL.iter().zip(&talks).map(|(door, talk)| same::told(talk, &own(*door))).collect();
            for door in OF_GATE {
                let at = ALL.iter().position(|other| *other == door).unwrap_or_default();
                let (Some(engine), Some(gate), Some(talk)) = (told.first(), told.get(at), talks.get(at))
                else {
                    continue;
                };
                let expected = call
                    .expected
                    .iter()
                    .find(|(of, _)| *of == door)
                    .map_or(Expected::Same, |(_, expected)| *expected);
                let plainly = match expected {
                    Expected::As(plain) => Some(self.plainly(plain, call.is_head)?),
                    _ => None,
                };
                let engine = plainly.as_ref().unwrap_or(engine);
                if let Err(why) = is_as_expected(expected, engine, gate, talk) {
                    wrong.push(format!(
                        "{}\n  at {door:?}: {why}\n  the engine:\n    {}\n  the gate:\n    {}",
                        calls::shown(&call.steps),
                        engine.join("\n    "),
                        gate.join("\n    ")
                    ));
                }
            }
        }
        ensure!(
            wrong.is_empty(),
            "{} of {} calls at {} doors:\n{}",
            wrong.len(),
            calls.len(),
            OF_GATE.len(),
            wrong.join("\n\n")
        );
        Ok(())
    }

    /// Makes a call at a door.
    fn make(&self, call: &Call, door: Door) -> Result<Talk> {
        let steps: Vec<_> = call.steps.iter().map(|step| self.of_door(step, door)).collect();
        let again = || match call.is_first {
            true => self.doors.talk(door, &steps, call.is_head),
            false => self.doors.talk_on(door, &steps, call.is_head),
        };
        let mut talk = again()?;
        if let Some(words) = call.until {
            for _ in 0..100 {
                if talk.answers.iter().any(|answer| String::from_utf8_lossy(&answer.body).contains(words)) {
                    break;
                }
                thread::sleep(Duration::from_millis(200));
                talk = again()?;
            }
        }
        if let Some(name) = call.keeps {
            let answer =
                talk.answers.last().and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok());
            if let Some(id) = answer.as_ref().and_then(|answer| answer["Id"].as_str()) {
                self.kept
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert((door.letter(), name), id.to_owned());
            }
        }
        Ok(talk)
    }

    /// What the engine says to another spelling.
    fn plainly(&self, plain: &str, is_head: bool) -> Result<Vec<String>> {
        let call = Call { is_head, ..calls::raw(plain) };
        Ok(same::told(&self.make(&call, Door::Engine)?, &own(Door::Engine)))
    }

    /// A step with a door's own words in it.
    fn of_door(&self, step: &Step, door: Door) -> Step {
        let fill = |bytes: &[u8]| {
            // Archives are no text, and have none of it.
            let Ok(text) = std::str::from_utf8(bytes) else { return bytes.to_vec() };
            let mut text = text.replace('@', door.letter());
            for ((letter, name), value) in self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                if *letter == door.letter() {
                    text = text.replace(&format!("{{{name}}}"), value);
                }
            }
            text.into_bytes()
        };
        match step {
            Step::Send(bytes) => Step::Send(fill(bytes)),
            Step::Slowly(bytes, length, pause) => Step::Slowly(fill(bytes), *length, *pause),
            step => step.clone(),
        }
    }

    /// Makes hostile requests at all doors, by so many threads: each is refused by the gate, or is to it what it is to the engine, and none has an
    /// effect that the same request, plainly written, has not. At the engine's own door some have `effects`.
    fn withstands(&self, threads: usize, hostile: &[Hostile], effects: &[&str]) -> Result<()> {
        let part = hostile.len().div_ceil(threads);
        let differing = thread::scope(|scope| {
            let threads: Vec<_> =
                hostile.chunks(part).map(|part| scope.spawn(|| self.withstand(part))).collect();
            let differing = threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")));
            differing.collect::<Result<Vec<_>>>()
        });
        // Whatever came of it, rows after this one find nothing of it.
        self.nothing_was_made(Some(effects))?;
        // An answer is also of what else the engine does just then. What differs when it is asked for alone is a difference.
        let mut again = Vec::new();
        for (request, first) in differing?.concat() {
            let differing = self.withstand(std::slice::from_ref(request))?;
            again.extend(differing.into_iter().map(|(_, second)| format!("{first}\n  and again:\n{second}")));
            self.nothing_was_made(None)?;
        }
        ensure!(again.is_empty(), "{} of {} requests:\n{}", again.len(), hostile.len(), again.join("\n\n"));
        Ok(())
    }

    /// The same of a container with a folder of the VM, whose files no distro gets.
    fn looks(&self, hostile: &[Hostile]) -> Result<()> {
        let create = ["create", "--name", "bound", "-v", "/etc:/x", "busybox", "true"];
        self.doors.bench.vm.docker(&create)?.ok()?;
        self.withstands(AT_ONCE, hostile, &[])?;
        // Nor does the engine try, which AppArmor keeps from it here and nothing in a distro.
        for Hostile { steps, is_head } in hostile {
            let talk = self.doors.talk(Door::Distro, steps, *is_head)?;
            let tried = talk.answers.iter().find(|answer| {
                answer.header("x-docker-container-path-stat").is_some()
                    || String::from_utf8_lossy(&answer.body).contains("mount /etc")
            });
            ensure!(tried.is_none(), "{}: {tried:?}", calls::shown(steps));
        }
        Ok(())
    }

    /// What differs, and how.
    fn withstand<'h>(&self, hostile: &'h [Hostile]) -> Result<Vec<(&'h Hostile, String)>> {
        let mut wrong = Vec::new();
        for request in hostile {
            let Hostile { steps, is_head } = request;
            let talks = self.doors.at_once(&ALL, |doors, door| {
                let steps: Vec<_> = steps.iter().map(|step| self.of_door(step, door)).collect();
                doors.talk(door, &steps, *is_head)
            })?;
            let Some(engine) = talks.first() else { continue };
            for (door, talk) in ALL.iter().zip(&talks).filter(|(door, _)| READ.contains(door)) {
                let (engine_told, told) =
                    (same::told(engine, &own(Door::Engine)), same::told(talk, &own(*door)));
                let withstood = told == engine_told || hostile::is_refused(engine, talk);
                if !withstood {
                    let shown = calls::shown(steps);
                    let (engine, gate) = (engine_told.join("\n    "), told.join("\n    "));
                    let why = format!(
                        "{shown}\n  at {door:?}: it is neither refused nor the same\n  the engine:\n    {engine}\n  the gate:\n    {gate}"
                    );
                    wrong.push((request, why));
                }
            }
        }
        Ok(wrong)
    }

    /// Fails when the engine has what only hostile requests ask for, at a door that reads requests; or when at its own door it has not all of
    /// `effects`, or any where there are none. Takes away what was made.
    fn nothing_was_made(&self, effects: Option<&[&str]>) -> Result<()> {
        let vm = &self.doors.bench.vm;
        let volumes = vm.docker(&["volume", "ls", "-q", "--filter", "name=twin-"])?.ok()?;
        let containers = vm.docker(&["ps", "-a", "--format", "{{.Names}}"])?.ok()?;
        // All but what the suite is served by.
        let containers: Vec<_> =
            containers.lines().filter(|name| !["doors", "workbench", "bound"].contains(name)).collect();
        let volumes: Vec<_> = volumes.lines().collect();
        if !containers.is_empty() {
            vm.docker(&[&["rm", "-f", "-v"], &containers[..]].concat())?.ok()?;
        }
        if !volumes.is_empty() {
            vm.docker(&[&["volume", "rm", "-f"], &volumes[..]].concat())?.ok()?;
        }
        let made = [volumes, containers].concat();
        let is_there = |door: Door, effect: &str| {
            let name = match effect {
                hostile::ID => hostile::id(door.letter()),
                _ => format!("{}-{effect}", own(door)),
            };
            made.iter().any(|made| made.starts_with(&name))
        };
        for (door, effect) in READ
            .iter()
            .map(|door| (*door, hostile::SMUGGLED))
            .chain([hostile::DOUBLED, hostile::ID].map(|effect| (Door::Distro, effect)))
        {
            ensure!(!is_there(door, effect), "came through at {door:?}: {made:?}");
        }
        let Some(effects) = effects else { return Ok(()) };
        let of_engine: Vec<_> = [hostile::SMUGGLED, hostile::DOUBLED, hostile::ID]
            .into_iter()
            .filter(|effect| is_there(Door::Engine, effect))
            .collect();
        ensure!(
            of_engine == effects,
            "the engine itself makes {of_engine:?} of what it is asked for, and not {effects:?}: {made:?}"
        );
        Ok(())
    }

    /// Bodies of 100 MB: one that is read to be judged is refused before it is there, another is handed on whole.
    fn big(&self) -> Result<()> {
        // JSON up to its last byte, which tells that the engine has it all.
        let asked = |target: &str, length: usize| {
            let head = format!(
                "POST {target} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
            );
            let mut bytes = vec![b' '; length - 1];
            bytes.push(b'!');
            [Step::Send(head.into_bytes()), Step::Send(bytes), Step::Answers(1)]
        };
        let told = |door: Door, target: &str, length: usize| -> Result<Vec<(u16, Vec<u8>)>> {
            let answers = self.doors.talk(door, &asked(target, length), false)?.answers;
            Ok(answers.into_iter().map(|answer| (answer.status(), answer.body)).collect())
        };
        let [create, connect] = ["/containers/create", "/networks/bridge/connect"];
        let expected = [create, connect].map(|target| told(Door::Engine, target, 1000));
        for (target, expected) in [create, connect].into_iter().zip(expected) {
            let expected = expected?;
            let answers = self.doors.at_once(&OF_GATE, |_, door| told(door, target, BIG))?;
            for (door, answers) in OF_GATE.iter().zip(&answers) {
                let statuses: Vec<_> = answers.iter().map(|(status, _)| *status).collect();
                // Who is refused sends on for longer than it is listened to, and may hear no more than that.
                let is_refused = *answers != expected && [&[][..], &[400]].contains(&&statuses[..]);
                let fine = if target == create { is_refused } else { *answers == expected };
                ensure!(fine, "{door:?}: {target}: {answers:?}, and the engine itself: {expected:?}");
            }
        }
        // Of less than that it hears why.
        for (door, target, status) in [
            (Door::Host, create, 400),
            (Door::Distro, create, 400),
            (Door::Container, "/volumes/create", 403),
        ] {
            let answers = told(door, target, LONG)?;
            ensure!(answers.first().is_some_and(|(found, _)| *found == status), "{door:?}: {answers:?}");
        }
        self.nothing_was_made(Some(&[]))
    }

    /// Clients that have begun a head and do not go on: others are answered, and in the end they are, too.
    fn slow(&self) -> Result<()> {
        let (begun, rest) = PING.split_at(PING.len() / 2);
        self.doors.at_once(&ALL, |doors, door| {
            let slow: Result<Vec<_>> = (0..SLOW).map(|_| doors.begin(door, begun)).collect();
            let ping = [Step::Slowly(PING.to_vec(), 4, Duration::from_millis(100)), Step::Answers(1)];
            let answer = doors.talk(door, &ping, false)?.answers;
            ensure!(answer.first().map(Answer::status) == Some(200), "{door:?}: {answer:?}");
            for stream in slow? {
                let (talk, _) = exchange::talk(stream, &[Step::Send(rest.to_vec()), Step::Answers(1)], false);
                ensure!(talk.answers.first().map(Answer::status) == Some(200), "{door:?}: {talk:?}");
            }
            Ok(())
        })?;
        Ok(())
    }

    /// The highest version of the API that the engine has.
    fn highest(&self) -> Result<u32> {
        let steps = table::of_itself().remove(0).steps;
        let talk = self.doors.talk(Door::Engine, &steps, false)?;
        let version =
            talk.answers.first().and_then(|answer| answer.header("api-version")).unwrap_or_default();
        Ok(version.trim_start_matches("1.").parse()?)
    }
}

/// What is a door's own in names.
fn own(door: Door) -> String {
    format!("twin-{}", door.letter())
}

fn is_as_expected(expected: Expected, engine: &[String], gate: &[String], talk: &Talk) -> Result<(), String> {
    match expected {
        Expected::Same | Expected::As(_) if engine == gate => Ok(()),
        Expected::Same | Expected::As(_) => Err("it says something else".to_owned()),
        Expected::But(lines, instead, why) => {
            let mut engine: Vec<_> =
                engine.iter().map(|line| line.trim()).filter(|line| !lines.contains(line)).collect();
            let mut gate: Vec<_> =
                gate.iter().map(|line| line.trim()).filter(|line| !instead.contains(line)).collect();
            engine.sort_unstable();
            gate.sort_unstable();
            if engine == gate {
                Ok(())
            } else {
                Err(format!("it says something else than was expected: {why}"))
            }
        }
        Expected::Done(status, why) => match talk.answers.first().map(Answer::status) {
            Some(found) if found == status => Ok(()),
            _ => Err(format!("it does not answer {status}: {why}")),
        },
        Expected::Refused(status, words) => {
            let answer = talk.answers.iter().find(|answer| answer.status() == status);
            let text = answer.map(|answer| String::from_utf8_lossy(&answer.body).into_owned());
            match text {
                Some(text) if text.contains(words) => Ok(()),
                _ => Err(format!("it is not refused with {status}, `{words}`")),
            }
        }
    }
}
