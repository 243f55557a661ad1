//! The server on a real port, asked as a browser would and as one should not.

use super::*;

/// A server whose document is `{}`; its port and the query with the token.
fn served() -> (u16, String) {
    let server = Server::bind(0).expect("a free port");
    let (port, query) = (server.port, server.token.query());
    thread::spawn(move || server.serve(|| b"{}".to_vec()));
    (port, query)
}

fn said(port: u16, text: &str) -> String {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    client.write_all(text.as_bytes()).expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer that ends");
    answer
}

fn get(port: u16, target: &str) -> String {
    said(port, &format!("GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"))
}

#[test]
fn the_page_and_its_data_are_served_at_the_printed_address() {
    let server = Server::bind(0).expect("a free port");
    let url = server.url();
    let target = url.strip_prefix(&format!("http://127.0.0.1:{}", server.port)).expect("loopback").to_owned();
    let port = server.port;
    thread::spawn(move || server.serve(|| b"{\"version\":1}".to_vec()));
    let page = get(port, &target);
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("text/html"), "{page}");
    assert!(page.ends_with("</html>\n"), "{page}");
    let data = get(port, &target.replace('/', "/data.json"));
    assert!(data.contains("\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"), "{data}");
    assert!(data.ends_with("\r\n\r\n{\"version\":1}"), "{data}");
}

#[test]
fn every_answer_has_the_headers_that_keep_others_out() {
    let (port, query) = served();
    for target in ["/", "/nothing", "/data.json", &format!("/?{query}"), &format!("/nothing?{query}")] {
        let answer = get(port, target);
        for header in [
            "Content-Security-Policy: default-src 'none'; style-src 'sha256-",
            "; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n",
            "X-Content-Type-Options: nosniff\r\n",
            "Referrer-Policy: no-referrer\r\n",
            "Cross-Origin-Resource-Policy: same-origin\r\n",
            "Cache-Control: no-store\r\n",
            "Connection: close\r\n",
        ] {
            assert!(answer.contains(header), "{target} without `{header}`: {answer}");
        }
        for header in ["Set-Cookie", "Access-Control"] {
            assert!(!answer.contains(header), "{target} with {header}: {answer}");
        }
    }
}

#[test]
fn what_is_refused_is_refused_in_words() {
    let (port, query) = served();
    let host = format!("Host: 127.0.0.1:{port}");
    for (text, code, words) in [
        (format!("GET / HTTP/1.1\r\n{host}\r\n\r\n"), 403, "the token is missing"),
        (format!("GET /data.json?token=0 HTTP/1.1\r\n{host}\r\n\r\n"), 403, "the token is missing"),
        (format!("GET /?{query} HTTP/1.1\r\nHost: example.com\r\n\r\n"), 403, "127.0.0.1"),
        (format!("POST /?{query} HTTP/1.1\r\n{host}\r\nContent-Length: 3\r\n\r\nabc"), 405, "GET"),
        (format!("GET /x?{query} HTTP/1.1\r\n{host}\r\n\r\n"), 404, "no such page"),
        ("\u{1}\r\n\r\n".to_owned(), 400, "not HTTP"),
    ] {
        let answer = said(port, &text);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {code} ")) && answer.contains(words),
            "{text}\n{answer}"
        );
    }
}

#[test]
fn a_port_that_is_taken_is_named() {
    let (port, _) = served();
    let error = Server::bind(port).err().expect("it is taken");
    assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{port}"));
    assert_eq!(Error::Random.to_string(), "the system gives no random numbers");
}

#[test]
fn clients_that_say_nothing_do_not_keep_others_out() {
    let (port, query) = served();
    let silent: Vec<_> = (0..MOST_CONNECTIONS / 2)
        .map(|_| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens"))
        .collect();
    assert!(get(port, &format!("/?{query}")).starts_with("HTTP/1.1 200 "));
    drop(silent);
}
