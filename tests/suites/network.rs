//! The address: asked for, and renewed before it runs out. The server is this suite, at the other end of the machine's cable.

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use eci_tests::qemu::Qemu;
use eci_tests::suite::{self, Row, row, thorough_row};
use eci_tests::wire::{Asked, RENEWS_AFTER, SERVER, Socket, Wire};
use eci_tests::{image, vm};
use smoltcp::wire::DhcpMessageType;

const FIRST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 50);
/// An address that was given to nobody.
const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 60);
/// How long a booting machine may take to its first question.
const BOOT: Duration = Duration::from_secs(180);
/// How long the client may take to answer anything else, under TCG.
const SOON: Duration = Duration::from_secs(10);

struct Machine {
    wire: Mutex<Wire>,
    qemu: Qemu,
    _folder: tempfile::TempDir,
}

fn main() -> ExitCode {
    match boot() {
        Ok(machine) => suite::run(machine, rows(), |machine| vm::tail(&machine.qemu.console())),
        Err(error) => {
            eprintln!("the machine does not start: {error:?}");
            ExitCode::FAILURE
        }
    }
}

fn boot() -> Result<Machine> {
    let out = image::out()?;
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    File::create(&data)?.set_len(4 << 30)?;
    let drives = [
        format!("file={},format=raw,readonly=on", image::raw(&out)?.display()),
        format!("file={},format=raw", data.display()),
    ];
    let socket = Socket::open()?;
    let qemu = Qemu::start_on(&socket.netdev()?, "network", &out, &drives, &[])?;
    Ok(Machine { wire: Mutex::new(socket.accept()?), qemu, _folder: folder })
}

fn rows() -> Vec<Row<Machine>> {
    vec![
        row("an_address_is_asked_for_and_taken", |machine| {
            let mut wire = machine.wire.lock().unwrap_or_else(PoisonError::into_inner);
            grant(&mut wire, FIRST, BOOT)?;
            ensure!(wire.has(FIRST, SOON)?, "nobody has {FIRST}");
            ensure!(!wire.has(OTHER, Duration::from_secs(2))?, "somebody has {OTHER}");
            Ok(())
        }),
        row("a_lease_is_renewed_with_its_server_before_it_ends", |machine| {
            let mut wire = machine.wire.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = renewal(&mut wire)?;
            wire.answer(&asked, DhcpMessageType::Ack, FIRST)?;
            ensure!(wire.has(FIRST, SOON)?, "nobody has {FIRST} after it was renewed");
            Ok(())
        }),
        thorough_row("a_renewed_lease_is_a_new_one_and_one_that_is_taken_back_is_given_up", |machine| {
            let mut wire = machine.wire.lock().unwrap_or_else(PoisonError::into_inner);
            let asked = renewal(&mut wire)?;
            wire.answer(&asked, DhcpMessageType::Nak, FIRST)?;
            grant(&mut wire, OTHER, SOON)?;
            ensure!(wire.has(OTHER, SOON)?, "nobody has {OTHER}");
            ensure!(!wire.has(FIRST, Duration::from_secs(2))?, "somebody still has {FIRST}");
            Ok(())
        }),
    ]
}

/// Discover, offer, request, acknowledgement: all of it broadcast, from no address.
fn grant(wire: &mut Wire, address: Ipv4Addr, deadline: Duration) -> Result<()> {
    for (kind, answer) in [
        (DhcpMessageType::Discover, DhcpMessageType::Offer),
        (DhcpMessageType::Request, DhcpMessageType::Ack),
    ] {
        let asked = wire.hear(deadline).with_context(|| format!("waiting for {kind:?}"))?;
        ensure!(
            asked.kind == kind && asked.from.is_unspecified() && asked.to.is_broadcast(),
            "expected {kind:?}, got {asked:?}"
        );
        wire.answer(&asked, answer, address)?;
    }
    Ok(())
}

/// The client's request for the lease that it has: from its address to the server, when half of it is over.
fn renewal(wire: &mut Wire) -> Result<Asked> {
    let asked = wire.hear(RENEWS_AFTER + SOON).context("waiting for the renewal")?;
    ensure!(
        asked.kind == DhcpMessageType::Request && asked.from == FIRST && asked.to == SERVER,
        "no renewal: {asked:?}"
    );
    Ok(asked)
}
