//! Which containers have the engine's socket, and what for: Docker's `dockerSocketMount`, which has one list of commands for all, and
//! `eci.dockerSocketMount`, which has more of them.

use eci_contract::socket::{CommandList, ImageCommands, ListKind, MOST_LISTS, SocketPolicy, VERSION};

use super::json::At;
use super::{Problem, Problems};
use crate::rules::engine_command;
use crate::rules::engine_socket::Images;

/// What a container that may have the socket may ask for, and who that is.
pub(super) fn read_mount(at: &At<'_>, problems: &mut Problems) -> SocketPolicy {
    let mut policy = SocketPolicy { version: VERSION, ..SocketPolicy::default() };
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "imageList" => {
                for (key, at) in problems.keep(at.table()).unwrap_or_default() {
                    match key {
                        "images" => policy.images = read_names(&at, problems, read_image),
                        "allowDerivedImages" => {
                            policy.allow_derived_images = problems.keep(at.switch()).unwrap_or_default();
                        }
                        _ => problems.add(unknown(&at, "images and allowDerivedImages")),
                    }
                }
            }
            "commandList" => {
                for (key, at) in problems.keep(at.table()).unwrap_or_default() {
                    match key {
                        "type" | "commands" => read_commands(key, &at, &mut policy.commands, problems),
                        _ => problems.add(unknown(&at, "type and commands")),
                    }
                }
            }
            _ => problems.add(unknown(&at, "imageList and commandList")),
        }
    }
    policy
}

/// Lists of commands for some of those images, in place of the one for all.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Vec<ImageCommands> {
    let mut lists = Vec::new();
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "commandLists" => {
                let elements = problems.keep(at.list()).unwrap_or_default();
                if elements.len() > MOST_LISTS {
                    let reason = format!("{MOST_LISTS} lists are the most");
                    problems.add(at.problem(reason, "have images share one"));
                    continue;
                }
                lists = elements.iter().map(|at| read_list(at, problems)).collect();
            }
            _ => problems.add(at.problem(
                "it is no key of ours for the socket",
                "leave it out; the one key is commandLists, and who has the socket is in `enhancedContainerIsolation`",
            )),
        }
    }
    lists
}

fn read_list(at: &At<'_>, problems: &mut Problems) -> ImageCommands {
    let mut list = ImageCommands::default();
    let Some(entries) = problems.keep(at.table()) else { return list };
    for (needed, why, fix) in [
        ("images", "it says whose commands these are", "add a list of images"),
        ("type", "it says what it means to be on the list", "add deny or allow"),
        ("commands", "they are what the list is of", "add a list of commands"),
    ] {
        if !entries.iter().any(|(key, _)| *key == needed) {
            problems.add(at.lacks(needed, why, fix));
        }
    }
    for (key, at) in entries {
        match key {
            "images" => list.images = read_names(&at, problems, read_image),
            "type" | "commands" => read_commands(key, &at, &mut list.commands, problems),
            _ => problems.add(at.problem(
                "it is no key of a list of commands",
                "leave it out; those are images, type and commands",
            )),
        }
    }
    list
}

/// Either half of a list of commands.
fn read_commands(key: &str, at: &At<'_>, list: &mut CommandList, problems: &mut Problems) {
    if key == "type" {
        list.kind = problems.keep(read_kind(at)).unwrap_or_default();
    } else {
        list.commands = read_names(at, problems, read_command);
    }
}

fn read_names(
    at: &At<'_>,
    problems: &mut Problems,
    read: fn(&At<'_>) -> Result<String, Problem>,
) -> Vec<String> {
    let names = problems.keep(at.list()).unwrap_or_default();
    names.iter().filter_map(|at| problems.keep(read(at))).collect()
}

fn read_image(at: &At<'_>) -> Result<String, Problem> {
    let text = at.text()?;
    let fix = "write name:tag, name:*, name@sha256:…, repository/*:* or *";
    Images::parse(text).map_err(|reason| at.problem(reason, fix)).map(|_| text.to_owned())
}

fn read_command(at: &At<'_>) -> Result<String, Problem> {
    let text = at.text()?;
    if engine_command::is_known(text) {
        return Ok(text.to_owned());
    }
    Err(at.problem(
        "it is no command of `docker --help` that asks the engine for something of its own",
        "write one such as push, exec, container prune, or container*, image*, volume*, network*, build*, system*",
    ))
}

fn read_kind(at: &At<'_>) -> Result<ListKind, Problem> {
    match at.text()? {
        "deny" => Ok(ListKind::Deny),
        "allow" => Ok(ListKind::Allow),
        _ => Err(at.problem("it is no type of a command list", "write deny or allow")),
    }
}

fn unknown(at: &At<'_>, known: &str) -> Problem {
    at.problem("it is no key of Docker's schema", format!("leave it out; those are {known}"))
}
