//! Which requests are answered: pure, over the bytes that came.
//!
//! The page is for who started the dashboard, and neither for other users of the host, containers (the host's loopback is theirs at
//! 10.0.2.2), nor pages of other sites in the same browser. All have the same two proofs to bring: the token, and a `Host` that no name
//! of theirs leads to. The token is in the query of both addresses and nowhere else: a cookie would go to every port of 127.0.0.1, those
//! that containers publish among them.

use httparse::{Header, Request, Status};
use ring::rand::{SecureRandom, SystemRandom};

use crate::image::digest::{Sha256, to_hex};

/// Longest head of a request in bytes. Chromium's is under 1,000.
pub const MAX_HEAD_BYTES: usize = 8192;
/// Most headers of a request. Chromium sends 15.
const MAX_HEADERS: usize = 64;
/// Bytes of chance in a token: nobody guesses 256 bits.
const TOKEN_BYTES: usize = 32;

/// What lets a request in: whoever knows it was told by this program.
#[derive(Clone)]
pub struct Token(String);

impl Token {
    /// A new one. None when the system has no chance to give.
    #[must_use]
    pub fn random() -> Option<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        SystemRandom::new().fill(&mut bytes).ok()?;
        Some(Self(to_hex(&bytes)))
    }

    /// As a query has it.
    #[must_use]
    pub fn query(&self) -> String {
        format!("token={}", self.0)
    }

    /// By digests: how long it takes tells nothing of the token.
    fn is_in(&self, query: &str) -> bool {
        Sha256::of(&[query.as_bytes()]) == Sha256::of(&[self.query().as_bytes()])
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The page.
    Page,
    /// The document that it draws.
    Data,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not HTTP.
    NotHttp,
    /// Its head is too long.
    TooLong,
    /// It came by another name than loopback's.
    Host,
    /// It is no GET.
    Method,
    /// It has not the token, or another one.
    Token,
    /// There is nothing of that name.
    Path,
}

impl Refusal {
    /// HTTP's code and words for it, and what the user is told.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::NotHttp => ("400 Bad Request", "this is not HTTP"),
            Self::TooLong => ("431 Request Header Fields Too Large", "the request is too long"),
            Self::Host => ("403 Forbidden", "the page is at 127.0.0.1 and at localhost only"),
            Self::Method => ("405 Method Not Allowed", "nothing can be changed here: the method is GET"),
            Self::Token => (
                "403 Forbidden",
                "the token is missing or of an earlier run: open the address that was printed",
            ),
            Self::Path => ("404 Not Found", "there is no such page"),
        }
    }
}

/// Judges what came so far for the dashboard on `port`. None while the head has not ended.
///
/// # Errors
/// [`Refusal`].
pub fn judge(bytes: &[u8], port: u16, token: &Token) -> Result<Option<Wanted>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(Status::Complete(_)) => {}
        Ok(Status::Partial) if bytes.len() < MAX_HEAD_BYTES => return Ok(None),
        Ok(Status::Partial) | Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        Err(_) => return Err(Refusal::NotHttp),
    }
    if !is_ours(request.headers, port) {
        return Err(Refusal::Host);
    }
    if request.method != Some("GET") {
        return Err(Refusal::Method);
    }
    let (path, query) = request.path.and_then(|target| target.split_once('?')).ok_or(Refusal::Token)?;
    if !token.is_in(query) {
        return Err(Refusal::Token);
    }
    match path {
        "/" => Ok(Some(Wanted::Page)),
        "/data.json" => Ok(Some(Wanted::Data)),
        _ => Err(Refusal::Path),
    }
}

/// Whether there is one `Host`, and it is loopback's own: a name that somebody else has lead here is none of these.
fn is_ours(headers: &[Header<'_>], port: u16) -> bool {
    let mut hosts = headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (host, another) = (hosts.next(), hosts.next());
    let ours = ["127.0.0.1", "localhost"].map(|name| format!("{name}:{port}").into_bytes());
    another.is_none() && host.is_some_and(|host| ours.iter().any(|name| name == host.value))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 4321;

    fn token() -> Token {
        Token("5ec2e7".to_owned())
    }

    fn judged(text: &str) -> Result<Option<Wanted>, Refusal> {
        judge(text.as_bytes(), PORT, &token())
    }

    fn get(target: &str) -> Result<Option<Wanted>, Refusal> {
        judged(&format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:4321\r\n\r\n"))
    }

    #[test]
    fn page_and_data_are_given_to_who_has_the_token() {
        assert_eq!(get("/?token=5ec2e7"), Ok(Some(Wanted::Page)));
        assert_eq!(get("/data.json?token=5ec2e7"), Ok(Some(Wanted::Data)));
    }

    #[test]
    fn without_the_token_or_with_another_there_is_nothing() {
        for query in [
            "",
            "?",
            "?token=",
            "?token=5ec2e",
            "?token=5ec2e8",
            "?token=5EC2E7",
            "?token=5ec2e7&token=0",
            "?x=5ec2e7",
        ] {
            for path in ["/", "/data.json", "/nothing"] {
                assert_eq!(get(&format!("{path}{query}")), Err(Refusal::Token), "{path}{query}");
            }
        }
        let cookie = "GET / HTTP/1.1\r\nHost: 127.0.0.1:4321\r\nCookie: token=5ec2e7\r\n\r\n";
        assert_eq!(judged(cookie), Err(Refusal::Token));
    }

    #[test]
    fn another_host_is_refused_whatever_else_is_right() {
        let with = |hosts: &str| judged(&format!("GET /?token=5ec2e7 HTTP/1.1\r\n{hosts}\r\n"));
        for hosts in ["Host: 127.0.0.1:4321\r\n", "host: localhost:4321\r\n"] {
            assert_eq!(with(hosts), Ok(Some(Wanted::Page)), "{hosts}");
        }
        for hosts in [
            "",
            "Host:\r\n",
            "Host: 127.0.0.1\r\n",
            "Host: 127.0.0.1:4322\r\n",
            "Host: 10.0.2.2:4321\r\n",
            "Host: rebound.example.com:4321\r\n",
            "Host: localhost:4321.example.com\r\n",
            "Host: 127.0.0.1:4321\r\nHost: example.com\r\n",
        ] {
            assert_eq!(with(hosts), Err(Refusal::Host), "{hosts}");
        }
    }

    #[test]
    fn no_method_but_get_is_known() {
        for method in ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "get"] {
            let text = format!("{method} /?token=5ec2e7 HTTP/1.1\r\nHost: localhost:4321\r\n\r\n");
            assert_eq!(judged(&text), Err(Refusal::Method), "{method}");
        }
    }

    #[test]
    fn there_are_two_paths_and_no_other() {
        for path in [
            "/index.html",
            "//",
            "/data.json/",
            "/../data.json",
            "/favicon.ico",
            "*",
            "http://127.0.0.1:4321/",
        ] {
            assert_eq!(get(&format!("{path}?token=5ec2e7")), Err(Refusal::Path), "{path}");
        }
    }

    #[test]
    fn a_head_is_waited_for_as_long_as_it_can_be_one() {
        let head = "GET /?token=5ec2e7 HTTP/1.1\r\nHost: localhost:4321\r\n\r\n";
        for end in 0..head.len() {
            assert_eq!(judged(&head[..end]), Ok(None), "{end}");
        }
        assert_eq!(judged("\u{16}\u{3}\u{1} hello"), Err(Refusal::NotHttp));
        let endless = format!("GET /?{}", "x".repeat(MAX_HEAD_BYTES));
        assert_eq!(judged(&endless), Err(Refusal::TooLong));
        let crowded = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MAX_HEADERS + 1));
        assert_eq!(judged(&crowded), Err(Refusal::TooLong));
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let [one, other] = [(), ()].map(|()| Token::random().expect("chance").query());
        assert_eq!(one.len(), "token=".len() + 2 * TOKEN_BYTES);
        assert_ne!(one, other);
    }
}
