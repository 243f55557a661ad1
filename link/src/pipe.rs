//! Joins two byte streams, each direction ending by itself.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};

/// Bytes held for each direction. Docker moves image layers through here; more than this gained nothing measurable.
pub const BUFFER_BYTES: usize = 64 * 1024;

/// Copies both ways until both have ended. The end of one direction is passed on as a half-close (`shutdown` of the
/// other side's writing half) and the opposite direction goes on.
///
/// # Errors
/// The first failure of either side; both are then to be dropped, which resets a [`crate::Stream`].
pub async fn pipe<A, B>(left: &mut A, right: &mut B) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    copy_bidirectional_with_sizes(left, right, BUFFER_BYTES, BUFFER_BYTES).await.map(drop)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn one_direction_ends_and_the_other_goes_on() {
        let (mut client, mut near) = duplex(64);
        let (mut far, mut server) = duplex(64);
        let joined = tokio::spawn(async move { pipe(&mut near, &mut far).await });
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("half closed");
        let mut question = String::new();
        server.read_to_string(&mut question).await.expect("the end of input arrives");
        assert_eq!(question, "question");
        server.write_all(b"answer").await.expect("the other direction is open");
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("read");
        assert_eq!(answer, "answer");
        joined.await.expect("no panic").expect("an orderly end");
    }
}
