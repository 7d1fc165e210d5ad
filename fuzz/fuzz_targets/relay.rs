//! What another node, or whoever reaches Redis, says: it is a message, and is written as it was read, or it is
//! passed over.

#![no_main]

use caffis_chat::protocol::relay::{decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(relayed) = decode(bytes) {
        let again = encode(relayed.origin, relayed.epoch, &relayed.message);
        let told = decode(&again).expect("what we write ourselves");
        assert_eq!(told.message, relayed.message);
        assert_eq!((told.origin, told.epoch), (relayed.origin, relayed.epoch));
    }
});
