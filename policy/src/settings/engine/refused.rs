//! What nobody sets of the engine, and why.

use super::super::Problem;
use super::super::json::At;
use super::keys::KEYS;

/// A key of `daemon.json` that is not taken.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// Its name; with `*` at the end every key that begins with the rest.
    pub name: &'static str,
    /// Why.
    pub why: &'static str,
}

const fn refused(name: &'static str, why: &'static str) -> Refused {
    Refused { name, why }
}

/// The keys, by what they would do.
pub const REFUSED: &[Refused] = &[
    // Isolation.
    refused("userns-remap", "every container has ids of its own already, which the runtime gives"),
    refused("runtimes", "a runtime of one's own runs containers without isolation"),
    refused("default-runtime", "the one runtime is the one that isolates"),
    refused("exec-opts", "it moves containers to other cgroups than the runtime looks after"),
    refused("init-path", "it names a program of the VM that runs in containers"),
    refused("init", "`docker run --init` asks for it where it is wanted"),
    refused(
        "seccomp-profile",
        "it would let every container make system calls that Docker's profile does not",
    ),
    refused("cgroup-parent", "it moves containers into cgroups of the VM"),
    refused("default-cgroupns-mode", "a container in the VM's cgroup namespace sees the VM's cgroups"),
    refused("default-ipc-mode", "containers share no memory with the VM"),
    refused("default-ulimits", "limits of priorities let a container starve the VM"),
    refused("default-shm-size", "it is set for a container, with `--shm-size`"),
    refused("no-new-privileges", "it is set for a container, with `--security-opt`"),
    refused("selinux-enabled", "the VM has AppArmor"),
    refused("oom-score-adjust", "PID 1 says who is ended first when memory runs out"),
    refused("cpu-rt-*", "real-time threads are preempted by nobody"),
    refused("cdi-spec-dirs", "it names devices of the VM that containers get"),
    refused("node-generic-resources", "it offers devices of the VM"),
    // Ways in.
    refused("hosts", "the engine listens for the gate alone, and on no network"),
    refused("group", "the engine's socket is root's"),
    refused("tls*", "the engine listens on no network, so that there is nothing to encrypt"),
    refused(
        "authorization-plugins",
        "they see a part of what is asked, and a plugin that fails decides for all",
    ),
    refused("metrics-addr", "it opens a port in the VM"),
    refused("swarm-default-advertise-addr", "the VM is reached over no network"),
    refused("api-cors-header", "web pages have no business with the engine"),
    refused("debug", "it shows what is asked of the engine, secrets included, in the log"),
    // Files and programs of the VM.
    refused("data-root", "the data disk is where data is; elsewhere everything is read-only"),
    refused("exec-root", "PID 1 makes it"),
    refused("pidfile", "PID 1 knows the engine's process"),
    refused("containerd*", "the image has one containerd, whose only runtime is the one that isolates"),
    refused("storage-driver", "the runtime builds containers on layers of overlay2"),
    refused("storage-opts", "the runtime builds containers on layers of overlay2"),
    refused("userland-proxy*", "it names a program of the VM; ports are published by one of ours"),
    refused("features", "they change how the engine keeps images, which the runtime relies on"),
    refused("experimental", "what it turns on is not looked at for isolation"),
    refused("builder", "BuildKit's steps are isolated as they are set up"),
    refused("live-restore", "containers end with the engine"),
    refused("shutdown-timeout", "PID 1 has a time for it"),
    refused("raw-logs", "PID 1 reads the engine's log"),
    refused("log-format", "PID 1 reads the engine's log"),
    refused("log-level", "PID 1 reads the engine's log"),
    // The VM's network.
    refused("iptables", "without its rules containers reach each other's networks"),
    refused("ip6tables", "without its rules containers reach each other's networks"),
    refused("ip-forward", "containers reach the network by it"),
    refused("ip-masq", "containers reach the network by it"),
    refused("bridge", "the engine makes its own"),
    refused("bip", "`default-address-pools` says where its network is"),
    refused("fixed-cidr*", "`default-address-pools` says where its network is"),
    refused("default-gateway*", "the engine is the gateway of its network"),
    refused("default-network-opts", "they are set for a network, with `docker network create`"),
    refused("host-gateway-ip", "it leads containers to an address of the VM"),
    refused("ip", "`-p` says it for a port"),
    refused("ipv6", "the engine gives out IPv4 networks alone in this version"),
    refused("icc", "this version does not enforce it yet"),
    refused("labels", "they are the VM's, and tell in `docker info` what is in force"),
    refused("allow-nondistributable-artifacts", "this version does not look at it yet"),
    refused("max-download-attempts", "this version does not look at it yet"),
    refused("http-proxy", "it is a key of `proxies`"),
    refused("https-proxy", "it is a key of `proxies`"),
    refused("no-proxy", "it is a key of `proxies`"),
    // What the command line calls them.
    refused("dns-opt", "`dns-opts` is its name"),
    refused("insecure-registry", "`insecure-registries` is its name"),
    refused("registry-mirror", "`registry-mirrors` is its name"),
    refused("log-opt", "`log-opts` is its name"),
    refused("default-address-pool", "`default-address-pools` is its name"),
];

/// Says why a key is not taken.
pub(super) fn problem(name: &str, at: &At<'_>) -> Problem {
    let row = REFUSED.iter().find(|row| match row.name.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => row.name == name,
    });
    match row {
        Some(row) => at.problem(row.why, "leave it out"),
        None => {
            let known: Vec<_> = KEYS.iter().map(|key| key.name).collect();
            at.problem(
                "it is no setting of the engine that this version takes",
                format!("leave it out; those are {}", known.join(", ")),
            )
        }
    }
}
