//! The id ranges in use, for a host: read where the runtime keeps them.

use std::fs;
use std::io;
use std::path::Path;

use eci_contract::errors::chain;
use eci_contract::link::Reply;
use eci_contract::ranges::IdRange;
use eci_link::{refuse, write_reply};
use eci_policy::rules::resource::IDS;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::task::spawn_blocking;

/// Writes a line to `stream` for each range that is in use now.
///
/// # Errors
/// The ranges cannot be read, which the host has been told, or the host is gone.
pub async fn serve<T: AsyncRead + AsyncWrite + Unpin>(stream: &mut T, folder: &Path) -> io::Result<()> {
    let folder = folder.to_owned();
    let lines = match spawn_blocking(move || lines(&folder)).await? {
        Ok(lines) => lines,
        Err(error) => {
            refuse(stream, chain(&error)).await;
            return Err(error);
        }
    };
    write_reply(stream, &Reply::Ok).await.map_err(io::Error::other)?;
    stream.write_all(&lines).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// Without the runtime's lock: a file is put in place whole, and one that goes meanwhile is of a range that nobody has.
fn lines(folder: &Path) -> io::Result<Vec<u8>> {
    let mut lines = Vec::new();
    for entry in entries(folder)? {
        let entry = entry?;
        let text = match fs::read_to_string(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text?,
        };
        let range = entry.file_name().to_str().and_then(|name| IdRange::from_file(name, &text, IDS));
        if let Some(range) = range {
            serde_json::to_writer(&mut lines, &range)?;
            lines.push(b'\n');
        }
    }
    Ok(lines)
}

/// There is no folder before the first container.
fn entries(folder: &Path) -> io::Result<Vec<io::Result<fs::DirEntry>>> {
    match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => Ok(entries?.collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_booked_is_told_and_nothing_else_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("100000", "one\ntwo"), ("cursor", "165536"), ("lock", "")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let told = String::from_utf8(lines(folder.path()).unwrap()).unwrap();
        assert_eq!(told, "{\"first\":100000,\"count\":65536,\"containers\":[\"one\",\"two\"]}\n");
        assert_eq!(lines(&folder.path().join("none")).unwrap(), b"");
    }
}
