//! The head of an answer: a proxy's, which decides, and a server's, which is told to be the last of its connection.
//!
//! Why the latter: Go keeps a connection to a proxy for requests to any host, and a server may keep one open that it was asked to close. The next
//! host would then be asked for on a connection that leads to this one.

use super::request::{MOST_BYTES, MOST_HEADERS, OF_A_CONNECTION, end_of_head};

/// What is known of an answer so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// More has to come.
    Partial,
    /// All of it, as it is to be passed on.
    Whole(Vec<u8>),
    /// It is none.
    Bad,
}

/// What came first from a server, with its head as the client is to have it. Answers that announce another one (1xx) go before.
#[must_use]
pub fn closing(bytes: &[u8]) -> Head {
    let mut out = Vec::new();
    let mut left = bytes;
    loop {
        let Some(end) = end_of_head(left) else {
            return if bytes.len() > MOST_BYTES { Head::Bad } else { Head::Partial };
        };
        let (head, rest) = left.split_at(end);
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut answer = httparse::Response::new(&mut headers);
        if !answer.parse(head).is_ok_and(|parsed| parsed.is_complete()) {
            return Head::Bad;
        }
        let code = answer.code.unwrap_or_default();
        if (100..200).contains(&code) && code != 101 {
            out.extend_from_slice(head);
            left = rest;
            continue;
        }
        let reason = answer.reason.unwrap_or_default();
        out.extend_from_slice(
            format!("HTTP/1.{} {code} {reason}\r\nConnection: close\r\n", answer.version.unwrap_or(1))
                .as_bytes(),
        );
        for header in answer.headers.iter() {
            if !OF_A_CONNECTION.iter().any(|name| header.name.eq_ignore_ascii_case(name)) {
                out.extend([header.name.as_bytes(), b": ", header.value, b"\r\n"].concat());
            }
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(rest);
        return Head::Whole(out);
    }
}

/// Status and reason of a whole head.
#[must_use]
pub fn status(head: &[u8]) -> Option<(u16, String)> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut answer = httparse::Response::new(&mut headers);
    let complete = answer.parse(head).ok()?.is_complete();
    complete.then(|| (answer.code.unwrap_or_default(), answer.reason.unwrap_or_default().to_owned()))
}

/// A refusal, as Docker's clients show it: the reason of an answer to `CONNECT` is Go's error, and of any other answer the engine reads a registry's
/// own form of errors.
#[must_use]
pub fn refusal(code: u16, message: &str) -> Vec<u8> {
    // A reason is one line of ASCII.
    let reason: String =
        message.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect();
    let body = serde_json::json!({ "errors": [{ "code": "DENIED", "message": reason }] }).to_string();
    format!(
        "HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_last_of_its_connection() {
        let whole = closing(
            b"HTTP/1.1 200 OK\r\nconnection: keep-alive\r\nKeep-Alive: x\r\nContent-Length: 2\r\n\r\nab",
        );
        let expected = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nab".to_vec();
        assert_eq!(whole, Head::Whole(expected));
        let Head::Whole(text) = closing(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 \r\n\r\n") else {
            panic!("partial")
        };
        assert_eq!(text, b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 \r\nConnection: close\r\n\r\n");
        assert_eq!(closing(b"HTTP/1.1 200 OK\r\nX: y"), Head::Partial);
        assert_eq!(closing(b"HTTP/1.1 100 Continue\r\n\r\n"), Head::Partial);
        assert_eq!(closing(b"SSH-2.0-x\r\n\r\n"), Head::Bad);
        assert_eq!(closing(&vec![b'x'; MOST_BYTES + 1]), Head::Bad);
    }

    #[test]
    fn a_refusal_is_its_own_reason() {
        let text = String::from_utf8(refusal(403, "registry access to a.example is not allowed")).unwrap();
        assert!(text.starts_with("HTTP/1.1 403 registry access to a.example is not allowed\r\n"), "{text}");
        assert!(
            text.ends_with(
                r#"{"errors":[{"code":"DENIED","message":"registry access to a.example is not allowed"}]}"#
            ),
            "{text}"
        );
        let text = String::from_utf8(refusal(502, "a\r\nX: y\u{e9}")).unwrap();
        assert!(text.starts_with("HTTP/1.1 502 a??X: y?\r\n"), "{text}");
        assert_eq!(status(text.as_bytes()), Some((502, "a??X: y?".to_owned())));
    }
}
