//! A folder of one container's root filesystem in the hands of another: what the engine reads and tidies up by names is then not at rest when the
//! container is.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{RenameFlags, renameat_with};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::attempt::{At, Failure, Verb};

/// How long the other container is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long names are exchanged, and the pause between.
const EXCHANGING: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(1);

/// The verbs.
pub const VERBS: &[Verb] = &[
    Verb {
        name: "hand-folder",
        why: "gives `SOCKET:FOLDER`, a folder of its root filesystem, to whoever asks, as containers may",
        run: |argument| {
            let (socket, folder) = argument.split_once(':').ok_or(Failure::NotUnderstood("SOCKET:FOLDER"))?;
            let listener = UnixListener::bind(socket).at("bind")?;
            let (mut stream, _) = listener.accept().at("accept")?;
            let folder = File::open(folder).at("open")?;
            let descriptors = [folder.as_fd()];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            control.push(SendAncillaryMessage::ScmRights(&descriptors));
            sendmsg(&stream, &[IoSlice::new(b"f")], &mut control, SendFlags::empty()).at("sendmsg")?;
            // Until it has it.
            Ok(stream.read_exact(&mut [0])?)
        },
    },
    Verb {
        name: "exchange-names",
        why: "changes `SOCKET:NAME:NAME` with each other in such a folder, while the engine works on it by names",
        run: |argument| {
            let mut words = argument.split(':');
            let mut next = || words.next().ok_or(Failure::NotUnderstood("SOCKET:NAME:NAME"));
            let (socket, one, other) = (next()?, next()?, next()?);
            let folder = receive(socket)?;
            let end = Instant::now() + EXCHANGING;
            while Instant::now() < end {
                renameat_with(&folder, one, &folder, other, RenameFlags::EXCHANGE)?;
                thread::sleep(PAUSE);
            }
            Ok(())
        },
    },
];

fn receive(socket: &str) -> Result<OwnedFd, Failure> {
    let deadline = Instant::now() + PATIENCE;
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => thread::sleep(Duration::from_millis(50)),
        }
    };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    recvmsg(&stream, &mut [IoSliceMut::new(&mut [0])], &mut control, RecvFlags::CMSG_CLOEXEC)
        .at("recvmsg")?;
    let folder = control
        .drain()
        .find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        })
        .ok_or(Failure::NothingThere)?;
    stream.write_all(b"x")?;
    Ok(folder)
}
