//! What those who run the service ask of the store.
//!
//! An act that changes something is noted in the audit trail in its own transaction, once: a call that is
//! repeated finds its entry and changes nothing more. The trail only grows.

use super::export::{ExportPage, ExportRead};
use super::{HistoryPage, Refusal};
use crate::protocol::admin::{
    AdminAudit, AdminReport, AdminReportFilter, AdminReports, AdminRoom, AdminRooms, AdminUserKept,
    AdminUsers, ReportKey,
};
use crate::protocol::ending::SessionsEnd;
use crate::protocol::reply::History;
use crate::protocol::{CloseCode, RoomId, UserId};
use serde::Serialize;
use uuid::Uuid;

/// Who did what: an entry of the audit trail, before it is known what came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AuditEntry {
    /// Of this act, which may come to the store more than once.
    pub id: Uuid,
    /// By which token: its fingerprint.
    pub who: String,
    /// By way of which node.
    pub node: String,
    /// By which request.
    pub request_id: String,
    /// What, by the name of the operation.
    pub act: &'static str,
    /// To whom or what.
    pub target: Option<String>,
    /// What was said with it.
    pub detail: Option<String>,
}

/// What came of an act.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ActOutcome {
    /// It changed something.
    Done,
    /// It was so already.
    Unchanged,
    /// It is noted before it is done.
    Begun,
}

impl ActOutcome {
    /// As the store keeps it.
    pub fn name(self) -> &'static str {
        match self {
            ActOutcome::Done => "done",
            ActOutcome::Unchanged => "unchanged",
            ActOutcome::Begun => "begun",
        }
    }
}

/// A page to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PageRead {
    /// What is looked for.
    pub query: Option<String>,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum AdminCall {
    /// Notes an act that the store has no part in, before it is done.
    Note(AuditEntry),
    /// Ends all sessions of a user that began before.
    EndSessions {
        /// Whose.
        user: UserId,
        /// How their connections are closed.
        code: CloseCode,
        /// By whom.
        entry: AuditEntry,
    },
    /// Settles a report without doing anything about the message.
    Dismiss {
        /// Which.
        report: ReportKey,
        /// By whom; `detail` is the note.
        entry: AuditEntry,
    },
    /// Says for how many days a room keeps its messages; `None`: as all rooms do.
    SetRetention {
        /// Which room.
        room: RoomId,
        /// Days; 0: for ever.
        days: Option<u32>,
        /// By whom.
        entry: AuditEntry,
    },
    /// A page of users: of those whose id is the query, or whose name has it in it.
    Users(PageRead),
    /// What there is of a user.
    User(UserId),
    /// A page of rooms: of those whose id is the query, or whose title has it in it.
    Rooms(PageRead),
    /// What there is of a room.
    Room(RoomId),
    /// A page of a room's messages, whoever its members are.
    Messages {
        /// The room.
        room: RoomId,
        /// Which page.
        page: HistoryPage,
        /// At most so many messages.
        limit: usize,
        /// At most so many bytes of text, but at least one message.
        bytes_max: usize,
    },
    /// A page of reports.
    Reports(AdminReportFilter, PageRead),
    /// One report.
    Report(ReportKey),
    /// A page of the audit trail.
    Audit(PageRead),
    /// A page of what there is of a user, for themselves. Of one who is not known it is empty.
    Export(ExportRead),
}

impl AdminCall {
    /// Whether it changes anything.
    pub fn writes(&self) -> bool {
        match self {
            AdminCall::Note(_)
            | AdminCall::EndSessions { .. }
            | AdminCall::Dismiss { .. }
            | AdminCall::SetRetention { .. } => true,
            AdminCall::Users(_)
            | AdminCall::User(_)
            | AdminCall::Rooms(_)
            | AdminCall::Room(_)
            | AdminCall::Messages { .. }
            | AdminCall::Reports(..)
            | AdminCall::Report(_)
            | AdminCall::Audit(_)
            | AdminCall::Export(_) => false,
        }
    }
}

/// What is answered. A bad cursor is refused with `bad_request`.
#[derive(Debug)]
pub enum AdminAnswer {
    /// To [`AdminCall::Note`].
    Noted,
    /// To [`AdminCall::EndSessions`]; `None`: there is no such user, and nothing was noted.
    SessionsEnded(Option<SessionsEnd>),
    /// To [`AdminCall::Dismiss`]: the report as it is now, and whether it was open; `None`: there is no
    /// such report, and nothing was noted.
    Dismissed(Option<(AdminReport, bool)>),
    /// To [`AdminCall::SetRetention`]: whether it was otherwise; `None`: there is no such room, and nothing was noted.
    RetentionSet(Option<bool>),
    /// To [`AdminCall::Users`].
    Users(Result<AdminUsers, Refusal>),
    /// To [`AdminCall::User`].
    User(Option<Box<AdminUserKept>>),
    /// To [`AdminCall::Rooms`].
    Rooms(Result<AdminRooms, Refusal>),
    /// To [`AdminCall::Room`].
    Room(Option<Box<AdminRoom>>),
    /// To [`AdminCall::Messages`]; `None`: there is no such room.
    Messages(Option<History>),
    /// To [`AdminCall::Reports`].
    Reports(Result<AdminReports, Refusal>),
    /// To [`AdminCall::Report`].
    Report(Option<AdminReport>),
    /// To [`AdminCall::Audit`].
    Audit(Result<AdminAudit, Refusal>),
    /// To [`AdminCall::Export`].
    Export(ExportPage),
}
