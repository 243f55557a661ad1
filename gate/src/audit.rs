//! The audit log for a host: what is in it, and what comes to it.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use eci_contract::audit::older;
use eci_contract::link::Reply;
use eci_link::write_reply;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::select;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// How often a host that follows the log is told of new lines.
const POLL: Duration = Duration::from_millis(500);

/// Writes the log's lines to `stream`; with `follow` until the host closes it.
///
/// # Errors
/// The log cannot be read, or the host is gone.
pub async fn serve<T>(stream: &mut T, log: &Path, follow: bool) -> io::Result<()>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    write_reply(stream, &Reply::Ok).await.map_err(io::Error::other)?;
    let mut tail = Tail { log: log.to_owned(), file: None, has_begun: false };
    loop {
        let lines;
        (tail, lines) = spawn_blocking(move || {
            let lines = tail.more();
            (tail, lines)
        })
        .await?;
        stream.write_all(&lines?).await?;
        stream.flush().await?;
        let mut byte = [0];
        select! {
            () = sleep(POLL), if follow => {}
            _ = stream.read(&mut byte), if follow => break,
            else => break,
        }
    }
    stream.shutdown().await
}

/// Where reading has come to.
struct Tail {
    log: PathBuf,
    file: Option<File>,
    has_begun: bool,
}

impl Tail {
    /// What was written since the last call; at the first one, everything that is kept.
    fn more(&mut self) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        if !self.has_begun {
            read_if_there(&older(&self.log), &mut lines)?;
            self.has_begun = true;
        }
        if let Some(file) = &mut self.file {
            file.read_to_end(&mut lines)?;
        }
        // What was read so far became the older one, or there was none. Between the two files there is none for a moment.
        let newest = identity_of(&self.log)?;
        if newest.is_some() && newest != self.file.as_ref().map(identity).transpose()? {
            self.file = read_if_there(&self.log, &mut lines)?;
        }
        Ok(lines)
    }
}

fn read_if_there(path: &Path, lines: &mut Vec<u8>) -> io::Result<Option<File>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.read_to_end(lines)?;
    Ok(Some(file))
}

fn identity(file: &File) -> io::Result<(u64, u64)> {
    file.metadata().map(|found| (found.dev(), found.ino()))
}

fn identity_of(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(|found| Some((found.dev(), found.ino()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::fs;
    use std::io::Write;

    use tokio::io::duplex;

    fn append(path: &Path, text: &str) {
        fs::File::options().append(true).create(true).open(path).unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn lines_are_read_once_and_across_files() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.jsonl");
        let mut tail = Tail { log: log.clone(), file: None, has_begun: false };
        let mut more = || String::from_utf8(tail.more().unwrap()).unwrap();
        append(&older(&log), "a\n");
        assert_eq!((more(), more()), ("a\n".to_owned(), String::new()));
        append(&log, "b\n");
        assert_eq!((more(), more()), ("b\n".to_owned(), String::new()));
        append(&log, "c\n");
        fs::rename(&log, older(&log)).unwrap();
        assert_eq!(more(), "c\n");
        append(&log, "d\n");
        assert_eq!((more(), more()), ("d\n".to_owned(), String::new()));
    }

    #[tokio::test]
    async fn a_follower_gets_new_lines_and_ends_when_it_closes() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("audit.jsonl");
        append(&log, "a\n");
        let (mut host, mut gate) = duplex(1024);
        let path = log.clone();
        let server = tokio::spawn(async move { serve(&mut gate, &path, true).await });
        let mut text = [0; 7];
        host.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"\"ok\"\na\n");
        append(&log, "b\n");
        let mut text = [0; 2];
        host.read_exact(&mut text).await.unwrap();
        assert_eq!(&text, b"b\n");
        drop(host);
        server.await.unwrap().ok();
    }

    #[tokio::test]
    async fn without_following_the_stream_ends_by_itself() {
        let folder = tempfile::tempdir().unwrap();
        let (mut host, mut gate) = duplex(1024);
        let mut text = String::new();
        serve(&mut gate, &folder.path().join("audit.jsonl"), false).await.unwrap();
        drop(gate);
        host.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "\"ok\"\n");
    }
}
