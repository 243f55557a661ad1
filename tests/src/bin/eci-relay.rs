//! `eci-relay PORT SOCKET`: joins each TCP connection to a Unix socket, half-closes included. In suite `wsl` it stands in another
//! distro, so that Docker's client of the host reaches the engine as a client there would.

use std::io;
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [port, socket] = arguments.as_slice() else { return ExitCode::from(64) };
    let Ok(port) = port.parse() else { return ExitCode::from(64) };
    match serve(port, socket) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn serve(port: u16, socket: &str) -> io::Result<()> {
    for client in TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?.incoming() {
        let (client, socket) = (client?, socket.to_owned());
        // One that cannot be served is closed, which is what a client without an engine sees.
        thread::spawn(move || join(&client, &socket));
    }
    Ok(())
}

fn join(client: &TcpStream, socket: &str) -> io::Result<()> {
    let engine = UnixStream::connect(socket)?;
    let (mut from_client, mut to_engine) = (client.try_clone()?, engine.try_clone()?);
    let there = thread::spawn(move || {
        let copied = io::copy(&mut from_client, &mut to_engine);
        // The engine may have gone, and the client with it.
        drop(to_engine.shutdown(Shutdown::Write));
        copied
    });
    let copied = io::copy(&mut &engine, &mut &*client);
    drop(client.shutdown(Shutdown::Write));
    drop(there.join());
    copied.map(drop)
}
