//! What the VM says of itself.

use serde::{Deserialize, Serialize};

use crate::attest::Measurement;
use crate::choice::Switch;
use crate::disk::{Medium, Slot};
use crate::ports::Reach;
use crate::shares::Share;

/// The VM's view of itself, printed by `eci-builder status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Format version: 1.
    pub version: u32,
    /// Whether the engine can be used.
    pub state: State,
    /// Why the engine is not ready, in a sentence; empty while all is well.
    pub reason: String,
    /// The image that booted.
    pub image: Image,
    /// The administrator's settings in force; none while they are not read, or when they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Settings>,
    /// Milestones of the boot in milliseconds since power-on as the kernel counts it.
    pub boot_ms: BootTimes,
    /// Boot steps in order.
    pub steps: Vec<Step>,
    /// The self-check, a row a promise.
    pub checks: Vec<Check>,
    /// Supervised services.
    pub services: Vec<Service>,
    /// IPv4 address with prefix length, once DHCP gave one.
    pub address: Option<String>,
    /// Folders of the host that it has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// What PID 1 measured into the machine's TPM; nothing where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub measured: Vec<Measurement>,
    /// Memory in use in KiB: total minus available.
    pub memory_used_kib: u64,
}

/// Whether the engine can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Boot steps or services are still starting.
    Starting,
    /// The engine answers and every check holds.
    Ready,
    /// The engine is not running and will not be started; `reason` says why.
    Refused,
    /// Shutdown has begun.
    Stopping,
}

/// The image that booted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Name in the manifest.
    pub name: String,
    /// Version in the manifest.
    pub version: String,
    /// dm-verity root hash, hexadecimal.
    pub root_hash: String,
    /// What it is on.
    #[serde(default, skip_serializing_if = "Medium::is_disk")]
    pub medium: Medium,
    /// Where on that it is.
    pub slot: Slot,
    /// Whether it still has to get the engine ready for the first time.
    pub on_trial: bool,
}

/// The administrator's settings in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Where they come from.
    pub source: SettingsSource,
    /// Edition of the config disk that they come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edition: Option<u64>,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Whether containers are isolated.
    #[serde(default)]
    pub isolation: Switch,
    /// Nobody below the administrator may choose that.
    pub locked: bool,
    /// Images whose containers may have the engine's socket.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub socket: Vec<String>,
    /// Settings of the engine that are in force, by the names that `daemon.json` has for them.
    pub engine: Vec<String>,
    /// Folders of the host that machines may have; every folder where the settings have no list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shares: Option<Vec<Share>>,
    /// Registries that the engine may reach; every one where the settings have no list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registries: Option<Vec<String>>,
    /// How far ports of containers may be published.
    #[serde(default, skip_serializing_if = "Reach::is_all")]
    pub ports: Reach,
    /// The most memory that a machine may have, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// The most processors that a machine may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// The oldest version of the image that starts an engine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub minimum_version: Option<String>,
    /// Keys of Docker Desktop's other features in the file, which are not in force.
    pub kept_apart: Vec<String>,
}

/// Where settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SettingsSource {
    /// The image was built without any.
    Default,
    /// They were baked into the image.
    Image,
    /// They are on a config disk.
    Disk,
}

/// Milestones in milliseconds on the kernel's boot clock; 0 means "not yet".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootTimes {
    /// PID 1 of the initramfs started.
    pub kernel: u64,
    /// PID 1 of the verified root started.
    pub init: u64,
    /// The engine reported itself ready.
    pub engine: u64,
}

/// One step of the boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Name in the step table.
    pub name: String,
    /// Duration in milliseconds.
    pub ms: u64,
    /// `ok`, `left out: ` with why this machine has no use for it, or the error chain.
    pub outcome: String,
}

/// One promise of immutability, read back from the running system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Stable identifier, such as `root-verity`.
    pub id: String,
    /// The promise in words.
    pub promise: String,
    /// Whether it holds.
    pub holds: bool,
    /// What was read.
    pub found: String,
    /// Why this platform leaves it out; then it does not hold, and nothing was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_out: Option<String>,
}

/// One supervised service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name in the service table.
    pub name: String,
    /// `waiting`, `starting`, `ready`, `backing-off`, `stopped`.
    pub state: String,
    /// Process id while one runs.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
}
