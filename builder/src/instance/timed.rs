//! A connection that is read until a moment and no longer, however slowly bytes come: how fast they do is the VM's to choose.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A connection to one of an instance's sockets.
#[derive(Debug)]
pub struct Timed {
    stream: UnixStream,
    until: Option<Instant>,
}

impl Timed {
    /// Connects; everything that is read has to come within `patience` from now.
    ///
    /// # Errors
    /// What the system said.
    pub fn connect(socket: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        Ok(Self { stream, until: Some(Instant::now() + patience) })
    }

    /// From now on waits for ever.
    ///
    /// # Errors
    /// What the system said.
    pub fn wait_for_ever(&mut self) -> io::Result<()> {
        self.until = None;
        self.stream.set_read_timeout(None)
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(until) = self.until {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
        }
        self.stream.read(buffer).map_err(|error| match error.kind() {
            // What the system says of a read that took too long tells a user nothing.
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

impl Write for Timed {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    #[test]
    fn bytes_that_trickle_end_at_the_moment_as_silence_does() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let socket = folder.path().join("s");
        let listener = UnixListener::bind(&socket).expect("bound");
        let trickle = thread::spawn(move || {
            let (mut peer, _) = listener.accept().expect("connected");
            while peer.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let mut timed = Timed::connect(&socket, Duration::from_millis(200)).expect("connected");
        let error = timed.read_to_end(&mut Vec::new()).expect_err("it never ends");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(timed);
        trickle.join().expect("no panic");
    }
}
