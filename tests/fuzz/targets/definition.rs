#![no_main]

#[path = "../../hostile/definition.rs"]
mod property;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| property::definition(bytes));
