//! libFuzzer's way into [`eci_fuzz::notification`]: what a container asks the VM to make.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| eci_fuzz::notification::check(input));
