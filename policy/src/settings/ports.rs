//! `eci.ports`: how far ports of containers may be published.

use eci_contract::ports::Reach;

use super::json::At;
use super::{Problem, Problems};

/// Reads the key's value.
pub(super) fn read(at: &At<'_>, problems: &mut Problems) -> Reach {
    let mut reach = Reach::default();
    for (key, at) in problems.keep(at.table()).unwrap_or_default() {
        match key {
            "publish" => reach = problems.keep(read_reach(&at)).unwrap_or_default(),
            _ => problems.add(at.problem("it is no key of ports", "leave it out; the one key is publish")),
        }
    }
    reach
}

fn read_reach(at: &At<'_>) -> Result<Reach, Problem> {
    Reach::from_word(at.text()?)
        .ok_or_else(|| at.problem("it does not say how far", "write all, loopback or nothing"))
}
