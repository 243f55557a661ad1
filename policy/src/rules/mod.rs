//! The rules, a file each: identifier, why, message and remedy.

pub mod build_root;
pub mod device;
pub mod driver_name;
pub mod engine_command;
pub mod engine_mount;
pub mod engine_socket;
pub mod figure;
pub mod hidden_path;
pub mod hook;
pub mod host_namespace;
pub mod live_commit;
pub mod mount_destination;
pub mod mount_source;
pub mod node;
pub mod own_node;
pub mod proxy;
pub mod published_port;
pub mod registry;
pub mod registry_request;
pub mod resource;
pub mod share;
pub mod stand_in;
pub mod syscall;
pub mod unisolated;

/// Opens every message; Docker Desktop's own words, so that what users find on the web helps them.
pub const PREFIX: &str = "enhanced container isolation";
