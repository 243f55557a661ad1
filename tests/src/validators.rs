//! The field's validators of bills of materials, provenance and settings, from PyPI: `tests/validators/requirements.txt` pins them.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use crate::command::{self, Outcome};
use crate::{image, pypi};

/// What SPDX's own tools say of a document.
///
/// # Errors
/// When they cannot be installed or run.
pub fn spdx(document: &Path) -> Result<Outcome> {
    let program = environment()?.join("bin/pyspdxtools");
    command::host(&program.to_string_lossy(), &["--infile", &document.to_string_lossy()])
}

/// What CycloneDX's own library says of a document.
///
/// # Errors
/// When it cannot be installed or run.
pub fn cyclonedx(document: &Path) -> Result<Outcome> {
    judge("judge_cyclonedx.py", &[document])
}

/// What the libraries of DSSE and in-toto say of a provenance and the public key that should have signed it.
///
/// # Errors
/// When they cannot be installed or run.
pub fn provenance(document: &Path, key: &Path) -> Result<Outcome> {
    judge("judge_provenance.py", &[document, key])
}

/// What the Python package `jsonschema` says of administrators' settings by the published schema: `accepted`, or else why not.
///
/// # Errors
/// When it cannot be installed or run.
pub fn settings(documents: &[PathBuf]) -> Result<Vec<String>> {
    let schema = image::repository()?.join("settings/admin-settings.schema.json");
    let files: Vec<_> = [&schema].into_iter().chain(documents).map(PathBuf::as_path).collect();
    let verdicts: Vec<_> = judge("judge_settings.py", &files)?.ok()?.lines().map(str::to_owned).collect();
    ensure!(verdicts.len() == documents.len(), "{} of {} were judged", verdicts.len(), documents.len());
    Ok(verdicts)
}

fn judge(script: &str, files: &[&Path]) -> Result<Outcome> {
    let (program, script) = (environment()?.join("bin/python3"), folder()?.join(script));
    command::run(Command::new(program).arg(script).args(files), &[])
}

fn folder() -> Result<PathBuf> {
    Ok(image::repository()?.join("tests/validators"))
}

fn environment() -> Result<PathBuf> {
    pypi::environment(&folder()?, "validators")
}
