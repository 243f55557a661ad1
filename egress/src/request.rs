//! The head of a request: who is to be reached, and what goes there.

use std::io::{self, Read};

use eci_policy::rules::proxy::Scheme;
use eci_policy::rules::registry::Target;

/// Most bytes of a head. Tokens of registries have some thousand; Go's own servers take a MiB, which nobody needs.
pub const MOST_BYTES: usize = 64 * 1024;
/// Most headers of a head: some twenty are usual.
pub const MOST_HEADERS: usize = 128;
/// Characters of a host that is none, in a refusal.
const MOST_SHOWN: usize = 100;
/// Headers that are about one connection, not about what goes through it (RFC 9110, 7.6.1), and those for a proxy.
pub const OF_A_CONNECTION: [&str; 4] =
    ["connection", "keep-alive", "proxy-connection", "proxy-authorization"];

/// Why a head is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It did not come.
    #[error("the request broke off")]
    Read(#[from] io::Error),
    /// Its client has gone.
    #[error("nothing was asked")]
    Nothing,
    /// It is too long.
    #[error("the request's head has more than {MOST_BYTES} bytes")]
    TooLong,
    /// It is no HTTP.
    #[error("the request is not understood")]
    Parse(#[from] httparse::Error),
    /// It is meant for a server.
    #[error("this is the way to registries, and none itself")]
    ForServer,
    /// It names somebody who is on no list, whatever it says.
    #[error("registry access to {named} is not allowed: that is no name or address of a host")]
    NoHost {
        /// Who.
        named: String,
    },
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method and whom it names, for a log.
    pub action: String,
    /// As a tunnel, or in the clear.
    pub scheme: Scheme,
    /// Who is to be reached.
    pub target: Target,
    /// What the server is sent first where it is reached directly: nothing for a tunnel.
    pub to_server: Vec<u8>,
    /// What another proxy is sent first.
    pub to_proxy: Vec<u8>,
    /// What came behind the head already.
    pub rest: Vec<u8>,
}

/// Reads one.
///
/// # Errors
/// [`Error`].
pub fn read(from: &mut impl Read) -> Result<Request, Error> {
    let mut bytes = Vec::new();
    let mut part = [0; 4096];
    loop {
        let length = from.read(&mut part)?;
        match (length, bytes.is_empty()) {
            (0, true) => return Err(Error::Nothing),
            (0, false) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => bytes.extend_from_slice(part.get(..length).unwrap_or_default()),
        }
        if let Some(end) = end_of_head(&bytes) {
            let rest = bytes.split_off(end);
            return parse(&bytes, rest);
        }
        if bytes.len() > MOST_BYTES {
            return Err(Error::TooLong);
        }
    }
}

/// Where a head ends, if it does.
#[must_use]
pub fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn parse(head: &[u8], rest: Vec<u8>) -> Result<Request, Error> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head)?.is_partial() {
        return Err(Error::ForServer);
    }
    let no_host = |named: &str| Error::NoHost { named: named.chars().take(MOST_SHOWN).collect() };
    let (method, uri) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
    if method == "CONNECT" {
        let target = Target::parse(uri, None).ok_or_else(|| no_host(uri))?;
        return Ok(Request {
            action: format!("CONNECT {target}"),
            scheme: Scheme::Https,
            to_server: Vec::new(),
            to_proxy: format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").into_bytes(),
            target,
            rest,
        });
    }
    let url = uri.strip_prefix("http://").ok_or(Error::ForServer)?;
    let (authority, path) = url.find(['/', '?']).map_or((url, ""), |at| url.split_at(at));
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let target = Target::parse(authority, Some(80)).ok_or_else(|| no_host(authority))?;
    // The server is told the host that was judged, and no second request follows: it could be for another.
    let mut fields = format!("Host: {authority}\r\nConnection: close\r\n").into_bytes();
    for header in request.headers.iter() {
        let is_left_out = |name: &&str| header.name.eq_ignore_ascii_case(name);
        if !OF_A_CONNECTION.iter().any(is_left_out) && !header.name.eq_ignore_ascii_case("host") {
            fields.extend([header.name.as_bytes(), b": ", header.value, b"\r\n"].concat());
        }
    }
    fields.extend(b"\r\n");
    let with = |uri: &str| [format!("{method} {uri} HTTP/1.1\r\n").as_bytes(), &fields].concat();
    Ok(Request {
        action: format!("{method} http://{target}"),
        scheme: Scheme::Http,
        to_server: with(&path),
        to_proxy: with(&format!("http://{authority}{path}")),
        target,
        rest,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<Request, Error> {
        read(&mut text.as_bytes())
    }

    #[test]
    fn a_tunnel_is_asked_for_by_host_and_port() {
        let request =
            asked("CONNECT Registry.example.com:443 HTTP/1.1\r\nHost: other\r\nProxy-X: y\r\n\r\nhello")
                .unwrap();
        assert_eq!(
            (request.scheme, request.target.to_string().as_str()),
            (Scheme::Https, "registry.example.com:443")
        );
        assert_eq!((request.to_server.as_slice(), request.rest.as_slice()), (&b""[..], &b"hello"[..]));
        assert_eq!(
            request.to_proxy,
            b"CONNECT registry.example.com:443 HTTP/1.1\r\nHost: registry.example.com:443\r\n\r\n"
        );
        for wrong in
            ["registry.example.com", "/", "http://a.example:443", "a@b.example:443", "a.example:443/", "*"]
        {
            assert!(
                matches!(asked(&format!("CONNECT {wrong} HTTP/1.1\r\n\r\n")), Err(Error::NoHost { .. })),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_request_in_the_clear_goes_to_the_host_of_its_url_alone() {
        let request = asked("GET http://a.example:5000/v2/?n=1 HTTP/1.1\r\nHost: b.example\r\nConnection: keep-alive\r\nProxy-Connection: x\r\nAccept: */*\r\n\r\n").unwrap();
        assert_eq!((request.scheme, request.target.to_string().as_str()), (Scheme::Http, "a.example:5000"));
        let text = String::from_utf8(request.to_server).unwrap();
        assert_eq!(
            text,
            "GET /v2/?n=1 HTTP/1.1\r\nHost: a.example:5000\r\nConnection: close\r\nAccept: */*\r\n\r\n"
        );
        assert!(request.to_proxy.starts_with(b"GET http://a.example:5000/v2/?n=1 HTTP/1.1\r\n"));
        assert_eq!(request.action, "GET http://a.example:5000");
        let text =
            String::from_utf8(asked("GET http://a.example?x HTTP/1.1\r\n\r\n").unwrap().to_server).unwrap();
        assert!(text.starts_with("GET /?x HTTP/1.1\r\nHost: a.example\r\n"), "{text}");
        for wrong in [
            "/v2/",
            "https://a.example/",
            "http:///",
            "http://u:p@a.example/",
            "http://a.example:0/",
            "ftp://a.example/",
            "http://a.example#x/",
        ] {
            assert!(
                matches!(
                    asked(&format!("GET {wrong} HTTP/1.1\r\n\r\n")),
                    Err(Error::NoHost { .. } | Error::ForServer)
                ),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_head_has_an_end_and_a_most() {
        assert!(matches!(asked(""), Err(Error::Nothing)));
        assert!(matches!(asked("GET http://a.example/ HTTP/1.1\r\n"), Err(Error::Read(_))));
        assert!(matches!(
            asked(&format!("GET http://a.example/ HTTP/1.1\r\nX: {}", "x".repeat(MOST_BYTES * 2))),
            Err(Error::TooLong)
        ));
        assert!(matches!(asked("\x16\x03\x01\r\n\r\n"), Err(Error::Parse(_))));
        let many = "X: y\r\n".repeat(MOST_HEADERS + 1);
        assert!(matches!(
            asked(&format!("GET http://a.example/ HTTP/1.1\r\n{many}\r\n")),
            Err(Error::Parse(_))
        ));
    }
}
