//! What the page draws, as one document. Each part that is not known says why.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use eci_contract::errors::chain;
use eci_contract::manifest::Architecture;
use eci_contract::ranges::IdRange;
use eci_contract::status::Status;
use serde::Serialize;
use serde_json::Value;

use super::denials::Log;
use crate::instance::client;
use crate::instance::engine::{self, Usage};
use crate::instance::home::{Home, Record};

/// Version of the document.
pub const VERSION: u32 = 1;
/// Longest text of a VM in characters; messages of the audit log have as many.
const MOST_CHARS: usize = 2000;
/// Most rows of a table of the status. There are some thirty steps, thirty promises and ten services.
const MOST_ROWS: usize = 200;
/// Most containers that are shown.
const MOST_CONTAINERS: usize = 200;
/// Most containers whose figures are asked for: each is a question to the engine.
const MOST_MEASURED: usize = 50;
/// How long the engine may take for all that it is asked.
const PATIENCE: Duration = Duration::from_secs(10);

/// Something that was asked for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part<T> {
    /// It is known.
    Found(T),
    /// It is not, and why.
    Missing(String),
}

impl<T, E: std::error::Error> From<Result<T, E>> for Part<T> {
    fn from(result: Result<T, E>) -> Self {
        result.map_or_else(|error| Self::missing(chain(&error)), Self::Found)
    }
}

impl<T> Part<T> {
    /// Not known. The reason may have words of the VM.
    fn missing(mut why: String) -> Self {
        cut(&mut why);
        Self::Missing(why)
    }
}

/// All that the page draws.
#[derive(Debug, Serialize)]
pub struct Document {
    version: u32,
    /// When, in milliseconds on a clock that only tells what passed.
    gathered_ms: u64,
    /// The instance.
    name: String,
    machine: Part<Machine>,
    status: Part<Status>,
    containers: Part<Containers>,
    denials: Value,
}

/// What the instance was started with.
#[derive(Debug, Serialize)]
struct Machine {
    architecture: Architecture,
    accelerator: String,
    memory_mib: u64,
    processors: u32,
}

#[derive(Debug, Serialize)]
struct Containers {
    running: Vec<Container>,
    /// How many more run.
    left_out: usize,
    /// Why no container has its id range here.
    ranges_missing: Option<String>,
}

#[derive(Debug, Serialize)]
struct Container {
    id: String,
    name: String,
    image: String,
    command: String,
    state: String,
    /// None when it is not known.
    ids: Option<Ids>,
    /// None when the engine did not tell.
    usage: Option<Used>,
}

/// Ids of the VM that are this container's, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Ids {
    first: u32,
    last: u32,
}

#[derive(Debug, Serialize)]
struct Used {
    memory_bytes: u64,
    cpu_ns: u64,
}

/// Where documents of one instance come from.
pub struct Source {
    home: Home,
    log: Log,
    started: Instant,
    last: Mutex<Option<Gathered>>,
}

/// A document, and when gathering it began.
struct Gathered {
    begun: Instant,
    document: Vec<u8>,
}

impl Source {
    /// Begins to follow the instance's audit log.
    #[must_use]
    pub fn of(home: Home) -> Self {
        let log = Log::follow(home.clone());
        Self { home, log, started: Instant::now(), last: Mutex::new(None) }
    }

    /// The document as JSON, no older than the question. One is gathered at a time; all who asked before it was begun get the same.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        let asked = Instant::now();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some(Gathered { begun, document }) if *begun >= asked => document.clone(),
            _ => {
                let begun = Instant::now();
                let document = serde_json::to_vec(&self.gather()).expect("a document has only string keys");
                *last = Some(Gathered { begun, document: document.clone() });
                document
            }
        }
    }

    fn gather(&self) -> Document {
        let record = self.home.record();
        let status = self.status();
        let containers = match &status {
            Part::Found(_) => containers(&self.home),
            Part::Missing(_) => Part::Missing("the VM does not answer".to_owned()),
        };
        Document {
            version: VERSION,
            gathered_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            name: self.home.name().to_owned(),
            machine: record.map(machine).into(),
            status,
            containers,
            denials: self.log.now(),
        }
    }

    fn status(&self) -> Part<Status> {
        match self.home.is_running() {
            Ok(true) => client::status(&self.home).map(bounded).into(),
            Ok(false) => Part::Missing("the instance is stopped; start it with `eci-builder run`".to_owned()),
            Err(error) => Part::missing(chain(&error)),
        }
    }
}

/// Cuts what a VM may have made as long as it likes.
pub(super) fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MOST_CHARS) {
        text.truncate(end);
    }
}

fn machine(record: Record) -> Machine {
    Machine {
        architecture: record.architecture,
        accelerator: record.accel,
        memory_mib: record.memory_mib,
        processors: record.cpus,
    }
}

/// A status of no more rows than one of ours has; a reply has a limit in bytes already.
fn bounded(mut status: Status) -> Status {
    status.steps.truncate(MOST_ROWS);
    status.checks.truncate(MOST_ROWS);
    status.services.truncate(MOST_ROWS);
    status.measured.truncate(MOST_ROWS);
    status
}

fn containers(home: &Home) -> Part<Containers> {
    let until = Instant::now() + PATIENCE;
    let running = match engine::running(home, until) {
        Ok(running) => running,
        Err(error) => return Part::missing(chain(&error)),
    };
    let usage = |id: &str| engine::usage(home, id, until).ok();
    Part::Found(listed(running, client::ranges(home).into(), usage))
}

/// Containers with what belongs to each.
fn listed(
    running: Vec<engine::Container>,
    ranges: Part<Vec<IdRange>>,
    usage: impl Fn(&str) -> Option<Usage>,
) -> Containers {
    let (ranges, ranges_missing) = match ranges {
        Part::Found(ranges) => (ranges, None),
        Part::Missing(why) => (Vec::new(), Some(why)),
    };
    let left_out = running.len().saturating_sub(MOST_CONTAINERS);
    let rows = running.into_iter().take(MOST_CONTAINERS).enumerate().map(|(number, found)| {
        let engine::Container { mut id, names, mut image, mut command, status: mut state } = found;
        // The first name; others are those that linked containers know it by.
        let mut name = names.first().map_or("", |name| name.trim_start_matches('/')).to_owned();
        [&mut id, &mut name, &mut image, &mut command, &mut state].into_iter().for_each(cut);
        let usage = if number < MOST_MEASURED { usage(&id) } else { None };
        let usage = usage.map(|Usage { memory_bytes, cpu_ns }| Used { memory_bytes, cpu_ns });
        let ids = ids_of(&ranges, &id);
        Container { id, name, image, command, state, ids, usage }
    });
    Containers { running: rows.collect(), left_out, ranges_missing }
}

fn ids_of(ranges: &[IdRange], container: &str) -> Option<Ids> {
    let range = ranges.iter().find(|range| range.containers.iter().any(|id| id == container))?;
    let last = range.count.checked_sub(1).and_then(|more| range.first.checked_add(more))?;
    Some(Ids { first: range.first, last })
}

#[cfg(test)]
mod tests;
