//! Requests that are meant to be one thing to the gate and another to the engine.
//!
//! All want one of a few effects that no door which reads requests lets a plainly written request have, so that it is enough to look for
//! those. `@` stands for the door's own word, as in the calls.

use std::time::Duration;

use super::exchange::{Answer, End, Step, Talk};
use super::same;

/// A volume of a folder of the VM.
pub const SMUGGLED: &str = "smuggled";
/// A container that has such a folder.
pub const DOUBLED: &str = "doubled";
/// A container whose name is the whole id that another may have.
pub const ID: &str = "id";

/// That name, of a door's letter.
pub fn id(letter: &str) -> String {
    format!("0{letter}").repeat(32)
}

/// What a hostile request comes to.
pub struct Hostile {
    /// What is done.
    pub steps: Vec<Step>,
    /// Asked by HEAD.
    pub is_head: bool,
}

/// Whether the gate refused: of its answers each is a refusal, or what the engine says as well, or that of the question behind it all.
pub fn is_refused(engine: &Talk, gate: &Talk) -> bool {
    let is_fine = |answer: &Answer| {
        // Of the engine's own handlers each says so; the others make nothing.
        let refuses = answer.status() >= 400 && answer.header("api-version").is_none();
        let is_last = answer.status() == 200 && answer.body == b"OK";
        let is_engine_s =
            |other: &Answer| other.line == answer.line && same::body(other, "\0") == same::body(answer, "\0");
        // The gate may ask for a body before the engine does.
        answer.status() == 100 || refuses || is_last || engine.answers.iter().any(is_engine_s)
    };
    [End::Closed, End::Cut].contains(&gate.end) && gate.answers.iter().all(is_fine)
}

/// These bytes.
fn raw(bytes: impl AsRef<[u8]>) -> Hostile {
    let bytes = bytes.as_ref();
    Hostile {
        is_head: bytes.starts_with(b"HEAD "),
        steps: vec![Step::Send([bytes, LAST].concat()), Step::All],
    }
}

/// A question behind it all that ends the connection: whoever has taken in what was before it answers this.
const LAST: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";

/// A volume that is a folder of the VM: on no container's list of commands here, and nothing for a distro's.
const VOLUME: &str =
    "{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{\"type\":\"none\",\"device\":\"/etc\",\"o\":\"bind\"}}";
/// What is allowed everywhere, and has a body that nobody reads.
const STARTS: &str = "POST /containers/none-such/start HTTP/1.1\r\nHost: d\r\n";
const PING: &str = "GET /_ping HTTP/1.1\r\nHost: d\r\n";

/// The request that is refused, plainly.
pub fn plain() -> String {
    at("POST", "/volumes/create")
}

/// The same by another method or at another path.
fn at(method: &str, target: &str) -> String {
    format!(
        "{method} {target} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{VOLUME}",
        VOLUME.len()
    )
}

/// The same with headers in place of its length.
fn with(headers: &str, body: &str) -> String {
    format!(
        "POST /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{body}"
    )
}

/// Where a request ends is said in two ways, or in one that only some understand.
pub fn ends() -> Vec<Hostile> {
    let inner = plain();
    let length = inner.len();
    let mut hostile = Vec::new();
    // Behind a request that ends sooner to one reader than to the other.
    for headers in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", length + 5),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding: identity", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked, identity", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding: identity, chunked", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding: xchunked", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding: \"chunked\"", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding:\tchunked", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding: \u{b}chunked", length + 5),
        format!("Content-Length: {}\r\nTransfer-Encoding : chunked", length + 5),
        format!("Content-Length: {}\r\n Transfer-Encoding: chunked", length + 5),
        format!("Content-Length: {}\r\nX: y\r\n\tTransfer-Encoding: chunked", length + 5),
        format!("Content-Length: {}\r\nX: y\nTransfer-Encoding: chunked", length + 5),
        format!("Content-Length: {}\r\nX: y\rTransfer-Encoding: chunked", length + 5),
        format!("Content-Length: {}\r\nTransfer_Encoding: chunked", length + 5),
        format!(
            "Content-Length: {}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            length + 5
        ),
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked", length + 5),
        "Transfer-Encoding: gzip, chunked".to_owned(),
        "Transfer-Encoding: chunked, chunked".to_owned(),
        "Transfer-Encoding: chunked;q=1".to_owned(),
        "Transfer-Encoding: ".to_owned(),
        format!("Content-Length: 5\r\nContent-Length: {}", length + 5),
        format!("Content-Length: {}\r\nContent-Length: 5", length + 5),
        format!("Content-Length: 5, {}", length + 5),
        "Content-Length: 5, 5".to_owned(),
        "Content-Length: 5\r\nContent-Length: 5".to_owned(),
        "Content-Length: +5".to_owned(),
        "Content-Length: -5".to_owned(),
        "Content-Length: 0x5".to_owned(),
        "Content-Length: 5 5".to_owned(),
        "Content-Length: 05".to_owned(),
        "Content-Length: 5.0".to_owned(),
        "Content-Length: ".to_owned(),
        "Content-Length: 99999999999999999999".to_owned(),
        "Content-Length: 18446744073709551621".to_owned(),
        "Content-Length : 5".to_owned(),
        "Content-Length\0: 5".to_owned(),
        "Content_Length: 5".to_owned(),
        // Headers that are of one connection, and take others along.
        "Connection: Content-Length\r\nContent-Length: 5".to_owned(),
        "Connection: Transfer-Encoding, close\r\nTransfer-Encoding: chunked".to_owned(),
        "Connection: Host\r\nContent-Length: 5".to_owned(),
    ] {
        hostile.push(raw(format!("{STARTS}{headers}\r\n\r\n0\r\n\r\n{inner}")));
    }
    // Chunks that are counted in two ways.
    for chunks in [
        "5;ext=1\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        "5;ext=\"\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        "5;\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        "5\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        "5\r\n{\"a\":\n2\r\n1}\r\n0\r\n\r\n",
        "0x5\r\n{\"a\":\r\n0\r\n\r\n",
        "+5\r\n{\"a\":\r\n0\r\n\r\n",
        "-1\r\n{\"a\":\r\n0\r\n\r\n",
        " 5\r\n{\"a\":\r\n0\r\n\r\n",
        "5 \r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        "5\t\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        "5_\r\n{\"a\":\r\n0\r\n\r\n",
        "\r\n{\"a\":\r\n0\r\n\r\n",
        "10000000000000005\r\n{\"a\":\r\n0\r\n\r\n",
        "ffffffffffffffff\r\n{\"a\":\r\n0\r\n\r\n",
        "000000000000000000000005\r\n{\"a\":\r\n2\r\n1}\r\n0\r\n\r\n",
        "5\r\n{\"a\":1}\r\n0\r\n\r\n",
        "7\r\n{\"a\":1}0\r\n\r\n",
        "00\r\n\r\n",
        "0;\r\n\r\n",
        "0\r\nContent-Length: 5\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: e\r\n X: y\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\n\n",
    ] {
        hostile.push(raw(format!("{STARTS}Transfer-Encoding: chunked\r\n\r\n{chunks}{inner}")));
    }
    // The request itself, with its own end in doubt.
    let chunked = format!("{:x}\r\n{VOLUME}\r\n0\r\n\r\n", VOLUME.len());
    for (headers, body) in [
        ("Transfer-Encoding: chunked".to_owned(), chunked.clone()),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked".to_owned(), chunked.clone()),
        ("Transfer-Encoding: CHUNKED\r\nContent-Length: 0".to_owned(), chunked.clone()),
        (
            "Transfer-Encoding: chunked\r\nTrailer: Content-Length".to_owned(),
            chunked.replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\n"),
        ),
        (format!("Content-Length: {}", VOLUME.len() - 1), VOLUME.to_owned()),
        (format!("Content-Length: {}", VOLUME.len() + 1), VOLUME.to_owned()),
        ("Connection: close".to_owned(), VOLUME.to_owned()),
        (format!("Content-Encoding: identity\r\nContent-Length: {}", VOLUME.len()), VOLUME.to_owned()),
        (format!("Expect: 100-continue\r\nContent-Length: {}", VOLUME.len()), VOLUME.to_owned()),
    ] {
        hostile.push(raw(with(&headers, &body)));
    }
    hostile
}

/// What a head says in more than one way, and what follows a request at once.
pub fn heads() -> Vec<Hostile> {
    let inner = plain();
    let length = inner.len();
    let mut hostile: Vec<_> = [
        // Behind a request that is allowed.
        format!("{PING}\r\n{inner}"),
        format!("{PING}Upgrade: tcp\r\nConnection: Upgrade\r\n\r\n{inner}"),
        format!("{PING}Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n{inner}"),
        format!("{PING}Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n{inner}"),
        format!("{PING}Content-Length: {length}\r\n\r\n{inner}"),
        format!("{PING}Content-Length: 0\r\n\r\n{inner}"),
        format!("HEAD /_ping HTTP/1.1\r\nHost: d\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("GET /_ping HTTP/1.0\r\nConnection: keep-alive\r\n\r\n{inner}"),
        format!("GET /_ping HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
        format!("{STARTS}Expect: 100-continue\r\nContent-Length: {length}\r\n\r\n{inner}"),
        format!("{STARTS}Expect: nonsense\r\nContent-Length: 0\r\n\r\n{inner}"),
        format!("POST /containers/none-such/attach?stream=1&stdin=1 HTTP/1.1\r\nHost: d\r\nUpgrade: tcp\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n{inner}"),
        format!("POST /grpc HTTP/1.1\r\nHost: d\r\nUpgrade: nonsense\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n{inner}"),
        // Lines, names and values.
        inner.replace("\r\n", "\n"),
        inner.replace("Host: d\r\n", "Host: d\n"),
        inner.replace("Host: d\r\n", "Host: d\r\n folded\r\n"),
        inner.replace("Host: d", "Host: d\0"),
        inner.replace("Host: d", "Host : d"),
        inner.replace("Host: d", " Host: d"),
        inner.replace("Host: d", "no colon"),
        inner.replace("Host: d", "H\u{e4}st: d"),
        inner.replace("Host: d\r\n", "Host: d\r\nHost: e\r\n"),
        inner.replace("Host: d\r\n", ""),
        inner.replace("Host: d", "Host: a b/c"),
        inner.replace("Host: d", "Host: d\r\n: nameless"),
        inner.replace("Host: d", "X-HTTP-Method-Override: GET\r\nX-Original-URL: /_ping\r\nX-Forwarded-Prefix: /x\r\nHost: d"),
        format!("GET /volumes/create HTTP/1.1\r\nHost: d\r\nX-HTTP-Method-Override: POST\r\nContent-Length: {}\r\n\r\n{VOLUME}", VOLUME.len()),
        // Its first line.
        inner.replace(" HTTP/1.1", ""),
        inner.replace(" HTTP/1.1", " HTTP/1.2"),
        inner.replace(" HTTP/1.1", " HTTP/2.0"),
        inner.replace(" HTTP/1.1", " HTTP/1.1 "),
        inner.replace(" HTTP/1.1", " http/1.1"),
        inner.replace(" HTTP/1.1", "  HTTP/1.1"),
        inner.replace(" HTTP/1.1", "\tHTTP/1.1"),
        inner.replace(" HTTP/1.1", " x HTTP/1.1"),
        inner.replace("POST ", "POST  "),
        inner.replace("POST ", "post "),
        inner.replace("POST ", "POST\t"),
        inner.replace("POST ", " POST "),
        inner.replace("POST ", "P\u{d6}ST "),
        inner.replace("POST ", "\0POST "),
        inner.replace("POST ", "\r\n\r\nPOST "),
        inner.replace("POST ", "\nPOST "),
        format!("CONNECT d:80 HTTP/1.1\r\nHost: d\r\n\r\n{inner}"),
        format!("CONNECT /volumes/create HTTP/1.1\r\nHost: d\r\nContent-Length: {}\r\n\r\n{VOLUME}", VOLUME.len()),
        format!("OPTIONS * HTTP/1.1\r\nHost: d\r\n\r\n{inner}"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{inner}"),
        format!("\u{16}\u{3}\u{1}\r\n\r\n{inner}"),
        // More than there is room for, at one of them or both.
        inner.replace("Host: d", &format!("Host: d\r\n{}", "X: y\r\n".repeat(300).trim_end())),
        inner.replace("Host: d", &format!("Host: d\r\nX: {}", "y".repeat(600 * 1024))),
        inner.replace("/volumes/create", &format!("/volumes/create?{}", "y".repeat(80 * 1024))),
        inner.replace("POST", &"P".repeat(80 * 1024)),
    ]
    .map(raw)
    .into_iter()
    .collect();
    // Slowly, and in odd pieces: what is decided by what came at once.
    let pause = Duration::from_millis(120);
    for length in [1, 7, 40] {
        hostile.push(Hostile {
            is_head: false,
            steps: vec![
                Step::Slowly([inner.as_bytes(), LAST].concat(), length, pause.mul_f64(length as f64 / 40.0)),
                Step::All,
            ],
        });
    }
    hostile
}

/// The path that is refused, as others write it.
pub fn paths() -> Vec<Hostile> {
    [
        "/v1.45/v1.45/volumes/create",
        "/v1.45/v/volumes/create",
        "/v1..45/volumes/create",
        "/v1.45//volumes/create",
        "/v.../volumes/create",
        "/V1.45/volumes/create",
        "/v1.45%2fvolumes/create",
        "/v1%2e45/volumes/create",
        "/%76%31.45/volumes/create",
        "/v1.45;x/volumes/create",
        "/v99999999999999999999/volumes/create",
        "/v1.45/../volumes/create",
        "/v1.45/./volumes/create",
        "/v/volumes/create",
        "/v1.24/volumes/create",
        "//volumes/create",
        "///volumes/create",
        "/volumes//create",
        "/./volumes/create",
        "/volumes/./create",
        "/x/../volumes/create",
        "/volumes/x/../create",
        "/../volumes/create",
        "/%2e%2e/volumes/create",
        "/%2E/volumes/create",
        "/volumes/%2e/create",
        "/x/%2e%2e/volumes/create",
        "/x%2f..%2fvolumes/create",
        "/volumes%2fcreate",
        "/volumes%2Fcreate",
        "/volumes%5ccreate",
        "/volumes\\create",
        "/volumes/create/",
        "/volumes/create//",
        "/volumes/create/.",
        "/volumes/create/..",
        "/volumes/create%2f",
        "/volumes/create;x",
        "/volumes;x/create",
        "/volumes/create%3bx",
        "/volumes/create%00",
        "/volumes/create%00.json",
        "/volumes/create%0d%0a",
        "/volumes/create%20",
        "/volumes/create.",
        "/volumes/create?",
        "/volumes/create?x=/_ping",
        "/volumes/create#x",
        "/_ping?/../volumes/create",
        "/_ping#/volumes/create",
        "/volumes/%63reate",
        "/%76olumes/create",
        "/volumes/%63%72%65%61%74%65",
        "/volumes/cre%61te",
        "/volumes/cre%2561te",
        "/volumes/%6",
        "/volumes/%zzcreate",
        "/VOLUMES/create",
        "/Volumes/Create",
        "/volumes/CREATE",
        "/volumes/\u{17f}create",
        "/volume\u{17f}/create",
        "/volume%c5%bf/create",
        "/volumes/create\u{e4}",
        "/volumes/%c0%aecreate",
        "/volumes/create%ff",
        "volumes/create",
        "",
        "*",
        "?",
        "/",
        ".",
        "http://d/volumes/create",
        "http://d//volumes/create",
        "http:///volumes/create",
        "http:/volumes/create",
        "HTTP://D/volumes/create",
        "https://d/volumes/create",
        "unix:///volumes/create",
        "http://d:80@e/volumes/create",
        "http://d?/volumes/create",
        "http://d#/volumes/create",
        "//d/volumes/create",
        "d:80/volumes/create",
        "/volumes/create\u{b}",
        "/containers/..%2fvolumes/create",
        "/images/x/../../volumes/create",
        "/images/%2e%2e/volumes/create/tag",
    ]
    .map(|target| raw(at("POST", target)))
    .into_iter()
    .chain(
        ["PUT", "PATCH", "Post", "POST\u{e4}", "POS", "POSTX", "GET", "DELETE"]
            .map(|method| raw(at(method, "/volumes/create"))),
    )
    .collect()
}

/// A body in which the engine finds what another reader does not: it takes keys in any case, and of those that are there twice the last.
pub fn bodies() -> Vec<Hostile> {
    let volume = |body: &str| with(&format!("Content-Length: {}", body.len()), body);
    let container = |target: &str, body: &str| {
        format!(
            "POST {target} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let bind = "{\"type\":\"none\",\"device\":\"/etc\",\"o\":\"bind\"}";
    let mut asked: Vec<String> = [
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{{}},\"DriverOpts\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{bind},\"DriverOpts\":null}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"driveropts\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DRIVEROPTS\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":null,\"dRIVEROPTS\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpt\u{17f}\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpt\\u0073\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpt\\u017f\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"\\u0044riverOpts\":{bind}}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\\u0000\":{{}},\"DriverOpts\":{bind}}}"),
        "{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{\"type\":\"tmpfs\",\"o\":\"size=1m\",\"o\":\"bind\",\"device\":\"/etc\"}}".to_owned(),
        "{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{\"type\":\"tmpfs\",\"device\":\"tmpfs\",\"o\":\"size=1m,bind\"}}".to_owned(),
        "{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{\"type\":\"tmpfs\",\"device\":\"tmpfs\",\"o\":\"size=1m\\u002cbind\"}}".to_owned(),
        "{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{\"type\":\"tmpfs\",\"\\u006f\":\"rbind\",\"device\":\"tmpfs\"}}".to_owned(),
        "{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{\"type\":\"nfs\",\"device\":\":/x\",\"o\":\"addr=10.0.2.2\"}}".to_owned(),
        "{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{\"device\":\"/etc\"}}".to_owned(),
        format!("{{\"Name\":\"twin-@-smuggled\"}} {{\"DriverOpts\":{bind}}}"),
        format!("\u{feff}{VOLUME}"),
        format!(" \r\n\t{VOLUME}"),
        format!("/* {{}} */{VOLUME}"),
        format!("{VOLUME}\0"),
        format!("[{VOLUME}]"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{bind},\"x\":{}1{}}}", "[".repeat(400), "]".repeat(400)),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{bind},\"x\":{}1{}}}", "[".repeat(9000), "]".repeat(9000)),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{bind},\"x\":1e999}}"),
        format!("{{\"Name\":\"twin-@-smuggled\",\"DriverOpts\":{bind},\"x\":\"\\ud800\"}}"),
    ]
    .iter()
    .map(|body| volume(body))
    .collect();
    asked.extend(
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
            .map(|kind| plain().replace("application/json", kind)),
    );
    // For a distro alone: it may make containers, but not with these.
    let mount = format!(
        "[{{\"Type\":\"volume\",\"Target\":\"/x\",\"VolumeOptions\":{{\"DriverConfig\":{{\"Options\":{bind}}}}}}}]"
    );
    let created = "/containers/create?name=twin-@-doubled";
    for (number, body) in [
        format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{{\"Mounts\":{mount}}}}}"),
        format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{{}},\"HostConfig\":{{\"Mounts\":{mount}}}}}"),
        format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{{\"Mounts\":{mount}}},\"hostconfig\":{{}}}}"),
        format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HO\u{17f}TCONFIG\":{{\"MOUNTS\":{mount}}}}}"),
        format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{{\"Mounts\":[],\"mounts\":{mount}}}}}"),
        "{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{\"Binds\":[\"/etc:/etc/hosts\"]}}".to_owned(),
        "{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{\"Binds\":[],\"binds\":[\"/etc:/x/../etc//hosts:ro\"]}}".to_owned(),
        "{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/etc\",\"Target\":\"/etc/hostname\"}]}}".to_owned(),
        "{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":{\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/etc\",\"target\":\"/etc/./resolv.conf\",\"Target\":\"/x\"}]}}".to_owned(),
    ]
    .iter()
    .enumerate()
    {
        asked.push(container(&format!("{created}-{number}"), body));
    }
    // The engine takes no mounts from there.
    asked.push(container(
        "/containers/create?name=twin-@-plain",
        &format!("{{\"Image\":\"busybox\",\"Cmd\":[\"true\"],\"HostConfig\":null,\"Mounts\":{mount}}}"),
    ));
    let id = id("@");
    for query in [
        format!("name={id}"),
        format!("name=twin-@-doubled-x&name={id}"),
        format!("n%61me={id}"),
        format!("name=%2F{id}"),
        format!("name={}", id.replacen('0', "%30", 1)),
    ] {
        asked.push(container(
            &format!("/containers/create?{query}"),
            "{\"Image\":\"busybox\",\"Cmd\":[\"true\"]}",
        ));
    }
    asked.push(format!(
        "POST /containers/create HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 69\r\n\r\nname={id}"
    ));
    asked.into_iter().map(raw).collect()
}

/// A container that mounts a folder of the VM is looked into by no distro, whatever the path; it is called `bound`.
pub fn looks() -> Vec<Hostile> {
    [
        "GET /containers/bound/archive?path=/x",
        "GET /v1.45/containers/bound/archive?path=/x",
        "GET /containers/%62ound/archive?path=/x",
        "GET /containers/bound/%61rchive?path=/x",
        "GET /containers/bound%2farchive?path=/x",
        "GET /containers//bound/archive?path=/x",
        "GET /containers/./bound/archive?path=/x",
        "GET /containers/bound/archive/?path=/x",
        "GET /containers/bound/archive;x?path=/x",
        "GET /containers/bound/archive%00?path=/x",
        "GET /v1.45/v1.45/containers/bound/archive?path=/x",
        "GET /CONTAINERS/bound/archive?path=/x",
        "GET /containers/BOUND/archive?path=/x",
        "GET /containers/x%2f..%2fbound/archive?path=/x",
        "GET /containers/x/../bound/archive?path=/x",
        "GET /containers/bound%20/archive?path=/x",
        "GET /containers/%2fbound/archive?path=/x",
        "GET /containers/bound/archive?path=/x#/json",
        "GET http://d/containers/bound/archive?path=/x",
        "HEAD /containers/bound/archive?path=/x",
        "PUT /containers/bound/archive?path=/x",
        "POST /containers/bound/archive?path=/x",
        "POST /containers/bound/copy",
    ]
    .map(|line| raw(format!("{line} HTTP/1.1\r\nHost: d\r\nContent-Length: 2\r\n\r\n{{}}")))
    .into_iter()
    .collect()
}
