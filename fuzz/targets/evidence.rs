//! libFuzzer's way into [`eci_fuzz::evidence`]: what a machine gives as evidence of its boot.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::evidence::check(input));
