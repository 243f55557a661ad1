//! `recvtty --pid-file FILE --mode null SOCKET`: takes the container's terminal over a console socket and reads it empty.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// How long somebody may take to connect. A test whose container was refused leaves its `recvtty` behind, and bats waits
/// until all that it has started are gone.
const PATIENCE: Duration = Duration::from_secs(60);

/// Serves one terminal after the other, each in a thread of its own, until it is killed.
pub fn receive(words: &[String]) -> io::Result<()> {
    let after = |name: &str| words.iter().position(|word| word == name).and_then(|at| words.get(at + 1));
    let socket = words.last().ok_or_else(|| io::Error::other("no socket was named"))?;
    let listener = UnixListener::bind(socket)?;
    if let Some(path) = after("--pid-file") {
        fs::write(path, std::process::id().to_string())?;
    }
    let (came, comes) = mpsc::channel();
    std::thread::spawn(move || {
        if comes.recv_timeout(PATIENCE).is_err() {
            std::process::exit(1);
        }
    });
    for stream in listener.incoming() {
        let stream = stream?;
        // Only the first is waited for.
        let _first_only = came.send(());
        std::thread::spawn(move || {
            let terminals = take(&stream).unwrap_or_default();
            for terminal in terminals {
                // It ends with an error when the last process leaves the terminal.
                drop(io::copy(&mut fs::File::from(terminal), &mut io::sink()));
            }
        });
    }
    Ok(())
}

fn take(stream: &std::os::unix::net::UnixStream) -> io::Result<Vec<OwnedFd>> {
    let mut name = [0; 4096];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(stream, &mut [IoSliceMut::new(&mut name)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    Ok(control
        .drain()
        .filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => Some(descriptors),
            _ => None,
        })
        .flatten()
        .collect())
}
