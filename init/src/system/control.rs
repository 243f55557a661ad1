//! PID 1's control socket: one request line in, one reply line out, log lines after it where they were asked for.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use eci_contract::link::{MAX_REQUEST_BYTES, Reply, Request};
use eci_contract::paths::INIT_SOCKET;
use eci_contract::wsl::CONTROL_SOCKET_INSIDE;
use rustix::net::sockopt::socket_peercred;
use rustix::time::{ClockId, Timespec, clock_settime};

use super::attest;
use super::machine::Machine;
use crate::handover::Platform;
use crate::kmsg;
use crate::wsl::choices::{Part, left_out};

/// Connections served at once. The gate opens one a request; the host has a handful of those.
const MAX_CLIENTS: usize = 64;
/// Log bytes handed to a client in one go.
const CHUNK_BYTES: usize = 16 * 1024;
/// A follower this far behind is cut off: it stopped reading.
const MAX_PENDING_BYTES: usize = 256 * 1024;

/// The listening socket.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
}

impl Listener {
    /// Binds it.
    ///
    /// # Errors
    /// When its folder is not there.
    pub fn bind(platform: Platform) -> io::Result<Self> {
        let path = match platform {
            Platform::Machine => INIT_SOCKET,
            // Where the distro's `systemctl` finds it; the gate has no requests for PID 1 there.
            Platform::Wsl => CONTROL_SOCKET_INSIDE,
        };
        drop(std::fs::remove_file(path));
        let socket = UnixListener::bind(path)?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Takes waiting connections. Those of anyone but root, and those that are too many, are closed.
    pub fn accept(&self, clients: &mut Vec<Client>) {
        while let Ok((stream, _)) = self.socket.accept() {
            let root = socket_peercred(&stream).is_ok_and(|peer| peer.uid.is_root());
            if root && clients.len() < MAX_CLIENTS && stream.set_nonblocking(true).is_ok() {
                clients.push(Client {
                    stream,
                    input: Vec::new(),
                    output: VecDeque::new(),
                    phase: Phase::Request,
                });
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    input: Vec<u8>,
    output: VecDeque<u8>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The request line is not complete.
    Request,
    /// Log lines from a position on.
    Logs { position: u64, follow: bool },
    /// What is pending is the last.
    Finish,
    /// To be dropped.
    Closed,
}

impl Client {
    /// Whether there are bytes that wait for the socket to take them.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Whether it can be dropped.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Reads what came, and answers a complete request. A second line, or the end of the stream, ends it.
    pub fn read(&mut self, machine: &mut Machine) {
        let mut buffer = [0; 1024];
        match self.stream.read(&mut buffer) {
            Ok(0) if self.phase == Phase::Request => self.phase = Phase::Closed,
            // A peer that only shut its sending side still wants the answer, but not to follow a log.
            Ok(0) => self.end_following(),
            Ok(length) if self.phase == Phase::Request => {
                self.input.extend_from_slice(buffer.get(..length).unwrap_or_default());
                self.try_answer(machine);
            }
            Ok(_) => {}
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => self.phase = Phase::Closed,
        }
    }

    /// Fills the pending bytes from the log, and writes as much as the socket takes.
    pub fn write(&mut self, machine: &Machine) {
        if let Phase::Logs { position, follow } = self.phase {
            if self.output.len() < CHUNK_BYTES {
                let (bytes, next) = machine.ring.read(position, CHUNK_BYTES);
                self.output.extend(&bytes);
                let more = follow || next < machine.ring.end();
                self.phase = if more { Phase::Logs { position: next, follow } } else { Phase::Finish };
            }
        }
        while !self.output.is_empty() {
            let (first, _) = self.output.as_slices();
            match self.stream.write(first) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(err) if err.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => self.phase = Phase::Closed,
            }
            if self.is_closed() {
                return;
            }
        }
        if self.output.len() > MAX_PENDING_BYTES || (self.phase == Phase::Finish && self.output.is_empty()) {
            self.phase = Phase::Closed;
        }
    }

    /// Whether a follower has log lines to come that its socket would take.
    #[must_use]
    pub fn is_behind(&self, end: u64) -> bool {
        matches!(self.phase, Phase::Logs { position, .. } if position < end && self.output.is_empty())
    }

    fn end_following(&mut self) {
        if let Phase::Logs { follow: true, .. } = self.phase {
            self.phase = Phase::Closed;
        }
    }

    fn try_answer(&mut self, machine: &mut Machine) {
        let Some(end) = self.input.iter().position(|byte| *byte == b'\n') else {
            if self.input.len() > MAX_REQUEST_BYTES {
                self.reply(&Reply::Error(format!("request is longer than {MAX_REQUEST_BYTES} bytes")));
            }
            return;
        };
        let line = self.input.get(..end.min(MAX_REQUEST_BYTES)).unwrap_or_default();
        match serde_json::from_slice::<Request>(line) {
            Ok(Request::Logs { follow }) => {
                self.reply(&Reply::Ok);
                self.phase = Phase::Logs { position: machine.ring.start(), follow };
            }
            Ok(Request::Attest { nonce }) => match attest::start(&self.stream, &nonce, machine) {
                // It answers by itself.
                Ok(()) => self.phase = Phase::Closed,
                Err(err) => self.reply(&Reply::Error(kmsg::chain(&err))),
            },
            Ok(request) => self.reply(&answer(&request, machine)),
            Err(err) => self.reply(&Reply::Error(format!("request is not understood: {err}"))),
        }
    }

    fn reply(&mut self, reply: &Reply) {
        let line = serde_json::to_vec(reply).expect("invariant: a reply has only string keys");
        self.output.extend(line);
        self.output.push_back(b'\n');
        self.phase = Phase::Finish;
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn answer(request: &Request, machine: &mut Machine) -> Reply {
    match request {
        Request::Status {} => Reply::Status(Box::new(machine.status())),
        Request::Shutdown {} => {
            machine.stop("asked for over the link");
            Reply::Ok
        }
        Request::Clock { unix_ns } => match left_out(machine.platform(), Part::Request("clock")) {
            Some(why) => Reply::Error(why.to_owned()),
            None => step_clock(*unix_ns),
        },
        Request::Engine {}
        | Request::Logs { .. }
        | Request::Audit { .. }
        | Request::Attest { .. }
        | Request::Ranges {}
        | Request::Published { .. } => Reply::Error("this request is not for PID 1".to_owned()),
    }
}

/// Sets the wall clock. Times before 2020 come from a host whose own clock is not set, and are refused.
fn step_clock(unix_ns: i64) -> Reply {
    const EARLIEST: i64 = 1_577_836_800_000_000_000;
    if unix_ns < EARLIEST {
        return Reply::Error("the time is before 2020".to_owned());
    }
    let time = Timespec { tv_sec: unix_ns / 1_000_000_000, tv_nsec: unix_ns % 1_000_000_000 };
    match clock_settime(ClockId::Realtime, time) {
        Ok(()) => Reply::Ok,
        Err(err) => Reply::Error(format!("cannot set the clock: {}", kmsg::chain(&io::Error::from(err)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handover::Handover;
    use crate::initramfs::slot::ARCHITECTURE;

    fn machine() -> Machine {
        let manifest = format!(
            r#"{{"schema":1,"name":"eci","version":"1","architecture":"{}","flavour":"shipped",
            "root":{{"filesystem":"erofs","algorithm":"sha256","rootHash":"ab","salt":"00","dataBlockSize":4096,
            "hashBlockSize":4096,"dataBlocks":9,"hashStartBlock":1}},"kernel":{{"file":"k","size":1,"sha256":""}},
            "initrd":{{"file":"i","size":1,"sha256":""}},"uki":{{"file":"u","authenticodeSha256":""}},"versions":{{}}}}"#,
            ARCHITECTURE.as_str()
        );
        Machine::new(Handover::default(), serde_json::from_str(&manifest).unwrap())
    }

    fn ask(machine: &mut Machine, request: &[u8]) -> String {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        theirs.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        let mut client =
            Client { stream: ours, input: Vec::new(), output: VecDeque::new(), phase: Phase::Request };
        for piece in request.chunks(700) {
            theirs.write_all(piece).unwrap();
            client.read(machine);
        }
        for _ in 0..4 {
            client.write(machine);
        }
        drop(client);
        let mut text = String::new();
        drop(theirs.read_to_string(&mut text));
        text
    }

    #[test]
    fn a_status_request_gets_one_line() {
        let text = ask(&mut machine(), b"{\"stream\":\"status\"}\n");
        assert!(
            text.starts_with("{\"status\":{\"version\":1,\"state\":\"starting\"") && text.ends_with("}}\n")
        );
    }

    #[test]
    fn shutdown_is_answered_before_it_starts() {
        let mut machine = machine();
        assert_eq!(ask(&mut machine, b"{\"stream\":\"shutdown\"}\n"), "\"ok\"\n");
        assert!(machine.stopping);
    }

    #[test]
    fn logs_follow_the_reply() {
        let mut machine = machine();
        machine.ring.push_line("hello");
        assert_eq!(ask(&mut machine, b"{\"stream\":\"logs\",\"follow\":false}\n"), "\"ok\"\nhello\n");
    }

    #[test]
    fn garbage_and_endless_lines_are_answered_and_cut_off() {
        let mut machine = machine();
        assert!(
            ask(&mut machine, b"\xff\xfe rubbish\n").starts_with("{\"error\":\"request is not understood")
        );
        assert!(ask(&mut machine, b"{\"stream\":\"reboot\"}\n").contains("not understood"));
        let endless = ask(&mut machine, &[b'x'; MAX_REQUEST_BYTES + 100]);
        assert_eq!(endless, "{\"error\":\"request is longer than 4096 bytes\"}\n");
        assert!(!machine.stopping);
    }

    #[test]
    fn a_clock_before_2020_is_refused() {
        let text = ask(&mut machine(), b"{\"stream\":\"clock\",\"unix_ns\":5}\n");
        assert_eq!(text, "{\"error\":\"the time is before 2020\"}\n");
    }
}
