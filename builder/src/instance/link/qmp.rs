//! QEMU's control socket: only the power button is pressed.

use std::io;
use std::path::Path;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Bytes of QEMU's talk that are read before giving up; its greeting and two answers are under 1 KiB.
const MAX_TALK: u64 = 64 * 1024;

/// Presses the machine's power button.
///
/// # Errors
/// What connecting or talking gave.
pub async fn power_button(socket: &Path) -> io::Result<()> {
    let stream = UnixStream::connect(socket).await?;
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader.take(MAX_TALK)).lines();
    lines.next_line().await?;
    for command in ["qmp_capabilities", "system_powerdown"] {
        writer.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes()).await?;
        while lines.next_line().await?.is_some_and(|line| !line.contains("\"return\"")) {}
    }
    Ok(())
}
