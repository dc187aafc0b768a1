#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| boxoffice_api::outside::fields(bytes));
