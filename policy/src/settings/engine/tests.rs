use std::collections::BTreeSet;

use serde_json::json;

use super::refused::REFUSED;
use super::*;
use crate::settings::{Error, Settings, read as read_file};

const SHIPPED: &str = include_str!("../../../../rootfs/overlay/etc/docker/daemon.json");

fn read_engine(engine: &Value) -> Result<Settings, Error> {
    let file = json!({ "configurationFileVersion": 2, "eci": { "engine": engine } });
    read_file(file.to_string().as_bytes())
}

fn refusal(engine: &Value) -> String {
    read_engine(engine).expect_err("it is refused").to_string()
}

/// What dockerd gets by these settings.
fn for_dockerd(engine: &Value) -> Map<String, Value> {
    let settings = read_engine(engine).expect("it is accepted");
    settings.engine.added_to(&serde_json::from_str(SHIPPED).expect("JSON")).expect("they are apart")
}

/// A value of each key that is not the one in force without it. One row a key: what is ignored fails.
fn examples() -> [(&'static str, Value); 12] {
    [
        (
            "default-address-pools",
            json!([{ "base": "10.99.0.0/16", "size": 24 }, { "base": "10.98.0.0/24", "size": 29 }]),
        ),
        ("dns", json!(["192.0.2.53", "2001:db8::53"])),
        ("dns-opts", json!(["ndots:2", "rotate"])),
        ("dns-search", json!(["corp.example.com"])),
        ("insecure-registries", json!(["registry.example.com:5000", "192.0.2.0/24"])),
        ("log-driver", json!("local")),
        ("log-opts", json!({ "max-size": "5m", "max-file": "7" })),
        ("max-concurrent-downloads", json!(5)),
        ("max-concurrent-uploads", json!(6)),
        ("mtu", json!(1400)),
        (
            "proxies",
            json!({ "http-proxy": "http://p:1", "https-proxy": "http://p:2", "no-proxy": "localhost,.example.com" }),
        ),
        ("registry-mirrors", json!(["https://mirror.example.com"])),
    ]
}

#[test]
fn each_key_reaches_dockerd_by_itself_and_with_all_others() {
    let without = for_dockerd(&json!({}));
    for (key, value) in examples() {
        let with = for_dockerd(&json!({ key: value }));
        assert_eq!(with[key], value, "{key}");
        assert_ne!(without.get(key), Some(&value), "{key} would have it anyway");
        let others = |all: &Map<String, Value>| -> Vec<_> {
            all.iter()
                .filter(|(name, _)| *name != key)
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect()
        };
        assert_eq!(others(&with), others(&without), "{key} changes others");
    }
    let all: Map<String, Value> =
        examples().map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
    let with = for_dockerd(&Value::Object(all.clone()));
    assert!(all.iter().all(|(key, value)| with[key] == *value));
}

#[test]
fn every_key_has_an_example_and_a_why() {
    let names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names, examples().map(|(key, _)| key));
    assert!(KEYS.iter().all(|key| !key.why.is_empty()));
}

#[test]
fn the_engine_s_own_settings_are_as_they_were() {
    let own: Map<String, Value> = serde_json::from_str(SHIPPED).expect("JSON");
    let all: Map<String, Value> =
        examples().map(|(key, value)| (key.to_owned(), value)).into_iter().collect();
    let with = for_dockerd(&Value::Object(all));
    assert!(own.iter().all(|(key, value)| with[key] == *value));
    assert_eq!(with.len(), own.len() + KEYS.len());
    assert!(
        KEYS.iter().all(|key| !own.contains_key(key.name)),
        "a key is both the image's and the administrator's"
    );
    let mut taken = own;
    taken.insert("log-opts".to_owned(), json!({}));
    let error = Engine::default().added_to(&taken).expect_err("both have it");
    assert_eq!(error.to_string(), "they have `log-opts` already, which no administrator's setting changes");
}

#[test]
fn every_key_of_the_engine_s_own_settings_is_refused_with_a_reason() {
    let own: Map<String, Value> = serde_json::from_str(SHIPPED).expect("JSON");
    for key in own.keys() {
        let message = refusal(&json!({ key: "x" }));
        assert!(message.starts_with(&format!("`eci.engine.{key}` is \"x\": ")), "{message}");
        assert!(!message.contains("no setting of the engine that this version takes"), "{message}");
    }
}

#[test]
fn what_would_weaken_isolation_is_refused_with_a_reason_of_its_own() {
    for key in [
        "userns-remap",
        "runtimes",
        "default-runtime",
        "hosts",
        "authorization-plugins",
        "exec-opts",
        "data-root",
        "exec-root",
        "containerd",
        "containerd-namespace",
        "containerd-plugin-namespace",
        "seccomp-profile",
        "cgroup-parent",
        "init-path",
        "userland-proxy-path",
        "features",
        "tls",
        "tlsverify",
        "tlscacert",
        "tlscert",
        "tlskey",
        "iptables",
        "storage-driver",
        "default-ulimits",
        "default-cgroupns-mode",
        "cpu-rt-runtime",
        "metrics-addr",
        "group",
        "bip",
        "fixed-cidr-v6",
    ] {
        let message = refusal(&json!({ key: {} }));
        assert!(message.starts_with(&format!("`eci.engine.{key}` is {{}}: ")), "{message}");
        assert!(!message.contains("no setting of the engine that this version takes"), "{message}");
        assert!(message.ends_with("; leave it out"), "{message}");
    }
    let message = refusal(&json!({ "Dns": [] }));
    assert!(
        message.contains("no setting of the engine that this version takes") && message.contains("dns-opts"),
        "{message}"
    );
}

#[test]
fn rows_of_refusals_are_unique_and_refuse_nothing_that_is_taken() {
    let names: BTreeSet<_> = REFUSED.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), REFUSED.len());
    assert!(REFUSED.iter().all(|row| !row.why.is_empty()));
    assert!(KEYS.iter().all(|key| !names.contains(key.name)));
}

#[test]
fn a_value_that_is_wrong_is_named_with_its_place_reason_and_fix() {
    for (engine, message) in [
        (
            json!({ "dns": ["192.0.2.53", "127.0.0.53"] }),
            "`eci.engine.dns[1]` is \"127.0.0.53\": a container would ask itself; write the address of a resolver that \
             containers reach, such as 192.0.2.53",
        ),
        (
            json!({ "dns": "192.0.2.53" }),
            "`eci.engine.dns` is \"192.0.2.53\": it has to be a list; write it as […]",
        ),
        (
            json!({ "dns": ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"] }),
            "`eci.engine.dns` is a list of 4: more than 3 are not used; leave some out",
        ),
        (
            json!({ "mtu": "1400" }),
            "`eci.engine.mtu` is \"1400\": it has to be a whole number from 576 to 9000; write such a number, without quotes",
        ),
        (
            json!({ "log-opts": { "max-size": "-1" } }),
            "`eci.engine.log-opts.max-size` is \"-1\": it is not a size; write a number from 1 to 9999 with k, m or g, such as 10m",
        ),
        (
            json!({ "log-opts": { "tag": "x" } }),
            "`eci.engine.log-opts.tag` is \"x\": it is not a key of this version; leave it out; those are max-size and max-file",
        ),
        (
            json!({ "proxies": { "ftp-proxy": "x" } }),
            "`eci.engine.proxies.ftp-proxy` is \"x\": it is not a key of this version; leave it out; those are http-proxy, \
             https-proxy and no-proxy",
        ),
    ] {
        assert_eq!(refusal(&engine), message);
    }
}

#[test]
fn pools_are_networks_that_can_be_cut() {
    let pools = |pools: Value| refusal(&json!({ "default-address-pools": pools }));
    let pool = |base: &str, size: u64| json!({ "base": base, "size": size });
    assert!(
        pools(json!([pool("10.99.0.0/16", 15)])).contains("networks of /15 do not fit into 10.99.0.0/16")
    );
    assert!(pools(json!([pool("10.99.0.0/16", 30)])).contains("from 1 to 29"));
    assert!(pools(json!([pool("10.99.0.1/16", 24)])).contains("`eci.engine.default-address-pools[0].base`"));
    assert!(pools(json!([pool("10.0.0.0/8", 25)])).contains("131072 networks, and 65536 are the most"));
    assert!(pools(json!([pool("10.0.0.0/8", 24), pool("192.0.2.0/24", 25)])).contains("65538 networks"));
    let overlap = pools(json!([pool("10.96.0.0/12", 24), pool("10.99.0.0/16", 24)]));
    assert!(overlap.contains("10.99.0.0/16 overlaps with 10.96.0.0/12"), "{overlap}");
    assert!(pools(json!([{ "size": 24 }])).contains("default-address-pools[0].base` is missing"));
    assert!(pools(json!([{ "base": "10.99.0.0/16" }])).contains("default-address-pools[0].size` is missing"));
    assert!(pools(json!([{ "base": "10.99.0.0/16", "size": 24, "x": 1 }])).contains("not a key of a pool"));
    assert!(read_engine(&json!({ "default-address-pools": [pool("10.0.0.0/8", 24)] })).is_ok());
}

#[test]
fn limits_of_logs_that_are_not_set_are_the_default_s() {
    assert_eq!(for_dockerd(&json!({}))["log-driver"], "json-file");
    assert_eq!(for_dockerd(&json!({}))["log-opts"], json!({ "max-size": "10m", "max-file": "3" }));
    let one = json!({ "log-driver": "local", "log-opts": { "max-file": "5" } });
    assert_eq!(for_dockerd(&one)["log-opts"], json!({ "max-size": "10m", "max-file": "5" }));
}
