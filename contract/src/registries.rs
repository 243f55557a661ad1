//! What the engine may reach on a network where an administrator lists registries: what PID 1 tells `eci-egress` of the settings, in the
//! file [`crate::paths::REGISTRY_POLICY`], and where that program listens.

use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

/// Version of the file.
pub const VERSION: u32 = 1;
/// Where `eci-egress` takes the engine's connections, and the one address that the kernel lets the engine connect to. On loopback, which
/// nobody but the VM's own programs reaches.
pub const PROXY: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 3128);

/// What the file says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RegistryPolicy {
    /// [`VERSION`].
    pub version: u32,
    /// Registries that the engine may reach, as the settings write them.
    pub allowed: Vec<String>,
    /// The administrator's proxies on the way there.
    pub proxies: Proxies,
}

/// Proxies as `daemon.json` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Proxies {
    /// For `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_proxy: Option<String>,
    /// For `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub https_proxy: Option<String>,
    /// Who is reached without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
}
