#![no_main]

#[path = "../../hostile/properties.rs"]
#[allow(dead_code, reason = "each target uses a part of it")]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::w3c(bytes));
