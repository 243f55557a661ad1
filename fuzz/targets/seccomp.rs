//! libFuzzer's way into [`eci_fuzz::seccomp`]: seccomp profiles.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::seccomp::check(input));
