//! A distro of WSL 2: what its archive holds, and where the distro and the system inside of it meet.

/// The distro's PID 1, `eci-init`; WSL starts it as if it was systemd.
pub const INIT: &str = "/sbin/init";
/// The file system of the verified root.
pub const ROOT_IMAGE: &str = "/usr/lib/eci/root.erofs";
/// Its dm-verity tree, superblock included.
pub const HASH_TREE: &str = "/usr/lib/eci/root.verity";
/// The signed manifest.
pub const MANIFEST: &str = "/usr/lib/eci/manifest.json";
/// The raw signature of it.
pub const SIGNATURE: &str = "/usr/lib/eci/manifest.json.sig";
/// The folder of the distro's own disk that holds the engine's data.
pub const DATA: &str = "/var/lib/docker";
/// An empty folder, to mount the verified root on.
pub const NEW_ROOT: &str = "/sysroot";

/// The folder of the distro's `/run` that the system shares with it, as the distro sees it.
pub const SHARED_WITH_DISTRO: &str = "/run/eci";
/// PID 1's control socket, as the distro sees it; in [`SHARED_WITH_DISTRO`].
pub const CONTROL_SOCKET: &str = "/run/eci/init.sock";
/// Where the tools of Docker look for the engine; a link into [`SHARED_WITH_DISTRO`].
pub const ENGINE_LINK: &str = "/run/docker.sock";
/// What all distros share; a tmpfs of WSL's.
pub const SHARED_WITH_ALL: &str = "/mnt/wsl";
/// The folder there with the engine's socket.
pub const SHARED_FOLDER: &str = "/mnt/wsl/eci";

/// In the system: a folder for each of those two, in which the gate has its socket [`ENGINE_SOCKET_NAME`].
pub const DOORS: &str = "/run/eci/doors";
/// In the system: [`SHARED_WITH_DISTRO`].
pub const DISTRO_DOOR: &str = "/run/eci/doors/distro";
/// In the system: [`SHARED_FOLDER`], where there is one.
pub const ALL_DOOR: &str = "/run/eci/doors/all";
/// In the system: PID 1's control socket.
pub const CONTROL_SOCKET_INSIDE: &str = "/run/eci/doors/distro/init.sock";
/// Name of the engine's socket in each folder of [`DOORS`].
pub const ENGINE_SOCKET_NAME: &str = "docker.sock";
/// In the system: [`SHARED_WITH_ALL`], read-only, for its `resolv.conf`.
pub const RESOLVER: &str = "/run/eci/resolver";
