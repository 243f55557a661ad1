//! The calls, by family.

use super::calls::{Call, Expected, ask, delete, get, head, post, raw};
use super::doors::Door;
use super::exchange::Step;

/// What is refused to a container by its list.
const BLOCKED: Expected = Expected::Refused(403, "is blocked; if you wish to allow it");
/// What is refused at every door: a driver by a way out of the folder of plugins.
const CLIMBS: Expected = Expected::Refused(403, "leads out of the folder of plugins");
/// What the gate of a distro refuses: there are no swarms, services and plugins.
const NO_SWARM: Expected = Expected::Refused(403, "there are neither swarms and services nor plugins");
/// There what decides has to be understood.
const NO_JSON: Expected = Expected::Refused(403, "the request is not understood");
/// There the gate looks containers up before they are looked into.
const NO_CONTAINER: Expected = Expected::Refused(404, "");
/// There a container that is looked into goes on by its id, which the engine tells.
const BY_ID: Expected = Expected::But(
    &["{\"message\":\"Could not find the file /none/such in container OWN\"}", "content-length: 69"],
    &["{\"message\":\"Could not find the file /none/such in container ID\"}", "content-length: 127"],
    "a container that is looked into goes on by its id, so that its name is not another's meanwhile",
);
/// An answer that ends with the engine's connection is one in chunks, and the client's connection lives on.
const IN_CHUNKS: Expected = Expected::But(
    &["then: Closed"],
    &["transfer-encoding: chunked", "then: Kept"],
    "an answer that ends with the engine's connection is cut into chunks, and the client's is kept",
);
/// A body that the engine may not want is asked for all the same.
const ASKED_FOR: Expected = Expected::But(
    &[],
    &["HTTP/1.1 100 Continue"],
    "the gate asks a client for the body to hand it on, before the engine does",
);
/// What has no end is no request, and is told of by the end alone.
const NO_ANSWER: Expected = Expected::But(
    &[
        "HTTP/1.1 400 Bad Request",
        "connection: close",
        "content-type: text/plain; charset=utf-8",
        "400 Bad Request",
    ],
    &[],
    "a client that goes within a head hears nothing more",
);
/// The body has not come whole, so that the gate says so.
const BROKE_OFF: Expected = Expected::Refused(400, "the request broke off");
/// The engine by itself may stumble over names that are there for the container alone.
const ONE_VIEW: Expected = Expected::Done(
    200,
    "the gate has the kernel look anew at a running container's files before they are copied",
);
/// What the gate tells of a registry that is on no list.
const NOT_LISTED: Expected = Expected::Refused(403, "is not allowed (use a registry that is allowed");

/// Filters that leave each door its own.
const OWN: &str = "filters=%7B%22label%22%3A%5B%22door%3Dtwin-@%22%5D%7D";

/// The engine, its events and its inside.
pub fn of_itself() -> Vec<Call> {
    vec![
        get("/_ping"),
        head("/_ping"),
        get("/v1.45/_ping"),
        get("/version"),
        get("/v1.41/version"),
        get("/info"),
        get("/v1.24/info"),
        get("/v1.45/info"),
        get("/system/df"),
        get("/v1.45/system/df?type=volume"),
        get("/v1.41/system/df"),
        get("/events?since=1&until=2"),
        get("/events?since=1&until=2&filters=%7B%22type%22%3A%5B%22container%22%5D%7D"),
        get("/events?since=x"),
        get("/events?filters=nonsense"),
        get("/events?since=2&until=1"),
        post("/auth", ""),
        post("/auth", "{}"),
        post("/auth", "not JSON"),
        post("/events", "{}").at(Door::Container, BLOCKED),
        get("/debug/vars").at(Door::Container, BLOCKED),
        get("/debug/pprof/cmdline").at(Door::Container, BLOCKED),
        get("/metrics").at(Door::Container, BLOCKED),
        get("/nothing").at(Door::Container, BLOCKED),
        get("/").at(Door::Container, BLOCKED),
        get("/v1.45").at(Door::Container, BLOCKED),
        get("/v1.45/").at(Door::Container, BLOCKED),
        ask("DELETE", "/info", "", "").at(Door::Container, BLOCKED),
        ask("PUT", "/containers/json", "", "").at(Door::Container, BLOCKED),
        ask("PATCH", "/version", "", "{}").at(Door::Container, BLOCKED),
        ask("TRACE", "/_ping", "", "").at(Door::Container, BLOCKED),
    ]
}

/// Of each version some calls whose answers are not the same in all, at once on one connection; and versions that there are not.
pub fn versions(highest: u32) -> Vec<Call> {
    let asked = [
        "GET /@/version",
        "GET /@/images/json",
        "GET /@/containers/json?all=1",
        "GET /@/networks/bridge",
        "GET /@/images/busybox/json",
        "POST /@/containers/none-such/start",
        "DELETE /@/containers/none-such",
    ];
    let mut calls: Vec<_> = (24..=highest)
        .map(|minor| {
            let asked = asked.map(|line| line.replace('@', &format!("v1.{minor}")));
            let asked = asked.map(|line| format!("{line} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"));
            raw(asked.concat()).then(&[Step::Answers(asked.len()), Step::Ping])
        })
        .collect();
    for version in
        ["v1.12", "v1.23", &format!("v1.{}", highest + 1), "v2", "v0", "v1", "v1.45.1", "v.", "v1..45"]
    {
        calls.push(get(&format!("/{version}/info")));
    }
    for version in ["v", "vx", "V1.45", "1.45", "v1.45x"] {
        calls.push(get(&format!("/{version}/info")).at(Door::Container, BLOCKED));
    }
    calls
}

/// A container from before it is made until after it is gone, and what is asked of none.
pub fn containers() -> Vec<Call> {
    let json = "Content-Type: application/json";
    let stream = "Upgrade: tcp\nConnection: Upgrade";
    let archive = archive();
    vec![
        get("/containers/json"),
        get(&format!("/containers/json?all=1&{OWN}")),
        get("/containers/json?all=x"),
        get("/containers/json?limit=x"),
        get("/containers/json?filters=x"),
        get("/containers/json?filters=%7B%22nonsense%22%3A%5B%22x%22%5D%7D"),
        get("/containers/none-such/json"),
        get("/containers/none-such/logs?stdout=1"),
        get("/containers/none-such/top"),
        get("/containers/none-such/stats?stream=0"),
        get("/containers/none-such/changes"),
        get("/containers/none-such/export"),
        get("/containers/none-such/archive?path=/").at(Door::Distro, NO_CONTAINER),
        head("/containers/none-such/archive?path=/").at(Door::Distro, NO_CONTAINER),
        ask("PUT", "/containers/none-such/archive?path=/", "Content-Type: application/x-tar", "").at(Door::Distro, NO_CONTAINER),
        post("/containers/none-such/start", ""),
        post("/containers/none-such/stop", ""),
        post("/containers/none-such/kill?signal=KILL", ""),
        post("/containers/none-such/wait", ""),
        post("/containers/none-such/pause", ""),
        post("/containers/none-such/rename?name=x", ""),
        post("/containers/none-such/exec", "{\"Cmd\":[\"true\"]}"),
        post("/containers/none-such/attach?stream=1&stdout=1", "").at(Door::Host, IN_CHUNKS).at(Door::Container, IN_CHUNKS).at(Door::Distro, IN_CHUNKS),
        post("/containers/none-such/update", "{}"),
        delete("/containers/none-such"),
        get("/containers/none-such/checkpoints"),
        get("/containers/none-such/nothing").at(Door::Container, BLOCKED),
        post("/containers/create", "").at(Door::Distro, NO_JSON),
        post("/containers/create", "{").at(Door::Distro, NO_JSON),
        post("/containers/create", "{}"),
        post("/containers/create", "[]").at(Door::Distro, Expected::Refused(403, "is no object")),
        post("/containers/create", "null"),
        post("/containers/create", "{} {}").at(Door::Distro, NO_JSON),
        post("/containers/create", "{\"Image\":\"none.such\"}"),
        post("/containers/create", "{\"Image\":7}"),
        post("/containers/create?name=-", "{\"Image\":\"busybox\"}"),
        post("/containers/create", "{\"Image\":\"busybox\",\"HostConfig\":{\"Memory\":1}}"),
        post("/containers/create", "{\"Image\":\"busybox\",\"HostConfig\":{\"NetworkMode\":\"container:none-such\"}}"),
        ask("POST", "/containers/create", "Content-Type: text/plain", "{\"Image\":\"busybox\"}"),
        ask("POST", "/containers/create", "", "{\"Image\":\"busybox\"}"),
        ask("POST", "/containers/create", "Content-Type: application/json; charset=utf-8", "{\"Image\":\"none.such\"}"),
        ask("POST", "/containers/create", "Content-Type: APPLICATION/JSON", "{\"Image\":\"none.such\"}"),
        ask("POST", "/containers/create", "Content-Type: nonsense/;;", "{\"Image\":\"none.such\"}"),
        ask("POST", "/containers/create", "Content-Type: application/json\nContent-Type: text/plain", "{\"Image\":\"none.such\"}"),
        post(
            "/v1.45/containers/create?name=twin-@",
            "{\"Image\":\"busybox\",\"Cmd\":[\"cat\"],\"OpenStdin\":true,\"StdinOnce\":true,\"AttachStdin\":true,\
             \"Labels\":{\"door\":\"twin-@\"},\"HostConfig\":{\"NetworkMode\":\"none\"}}",
        ),
        post("/v1.45/containers/create?name=twin-@", "{\"Image\":\"busybox\"}"),
        get("/containers/twin-@/json"),
        get("/v1.24/containers/twin-@/json?size=1"),
        get(&format!("/containers/json?all=1&{OWN}")),
        get(&format!("/v1.24/containers/json?all=1&size=1&{OWN}")),
        get("/containers/twin-@/top"),
        get("/containers/twin-@/logs"),
        get("/containers/twin-@/logs?stdout=1"),
        post("/containers/twin-@/pause", ""),
        post("/containers/twin-@/kill?signal=nonsense", ""),
        get("/containers/twin-@/archive"),
        get("/containers/twin-@/archive?path=/etc/passwd"),
        head("/containers/twin-@/archive?path=/etc/passwd"),
        head("/containers/twin-@/archive?path=/none/such").at(Door::Distro, BY_ID),
        get("/containers/twin-@/archive?path=/none/such").at(Door::Distro, BY_ID),
        raw([
            format!("PUT /containers/twin-@/archive?path=/home HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n", archive.len()).as_bytes(),
            &archive,
        ].concat()),
        raw([
            format!("PUT /containers/twin-@/archive?path=/tmp HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n", archive.len()).as_bytes(),
            &archive,
            b"\r\n0\r\n\r\n",
        ].concat()),
        ask("PUT", "/containers/twin-@/archive?path=/home", "Content-Type: application/x-tar", "no archive"),
        ask("PUT", "/containers/twin-@/archive?path=/none/such", "Content-Type: application/x-tar", "").at(Door::Distro, BY_ID),
        get("/containers/twin-@/changes"),
        post("/containers/twin-@/start", ""),
        post("/containers/twin-@/start", ""),
        get("/containers/twin-@/json"),
        get("/containers/twin-@/top"),
        get("/containers/twin-@/top?ps_args=-o%20pid,comm"),
        get("/containers/twin-@/stats?stream=0&one-shot=1"),
        get("/containers/twin-@/stats?stream=1").then(&[Step::FirstLine]),
        get("/containers/twin-@/changes"),
        get("/containers/twin-@/export").then(&[Step::Head]),
        get("/containers/twin-@/archive?path=/home")
            .at(Door::Host, ONE_VIEW)
            .at(Door::Container, ONE_VIEW)
            .at(Door::Distro, ONE_VIEW),
        post("/containers/twin-@/resize?h=24&w=80", ""),
        post("/containers/twin-@/resize?h=x&w=80", ""),
        post("/containers/twin-@/update", "{\"Memory\":67108864,\"MemorySwap\":67108864}"),
        post("/containers/twin-@/update", "{\"Memory\":\"x\"}"),
        post("/containers/twin-@/rename?name=twin-@", ""),
        post("/containers/twin-@/rename", ""),
        post("/containers/twin-@/rename?name=twin-@.2", ""),
        post("/containers/twin-@.2/rename?name=twin-@", ""),
        post("/containers/twin-@/pause", ""),
        post("/containers/twin-@/pause", ""),
        post("/containers/twin-@/unpause", ""),
        post("/containers/twin-@/unpause", ""),
        post("/containers/twin-@/exec", "{}"),
        post("/containers/twin-@/exec", "{\"Cmd\":[\"cat\"],\"AttachStdin\":true,\"AttachStdout\":true}").keeps("exec"),
        get("/exec/{exec}/json"),
        get("/exec/none-such/json"),
        post("/exec/none-such/start", "{}"),
        ask("POST", "/exec/{exec}/start", &format!("{json}\n{stream}"), "{\"Detach\":false,\"Tty\":false}").then(&[
            Step::Upgraded,
            Step::Send(b"typed into it\n".to_vec()),
            Step::HalfClose,
            Step::Rest,
        ]),
        get("/exec/{exec}/json").until("\"Running\":false"),
        post("/exec/{exec}/start", "{\"Detach\":true}"),
        post("/exec/none-such/resize?h=1&w=1", ""),
        post("/exec/{exec}/resize?h=x&w=1", ""),
        get("/containers/twin-@/attach/ws?stream=1&stdout=1").at(Door::Host, IN_CHUNKS).at(Door::Container, IN_CHUNKS).at(Door::Distro, IN_CHUNKS),
        post("/containers/twin-@/attach", "").at(Door::Host, IN_CHUNKS).at(Door::Container, IN_CHUNKS).at(Door::Distro, IN_CHUNKS),
        ask("POST", "/containers/twin-@/attach?stream=1&stdin=1&stdout=1&stderr=1", stream, "").then(&[
            Step::Upgraded,
            Step::Send(b"GET /_ping HTTP/1.1\r\n\r\nnot a request any more\n".to_vec()),
            Step::HalfClose,
            Step::Rest,
        ]),
        post("/containers/twin-@/wait", ""),
        post("/v1.24/containers/twin-@/wait", ""),
        post("/containers/twin-@/wait?condition=nonsense", ""),
        get("/containers/twin-@/logs?stdout=1&stderr=1"),
        get("/containers/twin-@/logs?stdout=1&tail=1"),
        get("/containers/twin-@/logs?stdout=1&follow=1"),
        get("/containers/twin-@/json"),
        post("/containers/twin-@/kill", ""),
        post("/containers/twin-@/stop", ""),
        post("/containers/twin-@/wait?condition=not-running", ""),
        post("/commit?container=twin-@&repo=twin-@&comment=x", "{}"),
        post("/commit?container=none-such", "{}"),
        get("/images/twin-@/history"),
        delete("/images/twin-@"),
        delete("/containers/twin-@?v=1&force=1"),
        post(&format!("/containers/prune?{OWN}"), "").alone(),
    ]
}

/// An archive with one file, which is each door's own.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(6);
    archive
        .append_data(&mut header, "copied", &b"copy-@"[..])
        .and_then(|()| archive.into_inner())
        .expect("an archive in memory is written")
}

/// Images, builds, and the connections of builders.
pub fn images() -> Vec<Call> {
    let tar = "Content-Type: application/x-tar";
    vec![
        get("/images/json"),
        get("/images/json?all=1&digests=1&shared-size=1"),
        get("/images/json?filters=%7B%22reference%22%3A%5B%22busybox%22%5D%7D"),
        get("/images/json?filters=x"),
        get("/images/busybox/json"),
        get("/images/busybox:latest/json"),
        get("/images/library/busybox/json"),
        get("/images/none/such/json"),
        get("/images/NONE/json"),
        get("/images/busybox/history"),
        get("/images/none-such/history"),
        get("/images/busybox/get").then(&[Step::Head]),
        get("/images/get?names=busybox").then(&[Step::Head]),
        get("/images/get?names=none-such"),
        raw([
            b"POST /images/create?fromSrc=-&repo=twin-@ HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
            &chunk(&archive()),
            b"0\r\n\r\n",
        ].concat()),
        post("/images/twin-@/tag?repo=twin-@&tag=1", ""),
        post("/images/twin-@/tag?repo=twin-@/a/b&tag=2", ""),
        post("/images/busybox/tag?repo=NO&tag=1", ""),
        post("/images/none-such/tag?repo=x", ""),
        get("/images/twin-@/a/b:2/json"),
        get("/images/twin-@:1/json"),
        get("/images/twin-@%3A1/json"),
        delete("/images/twin-@/a/b:2"),
        delete("/images/twin-@:1?noprune=1"),
        delete("/images/twin-@"),
        delete("/images/none-such"),
        post("/images/none-such/push", "").at(Door::Container, BLOCKED),
        ask("POST", "/images/none-such/push?tag=1", "X-Registry-Auth: e30=", "").at(Door::Container, BLOCKED),
        ask("POST", "/images/load", tar, "no archive"),
        ask("POST", "/images/load?quiet=1", tar, ""),
        ask("POST", "/images/create?fromSrc=-", tar, "no archive"),
        ask("POST", "/images/create", tar, ""),
        get("/images/search?term=x&limit=nonsense"),
        get("/images/search"),
        get("/images/search?term=busybox"),
        post("/images/prune?filters=nonsense", ""),
        post(&format!("/images/prune?{OWN}"), "").alone(),
        post("/build/prune?filters=nonsense", ""),
        post("/build/cancel", ""),
        post("/build/cancel?id=none", ""),
        ask("POST", "/build?dockerfile=none", tar, ""),
        ask("POST", "/build", tar, "no archive"),
        ask("POST", "/build", "Content-Type: text/html", "<html>"),
        ask("POST", "/build?version=7", tar, ""),
        ask("POST", "/build?buildargs=x", tar, ""),
        raw([
            b"POST /build?t=twin-@&q=1 HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(),
            &chunk(&context()),
            b"0\r\n\r\n",
        ].concat()),
        get("/images/twin-@/json"),
        delete("/images/twin-@"),
        ask("POST", "/session", "", ""),
        ask("POST", "/session", "X-Docker-Expose-Session-Uuid: twin-@\nUpgrade: h2c\nConnection: Upgrade", "").then(&[Step::Head]),
        ask("POST", "/grpc", "", ""),
        ask("POST", "/grpc", "Upgrade: h2c\nConnection: Upgrade", "").then(&[Step::Head]),
        ask("POST", "/grpc", "Upgrade: websocket\nConnection: Upgrade", ""),
    ]
}

/// A build of nothing but a label.
fn context() -> Vec<u8> {
    let steps = b"FROM busybox\nLABEL door=twin\n";
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(steps.len() as u64);
    archive
        .append_data(&mut header, "Dockerfile", &steps[..])
        .and_then(|()| archive.into_inner())
        .expect("an archive in memory is written")
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Networks and volumes.
pub fn networks_and_volumes() -> Vec<Call> {
    vec![
        get("/networks"),
        get("/networks/"),
        get("/networks?filters=%7B%22driver%22%3A%5B%22bridge%22%5D%7D"),
        get("/networks?filters=x"),
        get("/networks/bridge"),
        get("/networks/bridge?verbose=1"),
        get("/networks/bridge?verbose=x"),
        get("/networks/none-such"),
        post("/networks/create", "{"),
        post("/networks/create", "{}"),
        post("/networks/create", "{\"Name\":\"twin-@\",\"Internal\":true,\"Labels\":{\"door\":\"twin-@\"}}"),
        post("/networks/create", "{\"Name\":\"twin-@\",\"CheckDuplicate\":true}"),
        // Looked for among plugins, and refused as none; one value off.
        post("/networks/create", "{\"Name\":\"twin-@.2\",\"Driver\":\"x/x\",\"Options\":{\"name\":\"../x\"}}"),
        climbs(post("/networks/create", "{\"Name\":\"twin-@.2\",\"Driver\":\"x/../../x\"}")),
        climbs(post("/networks/create", "{\"Name\":\"twin-@.2\",\"IPAM\":{\"Driver\":\"../x\"}}")),
        climbs(post("/v1.45/volumes/create", "{\"Name\":\"twin-@\",\"Driver\":\"../x\"}").at(Door::Container, BLOCKED)),
        climbs(post("/containers/create", "{\"Image\":\"busybox\",\"HostConfig\":{\"VolumeDriver\":\"../x\"}}")),
        get("/networks/twin-@"),
        get(&format!("/networks?{OWN}")),
        post("/networks/twin-@/connect", "{\"Container\":\"none-such\"}"),
        post("/networks/twin-@/connect", ""),
        post("/networks/twin-@/disconnect", "{\"Container\":\"none-such\"}"),
        delete("/networks/twin-@"),
        delete("/networks/twin-@"),
        delete("/networks/bridge"),
        post(&format!("/networks/prune?{OWN}"), "").alone(),
        get("/volumes?filters=%7B%22name%22%3A%5B%22workbench%22%5D%7D"),
        get("/volumes?filters=x"),
        get("/volumes/none-such"),
        get("/volumes/workbench"),
        ask("PUT", "/volumes/workbench", "Content-Type: application/json", "{}"),
        post("/volumes/create", "{").at(Door::Container, BLOCKED).at(Door::Distro, Expected::Refused(403, "the request is not understood")),
        post("/volumes/create", "{\"Name\":\"twin-@\",\"Labels\":{\"door\":\"twin-@\"}}").at(Door::Container, BLOCKED),
        post("/volumes/create", "{\"Name\":\"twin-@\"}").at(Door::Container, BLOCKED),
        post("/volumes/create", "{\"Name\":\"twin-@.2\",\"DriverOpts\":{\"type\":\"tmpfs\",\"device\":\"tmpfs\",\"o\":\"size=1m\"}}")
            .at(Door::Container, BLOCKED),
        post("/volumes/create", "{\"Name\":\"twin-@.3\",\"DriverOpts\":{\"type\":\"none\",\"device\":\"/etc\",\"o\":\"bind\"}}")
            .at(Door::Container, BLOCKED)
            .at(Door::Distro, Expected::Refused(403, "the engine would mount that by itself")),
        post(&format!("/volumes/prune?{OWN}"), "").alone(),
        delete("/volumes/none-such"),
    ]
}

fn climbs(call: Call) -> Call {
    [Door::Host, Door::Container, Door::Distro].into_iter().fold(call, |call, door| call.at(door, CLIMBS))
}

/// What there is with a swarm or plugins alone.
pub fn clusters() -> Vec<Call> {
    let mut calls: Vec<_> = [
        "/swarm",
        "/swarm/unlockkey",
        "/nodes",
        "/nodes/x",
        "/services",
        "/services/x",
        "/services/x/logs",
        "/tasks",
        "/tasks/x",
        "/tasks/x/logs",
        "/secrets",
        "/secrets/x",
        "/configs",
        "/configs/x",
        "/plugins",
        "/plugins/x/json",
    ]
    .map(|target| match target {
        "/services/x" | "/services/x/logs" | "/plugins/x/json" => get(target).at(Door::Distro, NO_SWARM),
        target => get(target),
    })
    .to_vec();
    calls.extend(["/nodes/x", "/secrets/x", "/configs/x"].map(delete));
    calls.extend([
        post("/secrets/create", "{}"),
        post("/configs/create", "{}"),
        post("/nodes/x/update?version=1", "{}"),
        post("/swarm/leave", ""),
        post("/swarm/update?version=1", "{}"),
        post("/swarm/unlock", "{}"),
        post("/swarm/init", "{").at(Door::Distro, NO_SWARM),
        post("/swarm/join", "{}").at(Door::Distro, NO_SWARM),
        post("/services/create", "{}").at(Door::Distro, NO_SWARM),
        post("/services/x/update?version=1", "{}").at(Door::Distro, NO_SWARM),
        delete("/services/x").at(Door::Distro, NO_SWARM),
        delete("/plugins/x").at(Door::Distro, NO_SWARM),
        post("/plugins/x/enable", "").at(Door::Distro, NO_SWARM),
        post("/plugins/x/set", "[]").at(Door::Distro, NO_SWARM),
        post("/plugins/pull", "").at(Door::Distro, NO_SWARM),
        ask("POST", "/plugins/create", "Content-Type: application/x-tar", "").at(Door::Distro, NO_SWARM),
    ]);
    calls
}

/// What the gate tells early at the host's door ends with the engine's own refusal at the others.
pub fn registries() -> Vec<Call> {
    let login = "{\"username\":\"u\",\"password\":\"p\",\"serveraddress\":\"elsewhere.example.com\"}";
    let expecting = format!(
        "POST /auth HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        login.len()
    );
    let calls = vec![
        post("/images/create?fromImage=elsewhere.example.com/x&tag=1", "").at(Door::Host, NOT_LISTED),
        post("/images/create?fromImage=clear.example.com/x&tag=1", ""),
        post("/images/create?fromImage=registry.example.com/x&tag=1", ""),
        post("/images/create?fromImage=registry.example.com:5000/x&tag=1", ""),
        post("/images/create?fromImage=NO", ""),
        get("/distribution/elsewhere.example.com/x/json").at(Door::Host, NOT_LISTED),
        get("/distribution/registry.example.com/x/json"),
        get("/distribution/NO/json"),
        post("/auth", login).at(Door::Host, NOT_LISTED),
        // The client waits to be asked for the body.
        raw(&expecting).then(&[Step::Interim, Step::Send(login.into()), Step::Answers(1), Step::Ping]),
    ];
    // On a connection that was to be upgraded nothing is told early any more, whatever came of that.
    calls.into_iter().map(Call::first).collect()
}

/// Ways to write a request, to go on after it, and to leave.
pub fn http() -> Vec<Call> {
    let ping = "GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";
    vec![
        head("/version"),
        head("/info"),
        head("/containers/json"),
        head("/nothing").at(Door::Container, Expected::Refused(403, "")),
        ask("OPTIONS", "/_ping", "", "").at(Door::Container, BLOCKED),
        ask("OPTIONS", "*", "", "").at(Door::Container, BLOCKED),
        ask("GET", "/version", "Connection: close", ""),
        ask("GET", "/version", "Connection: keep-alive", ""),
        ask("GET", "/version", "Connection: Close, X", ""),
        ask("GET", "/version", "Accept-Encoding: gzip\nUser-Agent: Docker-Client/26\nX-Meta-A: b", ""),
        ask("GET", "/version", "Origin: http://elsewhere.example.com", ""),
        ask("GET", "/_ping", "Upgrade: tcp\nConnection: Upgrade", ""),
        ask("GET", "/_ping", "Connection: Upgrade", ""),
        raw("GET /version HTTP/1.0\r\n\r\n"),
        raw("GET /version HTTP/1.0\r\nHost: d\r\nConnection: keep-alive\r\n\r\n"),
        raw("GET /events?since=1&until=2 HTTP/1.0\r\n\r\n"),
        raw("GET /none HTTP/1.0\r\n\r\n").at(Door::Container, BLOCKED),
        raw("POST /containers/none-such/start HTTP/1.0\r\nContent-Length: 0\r\n\r\n"),
        raw("GET http://elsewhere.example.com/version HTTP/1.1\r\nHost: d\r\n\r\n"),
        raw("GET /version HTTP/1.1\r\nHost: elsewhere.example.com\r\n\r\n"),
        raw("GET /version HTTP/1.1\r\nHost:\r\n\r\n"),
        raw("GET /version?a=b;c=d HTTP/1.1\r\nHost: d\r\n\r\n"),
        raw("GET /version? HTTP/1.1\r\nHost: d\r\n\r\n"),
        raw("\r\nGET /version HTTP/1.1\r\nHost: d\r\n\r\n")
            .at(Door::Host, Expected::As("GET /version HTTP/1.1\r\nHost: d\r\n\r\n"))
            .at(Door::Container, Expected::As("GET /version HTTP/1.1\r\nHost: d\r\n\r\n"))
            .at(Door::Distro, Expected::As("GET /version HTTP/1.1\r\nHost: d\r\n\r\n")),
        raw("GET /version HTTP/1.1\r\nhost: d\r\nX-Long: ") .then(&[
            Step::Send(vec![b'x'; 16 * 1024]),
            Step::Send(b"\r\n\r\n".to_vec()),
            Step::Answers(1),
            Step::Ping,
        ]),
        // Several at once, the last of which ends the connection.
        raw(format!("{ping}{ping}GET /version HTTP/1.1\r\nHost: d\r\n\r\n")).then(&[Step::Answers(3), Step::Ping]),
        raw(format!("{ping}GET /version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n{ping}")).then(&[Step::Answers(2), Step::Ping]),
        raw(format!("POST /containers/none-such/start HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{{}}{ping}")).then(&[Step::Answers(2), Step::Ping]),
        // A body where none is expected.
        ask("GET", "/version", "Content-Length: 3", "abc"),
        ask("DELETE", "/containers/none-such", "Content-Length: 3", "abc"),
        // Asked whether to go on.
        raw("POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: 21\r\n\r\n")
            .then(&[Step::Interim, Step::Send(b"{\"Image\":\"none.such\"}".to_vec()), Step::Answers(1), Step::Ping]),
        raw("POST /containers/none-such/start HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
            .at(Door::Host, ASKED_FOR)
            .at(Door::Container, ASKED_FOR)
            .at(Door::Distro, ASKED_FOR),
        raw("GET /version HTTP/1.1\r\nHost: d\r\nExpect: 200-ok\r\n\r\n"),
        // Chunks, extensions and trailers.
        raw("POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
             7\r\n{\"Image\r\ne\r\n\":\"none.such\"}\r\n0\r\n\r\n"),
        raw("POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n\
             15\r\n{\"Image\":\"none.such\"}\r\n0\r\nX-A: b\r\n\r\n"),
        raw("POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nTransfer-Encoding: CHUNKED\r\n\r\n\
             15;ext=1\r\n{\"Image\":\"none.such\"}\r\n0\r\n\r\n"),
        // The client has ended its half.
        get("/version").then(&[Step::HalfClose, Step::Answers(1), Step::Rest]),
        get("/events?since=1&until=2").then(&[Step::HalfClose, Step::Answers(1), Step::Rest]),
        get("/containers/none-such/json").then(&[Step::HalfClose, Step::Answers(1), Step::Rest]),
        post("/containers/create", "{\"Image\":\"none.such\"}").then(&[Step::HalfClose, Step::Answers(1), Step::Rest]),
        raw("GET /version HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n").then(&[Step::HalfClose, Step::Answers(1), Step::Rest]),
        // Within a head, within a body, and after nothing.
        raw("GET /version HTTP/1.1\r\nHos")
            .then(&[Step::HalfClose, Step::Answers(1), Step::Rest])
            .at(Door::Host, NO_ANSWER)
            .at(Door::Container, NO_ANSWER)
            .at(Door::Distro, NO_ANSWER),
        raw("POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n{\"Ima")
            .then(&[Step::HalfClose, Step::Answers(1), Step::Rest])
            .at(Door::Host, BROKE_OFF)
            .at(Door::Container, BROKE_OFF)
            .at(Door::Distro, BROKE_OFF),
        raw("").then(&[Step::HalfClose, Step::Rest]),
    ]
}
