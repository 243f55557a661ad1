//! What an administrator may set of the engine.

use serde_json::{Map, Value, json};

use super::super::Problem;
use super::super::json::At;
use super::network::{Network, judge_resolver};
use super::values::{
    MOST_NAMES, Paths, judge_bypass, judge_domain, judge_files, judge_log_driver, judge_mirror,
    judge_registry, judge_resolver_option, judge_size, judge_url,
};

/// Entries that a list may have where nothing else bounds it: more than anybody has, and few enough to be looked through at
/// each use.
const MOST_ENTRIES: usize = 64;
/// Resolvers that a container asks: glibc reads no more from `resolv.conf` (resolv.conf(5), `MAXNS`).
const MOST_RESOLVERS: usize = 3;
/// Networks that all pools may be cut into: the engine keeps a list of them, and 65,536 are a /8 cut into /24.
const MOST_NETWORKS: u64 = 65_536;
/// The smallest network that pools are cut into: one with five addresses for containers.
const LONGEST_PREFIX: u8 = 29;

/// A key and how its value is read.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name, which is that in `daemon.json`.
    pub name: &'static str,
    /// Why it may be set.
    pub why: &'static str,
    /// Gives the value that dockerd gets.
    pub(super) read: fn(&At<'_>) -> Result<Value, Problem>,
}

/// The keys, by name.
pub const KEYS: &[Key] = &[
    Key {
        name: "default-address-pools",
        why: "networks of containers must not be those of the office",
        read: pools,
    },
    Key { name: "dns", why: "names of the company's own", read: resolvers },
    Key {
        name: "dns-opts",
        why: "how the resolvers are asked",
        read: |at| words(at, MOST_ENTRIES, judge_resolver_option),
    },
    Key {
        name: "dns-search",
        why: "short names of the company's own",
        read: |at| words(at, MOST_NAMES, judge_domain),
    },
    Key {
        name: "insecure-registries",
        why: "a registry without a certificate that others trust; what its images do is isolated as any",
        read: |at| words(at, MOST_ENTRIES, judge_registry),
    },
    Key {
        name: "log-driver",
        why: "which files logs are kept in, on the data disk",
        read: |at| text(at, judge_log_driver),
    },
    Key { name: "log-opts", why: "how much of a container's log is kept", read: log_limits },
    Key {
        name: "max-concurrent-downloads",
        why: "layers fetched at once for an image",
        read: |at| at.number(1, 64).map(Value::from),
    },
    Key {
        name: "max-concurrent-uploads",
        why: "layers sent at once for an image",
        read: |at| at.number(1, 64).map(Value::from),
    },
    // The least that every host has to take (RFC 791), the most that an Ethernet takes.
    Key {
        name: "mtu",
        why: "tunnels on the way to the network",
        read: |at| at.number(576, 9000).map(Value::from),
    },
    Key { name: "proxies", why: "registries are behind the company's proxy", read: proxies },
    Key {
        name: "registry-mirrors",
        why: "images of Docker Hub come from the company's mirror",
        read: |at| words(at, MOST_ENTRIES, judge_mirror),
    },
];

/// Finds nothing wrong with a text, or says what.
type Judge = fn(&str) -> Result<(), Wrong>;

/// A text that `judge` finds nothing wrong with.
fn text(at: &At<'_>, judge: Judge) -> Result<Value, Problem> {
    let text = at.text()?;
    judge(text).map_err(|Wrong { reason, fix }| at.problem(reason, fix))?;
    Ok(json!(text))
}

/// What is wrong with a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Why it cannot be.
    pub reason: &'static str,
    /// What can be done.
    pub fix: &'static str,
}

/// A list of such texts.
fn words(at: &At<'_>, most: usize, judge: Judge) -> Result<Value, Problem> {
    let words: Result<Vec<_>, _> = bounded(at, most)?.iter().map(|at| text(at, judge)).collect();
    Ok(Value::Array(words?))
}

fn bounded<'a>(at: &At<'a>, most: usize) -> Result<Vec<At<'a>>, Problem> {
    let list = at.list()?;
    if list.len() > most {
        return Err(at.problem(format!("more than {most} are not used"), "leave some out"));
    }
    Ok(list)
}

fn resolvers(at: &At<'_>) -> Result<Value, Problem> {
    words(at, MOST_RESOLVERS, judge_resolver)
}

/// A table whose keys have texts.
fn texts(at: &At<'_>, judge: fn(&str) -> Option<Judge>, known: &str) -> Result<Value, Problem> {
    let mut table = Map::new();
    for (key, at) in at.table()? {
        let Some(judge) = judge(key) else {
            return Err(
                at.problem("it is not a key of this version", format!("leave it out; those are {known}"))
            );
        };
        table.insert(key.to_owned(), text(&at, judge)?);
    }
    Ok(Value::Object(table))
}

fn proxies(at: &At<'_>) -> Result<Value, Problem> {
    let judge = |key: &str| -> Option<Judge> {
        match key {
            "http-proxy" | "https-proxy" => Some(|url| judge_url(url, Paths::Refused)),
            "no-proxy" => Some(judge_bypass),
            _ => None,
        }
    };
    texts(at, judge, "http-proxy, https-proxy and no-proxy")
}

fn log_limits(at: &At<'_>) -> Result<Value, Problem> {
    let judge = |key: &str| -> Option<Judge> {
        match key {
            "max-size" => Some(judge_size),
            "max-file" => Some(judge_files),
            _ => None,
        }
    };
    texts(at, judge, "max-size and max-file")
}

fn pools(at: &At<'_>) -> Result<Value, Problem> {
    let mut pools = Vec::new();
    let (mut networks, mut taken) = (0_u64, Vec::<Network>::new());
    for at in bounded(at, MOST_ENTRIES)? {
        let (base, size) = pool(&at)?;
        networks += 1 << (size - base.prefix);
        if networks > MOST_NETWORKS {
            return Err(at.problem(
                format!(
                    "the pools up to it are cut into {networks} networks, and {MOST_NETWORKS} are the most"
                ),
                "make `size` smaller, or `base`",
            ));
        }
        if let Some(other) = taken.iter().find(|other| other.overlaps(base)) {
            return Err(
                at.problem(format!("{base} overlaps with {other}, another pool"), "choose another `base`")
            );
        }
        taken.push(base);
        pools.push(json!({ "base": base.to_string(), "size": size }));
    }
    Ok(Value::Array(pools))
}

/// A pool's network and the prefix of those that it is cut into.
fn pool(at: &At<'_>) -> Result<(Network, u8), Problem> {
    let (mut base, mut size) = (None, None);
    for (key, at) in at.table()? {
        match key {
            "base" => {
                let network = Network::for_containers(at.text()?);
                base = Some(network.map_err(|Wrong { reason, fix }| at.problem(reason, fix))?);
            }
            "size" => size = Some(at.number(1, LONGEST_PREFIX.into())?),
            _ => return Err(at.problem("it is not a key of a pool", "leave it out; those are base and size")),
        }
    }
    let lacks = |key| at.lacks(key, "a pool has it", "add it: {\"base\": \"10.10.0.0/16\", \"size\": 24}");
    let base = base.ok_or_else(|| lacks("base"))?;
    let size = size.ok_or_else(|| lacks("size"))?;
    match u8::try_from(size) {
        Ok(size) if size >= base.prefix => Ok((base, size)),
        _ => Err(at.problem(format!("networks of /{size} do not fit into {base}"), "make `size` larger")),
    }
}
