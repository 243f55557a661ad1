//! libFuzzer's way into [`eci_fuzz::request`]: requests to the engine.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::request::check(input));
