//! `eci.shares`: folders of the host that machines may have.

use eci_contract::shares::{MOST, Share, TOPS};

use super::json::At;
use super::{Problem, Problems};
use crate::rules::share::{is_in, is_plain};

/// Most folders of a list.
const MOST_FOLDERS: usize = 4 * MOST;

/// What is in force for shares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shares {
    /// Folders that may be shared, with all that is in them; every folder when there is no list.
    pub allow: Option<Vec<Share>>,
}

/// Reads the key's value.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Shares {
    let mut shares = Shares::default();
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "allow" => shares.allow = Some(read_list(&at, problems)),
            _ => problems.add(at.problem("it is no key of shares", "leave it out; the one key is allow")),
        }
    }
    shares
}

fn read_list(at: &At<'_>, problems: &mut Problems) -> Vec<Share> {
    let folders = problems.keep(at.list()).unwrap_or_default();
    if folders.len() > MOST_FOLDERS {
        problems.add(at.problem(
            format!("{MOST_FOLDERS} folders are the most"),
            "name a folder that holds several of them",
        ));
        return Vec::new();
    }
    folders.iter().filter_map(|at| read_folder(at, problems)).collect()
}

fn read_folder(at: &At<'_>, problems: &mut Problems) -> Option<Share> {
    let (mut path, mut read_only) = (None, false);
    for (key, at) in problems.keep(at.table())? {
        match key {
            "path" => path = Some(problems.keep(read_path(&at))?),
            "readOnly" => read_only = problems.keep(at.switch())?,
            _ => problems
                .add(at.problem("it is no key of a folder", "leave it out; those are path and readOnly")),
        }
    }
    let Some(path) = path else {
        problems.add(at.lacks("path", "it says which folder", "add it, such as \"/home\""));
        return None;
    };
    Some(Share { path, read_only })
}

fn read_path(at: &At<'_>) -> Result<String, Problem> {
    let path = at.text()?;
    if !is_plain(path) {
        return Err(at.problem(
            "it is no plain absolute path",
            "write one, such as /home, without a slash at its end",
        ));
    }
    if !TOPS.iter().any(|top| is_in(path, top)) {
        let places = TOPS.join(", ");
        return Err(at.problem(
            "the VM has no place for it, so that it cannot be shared",
            format!("name a folder in one of {places}"),
        ));
    }
    Ok(path.to_owned())
}
