//! What is remembered of an instance between runs: `instance.json`.

use std::fs;
use std::io;
use std::path::PathBuf;

use eci_contract::choice::Switch;
use eci_contract::manifest::Architecture;
use eci_contract::shares::Share;
use serde::{Deserialize, Serialize};

use super::{Error, Home, failed};

/// Format version of `instance.json`.
pub const RECORD_VERSION: u32 = 1;
/// File name of the record.
pub(super) const FILE: &str = "instance.json";

/// What is remembered of an instance: `instance.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`RECORD_VERSION`].
    pub version: u32,
    /// Folder of the artifacts that it boots.
    pub artifacts: PathBuf,
    /// The data disk; inside the instance's folder unless the user named another.
    pub data: PathBuf,
    /// What its processor is; missing in records before there was a choice.
    #[serde(default = "only_one")]
    pub architecture: Architecture,
    /// Accelerator that QEMU uses: `kvm` or `tcg`.
    pub accel: String,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// Virtual processors.
    pub cpus: u32,
    /// Process id of the supervisor of the last run.
    pub pid: u32,
    /// The config disk; runs that name none have this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<PathBuf>,
    /// Folders of the host; runs that name none have these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// What was chosen of isolation; runs that choose nothing have this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<Switch>,
}

/// The architecture of all images when records had none.
fn only_one() -> Architecture {
    Architecture::X86_64
}

impl Home {
    /// Reads the record.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::File`] and [`Error::Record`].
    pub fn record(&self) -> Result<Record, Error> {
        let path = self.root.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Missing { name: self.name.clone() });
            }
            text => text.map_err(failed("read", &path))?,
        };
        serde_json::from_slice(&text).map_err(|source| Error::Record { path, source })
    }

    /// Writes the record, replacing an older one whole.
    ///
    /// # Errors
    /// [`Error::File`] and [`Error::Record`].
    pub fn save(&self, record: &Record) -> Result<(), Error> {
        let (path, beside) = (self.root.join(FILE), self.root.join(format!("{FILE}.new")));
        let text = serde_json::to_vec_pretty(record);
        let text = text.map_err(|source| Error::Record { path: path.clone(), source })?;
        fs::write(&beside, text).map_err(failed("write", &beside))?;
        fs::rename(&beside, &path).map_err(failed("replace", &path))
    }
}

/// A record of an instance that nobody runs.
#[cfg(test)]
pub(super) fn example(home: &Home) -> Record {
    Record {
        version: RECORD_VERSION,
        artifacts: "/out".into(),
        data: home.data_disk(),
        architecture: Architecture::X86_64,
        accel: "tcg".to_owned(),
        memory_mib: 2048,
        cpus: 2,
        pid: 1,
        settings: None,
        shares: Vec::new(),
        isolation: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_without_a_record_does_not_exist() {
        let state = tempfile::tempdir().expect("temporary folder");
        let home = Home::under(state.path(), "x").expect("legal");
        assert_eq!(home.is_running().expect_err("missing").to_string(), "there is no instance `x`");
        home.create().expect("made");
        let record = example(&home);
        home.save(&record).expect("saved");
        assert_eq!(home.record().expect("read"), record);
        assert!(!home.is_running().expect("known"));
    }
}
