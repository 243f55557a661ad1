use eci_contract::choice::Switch;
use eci_contract::socket::ListKind;
use serde_json::{Value, json};

use super::isolation::Locked;
use super::machine::Machine;
use super::*;

fn read_json(value: &Value) -> Result<Settings, Error> {
    read(value.to_string().as_bytes())
}

fn refusal(value: &Value) -> String {
    read_json(value).expect_err("it is refused").to_string()
}

/// A file with this key besides the version.
fn with(key: &str, value: &Value) -> Value {
    json!({ "configurationFileVersion": 2, key: value })
}

fn isolation(value: &Value) -> Value {
    with("enhancedContainerIsolation", value)
}

#[test]
fn the_default_is_isolation_that_is_locked() {
    let settings = read(DEFAULT.as_bytes()).expect("it is good");
    assert_eq!(settings, Settings::default());
    assert!(settings.isolation.locked && settings.kept_apart.is_empty());
    // A file that says nothing of isolation does not unlock it.
    assert_eq!(read_json(&json!({ "configurationFileVersion": 2 })).expect("it is good"), settings);
}

#[test]
fn isolation_is_what_the_administrator_says_and_the_user_s_to_choose_where_it_is_not_locked() {
    use Switch::{Off, On};
    let read = |value: bool, locked: bool| {
        read_json(&isolation(&json!({ "value": value, "locked": locked }))).expect("it is good").isolation
    };
    for (value, is) in [(true, On), (false, Off)] {
        for choice in [None, Some(On), Some(Off)] {
            assert_eq!(read(value, false).chosen(choice), Ok(choice.unwrap_or(is)), "{value} {choice:?}");
        }
        let other = if is == On { Off } else { On };
        assert_eq!(read(value, true).chosen(None), Ok(is));
        assert_eq!(read(value, true).chosen(Some(is)), Ok(is));
        assert_eq!(read(value, true).chosen(Some(other)), Err(Locked { wanted: other, locked: is }));
    }
    assert_eq!(Isolation::default().chosen(None), Ok(On), "without the key it is on");
    assert_eq!(
        Isolation::default().chosen(Some(Off)).expect_err("and locked").to_string(),
        "isolation of containers cannot be switched off: the administrator's settings lock it on"
    );
    assert_eq!(
        refusal(&isolation(&json!({ "value": true }))),
        "`enhancedContainerIsolation.locked` is missing: Docker's schema has it; add it: true or false"
    );
    assert!(
        refusal(&isolation(&json!({ "locked": true })))
            .starts_with("`enhancedContainerIsolation.value` is missing")
    );
    for wrong in [json!("true"), json!(1), json!(null)] {
        assert!(read_json(&isolation(&json!({ "value": wrong, "locked": true }))).is_err(), "{wrong}");
        assert!(read_json(&isolation(&json!({ "value": true, "locked": wrong }))).is_err(), "{wrong}");
    }
    assert!(refusal(&isolation(&json!({ "value": true, "locked": true, "Value": false }))).contains("Value"));
    assert!(read_json(&isolation(&json!(true))).is_err());
}

#[test]
fn without_isolation_every_container_has_the_whole_socket() {
    let settings = Isolation::default();
    assert_eq!(settings.socket(Switch::On), settings.socket);
    assert_eq!(settings.socket(Switch::On).images, [""; 0]);
    let all = settings.socket(Switch::Off);
    assert_eq!(all.images, ["*"]);
    assert_eq!((all.commands.kind, all.commands.commands.len()), (ListKind::Deny, 0));
}

#[test]
fn the_engine_s_socket_is_for_images_on_a_list_and_commands_by_another() {
    let mount =
        |lists: &Value| isolation(&json!({ "value": true, "locked": true, "dockerSocketMount": lists }));
    let empty = json!({ "imageList": { "images": [], "allowDerivedImages": false }, "commandList": { "type": "deny", "commands": [] } });
    assert_eq!(read_json(&mount(&empty)).expect("it is good"), Settings::default());
    let lists = json!({
        "imageList": { "images": ["docker.io/testcontainers/ryuk:*", "*"], "allowDerivedImages": true },
        "commandList": { "type": "allow", "commands": ["ps", "container*"] }
    });
    let socket = read_json(&mount(&lists)).expect("it is good").isolation.socket;
    assert_eq!(socket.images, ["docker.io/testcontainers/ryuk:*", "*"]);
    assert!(socket.allow_derived_images);
    assert_eq!((socket.commands.kind, socket.commands.commands.len()), (ListKind::Allow, 2));
    for (lists, path) in [
        (json!({ "imageList": { "images": ["Not an image"] } }), "imageList.images[0]"),
        (json!({ "imageList": { "images": ["a", "a@sha256:12"] } }), "imageList.images[1]"),
        (json!({ "imageList": { "images": [1] } }), "imageList.images[0]"),
        (json!({ "commandList": { "type": "deny", "commands": ["pussh"] } }), "commandList.commands[0]"),
        (json!({ "commandList": { "type": "maybe" } }), "commandList.type"),
        (json!({ "commandList": { "kind": "deny" } }), "commandList.kind"),
        (json!({ "imageList": { "images": "*" } }), "imageList.images"),
        (json!({ "imageList": { "allowDerivedImages": "yes" } }), "imageList.allowDerivedImages"),
        (json!({ "imageList": { "image": [] } }), "imageList.image"),
        (json!({ "imagelist": { "images": [] } }), "imagelist"),
        (json!({ "imageList": [] }), "imageList"),
    ] {
        let message = refusal(&mount(&lists));
        assert!(
            message.starts_with(&format!("`enhancedContainerIsolation.dockerSocketMount.{path}` is ")),
            "{message}"
        );
    }
}

#[test]
fn the_version_is_two() {
    for wrong in [json!(1), json!(3), json!("2"), json!(2.0), json!(null)] {
        let message = refusal(&json!({ "configurationFileVersion": wrong }));
        assert!(message.contains("reads version 2 alone; write the number 2"), "{message}");
    }
    assert!(refusal(&json!({})).starts_with("`configurationFileVersion` is missing: "));
}

#[test]
fn a_key_of_ours_that_is_not_known_is_refused() {
    let message = refusal(&with("eci", &json!({ "engin": {} })));
    assert_eq!(
        message,
        "`eci.engin` is {}: it is not a key of this version; leave it out; the keys are `dockerSocketMount`, `engine`, `ports`, \
         `registryAccess`, `resources`, `shares` and `updates`"
    );
    assert_eq!(read_json(&with("eci", &json!({ "engine": {} }))).expect("it is good"), Settings::default());
    assert!(
        read_json(&with("eci", &json!([]))).is_err()
            && read_json(&with("eci", &json!({ "engine": 1 }))).is_err()
    );
}

#[test]
fn docker_s_other_keys_are_kept_apart_and_nothing_else_is() {
    let file = json!({ "blockDockerLoad": { "value": true }, "configurationFileVersion": 2, "scout": { "locked": false } });
    let settings = read_json(&file).expect("it is good");
    let kept: Vec<_> = settings.kept_apart.iter().map(|feature| feature.key).collect();
    assert_eq!(kept, ["blockDockerLoad", "scout"]);
    assert_eq!(Settings { kept_apart: Vec::new(), ..settings }, Settings::default());
    for key in [
        "engine",
        "ECI",
        "registryAccess",
        "enhancedcontainerisolation",
        "enhancedContainerIsolation ",
        "x",
        "",
    ] {
        let message = refusal(&with(key, &json!({})));
        assert!(message.contains("neither a key of Docker Desktop's"), "{key}: {message}");
    }
}

#[test]
fn a_key_that_is_there_twice_is_refused_anywhere() {
    for (text, path) in [
        (r#"{"configurationFileVersion": 2, "configurationFileVersion": 2}"#, "configurationFileVersion"),
        (
            r#"{"configurationFileVersion": 2, "enhancedContainerIsolation": {"value": true, "locked": true, "locked": false}}"#,
            "enhancedContainerIsolation.locked",
        ),
        (r#"{"configurationFileVersion": 2, "eci": {"engine": {"dns": [], "dns": []}}}"#, "eci.engine.dns"),
        (r#"{"configurationFileVersion": 2, "scout": {"a": [{"b": 1, "b": 2}]}}"#, "scout.a[0].b"),
    ] {
        let message = read(text.as_bytes()).expect_err("it is refused").to_string();
        assert!(message.contains(&format!("`{path}` is ")) && message.contains("there twice"), "{message}");
    }
}

#[test]
fn what_is_no_json_or_too_much_is_refused() {
    let said = |bytes: &[u8]| read(bytes).expect_err("it is refused").to_string();
    assert_eq!(said(b""), "it is not JSON");
    assert_eq!(said(b"{\"configurationFileVersion\": 2,}"), "it is not JSON");
    assert_eq!(said(b"{\"configurationFileVersion\": 2} {}"), "it is not JSON");
    assert_eq!(said(b"{\"configurationFileVersion\": 2, \"scout\": \"\xff\"}"), "it is not JSON");
    assert_eq!(said(&[b'['; 1000]), "it is not JSON");
    assert_eq!(said(b"\xef\xbb\xbf{}"), "it begins with a byte order mark; save it as UTF-8 without one");
    assert_eq!(said(&[b' '; MAX_BYTES + 1]), "it has 32769 bytes, and 32768 are the most");
    assert_eq!(said(b"[]"), "`the file` is []: it has to be an object; write it as {…}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let file = json!({ "colour": 1, "eci": { "engine": { "hosts": [], "mtu": 1 } } });
    let Err(Error::Refused(problems)) = read_json(&file) else { panic!("accepted") };
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["configurationFileVersion", "colour", "eci.engine.hosts", "eci.engine.mtu"]);
}

/// The published schema and the reader know the same keys; that they judge examples alike is shown by suite `verify`.
#[test]
fn the_schema_has_the_keys_of_the_tables() {
    let schema: Value =
        serde_json::from_str(include_str!("../../../settings/admin-settings.schema.json")).expect("JSON");
    let keys = |value: &Value| -> Vec<String> {
        value["properties"].as_object().expect("properties").keys().cloned().collect()
    };
    let sorted = |names: Vec<&str>| {
        let mut names: Vec<_> = names.into_iter().map(str::to_owned).collect();
        names.sort();
        names
    };
    let (mut top, ours) = (keys(&schema), schema["properties"]["eci"].clone());
    top.sort();
    let mut known: Vec<_> = docker::FEATURES.iter().map(|feature| feature.key).collect();
    known.extend(["configurationFileVersion", "enhancedContainerIsolation", "eci"]);
    assert_eq!(top, sorted(known));
    let known = ["dockerSocketMount", "engine", "ports", "registryAccess", "resources", "shares", "updates"];
    assert_eq!(keys(&ours), known);
    let mut engine = keys(&ours["properties"]["engine"]);
    engine.sort();
    assert_eq!(engine, sorted(engine::keys::KEYS.iter().map(|key| key.name).collect()));
}

#[test]
fn shares_are_the_folders_of_the_list_and_every_folder_without_one() {
    let shares = |value: &Value| with("eci", &json!({ "shares": value }));
    let allow = |value: &Value| shares(&json!({ "allow": value }));
    let read = |value: &Value| read_json(value).expect("it is good").shares.allow;
    assert_eq!(read(&shares(&json!({}))), None);
    assert_eq!(read(&allow(&json!([]))), Some(vec![]));
    let list = json!([{ "path": "/home" }, { "path": "/srv/a", "readOnly": true }]);
    let read = read(&allow(&list)).expect("a list");
    let rows: Vec<_> = read.iter().map(|share| (share.path.as_str(), share.read_only)).collect();
    assert_eq!(rows, [("/home", false), ("/srv/a", true)]);
    for (wrong, path, reason) in [
        (shares(&json!([])), "eci.shares", "it has to be an object"),
        (shares(&json!({ "deny": [] })), "eci.shares.deny", "it is no key of shares"),
        (allow(&json!("/home")), "eci.shares.allow", "it has to be a list"),
        (allow(&json!(["/home"])), "eci.shares.allow[0]", "it has to be an object"),
        (allow(&json!([{}])), "eci.shares.allow[0].path", "it says which folder"),
        (allow(&json!([{ "path": "home" }])), "eci.shares.allow[0].path", "it is no plain absolute path"),
        (
            allow(&json!([{ "path": "/home/../etc" }])),
            "eci.shares.allow[0].path",
            "it is no plain absolute path",
        ),
        (allow(&json!([{ "path": "/etc" }])), "eci.shares.allow[0].path", "the VM has no place for it"),
        (
            allow(&json!([{ "path": "/home", "readonly": true }])),
            "eci.shares.allow[0].readonly",
            "it is no key of a folder",
        ),
        (
            allow(&json!([{ "path": "/home", "readOnly": "yes" }])),
            "eci.shares.allow[0].readOnly",
            "it has to be true or false",
        ),
        (allow(&json!(vec![json!({ "path": "/home" }); 65])), "eci.shares.allow", "64 folders are the most"),
    ] {
        let message = refusal(&wrong);
        assert!(message.starts_with(&format!("`{path}` is ")) && message.contains(reason), "{message}");
    }
}

#[test]
fn registries_are_those_of_the_list_and_every_one_without_the_key() {
    let ours = |value: &Value| with("eci", value);
    let access = |value: &Value| ours(&json!({ "registryAccess": value }));
    let allowed = |value: &Value| access(&json!({ "allowed": value }));
    let read = |value: &Value| read_json(value).expect("it is good").registries;
    assert_eq!(read(&ours(&json!({}))), None);
    assert_eq!(read(&allowed(&json!([]))), Some(Registries::default()));
    let list =
        ["docker.io", "*.Example.com", "registry.example.com:5000", "[2001:db8::7]:5000", "localhost:5000"];
    assert_eq!(read(&allowed(&json!(list))).expect("a list").written(), list);
    for (wrong, path, reason) in [
        (access(&json!([])), "eci.registryAccess", "it has to be an object"),
        (access(&json!({})), "eci.registryAccess.allowed", "it says which registries"),
        (
            access(&json!({ "allowed": [], "denied": [] })),
            "eci.registryAccess.denied",
            "it is no key of registry access",
        ),
        (allowed(&json!("docker.io")), "eci.registryAccess.allowed", "it has to be a list"),
        (allowed(&json!([1])), "eci.registryAccess.allowed[0]", "it has to be text"),
        (
            allowed(&json!(["docker.io", "*"])),
            "eci.registryAccess.allowed[1]",
            "a wildcard is the first part",
        ),
        (allowed(&json!(["bücher.example"])), "eci.registryAccess.allowed[0]", "write the name as xn--…"),
        (allowed(&json!(["https://docker.io"])), "eci.registryAccess.allowed[0]", "the list is of hosts"),
        (
            allowed(&json!(vec!["docker.io"; 101])),
            "eci.registryAccess.allowed",
            "100 registries are the most",
        ),
    ] {
        let message = refusal(&wrong);
        assert!(message.starts_with(&format!("`{path}` is ")) && message.contains(reason), "{message}");
    }
}

#[test]
fn settings_of_the_engine_that_a_list_leaves_without_effect_are_refused() {
    let both = |engine: &Value| {
        let list = json!({ "allowed": ["mirror.example.com", "other.example.com:5000"] });
        with("eci", &json!({ "engine": engine, "registryAccess": list }))
    };
    for good in [
        json!({ "registry-mirrors": ["https://mirror.example.com/hub", "http://other.example.com:5000"] }),
        json!({ "proxies": { "https-proxy": "http://proxy.example.com:3128" } }),
    ] {
        read_json(&both(&good)).expect("it is good");
    }
    for (wrong, path) in [
        (
            json!({ "registry-mirrors": ["https://mirror.example.com", "https://other.example.com"] }),
            "registry-mirrors[1]",
        ),
        (json!({ "proxies": { "http-proxy": "https://proxy.example.com" } }), "proxies.http-proxy"),
    ] {
        let message = refusal(&both(&wrong));
        assert!(message.starts_with(&format!("`eci.engine.{path}` is ")), "{message}");
    }
}

#[test]
fn images_have_commands_of_their_own_wherever_the_lists_are_in_the_file() {
    let lists = json!({ "commandLists": [
        { "images": ["docker.io/testcontainers/ryuk:*"], "type": "allow", "commands": ["ps", "rm"] },
        { "images": ["tool:1"], "type": "deny", "commands": ["container*"] }
    ] });
    let docker_s =
        json!({ "value": true, "locked": true, "dockerSocketMount": { "imageList": { "images": ["*"] } } });
    let ours = format!("\"eci\": {{\"dockerSocketMount\": {lists}}}");
    let docker_s = format!("\"enhancedContainerIsolation\": {docker_s}");
    for (first, second) in [(&ours, &docker_s), (&docker_s, &ours)] {
        let text = format!("{{\"configurationFileVersion\": 2, {first}, {second}}}");
        let socket = read(text.as_bytes()).expect("it is good").isolation.socket;
        assert_eq!(socket.images, ["*"]);
        let [ryuk, tool] = socket.lists.as_slice() else { panic!("{socket:?}") };
        assert_eq!((ryuk.commands.kind, ryuk.commands.commands.len()), (ListKind::Allow, 2));
        assert_eq!((tool.images.len(), tool.commands.kind), (1, ListKind::Deny));
    }
    let list = |list: &Value| with("eci", &json!({ "dockerSocketMount": { "commandLists": [list] } }));
    let good = json!({ "images": ["a:1"], "type": "deny", "commands": ["push"] });
    read_json(&list(&good)).expect("it is good");
    for (key, wrong, path) in [
        ("images", json!(["Not an image"]), "[0].images[0]"),
        ("type", json!("maybe"), "[0].type"),
        ("commands", json!(["pussh"]), "[0].commands[0]"),
        ("image", json!([]), "[0].image"),
        ("allowDerivedImages", json!(true), "[0].allowDerivedImages"),
    ] {
        let mut wrong_list = good.clone();
        wrong_list[key] = wrong;
        let message = refusal(&list(&wrong_list));
        assert!(message.starts_with(&format!("`eci.dockerSocketMount.commandLists{path}` is ")), "{message}");
    }
    for key in ["images", "type", "commands"] {
        let mut lacking = good.clone();
        lacking.as_object_mut().expect("an object").remove(key);
        let message = refusal(&list(&lacking));
        assert!(message.contains(&format!("commandLists[0].{key}` is missing: ")), "{message}");
    }
    let many = json!({ "dockerSocketMount": { "commandLists": vec![good; 33] } });
    assert!(refusal(&with("eci", &many)).contains("32 lists are the most"));
    let images = json!({ "dockerSocketMount": { "imageList": {} } });
    assert!(refusal(&with("eci", &images)).contains("who has the socket is in `enhancedContainerIsolation`"));
}

#[test]
fn ports_are_published_as_far_as_the_word_says() {
    let ports = |value: &Value| with("eci", &json!({ "ports": value }));
    let read = |value: &Value| read_json(&ports(value)).expect("it is good").ports;
    assert_eq!(read(&json!({})), Reach::All);
    for reach in Reach::EACH {
        assert_eq!(read(&json!({ "publish": reach.word() })), reach);
    }
    for (wrong, path) in [
        (json!([]), "eci.ports"),
        (json!({ "publish": "everywhere" }), "eci.ports.publish"),
        (json!({ "publish": true }), "eci.ports.publish"),
        (json!({ "publishOn": "all" }), "eci.ports.publishOn"),
    ] {
        let message = refusal(&ports(&wrong));
        assert!(message.starts_with(&format!("`{path}` is ")), "{message}");
    }
}

#[test]
fn a_machine_is_no_larger_and_no_older_than_it_may_be() {
    let limits = |value: &Value| read_json(&with("eci", value)).expect("it is good").limits;
    let file = json!({ "resources": { "memory": "4G", "cpus": 2 }, "updates": { "minimumVersion": "1.2" } });
    let limits_of_file = limits(&file);
    let machine = Machine { memory: 4 << 30, cpus: 2, version: "1.2.0" };
    assert_eq!(limits_of_file.judge(machine), Ok(()));
    assert_eq!(limits(&json!({ "resources": {}, "updates": {} })), Limits::default());
    assert_eq!(Limits::default().judge(Machine { version: "of-no-order", ..machine }), Ok(()));
    for (beyond, why) in [
        (
            Machine { memory: (4 << 30) + 1, ..machine },
            "the machine has 4097 MiB of memory, and the administrator's settings allow 4 GiB: give it less (`eci-builder run --memory`)",
        ),
        (
            Machine { cpus: 3, ..machine },
            "the machine has 3 processors, and the administrator's settings allow 2: give it fewer (`eci-builder run --cpus`)",
        ),
        (
            Machine { version: "1.1.9", ..machine },
            "the image is of version 1.1.9, and the administrator's settings want 1.2 or later: update it (`eci-builder update`)",
        ),
        (
            Machine { version: "of-no-order", ..machine },
            "the image is of version of-no-order, and the administrator's settings want 1.2 or later: update it (`eci-builder update`)",
        ),
    ] {
        assert_eq!(limits_of_file.judge(beyond).expect_err("beyond a limit").to_string(), why);
    }
    assert_eq!(limits(&json!({ "resources": { "memory": "512m" } })).memory, Some(512 << 20));
    for (wrong, path) in [
        (json!({ "resources": [] }), "eci.resources"),
        (json!({ "resources": { "disk": "4G" } }), "eci.resources.disk"),
        (json!({ "resources": { "cpus": 0 } }), "eci.resources.cpus"),
        (json!({ "resources": { "cpus": "2" } }), "eci.resources.cpus"),
        (json!({ "resources": { "memory": 4 } }), "eci.resources.memory"),
        (json!({ "resources": { "memory": "4" } }), "eci.resources.memory"),
        (json!({ "resources": { "memory": "4T" } }), "eci.resources.memory"),
        (json!({ "resources": { "memory": "G" } }), "eci.resources.memory"),
        (json!({ "resources": { "memory": "-4G" } }), "eci.resources.memory"),
        (json!({ "resources": { "memory": "255M" } }), "eci.resources.memory"),
        (json!({ "resources": { "memory": "99999999999999999999G" } }), "eci.resources.memory"),
        (json!({ "resources": { "memory": "18446744073709551615G" } }), "eci.resources.memory"),
        (json!({ "updates": { "minimumVersion": "1.x" } }), "eci.updates.minimumVersion"),
        (json!({ "updates": { "minimumVersion": 1 } }), "eci.updates.minimumVersion"),
        (json!({ "updates": { "minimumversion": "1" } }), "eci.updates.minimumversion"),
    ] {
        let message = refusal(&with("eci", &wrong));
        assert!(message.starts_with(&format!("`{path}` is ")), "{message}");
    }
}
