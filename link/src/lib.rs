//! The link between host and VM: many streams over one byte stream, with both ends in this crate.
//!
//! Invariants: a peer that breaks the rules loses its session and nothing else; no byte of an old session is ever
//! taken for one of a new session; a stream's end of input travels by itself, so that `docker attach`, `load` and
//! `build` can close one direction and go on reading the other.
//!
//! In reading order: [`preamble`] (how two ends agree that a session starts here, on a port that knows no connection
//! boundaries), [`session`] (streams, multiplexed by yamux), [`request`] (the line of JSON that opens a stream),
//! [`mod@pipe`] (joining a stream to a socket) and [`datagram`] (messages on a stream of bytes).

pub mod datagram;
pub mod pipe;
pub mod preamble;
pub mod request;
pub mod session;

pub use pipe::pipe;
pub use request::{finish, read_reply, read_request, refuse, write_reply, write_request};
pub use session::{Opener, Session, Stream};
