//! libFuzzer's way into [`eci_fuzz::mounts`]: mount tables and root filesystems.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::mounts::check(input));
