//! Who may do what in which room: one table, which every store decides by.
//!
//! Whoever is no member may nothing at all. What depends on the member who is acted upon (nobody
//! removes an equal) stands beside the table, in [`may_remove`].

use super::port::MessageChange;
use crate::protocol::view::{Role, RoomKind};

/// What a member may want to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Sends a message.
    Send,
    /// Mentions every member.
    MentionAll,
    /// Gives one's own message another text.
    EditOwn,
    /// Gives another's message another text.
    EditOther,
    /// Deletes one's own message.
    DeleteOwn,
    /// Deletes another's message.
    DeleteOther,
    /// Puts an emoji on a message, or takes it back.
    React,
    /// Pins a message, or unpins it.
    Pin,
    /// Reports a message.
    Report,
    /// Adds members.
    AddMembers,
    /// Removes other members.
    RemoveMembers,
    /// Gives members another role.
    SetRole,
    /// Gives the room another title.
    UpdateRoom,
    /// Leaves the room.
    Leave,
}

impl Action {
    /// All of them.
    pub const ALL: &[Action] = &[
        Action::Send,
        Action::MentionAll,
        Action::EditOwn,
        Action::EditOther,
        Action::DeleteOwn,
        Action::DeleteOther,
        Action::React,
        Action::Pin,
        Action::Report,
        Action::AddMembers,
        Action::RemoveMembers,
        Action::SetRole,
        Action::UpdateRoom,
        Action::Leave,
    ];

    /// What a change of a message is, by whether it is one's own.
    pub fn of(change: &MessageChange, is_own: bool) -> Action {
        match (change, is_own) {
            (MessageChange::Edit { .. }, true) => Action::EditOwn,
            (MessageChange::Edit { .. }, false) => Action::EditOther,
            (MessageChange::Delete { .. }, true) => Action::DeleteOwn,
            // By the service, which is asked for no role.
            (MessageChange::Delete { .. }, false) | (MessageChange::Moderate(_), _) => {
                Action::DeleteOther
            }
            (MessageChange::AddReaction { .. } | MessageChange::RemoveReaction { .. }, _) => {
                Action::React
            }
            (MessageChange::Pin | MessageChange::Unpin, _) => Action::Pin,
            (MessageChange::Report, _) => Action::Report,
        }
    }
}

/// The least role that may do this in such a room; `None`: nobody may.
pub fn least_role(kind: RoomKind, action: Action) -> Option<Role> {
    match (kind, action) {
        (
            _,
            Action::Send | Action::EditOwn | Action::DeleteOwn | Action::React | Action::Report,
        )
        | (RoomKind::Direct, Action::Pin)
        | (RoomKind::Group, Action::Leave) => Some(Role::Member),
        (
            RoomKind::Group,
            Action::MentionAll
            | Action::DeleteOther
            | Action::Pin
            | Action::AddMembers
            | Action::RemoveMembers
            | Action::UpdateRoom,
        ) => Some(Role::Admin),
        (RoomKind::Group, Action::SetRole) => Some(Role::Owner),
        (_, Action::EditOther)
        | (
            RoomKind::Direct,
            Action::MentionAll
            | Action::DeleteOther
            | Action::AddMembers
            | Action::RemoveMembers
            | Action::SetRole
            | Action::UpdateRoom
            | Action::Leave,
        ) => None,
    }
}

/// Whether one in this role may do this in such a room.
pub fn may(role: Role, kind: RoomKind, action: Action) -> bool {
    least_role(kind, action).is_some_and(|least| role >= least)
}

/// Whether a message may be changed so in a direct room of two of whom one blocks the other, where nobody
/// may send: what says something new to the other one may not; what takes something back, or is told only to
/// those who run the service, may.
pub fn may_change_severed(change: &MessageChange) -> bool {
    match change {
        MessageChange::Edit { .. } | MessageChange::AddReaction { .. } | MessageChange::Pin => {
            false
        }
        MessageChange::Delete { .. }
        | MessageChange::RemoveReaction { .. }
        | MessageChange::Unpin
        | MessageChange::Report
        | MessageChange::Moderate(_) => true,
    }
}

/// Whether one who may remove members may remove this one.
pub fn may_remove(own: Role, other: Role) -> bool {
    own > other
}
