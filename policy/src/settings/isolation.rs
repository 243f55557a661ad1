//! `enhancedContainerIsolation`, as Docker Desktop has it.
//!
//! It may be off: by the administrator (`value`), or by who starts the machine where the administrator leaves that to them (`locked`).

use eci_contract::choice::Switch;
use eci_contract::socket::{ListKind, SocketPolicy, VERSION};

use super::json::At;
use super::{Problem, Problems};
use crate::rules::engine_command;
use crate::rules::engine_socket::Images;

/// Isolation of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Isolation {
    /// What it is, where nobody chooses otherwise.
    pub value: Switch,
    /// Nobody below the administrator may choose otherwise.
    pub locked: bool,
    /// Which containers have the engine's socket, and what for. No image on its list: none.
    pub socket: SocketPolicy,
}

impl Default for Isolation {
    /// What a file without the key says.
    fn default() -> Self {
        let socket = SocketPolicy { version: VERSION, ..SocketPolicy::default() };
        Self { value: Switch::On, locked: true, socket }
    }
}

/// Somebody chose what is the administrator's to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("isolation of containers cannot be switched {wanted}: the administrator's settings lock it {locked}")]
pub struct Locked {
    /// What was chosen.
    pub wanted: Switch,
    /// What the settings say.
    pub locked: Switch,
}

impl Isolation {
    /// What it is in a machine whose user chose this, or nothing.
    ///
    /// # Errors
    /// The choice is not the user's, and differs from the settings.
    pub fn chosen(&self, choice: Option<Switch>) -> Result<Switch, Locked> {
        match choice {
            Some(wanted) if self.locked && wanted != self.value => Err(Locked { wanted, locked: self.value }),
            choice => Ok(choice.unwrap_or(self.value)),
        }
    }

    /// Who has the engine's socket, and what for. Without isolation every container that asks, and for everything: it could take it.
    #[must_use]
    pub fn socket(&self, isolation: Switch) -> SocketPolicy {
        match isolation {
            Switch::On => self.socket.clone(),
            Switch::Off => SocketPolicy {
                version: VERSION,
                images: vec!["*".to_owned()],
                allow_derived_images: true,
                ..SocketPolicy::default()
            },
        }
    }
}

/// Reads the key's value.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Isolation {
    let mut isolation = Isolation::default();
    let Some(entries) = problems.keep(at.table()) else { return isolation };
    for needed in ["value", "locked"] {
        if !entries.iter().any(|(key, _)| *key == needed) {
            problems.add(at.lacks(needed, "Docker's schema has it", "add it: true or false"));
        }
    }
    for (key, at) in entries {
        match key {
            "value" => isolation.value = problems.keep(at.switch()).map(Switch::from).unwrap_or_default(),
            "locked" => isolation.locked = problems.keep(at.switch()).unwrap_or(true),
            "dockerSocketMount" => isolation.socket = read_socket_mount(&at, problems),
            _ => problems.add(at.problem(
                "it is no key of enhanced container isolation",
                "leave it out; those are value, locked and dockerSocketMount",
            )),
        }
    }
    isolation
}

/// What a container that may have the socket may ask for, and who that is.
fn read_socket_mount(at: &At<'_>, problems: &mut Problems) -> SocketPolicy {
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
                        "type" => policy.commands.kind = problems.keep(read_kind(&at)).unwrap_or_default(),
                        "commands" => policy.commands.commands = read_names(&at, problems, read_command),
                        _ => problems.add(unknown(&at, "type and commands")),
                    }
                }
            }
            _ => problems.add(unknown(&at, "imageList and commandList")),
        }
    }
    policy
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
