//! libFuzzer's way into [`eci_fuzz::arguments`]: command lines.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::arguments::check(input));
