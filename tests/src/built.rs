//! An image of this project with settings of a suite's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use tempfile::TempDir;

use crate::command::{self, Outcome};
use crate::image;

/// Name of the settings among the project's files.
pub const FILE: &str = "own.json";

/// The project's files, with an image in `out` that was built from them.
pub struct Built(TempDir);

impl Built {
    /// Builds it with these settings, and these changes of `eci.toml` besides. It takes config disks of `keys/`.
    ///
    /// # Errors
    /// When it does not build.
    pub fn new(settings: &str, changes: &[(&str, &str)]) -> Result<Self> {
        Self::by("eci.toml", settings, changes)
    }

    /// The same of the test flavour.
    ///
    /// # Errors
    /// As [`Built::new`].
    pub fn flavour(settings: &str) -> Result<Self> {
        Self::by("eci-test.toml", settings, &[])
    }

    fn by(config: &str, settings: &str, changes: &[(&str, &str)]) -> Result<Self> {
        let built = Self(image::copy_of_project()?);
        fs::write(built.0.path().join(FILE), settings)?;
        for folder in ["keys", "their-keys"] {
            built.builder(&["keygen", folder])?.ok()?;
        }
        let path = built.0.path().join(config);
        let mut text = fs::read_to_string(&path)?;
        let named = ("[settings]", format!("[settings]\nfile = \"{FILE}\"\nkey = \"keys/image.pub\""));
        let changes = changes.iter().map(|(from, to)| (*from, (*to).to_owned())).chain([named]);
        for (from, to) in changes {
            ensure!(text.contains(from), "{config} has no `{from}`");
            text = text.replacen(from, &to, 1);
        }
        fs::write(&path, text)?;
        let programs = image::programs()?.to_string_lossy().into_owned();
        built
            .builder(&["build", "--offline", "--config", config, "--format", "raw", "--programs", &programs])?
            .ok()?;
        Ok(built)
    }

    /// The project's files.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    /// The image.
    #[must_use]
    pub fn out(&self) -> PathBuf {
        self.folder().join("out")
    }

    /// `eci-builder` among the files.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn builder(&self, arguments: &[&str]) -> Result<Outcome> {
        command::run(Command::new(image::builder()?).current_dir(self.folder()).args(arguments), &[])
    }
}
