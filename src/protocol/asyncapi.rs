//! The AsyncAPI 3 document of the WebSocket protocol, made from the types that are parsed and
//! written.
