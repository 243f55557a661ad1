//! What host and VM say to each other on a stream of the link, and what the gate says to PID 1.
//!
//! A stream starts with one [`Request`] as a line of JSON (ended by `\n`, at most [`MAX_REQUEST_BYTES`]).
//! After [`Request::Engine`] both directions are raw bytes of the engine's API. Every other request gets one
//! [`Reply`] line; after the reply to [`Request::Logs`], [`Request::Audit`] or [`Request::Ranges`] come raw lines until the end of the
//! stream, after that to [`Request::Published`] the connection's bytes both ways.
//!
//! Streams that the VM opens start with a [`HostRequest`], and end after its reply.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::attest::Evidence;
use crate::ports::Protocol;
use crate::status::Status;

/// Name of the virtio-serial port that carries the link.
pub const PORT_NAME: &str = "org.eci.link";
/// vsock port that the gate listens on where the hypervisor has vsock; each connection is a session. Only the host (CID 2) is served.
pub const VSOCK_PORT: u32 = 1724;
/// Upper bound of a request line in bytes. The longest real one is under 100; a peer that sends more is cut off.
pub const MAX_REQUEST_BYTES: usize = 4096;

/// What the opener of a stream wants. A variant without fields has braces: serde looks for unknown fields in those only, and
/// never in a tagged unit variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "stream")]
pub enum Request {
    /// A connection to the engine's API.
    Engine {},
    /// One [`Status`].
    Status {},
    /// Log lines kept so far, and new ones until the stream is closed when `follow` is set.
    Logs {
        /// Keep the stream open.
        follow: bool,
    },
    /// The audit log so far, and new lines until the stream is closed when `follow` is set.
    Audit {
        /// Keep the stream open.
        follow: bool,
    },
    /// The id ranges in use: a [`crate::ranges::IdRange`] a line.
    Ranges {},
    /// Steps the VM's clock.
    Clock {
        /// Host time in nanoseconds since the Unix epoch.
        unix_ns: i64,
    },
    /// Orderly shutdown; the reply comes before it starts.
    Shutdown {},
    /// What the machine's TPM says of this boot: one [`Evidence`].
    Attest {
        /// 1 to [`crate::attest::MAX_NONCE_BYTES`] bytes of the asker's choice, hexadecimal; they are signed with the answer.
        nonce: String,
    },
    /// A connection to a published port: joined to the container when the reply is [`Reply::Ok`]. Datagrams have a length of two
    /// bytes before each, the high one first.
    Published {
        /// That of [`HostRequest::Publish`].
        id: u64,
    },
}

/// What the VM wants of the host: nothing but the ports that containers publish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "stream")]
pub enum HostRequest {
    /// To listen, and open a [`Request::Published`] for each connection or sender, until withdrawn or until the session ends.
    Publish {
        /// Names it in this session; no two have the same.
        id: u64,
        /// What to listen for.
        protocol: Protocol,
        /// Where. The host decides what it allows.
        address: SocketAddr,
    },
    /// To listen no more, and close its connections. The reply comes when the port is free.
    Withdraw {
        /// That of [`HostRequest::Publish`].
        id: u64,
    },
}

/// The answer to any [`HostRequest`], and to any request but [`Request::Engine`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done, or accepted.
    Ok,
    /// The VM's view of itself.
    Status(Box<Status>),
    /// What the TPM says.
    Evidence(Box<Evidence>),
    /// Not done, and why.
    Error(String),
}
