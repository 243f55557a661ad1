//! An administrator's settings, from a file to what is in force: each key shows in the engine or in a container, and what is not
//! understood starts no engine.
//!
//! Elsewhere: values that are refused are unit tests of `eci-policy`, and files that a build does not take are suite `input`. That
//! the numbers of layers fetched and sent at once reach dockerd is a unit test, too: it shows them nowhere.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use eci_tests::built::{Built, FILE};
use eci_tests::suite::{self, Row, row};
use eci_tests::vm::Vm;
use eci_tests::{command, image};
use serde_json::{Value, json};

/// Name of the instance.
const NAME: &str = "settings";
/// The key that signs config disks of the image, and is not the image's own.
const KEY: &str = "keys/image.key";
/// Exit code of `eci-builder --help` for an engine that does not get ready.
const BOOT: i32 = 6;

/// Nothing of it is the default, and nothing of it is fetched from or asked: no such machines exist (RFC 2606, RFC 5737).
fn own() -> Value {
    json!({
        "configurationFileVersion": 2,
        "enhancedContainerIsolation": { "value": true, "locked": false },
        "scout": { "locked": true, "sbomIndexing": false },
        "eci": { "ports": { "publish": "nothing" }, "shares": { "allow": [{ "path": "/srv", "readOnly": true }] }, "engine": {
            "default-address-pools": [{ "base": "10.98.0.0/16", "size": 26 }],
            "dns": ["192.0.2.53", "192.0.2.54"],
            "dns-opts": ["ndots:3", "timeout:7"],
            "dns-search": ["corp.example.com"],
            "insecure-registries": ["registry.example.com:5000", "198.51.100.0/24"],
            "log-driver": "local",
            "log-opts": { "max-size": "3m", "max-file": "4" },
            "max-concurrent-downloads": 5,
            "max-concurrent-uploads": 6,
            "mtu": 1380,
            "proxies": {
                "http-proxy": "http://plain.example.com:3128",
                "https-proxy": "http://secure.example.com:3128",
                "no-proxy": "localhost,.example.org"
            },
            "registry-mirrors": ["https://mirror.example.com"]
        } }
    })
}

/// A booted image with [`own`] settings.
struct Own {
    vm: Vm,
    built: Built,
    /// What the engine says of itself.
    info: Value,
}

fn main() -> ExitCode {
    match boot() {
        Ok(own) => suite::run(own, rows(), |own| own.vm.last_words()),
        Err(error) => {
            eprintln!("the image with settings does not boot: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Own> {
    let built = Built::new(&own().to_string(), &[])?;
    let vm = Vm::start(NAME, &built.out())?;
    let info = serde_json::from_str(&vm.docker(&["info", "--format", "{{json .}}"])?.ok()?)?;
    vm.import_busybox()?;
    Ok(Own { vm, built, info })
}

fn rows() -> Vec<Row<Own>> {
    vec![
        row("mirrors_of_the_settings_are_the_engine_s", |own| {
            own.info_is("/RegistryConfig/Mirrors", &json!(["https://mirror.example.com/"]))
        }),
        row("registries_without_a_certificate_are_the_engine_s", |own| {
            let indices = &own.info["RegistryConfig"]["IndexConfigs"];
            ensure!(indices["registry.example.com:5000"]["Secure"] == false, "{indices}");
            let networks = &own.info["RegistryConfig"]["InsecureRegistryCIDRs"];
            ensure!(
                networks.as_array().is_some_and(|all| all.contains(&json!("198.51.100.0/24"))),
                "{networks}"
            );
            Ok(())
        }),
        row("proxies_of_the_settings_are_the_engine_s", |own| {
            own.info_is("/HttpProxy", &json!("http://plain.example.com:3128"))?;
            own.info_is("/HttpsProxy", &json!("http://secure.example.com:3128"))?;
            own.info_is("/NoProxy", &json!("localhost,.example.org"))
        }),
        row("networks_are_cut_from_the_pools_of_the_settings", |own| {
            own.info_is("/DefaultAddressPools", &json!([{ "Base": "10.98.0.0/16", "Size": 26 }]))?;
            own.vm.docker(&["network", "create", "cut"])?.ok()?;
            let subnet = |network| {
                own.vm
                    .docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", network])?
                    .ok()
            };
            for network in ["bridge", "cut"] {
                let subnet = subnet(network)?;
                ensure!(subnet.starts_with("10.98.") && subnet.ends_with("/26"), "{network} is {subnet}");
            }
            Ok(())
        }),
        row("containers_ask_the_resolvers_of_the_settings", |own| {
            let text = own.vm.sh(&[], "cat /etc/resolv.conf")?;
            let lines: BTreeSet<_> = text.lines().collect();
            for line in [
                "nameserver 192.0.2.53",
                "nameserver 192.0.2.54",
                "search corp.example.com",
                "options ndots:3 timeout:7",
            ] {
                ensure!(lines.contains(line), "no `{line}` in\n{text}");
            }
            Ok(())
        }),
        row("packets_are_as_long_as_the_settings_say", |own| {
            let mtu = own.vm.sh(&[], "cat /sys/class/net/eth0/mtu")?;
            ensure!(mtu == "1380", "{mtu}");
            Ok(())
        }),
        row("logs_are_kept_as_the_settings_say", |own| {
            own.vm.docker(&["create", "--name", "logged", "busybox", "true"])?.ok()?;
            let text = own.vm.docker(&["inspect", "-f", "{{json .HostConfig.LogConfig}}", "logged"])?.ok()?;
            let log: Value = serde_json::from_str(&text)?;
            ensure!(
                log == json!({ "Type": "local", "Config": { "max-file": "4", "max-size": "3m" } }),
                "{log}"
            );
            Ok(())
        }),
        row("no_port_is_published_where_the_settings_say_so", |own| {
            let publish = ["run", "--rm", "-p", "127.0.0.1:0:80", "busybox", "true"];
            own.vm
                .docker(&publish)?
                .refused(&["can't be published because the administrator's settings publish none"])?;
            own.vm.docker(&["run", "--rm", "busybox", "true"])?.ok().map(drop)
        }),
        row("docker_info_tells_what_is_in_force", |own| {
            let digest = own.checked()?["sha256"].clone();
            let version = own.vm.status()?["image"]["version"].clone();
            // The engine keeps them in no order.
            let labels = BTreeSet::from([
                "org.eci.isolation=on".to_owned(),
                format!("org.eci.version={}", version.as_str().context("a version")?),
                format!("org.eci.settings=sha256:{}", digest.as_str().context("a digest")?),
            ]);
            let shown: BTreeSet<String> = serde_json::from_value(own.info["Labels"].clone())?;
            ensure!(shown == labels, "{shown:?}");
            Ok(())
        }),
        row("what_no_settings_change_is_as_ever", |own| {
            own.info_is("/DefaultRuntime", &json!("eci-runc"))?;
            own.info_is("/DockerRootDir", &json!("/var/lib/docker"))?;
            own.info_is("/CgroupDriver", &json!("cgroupfs"))?;
            let map = own.vm.sh(&["--privileged"], "cat /proc/self/uid_map")?;
            ensure!(map.split_whitespace().last() == Some("65536"), "{map}");
            own.vm.every_check_holds()
        }),
        row("status_check_and_inspect_tell_of_the_same_file", |own| {
            let settings = own.vm.status()?["settings"].clone();
            let engine: Vec<_> = own.checked()?["inForce"]["engine"]
                .as_object()
                .context("an object")?
                .keys()
                .cloned()
                .collect();
            let digest = own.checked()?["sha256"].clone();
            ensure!(
                settings
                    == json!({ "source": "image", "sha256": digest, "isolation": "on", "locked": false, "engine": engine, "kept_apart": ["scout"],
                        "ports": "nothing", "shares": [{ "path": "/srv", "readOnly": true }] }),
                "{settings}"
            );
            let inspected = own.built.builder(&["inspect", "out", "--json"])?.ok()?;
            let inspected: Value = serde_json::from_str(&inspected)?;
            ensure!(
                inspected["settings"] == json!({ "source": "image", "sha256": digest, "takesDisks": true }),
                "{}",
                inspected["settings"]
            );
            Ok(())
        }),
        row("an_image_without_settings_has_the_default", |_| {
            let mut inspect = Command::new(image::builder()?);
            let text = command::run(inspect.arg("inspect").arg(image::out()?).arg("--json"), &[])?.ok()?;
            let settings = serde_json::from_str::<Value>(&text)?["settings"]["source"].clone();
            ensure!(settings == "default", "{settings}");
            Ok(())
        }),
        row("a_config_disk_of_the_right_key_is_in_force", |own| {
            let vm = &own.vm;
            vm.stop()?;
            let disk = own.disk("second.img", 2, KEY)?;
            vm.run(&["--settings", &disk, "--publish-on", "all"])?.ok()?;
            let settings = vm.status()?["settings"].clone();
            let found = (&settings["source"], &settings["edition"], &settings["locked"]);
            ensure!(found == (&json!("disk"), &json!(2), &json!(true)), "{settings}");
            let mtu = vm.sh(&[], "cat /sys/class/net/eth0/mtu")?;
            ensure!(mtu == "1300", "{mtu}");
            let digest = settings["sha256"].as_str().context("a digest")?;
            let labels = vm.docker(&["info", "--format", "{{json .Labels}}"])?.ok()?;
            ensure!(labels.contains(digest) && labels.contains("org.eci.isolation=locked"), "{labels}");
            vm.every_check_holds()?;
            ports_are_on_loopback(vm)?;
            vm.stop()?;
            let record: Value = serde_json::from_slice(&fs::read(vm.state().join("instance.json"))?)?;
            ensure!(record["settings"] == disk.as_str(), "the next run has another disk: {record}");
            Ok(())
        }),
        row("a_machine_that_is_too_large_or_too_old_starts_no_engine", |own| {
            for (name, limit, why) in [
                (
                    "memory.img",
                    json!({ "resources": { "memory": "1G" } }),
                    "of memory, and the administrator's settings allow 1 GiB: give it less (`eci-builder run --memory`)",
                ),
                (
                    "cpus.img",
                    json!({ "resources": { "cpus": 1 } }),
                    "the machine has 2 processors, and the administrator's settings allow 1: give it fewer",
                ),
                (
                    "version.img",
                    json!({ "updates": { "minimumVersion": "99.1" } }),
                    "and the administrator's settings want 99.1 or later: update it (`eci-builder update`)",
                ),
            ] {
                let disk = own.disk_of(name, 2, KEY, &limit)?;
                own.vm_refuses(&disk, why)?;
            }
            Ok(())
        }),
        row("an_older_one_of_another_key_or_a_changed_one_starts_no_engine", |own| {
            let older = own.disk("older.img", 1, KEY)?;
            own.vm_refuses(&older, "edition 1 on the config disk is older than 2, which was taken before")?;
            let theirs = own.disk("theirs.img", 3, "their-keys/image.key")?;
            let untrusted = "is not signed by the key that this image takes settings from";
            own.vm_refuses(&theirs, &format!("edition 3 on the config disk {untrusted}"))?;
            // One digit of a good disk.
            let changed = own.disk("changed.img", 3, KEY)?;
            let mut bytes = fs::read(&changed)?;
            let digit =
                bytes.windows(10).position(|part| part == b"\"edition\":").context("an edition")? + 10;
            ensure!(bytes[digit] == b'3', "the edition is elsewhere");
            bytes[digit] = b'4';
            fs::write(&changed, bytes)?;
            own.vm_refuses(&changed, &format!("edition 4 on the config disk {untrusted}"))
        }),
        row("only_folders_that_the_settings_allow_are_shared_and_as_they_say", |own| {
            let vm = &own.vm;
            let folder = image::shareable_folder()?;
            let folder = folder.path().to_string_lossy().into_owned();
            for (share, why) in [
                (folder.as_str(), "the administrator's settings allow `/srv` to be read; share one of these"),
                (
                    "/srv",
                    "cannot share `/srv` to be written to: the administrator's settings allow to read it",
                ),
            ] {
                let outcome = vm.run(&["--no-settings", "--share", share])?;
                ensure!(outcome.code == BOOT, "exit code {}: {}", outcome.code, outcome.stderr);
                outcome.refused(&[why])?;
            }
            vm.run(&["--no-settings", "--share", "/srv:ro"])?.ok()?;
            ensure!(vm.status()?["shares"] == json!([{ "path": "/srv", "readOnly": true }]));
            vm.stop()
        }),
        row("an_image_without_a_key_takes_no_config_disk", |own| {
            let vm = Vm::prepare("keyless", &image::out()?)?;
            let disk = own.disk("good.img", 3, KEY)?;
            let outcome = vm.run(&["--settings", &disk])?;
            ensure!(outcome.code == BOOT, "exit code {}: {}", outcome.code, outcome.stderr);
            outcome.refused(&["this image takes no config disk"])?;
            let none = own.built.folder().join(FILE);
            let outcome = vm.run(&["--settings", &none.to_string_lossy()])?;
            outcome
                .refused(&["is not a config disk", "hint: `eci-builder settings sign FILE` makes one"])
                .map(drop)
        }),
        row("settings_that_are_not_understood_start_no_engine_and_say_why", refused),
    ]
}

impl Own {
    /// A config disk with packets of another length, ports on loopback, and nothing else of [`own`].
    fn disk(&self, name: &str, edition: u64, key: &str) -> Result<String> {
        let ours = json!({ "engine": { "mtu": 1300 }, "ports": { "publish": "loopback" } });
        self.disk_of(name, edition, key, &ours)
    }

    /// A config disk with these of our settings.
    fn disk_of(&self, name: &str, edition: u64, key: &str, ours: &Value) -> Result<String> {
        let folder = self.built.folder();
        let settings = json!({ "configurationFileVersion": 2, "eci": ours });
        fs::write(folder.join("disk.json"), settings.to_string())?;
        let edition = edition.to_string();
        let sign = ["settings", "sign", "disk.json", "--key", key, "--edition", &edition, "--out", name];
        self.built.builder(&sign)?.ok()?;
        Ok(folder.join(name).to_string_lossy().into_owned())
    }

    fn vm_refuses(&self, disk: &str, why: &str) -> Result<()> {
        let outcome = self.vm.run(&["--settings", disk])?;
        ensure!(outcome.code == BOOT, "exit code {}: {}", outcome.code, outcome.stderr);
        outcome.refused(&[why]).map(drop)
    }

    fn info_is(&self, pointer: &str, expected: &Value) -> Result<()> {
        let found = self.info.pointer(pointer).unwrap_or(&Value::Null);
        ensure!(found == expected, "`docker info` has {found} at {pointer}");
        Ok(())
    }

    /// What `settings check` says of the file.
    fn checked(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.built.builder(&["settings", "check", FILE, "--json"])?.ok()?)?)
    }
}

/// Whatever addresses the machine's user allowed.
fn ports_are_on_loopback(vm: &Vm) -> Result<()> {
    let elsewhere = ["run", "--rm", "-p", "192.0.2.9:8080:80", "busybox", "true"];
    vm.docker(&elsewhere)?.refused(&["the administrator's settings keep ports on the host's loopback"])?;
    let serve = ["run", "-d", "--name", "served", "-p", "80", "busybox", "sleep", "600"];
    vm.docker(&serve)?.ok()?;
    let places = vm.docker(&["port", "served", "80"])?.ok()?;
    let place: SocketAddr = places.lines().next().context("no port")?.parse()?;
    ensure!(place.ip().is_unspecified(), "it was wanted at {place}");
    let port = place.port();
    TcpStream::connect((Ipv4Addr::LOCALHOST, port)).context("it is not published")?;
    // Taken, if the host listened on every address.
    TcpListener::bind(("127.0.0.2", port)).context("it is published further")?;
    vm.docker(&["rm", "-f", "served"])?.ok().map(drop)
}

/// The VM has a reader of its own: what a build let through is found there.
fn refused(_: &Own) -> Result<()> {
    let mut broken = own();
    broken["eci"]["engine"]["hosts"] = json!(["tcp://0.0.0.0:2375"]);
    broken["eci"]["resources"] = json!({ "disk": "4G" });
    let changes = [
        ("name = \"eci\"", "name = \"eci-test\""),
        ("flavour = \"shipped\"", "flavour = \"test\""),
        ("[settings]", "[settings]\nunchecked = true"),
    ];
    let built = Built::new(&broken.to_string(), &changes)?;
    let vm = Vm::prepare("refused", &built.out())?;
    let outcome = vm.run(&[])?;
    ensure!(
        outcome.code == BOOT,
        "exit code {}, not {BOOT}: {}{}",
        outcome.code,
        outcome.stderr,
        vm.last_words()
    );
    outcome
        .refused(&[
            "the administrator's settings `/etc/eci/admin-settings.json` are not understood",
            "`eci.engine.hosts` is a list of 1: the engine listens for the gate alone, and on no network; leave it out",
            "`eci.resources.disk` is \"4G\": it is no key of resources",
        ])
        .map(drop)
}
