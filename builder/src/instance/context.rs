//! Docker's context for an instance, made and removed through the `docker` program.

use super::home::{DEFAULT_NAME, Home};
use crate::tool::{self, Tool};
use crate::ui::Ui;

/// Why the context was not made or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A context of that name leads elsewhere.
    #[error("Docker has a context `{name}` that leads to `{host}`")]
    Taken {
        /// The context.
        name: String,
        /// Where it leads.
        host: String,
    },
    /// `docker` failed.
    #[error("cannot {operation} the Docker context `{name}`")]
    Docker {
        /// What was tried.
        operation: &'static str,
        /// The context.
        name: String,
        /// What `docker` said.
        source: tool::Error,
    },
}

/// What became of the context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it should be.
    Done,
    /// This host has no `docker` program.
    NoDocker,
}

/// The context's name: `eci`, or `eci-NAME` for an instance with a name of its own.
#[must_use]
pub fn name(home: &Home) -> String {
    if home.name() == DEFAULT_NAME { "eci".to_owned() } else { format!("eci-{}", home.name()) }
}

/// Makes the context; one that leads to this instance is left as it is.
///
/// # Errors
/// [`Error::Taken`] and [`Error::Docker`].
pub fn create(home: &Home, ui: &Ui) -> Result<Outcome, Error> {
    let (name, host) = (name(home), home.docker_host());
    match leads_to(&name, ui) {
        Lookup::NoDocker => return Ok(Outcome::NoDocker),
        Lookup::Found(found) if found == host => return Ok(Outcome::Done),
        Lookup::Found(host) => return Err(Error::Taken { name, host }),
        Lookup::Missing => {}
    }
    let docker =
        Tool::new("docker").args(["context", "create", &name, "--description", "ECI appliance", "--docker"]);
    let created = docker.arg(format!("host={host}")).run(ui);
    created.map(|()| Outcome::Done).map_err(|source| Error::Docker { operation: "make", name, source })
}

/// Removes the context if it leads to this instance.
///
/// # Errors
/// [`Error::Docker`].
pub fn remove(home: &Home, ui: &Ui) -> Result<Outcome, Error> {
    let name = name(home);
    match leads_to(&name, ui) {
        Lookup::NoDocker => Ok(Outcome::NoDocker),
        Lookup::Found(found) if found == home.docker_host() => {
            let removed = Tool::new("docker").args(["context", "rm", "--force", &name]).run(ui);
            removed.map(|()| Outcome::Done).map_err(|source| Error::Docker {
                operation: "remove",
                name,
                source,
            })
        }
        Lookup::Found(_) | Lookup::Missing => Ok(Outcome::Done),
    }
}

enum Lookup {
    NoDocker,
    Missing,
    Found(String),
}

/// `docker context inspect` fails when there is none of that name.
fn leads_to(name: &str, ui: &Ui) -> Lookup {
    let inspect = ["context", "inspect", name, "--format", "{{.Endpoints.docker.Host}}"];
    match Tool::new("docker").args(inspect).output(ui) {
        Ok(host) => Lookup::Found(String::from_utf8_lossy(&host).trim().to_owned()),
        Err(tool::Error::Missing { .. }) => Lookup::NoDocker,
        Err(_) => Lookup::Missing,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_default_instance_has_the_short_context() {
        let named = |instance| name(&Home::under(Path::new("/s"), instance).expect("legal"));
        assert_eq!((named("default").as_str(), named("ci").as_str()), ("eci", "eci-ci"));
    }
}
