//! The wire protocol as pure code: bytes ⇄ values. No I/O, no clock, no state.
//!
//! To add a request: its data type and one line in [`request`]'s table. To add an event: its data
//! type and one line in [`event`]'s table. Parsing, names, and the AsyncAPI document follow.

pub mod admin;
mod admin_hooks;
pub mod asyncapi;
pub mod block;
pub mod ending;
pub mod error;
pub mod event;
pub mod export;
pub mod hooks;
pub mod http;
pub mod ids;
pub mod media;
pub mod network;
pub mod object;
pub mod openapi;
mod openapi_admin;
pub mod openapi_webhooks;
pub mod presence;
pub mod relay;
pub mod reply;
pub mod request;
pub mod search;
pub mod text;
pub mod time;
pub mod upload;
pub mod view;
pub mod webhook;
pub mod websocket;

pub use error::{CloseCode, ErrorCode};
pub use ids::{ClientMsgId, Epoch, RequestId, RoomId, Seq, UploadId, UserId};
pub use time::UnixMs;
