//! `enhancedContainerIsolation`, as Docker Desktop has it.
//!
//! It may be off: by the administrator (`value`), or by who starts the machine where the administrator leaves that to them (`locked`).

use eci_contract::choice::Switch;
use eci_contract::socket::{SocketPolicy, VERSION};

use super::json::At;
use super::{Problems, socket};

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
            "dockerSocketMount" => isolation.socket = socket::read_mount(&at, problems),
            _ => problems.add(at.problem(
                "it is no key of enhanced container isolation",
                "leave it out; those are value, locked and dockerSocketMount",
            )),
        }
    }
    isolation
}
