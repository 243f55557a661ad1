//! libFuzzer's way into [`eci_fuzz::bundle`]: a bundle, from bytes to what crun gets.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::bundle::check(input));
