//! Paths inside the image that more than one program relies on.

/// Folder on the `/run` tmpfs that holds the appliance's own state; mode 0700, owned by root.
pub const RUN_DIR: &str = "/run/eci";
/// The engine's API socket. Only the gate connects to it; its folder is mode 0700.
pub const ENGINE_SOCKET: &str = "/run/eci/engine/docker.sock";
/// The engine's socket for containers that may have one: the gate listens there, and lets through what the settings allow. The name is
/// the one that users give.
pub const CONTAINER_SOCKET: &str = "/run/docker.sock";
/// Which containers those are: [`crate::socket::SocketPolicy`] as JSON.
pub const SOCKET_POLICY: &str = "/run/eci/socket-policy.json";
/// Whether containers are isolated: [`crate::choice::Switch`] in a word. PID 1 writes it in every boot, so that nothing else can come to be
/// there: the engine makes folders for mounts whose source is missing.
pub const ISOLATION: &str = "/run/eci/isolation";
/// Which registries the engine may reach: [`crate::registries::RegistryPolicy`] as JSON; not there where the settings have no list.
pub const REGISTRY_POLICY: &str = "/run/eci/registries.json";
/// How far ports are published: [`crate::ports::Reach`] in a word. PID 1 writes it in every boot, as [`ISOLATION`].
pub const PORTS_REACH: &str = "/run/eci/ports-reach";
/// PID 1's control socket: one [`crate::link::Request`] line in, one [`crate::link::Reply`] line out.
pub const INIT_SOCKET: &str = "/run/eci/init.sock";
/// One file per id range in use, and the allocation cursor.
pub const RANGES_DIR: &str = "/run/eci/ranges";
/// A folder per container: its mount tree and the bundle that crun gets.
pub const CONTAINERS_DIR: &str = "/run/eci/containers";
/// Where crun hands `eci-nodes` the listeners of containers; its folder is mode 0700.
pub const NODES_SOCKET: &str = "/run/eci/nodes.sock";
/// Where the gate hears which ports containers publish; its folder is mode 0700.
pub const PORTS_SOCKET: &str = "/run/eci/ports.sock";
/// A tmpfs with a folder per container: what `eci-procfs` keeps true to the container's limits.
pub const PROCFS_DIR: &str = "/run/eci/procfs";
/// The real OCI runtime. Nothing on PATH names it.
pub const CRUN: &str = "/usr/libexec/eci/crun";
/// `eci-runc` under the name that dockerd, BuildKit and plugins look up.
pub const RUNC: &str = "/usr/bin/runc";
/// The same under the name that the engine's default runtime has: it isolates under this one whatever is switched off.
pub const ECI_RUNC: &str = "/usr/bin/eci-runc";
/// The engine.
pub const ENGINE: &str = "/usr/sbin/dockerd";
/// The one shim: it has the runtime start a container, and delete it.
pub const SHIM: &str = "/usr/bin/containerd-shim-runc-v2";
/// Engine data: images, layers, volumes. The only writable mount without `noexec`.
pub const ENGINE_DATA: &str = "/var/lib/docker";
/// Volumes, in [`ENGINE_DATA`]: a mount of its own, on which the VM follows no link.
pub const ENGINE_VOLUMES: &str = "/var/lib/docker/volumes";
/// Layers of images and containers, in [`ENGINE_DATA`]: the same.
pub const ENGINE_LAYERS: &str = "/var/lib/docker/overlay2";
/// The engine's own links in there, by which its overlays name layers: a mount of its own, on which they are followed.
pub const ENGINE_LAYER_NAMES: &str = "/var/lib/docker/overlay2/l";
/// What the engine knows of containers' layers, in [`ENGINE_DATA`]: by a container's id, their names in [`ENGINE_LAYERS`].
pub const ENGINE_CONTAINER_LAYERS: &str = "/var/lib/docker/image/overlay2/layerdb/mounts";
/// The engine's folder for a container, in [`ENGINE_DATA`], by its id; it goes with the container.
pub const ENGINE_CONTAINERS: &str = "/var/lib/docker/containers";
/// File in that folder that says how the container first ran: [`crate::choice::Switch`] in a word.
pub const FIRST_RAN: &str = "eci-isolation";
/// The audit log, [`crate::audit::Denial`] lines, on the data disk; no rule lets a container have its folder.
pub const AUDIT_LOG: &str = "/var/lib/docker/eci/audit.jsonl";
/// Ed25519 public key (32 raw bytes) in the initramfs that image manifests are checked with.
pub const IMAGE_KEY: &str = "/etc/eci/image.pub";
/// Compiled AppArmor profiles, a file each under the profile's name. PID 1 loads them.
pub const APPARMOR_DIR: &str = "/etc/eci/apparmor";
/// The administrator's settings, on the verified root: what `eci.toml` names, or the default.
pub const ADMIN_SETTINGS: &str = "/etc/eci/admin-settings.json";
/// Whose config disks the image takes, [`crate::config_disk::Anchor`], on the verified root; not there where it takes none.
pub const SETTINGS_ANCHOR: &str = "/etc/eci/settings-anchor.json";
/// Editions of the config disks that were taken last, on the data disk: a file with a number for each key. No rule lets a container have
/// the folder.
pub const SETTINGS_EDITIONS: &str = "/var/lib/docker/eci/settings-editions";
/// The signed manifest, handed from the initramfs stage to the system stage.
pub const RUN_MANIFEST: &str = "/run/eci/manifest.json";
/// The resolver configuration that PID 1 writes from DHCP; `/etc/resolv.conf` is a symlink to it.
pub const RESOLV_CONF: &str = "/run/eci/resolv.conf";
