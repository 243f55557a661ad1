//! TPM 2.0 as far as a measured boot needs it: bytes in, bytes out.
//!
//! [`command`] is what PID 1 sends to the device, [`quote`] and [`event_log`] are what whoever asks it reads, and [`pcr`] is the
//! arithmetic that both share. The builder believes nothing of what comes from a machine: everything that is read here is bounded, and
//! what is not understood is an error.
//!
//! Formats: TCG, "Trusted Platform Module Library" 1.59, parts 2 and 3 (big-endian); TCG, "PC Client Platform Firmware Profile" 1.05,
//! section 10 (little-endian).

#![deny(clippy::indexing_slicing)]

pub mod command;
pub mod event_log;
pub mod pcr;
pub mod quote;
mod wire;

/// `TPM_ALG_ECC`.
const ALG_ECC: u16 = 0x0023;
/// `TPM_ALG_SHA256`.
const ALG_SHA256: u16 = 0x000b;
/// `TPM_ALG_NULL`.
const ALG_NULL: u16 = 0x0010;
/// `TPM_ALG_ECDSA`.
const ALG_ECDSA: u16 = 0x0018;
/// `TPM_ECC_NIST_P256`.
const CURVE_P256: u16 = 0x0003;
