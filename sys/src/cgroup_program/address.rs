//! Programs that decide about addresses (`BPF_PROG_TYPE_CGROUP_SOCK_ADDR`): whom a socket may be connected to, and whom one that is connected
//! to nobody may send datagrams to.
//!
//! Connecting an IPv6 socket to `::ffff:a.b.c.d` is asked of the program for IPv6, which knows no such address; datagrams to one are asked of the
//! program for IPv4.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;

use super::code::{AND, EXIT, JUMP_UNLESS_EQUAL, LOAD_WORD, SET};
use super::{Hook, install, instruction};

/// `BPF_PROG_TYPE_CGROUP_SOCK_ADDR`.
const PROGRAM: u32 = 18;
/// `BPF_CGROUP_{INET4,INET6}_CONNECT` and `BPF_CGROUP_UDP{4,6}_SENDMSG`.
const HOOKS: [(Hook, Family, Act); 4] = [
    (Hook { program: PROGRAM, attach: 10 }, Family::V4, Act::Connect),
    (Hook { program: PROGRAM, attach: 11 }, Family::V6, Act::Connect),
    (Hook { program: PROGRAM, attach: 14 }, Family::V4, Act::Send),
    (Hook { program: PROGRAM, attach: 15 }, Family::V6, Act::Send),
];
/// Most destinations: more than a list has that is meant, and programs of some thousand instructions.
const MOST: usize = 256;
/// `IPPROTO_TCP`.
const TCP: u32 = 6;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Act {
    Connect,
    Send,
}

/// Somebody who may be spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// By TCP, exactly there.
    Tcp(SocketAddr),
    /// Whoever it is, at this port.
    Port(u16),
    /// By single datagrams, whoever is on the loopback (127.0.0.0/8) of the network namespace that the socket is in.
    LoopbackDatagrams,
}

/// Lets processes of `cgroup` and of those below it speak to these alone, for good; every other connection and datagram is `EPERM`.
///
/// # Errors
/// The error of `bpf(2)`, or `InvalidInput` when there are too many.
pub fn keep_to(cgroup: BorrowedFd<'_>, destinations: &[Destination]) -> io::Result<()> {
    if destinations.len() > MOST {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    HOOKS
        .iter()
        .try_for_each(|(hook, family, act)| install(cgroup, *hook, &program(destinations, *family, *act)))
}

/// A word of `struct bpf_sock_addr`, by its place there. Addresses and ports are as on the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word(i16);

const ADDRESS_V4: Word = Word(4);
const ADDRESS_V6: [Word; 4] = [Word(8), Word(12), Word(16), Word(20)];
const PORT: Word = Word(24);
const PROTOCOL: Word = Word(36);

/// That some bits of a word are these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    word: Word,
    mask: u32,
    value: u32,
}

fn is(word: Word, value: u32) -> Condition {
    Condition { word, mask: u32::MAX, value }
}

/// What has to hold, all of it, for a destination to be meant; `None` where it cannot be.
fn conditions(destination: Destination, family: Family, act: Act) -> Option<Vec<Condition>> {
    let port = |port: u16| is(PORT, u32::from(port.to_be()));
    match (destination, family, act) {
        (Destination::Port(number), ..) => Some(vec![port(number)]),
        (Destination::Tcp(to), _, Act::Connect) => {
            let mut all = match (to.ip(), family) {
                (IpAddr::V4(address), Family::V4) => {
                    vec![is(ADDRESS_V4, u32::from_ne_bytes(address.octets()))]
                }
                (IpAddr::V6(address), Family::V6) => {
                    let octets = address.octets();
                    let words = octets.chunks_exact(4).map(|part| {
                        u32::from_ne_bytes(part.try_into().expect("invariant: a chunk has four bytes"))
                    });
                    ADDRESS_V6.into_iter().zip(words).map(|(word, value)| is(word, value)).collect()
                }
                _ => return None,
            };
            all.extend([port(to.port()), is(PROTOCOL, TCP)]);
            Some(all)
        }
        (Destination::LoopbackDatagrams, Family::V4, Act::Send) => Some(vec![Condition {
            word: ADDRESS_V4,
            mask: u32::from_ne_bytes([255, 0, 0, 0]),
            value: u32::from_ne_bytes([127, 0, 0, 0]),
        }]),
        (Destination::Tcp(_) | Destination::LoopbackDatagrams, ..) => None,
    }
}

/// Register 1 is a `struct bpf_sock_addr`, register 0 the answer: 1 behind the conditions of each destination, 0 at the end.
fn program(destinations: &[Destination], family: Family, act: Act) -> Vec<u64> {
    let mut program = Vec::new();
    for conditions in destinations.iter().filter_map(|destination| conditions(*destination, family, act)) {
        // A condition takes three instructions, and two say yes.
        let length = 3 * conditions.len() + 2;
        for (index, Condition { word, mask, value }) in conditions.iter().enumerate() {
            let signed = |number: u32| i32::from_ne_bytes(number.to_ne_bytes());
            let past = i16::try_from(length - 3 * index - 3)
                .expect("invariant: a destination has six conditions at most");
            program.extend([
                instruction(LOAD_WORD, 2, 1, word.0, 0),
                instruction(AND, 2, 0, 0, signed(*mask)),
                instruction(JUMP_UNLESS_EQUAL, 2, 0, past, signed(*value)),
            ]);
        }
        program.extend([instruction(SET, 0, 0, 0, 1), instruction(EXIT, 0, 0, 0, 0)]);
    }
    program.extend([instruction(SET, 0, 0, 0, 0), instruction(EXIT, 0, 0, 0, 0)]);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would answer.
    fn answer(program: &[u64], words: &[(Word, u32)]) -> u64 {
        let (mut at, mut register, mut answer) = (0_usize, 0_u32, None);
        loop {
            let [code, _, first, second, number @ ..] = program[at].to_ne_bytes();
            let offset = i16::from_ne_bytes([first, second]);
            let number = u32::from_ne_bytes(number);
            at += 1;
            match code {
                LOAD_WORD => {
                    register = words.iter().find(|(word, _)| word.0 == offset).map_or(0, |(_, value)| *value);
                }
                AND => register &= number,
                JUMP_UNLESS_EQUAL if register != number => at += usize::try_from(offset).unwrap(),
                JUMP_UNLESS_EQUAL => {}
                SET => answer = Some(u64::from(number)),
                EXIT => return answer.unwrap(),
                _ => panic!("no instruction of ours: {code:#x}"),
            }
        }
    }

    fn allows(act: Act, protocol: u32, to: &str) -> bool {
        let destinations = [
            Destination::Tcp("127.0.0.1:3128".parse().unwrap()),
            Destination::Tcp("[::1]:5000".parse().unwrap()),
            Destination::Port(53),
            Destination::LoopbackDatagrams,
        ];
        let to: SocketAddr = to.parse().unwrap();
        let mut words = vec![(PORT, u32::from(to.port().to_be())), (PROTOCOL, protocol)];
        let family = match to.ip() {
            IpAddr::V4(address) => {
                words.push((ADDRESS_V4, u32::from_ne_bytes(address.octets())));
                Family::V4
            }
            IpAddr::V6(address) => {
                let octets = address.octets();
                for (word, part) in ADDRESS_V6.into_iter().zip(octets.chunks_exact(4)) {
                    words.push((word, u32::from_ne_bytes(part.try_into().unwrap())));
                }
                Family::V6
            }
        };
        answer(&program(&destinations, family, act), &words) == 1
    }

    #[test]
    fn those_on_the_list_are_reached_and_what_is_one_off_is_not() {
        const UDP: u32 = 17;
        for (act, protocol, to) in [
            (Act::Connect, TCP, "127.0.0.1:3128"),
            (Act::Connect, TCP, "[::1]:5000"),
            (Act::Connect, UDP, "192.0.2.1:53"),
            (Act::Connect, TCP, "[2001:db8::1]:53"),
            (Act::Send, UDP, "192.0.2.1:53"),
            (Act::Send, UDP, "127.0.0.1:40000"),
            (Act::Send, UDP, "127.255.255.255:1"),
        ] {
            assert!(allows(act, protocol, to), "{act:?} {protocol} {to}");
        }
        for (act, protocol, to) in [
            (Act::Connect, TCP, "127.0.0.1:3129"),
            (Act::Connect, TCP, "127.0.0.2:3128"),
            (Act::Connect, TCP, "128.0.0.1:3128"),
            (Act::Connect, UDP, "127.0.0.1:3128"),
            (Act::Connect, UDP, "127.0.0.1:40000"),
            (Act::Connect, TCP, "192.0.2.1:443"),
            (Act::Connect, TCP, "[::1]:5001"),
            (Act::Connect, TCP, "[::2]:5000"),
            (Act::Connect, TCP, "[2001:db8::1]:5000"),
            (Act::Connect, TCP, "[::ffff:127.0.0.1]:3128"),
            (Act::Connect, UDP, "[::1]:5000"),
            (Act::Send, UDP, "192.0.2.1:54"),
            (Act::Send, UDP, "128.0.0.1:40000"),
            (Act::Send, UDP, "[::1]:40000"),
            (Act::Send, UDP, "[::ffff:127.0.0.1]:40000"),
        ] {
            assert!(!allows(act, protocol, to), "{act:?} {protocol} {to}");
        }
    }

    #[test]
    fn without_a_destination_nobody_is_spoken_to() {
        assert_eq!(answer(&program(&[], Family::V4, Act::Connect), &[]), 0);
    }
}
