use super::*;

use std::net::SocketAddr;

use eci_contract::registries::Proxies;
use eci_policy::rules::registry::Registries;

use crate::denials::Denials;

/// The program, with this list, and an `https` proxy perhaps.
fn start(allowed: &[&str], proxy: Option<SocketAddr>) -> SocketAddr {
    let mut registries = Registries::default();
    allowed.iter().for_each(|entry| registries.add(entry).unwrap());
    let url = proxy.map(|proxy| format!("http://{proxy}"));
    // Go's rule, which is kept, reaches loopback without a proxy.
    let proxies = Proxies { https_proxy: url, ..Proxies::default() };
    let way = Way { registries, proxies, denials: Denials::default() };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(&listener, way));
    address
}

/// A server that reads so much of its first connection, answers, and keeps it open for as long as its client.
fn server(reads: usize, answer: &'static [u8]) -> (SocketAddr, thread::JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let served = thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut heard = vec![0; reads];
        client.read_exact(&mut heard).unwrap();
        client.write_all(answer).unwrap();
        client.read_to_end(&mut heard).unwrap();
        heard
    });
    (address, served)
}

fn say(to: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn all(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_tunnel_leads_to_who_is_on_the_list_and_one_port_off_is_refused() {
    let (address, served) = server(4, b"pong");
    let egress = start(&[&address.to_string()], None);
    let mut stream = say(egress, &format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\npi"));
    stream.write_all(b"ng").unwrap();
    let mut heard = vec![0; ESTABLISHED.len() + 4];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [ESTABLISHED, b"pong"].concat());
    stream.write_all(b"more").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(all(stream), "");
    assert_eq!(served.join().unwrap(), b"pingmore");
    let other = SocketAddr::new(address.ip(), address.port() ^ 1);
    let refused = all(say(egress, &format!("CONNECT {other} HTTP/1.1\r\n\r\n")));
    assert!(
        refused
            .starts_with(&format!("HTTP/1.1 403 registry access to {other} is not allowed ({REMEDY})\r\n")),
        "{refused}"
    );
}

#[test]
fn a_connection_in_the_clear_leads_to_one_host() {
    // It keeps the connection open, though it was asked not to.
    let (address, served) =
        server(40, b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok");
    let egress = start(&[&address.to_string()], None);
    let mut stream =
        say(egress, &format!("GET http://{address}/v2/ HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\n\r\n"));
    let expected = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";
    let mut heard = vec![0; expected.len()];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
    drop(stream);
    let asked = String::from_utf8(served.join().unwrap()).unwrap();
    assert_eq!(
        asked,
        format!("GET /v2/ HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nAccept: */*\r\n\r\n")
    );
    let refused = all(say(egress, "GET http://192.0.2.7/ HTTP/1.1\r\n\r\n"));
    let message = format!("registry access to 192.0.2.7 is not allowed ({REMEDY})");
    assert!(refused.starts_with(&format!("HTTP/1.1 403 {message}\r\n")), "{refused}");
    assert!(
        refused.contains(&format!(r#"{{"errors":[{{"code":"DENIED","message":"{message}"}}]}}"#)),
        "{refused}"
    );
}

#[test]
fn the_administrator_s_proxy_is_asked_for_what_is_on_the_list_alone() {
    let (proxy, served) = server(20, b"HTTP/1.1 200 yes\r\nX: y\r\n\r\nhello");
    let egress = start(&["registry.example.com"], Some(proxy));
    let refused = all(say(egress, "CONNECT registry.example.org:443 HTTP/1.1\r\n\r\n"));
    assert!(
        refused.starts_with("HTTP/1.1 403 registry access to registry.example.org is not allowed ("),
        "{refused}"
    );
    let mut stream = say(egress, "CONNECT registry.example.com:443 HTTP/1.1\r\n\r\n");
    let mut heard = vec![0; ESTABLISHED.len() + 5];
    stream.read_exact(&mut heard).unwrap();
    assert_eq!(heard, [ESTABLISHED, b"hello"].concat());
    drop(stream);
    let asked = String::from_utf8(served.join().unwrap()).unwrap();
    assert_eq!(asked, "CONNECT registry.example.com:443 HTTP/1.1\r\nHost: registry.example.com:443\r\n\r\n");
}

#[test]
fn a_proxy_that_refuses_is_told_of() {
    let (proxy, _served) = server(20, b"HTTP/1.1 407 who are you\r\n\r\n");
    let egress = start(&["registry.example.com"], Some(proxy));
    let told = all(say(egress, "CONNECT registry.example.com:443 HTTP/1.1\r\n\r\n"));
    assert!(
        told.starts_with(&format!("HTTP/1.1 502 the proxy {proxy} answered 407 who are you\r\n")),
        "{told}"
    );
}

#[test]
fn what_is_no_request_to_a_proxy_is_refused_and_ends_no_other() {
    let egress = start(&["registry.example.com"], None);
    for (text, told) in [
        ("GET / HTTP/1.1\r\n\r\n", "400 this is the way to registries, and none itself"),
        ("\0\r\n\r\n", "400 the request is not understood"),
        (
            "CONNECT a_b:443 HTTP/1.1\r\n\r\n",
            "403 registry access to a_b:443 is not allowed: that is no name or address of a host",
        ),
    ] {
        let answer = all(say(egress, text));
        assert!(answer.starts_with(&format!("HTTP/1.1 {told}")), "{answer}");
    }
}

#[test]
fn those_beyond_the_most_hold_up_nobody() {
    let egress = start(&["registry.example.com"], None);
    let mut served: Vec<_> = (0..MOST).map(|_| TcpStream::connect(egress).unwrap()).collect();
    let told = all(say(egress, "GET / HTTP/1.1\r\n\r\n"));
    assert!(told.starts_with("HTTP/1.1 503 too many registries"), "{told}");
    // They neither read nor go, each for as long as it may.
    let _slow: Vec<_> = (0..MOST).map(|_| TcpStream::connect(egress).unwrap()).collect();
    served.clear();
    let begin = Instant::now();
    while !all(say(egress, "GET / HTTP/1.1\r\n\r\n")).starts_with("HTTP/1.1 400 ") {
        assert!(
            begin.elapsed() < DRAINED * 20,
            "those that were turned away are waited for one after the other"
        );
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn much_is_passed_on_whole_both_ways() {
    const MUCH: usize = 4 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It writes before it reads all, so that both directions are full at once.
    thread::spawn(move || {
        let (client, _) = listener.accept().unwrap();
        io::copy(&mut &client, &mut &client).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
    });
    let egress = start(&[&address.to_string()], None);
    let stream = say(egress, &format!("CONNECT {address} HTTP/1.1\r\n\r\n"));
    let sent: Vec<u8> = (0..MUCH).map(|n| (n * 31 % 251).to_le_bytes()[0]).collect();
    let mut writer = stream.try_clone().unwrap();
    let bytes = sent.clone();
    let writing = thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = Vec::new();
    (&stream).read_to_end(&mut heard).unwrap();
    writing.join().unwrap();
    assert_eq!(heard.get(..ESTABLISHED.len()), Some(ESTABLISHED));
    assert!(heard.get(ESTABLISHED.len()..) == Some(&sent[..]), "{} bytes", heard.len());
}
