//! Bytes to a door of the engine, and what comes back, read as HTTP by a reader of the suite's own: neither the gate's nor the engine's.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// How long an answer may take to come on. Under TCG a container takes some seconds to start, four at once that much longer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a server that waits for more is waited for.
const SOON: Duration = Duration::from_secs(4);
/// What asks, after an answer, whether the connection is still one, and in step.
const PING: &[u8] = b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n";

/// Where a door is.
#[derive(Clone, Debug)]
pub enum Address {
    /// A port of loopback.
    Port(u16),
    /// A socket.
    Socket(PathBuf),
}

/// What is done on one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes this.
    Send(Vec<u8>),
    /// Writes it in pieces of so many bytes, with a pause before each.
    Slowly(Vec<u8>, usize, Duration),
    /// Waits for the head of an answer; what follows by that connection's new protocol is read to its end.
    Upgraded,
    /// Ends this half.
    HalfClose,
    /// Waits for this many whole answers.
    Answers(usize),
    /// Waits for one answer of status 1xx.
    Interim,
    /// Waits for the head of an answer and the first line of its body, and goes.
    FirstLine,
    /// Waits for the head of an answer, and goes.
    Head,
    /// Everything that comes, to the end of the stream.
    Rest,
    /// Every answer that comes, to the end of the stream; this half is ended when none comes soon.
    All,
    /// Asks `/_ping`: whether the connection is kept, and the next answer that question's.
    Ping,
}

/// An answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// Version, status and reason.
    pub line: String,
    /// As they came, with how the body ends in the place of its length.
    pub headers: Vec<(String, String)>,
    /// Without chunks' lengths.
    pub body: Vec<u8>,
}

impl Answer {
    /// The status; 0 where there is none.
    pub fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default()
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// How a connection was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It takes another request, and answers that.
    Kept,
    /// It was closed, or broken off between two answers.
    Closed,
    /// It ended within an answer.
    Cut,
    /// Something came that is no answer.
    Nonsense,
    /// Nothing came.
    Silent,
    /// We went.
    Left,
}

/// What came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Talk {
    /// The answers, with those of status 1xx.
    pub answers: Vec<Answer>,
    /// How it ended.
    pub end: End,
}

/// A connection that nothing is under way on.
pub enum Stream {
    /// To a port.
    Tcp(TcpStream),
    /// To a socket.
    Unix(UnixStream),
}

impl Stream {
    /// Opens one.
    pub fn connect(address: &Address) -> io::Result<Self> {
        let stream = match address {
            Address::Port(port) => Self::Tcp(TcpStream::connect((Ipv4Addr::LOCALHOST, *port))?),
            Address::Socket(path) => Self::Unix(UnixStream::connect(path)?),
        };
        match &stream {
            Self::Tcp(tcp) => {
                tcp.set_nodelay(true)?;
                tcp.set_read_timeout(Some(PATIENCE))?;
                tcp.set_write_timeout(Some(PATIENCE))?;
            }
            Self::Unix(unix) => {
                unix.set_read_timeout(Some(PATIENCE))?;
                unix.set_write_timeout(Some(PATIENCE))?;
            }
        }
        Ok(stream)
    }

    fn patience(&self, patience: Duration) {
        // What cannot be set stays as long as it was.
        drop(match self {
            Self::Tcp(tcp) => tcp.set_read_timeout(Some(patience)),
            Self::Unix(unix) => unix.set_read_timeout(Some(patience)),
        });
    }

    fn half_close(&self) {
        // One that is gone has ended by itself.
        drop(match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
        });
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buffer),
            Self::Unix(unix) => unix.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(bytes),
            Self::Unix(unix) => unix.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A connection while it is talked on.
struct Connection {
    stream: Stream,
    came: Vec<u8>,
    answers: Vec<Answer>,
    is_head: bool,
}

/// Does the steps on a connection, and gives it back where it is kept. `is_head`: the questions are of the method HEAD, so that their answers
/// have no bodies.
pub fn talk(stream: Stream, steps: &[Step], is_head: bool) -> (Talk, Option<Stream>) {
    let mut connection = Connection { stream, came: Vec::new(), answers: Vec::new(), is_head };
    let end = connection.act(steps).err().unwrap_or(End::Left);
    let kept = (end == End::Kept && connection.came.is_empty()).then_some(connection.stream);
    (Talk { answers: connection.answers, end }, kept)
}

impl Connection {
    fn act(&mut self, steps: &[Step]) -> Result<(), End> {
        for step in steps {
            match step {
                // A server that has answered and gone takes no more: what it said is read all the same.
                Step::Send(bytes) => drop(self.stream.write_all(bytes)),
                Step::Slowly(bytes, length, pause) => {
                    for piece in bytes.chunks(*length) {
                        std::thread::sleep(*pause);
                        if self.stream.write_all(piece).is_err() {
                            break;
                        }
                    }
                }
                Step::HalfClose => self.stream.half_close(),
                Step::Upgraded => {
                    let (answer, _) = self.head()?;
                    self.answers.push(answer);
                }
                Step::Answers(count) => (0..*count).try_for_each(|_| self.answer())?,
                Step::Interim => {
                    let (answer, _) = self.head()?;
                    let goes_on = answer.status() == 100;
                    self.answers.push(answer);
                    if !goes_on {
                        return Err(End::Left);
                    }
                }
                Step::FirstLine => {
                    let (mut answer, framing) = self.head()?;
                    answer.body = match framing {
                        Framing::Chunks => {
                            let length = self.chunk_length()?;
                            self.take(length)?
                        }
                        _ => self.line()?,
                    };
                    self.answers.push(answer);
                    return Ok(());
                }
                Step::Head => {
                    let (answer, _) = self.head()?;
                    self.answers.push(answer);
                    return Ok(());
                }
                Step::Rest => {
                    let body = self.rest()?;
                    match self.answers.last_mut() {
                        Some(answer) => answer.body.extend(body),
                        None => self.answers.push(Answer { body, ..Answer::default() }),
                    }
                    return Err(End::Closed);
                }
                Step::All => {
                    self.stream.patience(SOON);
                    loop {
                        match self.answer() {
                            Ok(()) => {}
                            Err(End::Silent) => break,
                            Err(end) => return Err(end),
                        }
                    }
                    self.stream.half_close();
                    // Now nothing more can come: whoever takes longer is at work.
                    self.stream.patience(PATIENCE);
                    loop {
                        self.answer()?;
                    }
                }
                Step::Ping => {
                    drop(self.stream.write_all(PING));
                    self.is_head = false;
                    self.answer()?;
                    let answer = self.answers.pop();
                    let in_step =
                        answer.as_ref().is_some_and(|answer| answer.status() == 200 && answer.body == b"OK");
                    if !in_step {
                        self.answers.extend(answer);
                    }
                    return Err(if in_step { End::Kept } else { End::Nonsense });
                }
            }
        }
        Ok(())
    }

    /// One whole answer, and those of status 1xx before it.
    fn answer(&mut self) -> Result<(), End> {
        loop {
            let (mut answer, framing) = self.head()?;
            let status = answer.status();
            let body = match framing {
                Framing::Nothing => Ok(Vec::new()),
                Framing::Length(length) => self.take(length),
                Framing::Chunks => self.chunks(),
                Framing::End => self.rest(),
            };
            let end = match body {
                Ok(body) => {
                    answer.body = body;
                    None
                }
                Err(end) => Some(end),
            };
            self.answers.push(answer);
            if let Some(end) = end {
                return Err(end);
            }
            if !(100..200).contains(&status) || status == 101 {
                return Ok(());
            }
        }
    }

    fn head(&mut self) -> Result<(Answer, Framing), End> {
        let end = loop {
            if let Some(at) = self.came.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if !self.more()? {
                return Err(if self.came.is_empty() { End::Closed } else { End::Cut });
            }
        };
        let head: Vec<u8> = self.came.drain(..end).collect();
        let head = String::from_utf8(head).map_err(|_| End::Nonsense)?;
        let mut lines = head.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        if !line.starts_with("HTTP/1.") {
            return Err(End::Nonsense);
        }
        let headers: Option<Vec<_>> = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name.to_owned(), value.trim().to_owned())))
            .collect();
        let answer = Answer { line, headers: headers.ok_or(End::Nonsense)?, body: Vec::new() };
        let status = answer.status();
        let framing = if self.is_head || (100..200).contains(&status) || [204, 304].contains(&status) {
            Framing::Nothing
        } else if answer.header("transfer-encoding").is_some() {
            Framing::Chunks
        } else if let Some(length) = answer.header("content-length") {
            Framing::Length(length.parse().map_err(|_| End::Nonsense)?)
        } else {
            Framing::End
        };
        Ok((answer, framing))
    }

    fn chunks(&mut self) -> Result<Vec<u8>, End> {
        let mut body = Vec::new();
        loop {
            let length = self.chunk_length()?;
            if length == 0 {
                // Trailers, if any, belong to the answer.
                loop {
                    let line = self.line()?;
                    if line == b"\r\n" {
                        return Ok(body);
                    }
                    body.extend(b"trailer: ");
                    body.extend(line);
                }
            }
            body.extend(self.take(length)?);
            if self.line()? != b"\r\n" {
                return Err(End::Nonsense);
            }
        }
    }

    fn chunk_length(&mut self) -> Result<usize, End> {
        let line = self.line()?;
        let digits = std::str::from_utf8(&line).map_err(|_| End::Nonsense)?.trim_end();
        usize::from_str_radix(digits, 16).map_err(|_| End::Nonsense)
    }

    fn line(&mut self) -> Result<Vec<u8>, End> {
        loop {
            if let Some(at) = self.came.iter().position(|byte| *byte == b'\n') {
                return Ok(self.came.drain(..=at).collect());
            }
            if !self.more()? {
                return Err(End::Cut);
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, End> {
        while self.came.len() < length {
            if !self.more()? {
                return Err(End::Cut);
            }
        }
        Ok(self.came.drain(..length).collect())
    }

    fn rest(&mut self) -> Result<Vec<u8>, End> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.came))
    }

    /// Whether there was more. A connection that is broken off has ended: what was sent into it was not read.
    fn more(&mut self) -> Result<bool, End> {
        let mut part = [0; 16 * 1024];
        match self.stream.read(&mut part) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.came.extend_from_slice(&part[..length]);
                Ok(true)
            }
            Err(error) if [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut].contains(&error.kind()) => {
                Err(End::Silent)
            }
            Err(_) => Ok(false),
        }
    }
}

/// How a body ends.
enum Framing {
    Nothing,
    Length(usize),
    Chunks,
    End,
}
