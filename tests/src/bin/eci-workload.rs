//! What programs in containers do all day, timed from inside: `scripts/bench` runs it under one runtime after the other.
//! Prints a line `name nanoseconds` for each part.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Calls of the system that are timed.
const CALLS: u32 = 1_000_000;
/// Files that are made, looked at, read and written.
const FILES: u32 = 2_000;
/// Bytes through a pipe or a connection.
const STREAM_BYTES: usize = 256 << 20;
/// Bytes of one write to it.
const PIECE_BYTES: usize = 64 << 10;
/// Where the files are made: the container's root file system.
const FOLDER: &str = "/work";

/// A part of the workload.
type Part = fn() -> Result<()>;

fn main() -> Result<()> {
    let parts: [(&str, Part); 5] = [
        ("a-million-system-calls", calls),
        ("2000-files-made-read-written", files),
        ("tar-of-10000-files", unpack),
        ("256-MiB-through-a-pipe", pipe),
        ("256-MiB-over-loopback", loopback),
    ];
    fs::create_dir_all(FOLDER)?;
    for (name, part) in parts {
        let started = Instant::now();
        part().with_context(|| name.to_owned())?;
        print(name, started.elapsed())?;
    }
    Ok(())
}

fn print(name: &str, time: Duration) -> Result<()> {
    writeln!(io::stdout(), "{name} {}", time.as_nanos())?;
    Ok(())
}

fn calls() -> Result<()> {
    for _ in 0..CALLS {
        // The C library does not remember it, so that each is a call of the kernel.
        std::hint::black_box(rustix::process::getppid());
    }
    Ok(())
}

fn files() -> Result<()> {
    let folder = Path::new(FOLDER);
    for number in 0..FILES {
        let path = folder.join(number.to_string());
        fs::write(&path, "some bytes of a small file\n")?;
        ensure!(fs::metadata(&path)?.len() > 0, "an empty file");
        ensure!(!fs::read(&path)?.is_empty(), "nothing read");
        File::options().append(true).open(&path)?.write_all(b"more\n")?;
    }
    Ok(())
}

fn unpack() -> Result<()> {
    let status = Command::new("/bin/busybox").args(["tar", "xf", "/files.tar", "-C", FOLDER]).status()?;
    ensure!(status.success(), "tar ended with {status}");
    Ok(())
}

fn pipe() -> Result<()> {
    let (reader, writer) = rustix::pipe::pipe()?;
    stream(File::from(reader), File::from(writer))
}

fn loopback() -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let writer = TcpStream::connect(listener.local_addr()?)?;
    stream(listener.accept()?.0, writer)
}

fn stream(mut reader: impl Read + Send + 'static, mut writer: impl Write) -> Result<()> {
    let drain = thread::spawn(move || {
        let (mut piece, mut total) = (vec![0; PIECE_BYTES], 0);
        while let Ok(length) = reader.read(&mut piece) {
            if length == 0 {
                break;
            }
            total += length;
        }
        total
    });
    let piece = vec![0x5a; PIECE_BYTES];
    for _ in 0..STREAM_BYTES / PIECE_BYTES {
        writer.write_all(&piece)?;
    }
    drop(writer);
    let total = drain.join().expect("invariant: the reader does not panic");
    ensure!(total == STREAM_BYTES, "{total} bytes came");
    Ok(())
}
