//! What every backend gives of a user's data in the same way.

use crate::protocol::RoomId;
use crate::protocol::export::ExportMessage;
use crate::protocol::view::Message;

/// A message as its author is given it: without what others did to it.
pub(super) fn of_message(room_id: RoomId, message: Message) -> ExportMessage {
    let Message {
        seq,
        client_msg_id,
        kind,
        text,
        reply_to_seq,
        mentions,
        revision,
        created_at,
        edited_at,
        deleted_at,
        attachments,
        sender_id: _,
        event: _,
        reactions: _,
        changed_seq: _,
    } = message;
    ExportMessage {
        room_id,
        seq,
        client_msg_id,
        kind,
        text,
        attachments,
        reply_to_seq,
        mentions,
        revision,
        created_at,
        edited_at,
        deleted_at,
    }
}
