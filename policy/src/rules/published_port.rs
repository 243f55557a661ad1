//! How far ports of containers are published, where an administrator says so.
//!
//! Why: a port on every address of the host is there for whoever is on the host's network, a container's database among what they find.
//! Where users may choose (`eci-builder run --publish-on`), the host judges; this is what no choice of theirs goes beyond.

use std::net::SocketAddr;

use eci_contract::ports::{Reach, on_loopback, plain};

use super::PREFIX;

/// Why a port is not published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is wanted where others reach it.
    #[error(
        "{PREFIX}: port {0} can't be published because the administrator's settings keep ports on the host's loopback \
         (leave the address out, or name one of the loopback)"
    )]
    NotLoopback(SocketAddr),
    /// None is.
    #[error(
        "{PREFIX}: port {0} can't be published because the administrator's settings publish none (reach it from a \
         container on the same network)"
    )]
    Nothing(SocketAddr),
}

/// The place that the host is asked for, of the one that a container wants.
///
/// # Errors
/// [`Refused`].
pub fn place(reach: Reach, wanted: SocketAddr) -> Result<SocketAddr, Refused> {
    let wanted = plain(wanted);
    match (reach, on_loopback(wanted.ip())) {
        (Reach::All, _) => Ok(wanted),
        (Reach::Loopback, Some(ip)) => Ok(SocketAddr::new(ip, wanted.port())),
        (Reach::Loopback, None) => Err(Refused::NotLoopback(wanted)),
        (Reach::Nothing, _) => Err(Refused::Nothing(wanted)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(reach: Reach, wanted: &str) -> Result<String, Refused> {
        place(reach, wanted.parse().expect("an address")).map(|place| place.to_string())
    }

    #[test]
    fn ports_are_where_they_are_wanted_and_no_further_than_is_allowed() {
        for wanted in ["0.0.0.0:80", "[::]:80", "127.0.0.1:80", "192.0.2.1:80"] {
            assert_eq!(placed(Reach::All, wanted).as_deref(), Ok(wanted));
            assert!(matches!(placed(Reach::Nothing, wanted), Err(Refused::Nothing(_))), "{wanted}");
        }
        for (wanted, given) in [
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::ffff:0.0.0.0]:80", "127.0.0.1:80"),
            ("127.8.8.8:80", "127.8.8.8:80"),
        ] {
            assert_eq!(placed(Reach::Loopback, wanted).as_deref(), Ok(given));
        }
        for wanted in ["192.0.2.1:80", "[::ffff:192.0.2.1]:80", "[2001:db8::1]:80", "255.255.255.255:80"] {
            assert!(matches!(placed(Reach::Loopback, wanted), Err(Refused::NotLoopback(_))), "{wanted}");
        }
    }

    #[test]
    fn a_refusal_names_the_port_and_the_way_out() {
        let refused = placed(Reach::Loopback, "[::ffff:192.0.2.1]:80").expect_err("not loopback");
        assert_eq!(
            refused.to_string(),
            "enhanced container isolation: port 192.0.2.1:80 can't be published because the administrator's settings keep \
             ports on the host's loopback (leave the address out, or name one of the loopback)"
        );
    }
}
