//! Checks of the provenance: signed by the image's key, and about exactly the artifacts of this folder.

use std::path::Path;

use eci_contract::manifest::Manifest;

use super::super::provenance::statement::Statement;
use super::super::provenance::{self, FILE};
use super::{Expected, Report, chain};

/// Checks the provenance in the folder of a trusted manifest.
pub(super) fn check(folder: &Path, manifest: &Manifest, expected: &Expected, report: &mut Report) {
    let envelope = match provenance::read(&folder.join(FILE)) {
        Ok(envelope) => envelope,
        Err(error) => {
            report.add(FILE, "signature", Err(chain(&error)));
            return;
        }
    };
    let id = expected.key.id();
    let signed = match (envelope.is_signed_by(&expected.key), envelope.is_signed()) {
        (true, _) => Ok(format!("by key {id}")),
        (false, true) => Err(format!("no signature of it verifies with key {id}")),
        (false, false) => Err("the image is signed, and nobody has signed its provenance".to_owned()),
    };
    if !report.add(FILE, "signature", signed) {
        return;
    }
    let statement = Statement::parse(envelope.statement()).map_err(|error| chain(&error));
    report.add(FILE, "subjects", statement.and_then(|statement| subjects(folder, manifest, &statement)));
}

/// Compares what the statement is about with what is there: no more and no less.
fn subjects(folder: &Path, manifest: &Manifest, statement: &Statement) -> Result<String, String> {
    let mut found = provenance::subjects(folder, manifest).map_err(|error| chain(&error))?;
    for subject in statement.subjects() {
        let name = &subject.name;
        match found.remove(name) {
            Some(digest) if digest == subject.digest => {}
            Some(digest) => {
                return Err(format!("`{name}` has {digest}, it says {}", subject.digest));
            }
            None => return Err(format!("it is about `{name}`, which is no artifact of this image")),
        }
    }
    match found.keys().next() {
        Some(name) => Err(format!("it says nothing of `{name}`")),
        None => Ok(format!(
            "{} artifacts, from {} materials",
            statement.subjects().len(),
            statement.materials().len()
        )),
    }
}
