//! libFuzzer's way into [`eci_fuzz::settings`]: administrators' settings.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::settings::check(input));
