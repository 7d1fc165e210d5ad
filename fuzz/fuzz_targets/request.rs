//! A text message of a client as a request: it is one, or is refused with a code that says why.

#![no_main]

use caffis_chat::protocol::ErrorCode;
use caffis_chat::protocol::request::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Request::parse(text).command {
        Ok(command) => assert!(!command.name().is_empty()),
        Err(refused) => {
            let codes = [
                ErrorCode::BadRequest,
                ErrorCode::UnknownType,
                ErrorCode::TooLarge,
            ];
            assert!(codes.contains(&refused.code), "{refused:?}");
            assert!(!refused.message.contains('\n'), "{refused:?}");
            assert!(refused.message.len() < 1_000, "{refused:?}");
        }
    }
});
