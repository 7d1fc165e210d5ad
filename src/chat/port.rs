//! The vocabulary of the seams: what the shards ask of the store and of identity, and what they
//! are answered. It belongs to the core; the backends hold no rules about clients.
//!
//! The store is the only sequencer. A call is answered exactly once. [`StoreError::Unavailable`]
//! says nothing about the outcome of a commit: it may stand all the same.

pub mod admin;
mod asks;
pub mod export;
pub mod files;
pub mod hooks;
pub mod intake;
mod relay;
pub mod upkeep;

pub use asks::*;
pub use relay::*;

use crate::protocol::block::{BlockChange, BlocksListed};
use crate::protocol::ending::SessionsEnd;
use crate::protocol::event::RoomEvent;
use crate::protocol::reply::{History, MessageChanged, Sent};
use crate::protocol::search::SearchHits;
use crate::protocol::view::{
    ListedRoom, Member, Mention, OwnView, Role, Room, RoomKind, Watermark,
};
use crate::protocol::{ClientMsgId, Epoch, ErrorCode, RoomId, Seq, UnixMs, UserId};
use admin::{AdminAnswer, AdminCall, AuditEntry};
use files::{SentFiles, UploadAnswer, UploadCall};
use hooks::{HookAnswer, HookCall};
use intake::{IntakeAnswer, IntakeCall};
use upkeep::{Upkeep, UpkeepDone};

/// What a shard asks of the store. A few kinds of call, each on one consistent snapshot.
#[derive(Debug)]
pub enum StoreCall {
    /// Writes, decided and committed together, in this order; each succeeds or is refused alone. Waits for rooms
    /// that others hold.
    Commit(Vec<Op>),
    /// The same without waiting for a room that others hold: all writes to such a room are answered
    /// [`OpReply::Held`], those to the others are not delayed. A backend with one writer holds none.
    TryCommit(Vec<Op>),
    /// Users who connect: unknown ones are created, names are refreshed, rooms are loaded.
    SignIn(Vec<SignIn>),
    /// State of rooms for their home shard.
    OpenRooms(Vec<RoomId>),
    /// `last_seq` of rooms and `version` of users, to notice what no event told.
    Heads {
        /// Rooms with subscribers.
        rooms: Vec<RoomId>,
        /// Connected users.
        users: Vec<UserId>,
    },
    /// A stretch of a room's durable events.
    Events(EventsRead),
    /// A page of messages for a member.
    History(HistoryRead),
    /// A page of a user's rooms.
    ListRooms(ListRead),
    /// Single rooms as seen by one of their members.
    GetRooms(Vec<(RoomId, UserId)>),
    /// Who of these is in a room with this user now, and not severed from them by a block: whose
    /// presence they may see.
    WhoShares {
        /// Who asks.
        user: UserId,
        /// Whom they ask for, sorted, without repeats, at most [`crate::limits::USERS_PER_REQUEST_MAX`].
        others: Vec<UserId>,
    },
    /// A page of a room's members, for a member.
    ListMembers(MembersRead),
    /// Watermarks that members gave, of different members and rooms, by room and user. Not in the order of the
    /// room's events: it takes no `seq` and does not wait for who takes one.
    WriteReceipts(Vec<Receipt>),
    /// Who is typing, of different users and rooms, by room and user: a sample for operators who look into
    /// the database. Nothing reads it here, and a backend that nobody can look into beside the program
    /// keeps nothing.
    SampleTyping(Vec<TypingSample>),
    /// Changes what a room is to one of its members alone.
    SetOwn(SetOwn),
    /// What rooms are to members alone.
    OwnStates(Vec<(RoomId, UserId)>),
    /// A page of the users whom one blocks.
    Blocks(BlocksRead),
    /// Messages by their words. What was written is found within a second or so, by what it is now.
    Search(SearchRead),
    /// What is done for those who run the service, one step of it.
    Upkeep(Upkeep),
    /// Of those who run the service.
    Admin(Box<AdminCall>),
    /// Of other services.
    Intake(Box<IntakeCall>),
    /// Of files.
    Uploads(Box<UploadCall>),
    /// For other services.
    Hooks(Box<HookCall>),
    /// Asked by one who saw that the history was replaced (a room's `last_seq` below one that it
    /// has released): if the store's epoch is still this one, it becomes a new random one. The
    /// reply's `epoch` says what it is now, also when another asked first.
    RenewEpoch(Epoch),
}

/// The answer to a [`StoreCall`], of the same kind.
#[derive(Debug)]
pub enum StoreAnswer {
    /// To [`StoreCall::Commit`] and [`StoreCall::TryCommit`]: one outcome per [`Op`], in their order.
    Commit(Vec<OpOutcome>),
    /// One per [`SignIn`], in their order; `None`: the user was erased, and nobody is that user again.
    SignIn(Vec<Option<SignedIn>>),
    /// One per room, in their order; `None`: there is no such room.
    OpenRooms(Vec<Option<OpenedRoom>>),
    /// What was found; unknown ids are left out.
    Heads {
        /// `last_seq` per room.
        rooms: Vec<(RoomId, Seq)>,
        /// `version` per user.
        users: Vec<(UserId, u64)>,
        /// Those of the rooms that are direct rooms of two of whom one blocks the other.
        severed: Vec<RoomId>,
        /// [`EventsPage::floor`] per room, where it is not 0.
        floors: Vec<(RoomId, Seq)>,
    },
    /// The stretch.
    Events(EventsPage),
    /// The page, or why there is none.
    History(Result<History, Refusal>),
    /// The page, or why there is none (a bad cursor).
    ListRooms(Result<RoomsPage, Refusal>),
    /// One per question, in their order.
    GetRooms(Vec<Result<RoomForUser, Refusal>>),
    /// Those of `others` who are, in any order.
    WhoShares(Vec<UserId>),
    /// The page, or why there is none.
    ListMembers(Result<MembersPage, Refusal>),
    /// One per [`Receipt`], in their order.
    WriteReceipts(Vec<ReceiptOutcome>),
    /// It was taken, or not.
    SampleTyping,
    /// Whether anything changed, or why it may not (`forbidden` to who is no member).
    SetOwn(Result<bool, Refusal>),
    /// One per question, in their order; `None`: not a member.
    OwnStates(Vec<Option<OwnState>>),
    /// The page, or why there is none (a bad cursor).
    Blocks(Result<BlocksListed, Refusal>),
    /// The page, or why there is none (a bad `before`, a room of others, too many words).
    Search(Result<SearchHits, Refusal>),
    /// What came of the step.
    Upkeep(UpkeepDone),
    /// Of the same kind as the call.
    Admin(Box<AdminAnswer>),
    /// Of the same kind as the call.
    Intake(Box<IntakeAnswer>),
    /// Of the same kind as the call.
    Uploads(Box<UploadAnswer>),
    /// To [`StoreCall::Hooks`].
    Hooks(Box<HookAnswer>),
    /// The epoch is another one than the one given.
    RenewEpoch,
}

/// The world's fault. The call may be repeated; a commit may have happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// Not reachable, timed out, disk full, or the transaction failed.
    Unavailable(String),
    /// The queue in front of the store is full; nothing was done.
    Overloaded,
}

/// A call's answer, with the epoch it was read in.
#[derive(Debug)]
pub struct StoreReply {
    /// As given with the call.
    pub ticket: Ticket,
    /// The store's epoch at the time.
    pub epoch: Epoch,
    /// The answer.
    pub result: Result<StoreAnswer, StoreError>,
}

/// The shard's name for a call under way.
pub type Ticket = u64;

/// Why one write or read was refused, for good; the others of its batch are not affected.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// A permanent code.
    pub code: ErrorCode,
    /// For the developer of the client; tells nothing that the user may not know.
    pub message: &'static str,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Op {
    /// Who does it.
    pub actor: UserId,
    /// The room it changes; its home shard has it in one batch at a time.
    pub room: RoomId,
    /// What.
    pub kind: OpKind,
}

/// What a write does.
#[derive(Clone, Debug)]
pub enum OpKind {
    /// Opens the room, or finds it. Unknown members are `not_found`. A second time: the room as
    /// it is with `created: false`, or `idempotency_conflict` if a *group* was opened with other
    /// kind, members or title. Not with one whom a block severs from the actor (`forbidden`).
    CreateRoom {
        /// Direct or group.
        kind: RoomKind,
        /// The title of a group.
        title: Option<String>,
        /// The other members, without the actor, sorted, without repeats.
        members: Vec<UserId>,
    },
    /// A message. Order of decisions: duplicate (same body: the first `seq` and
    /// `duplicate: true`; another body: `idempotency_conflict`), room and membership
    /// (`forbidden`; `forbidden` also where there is no such room, and in a direct room of two of whom
    /// one blocks the other), `reply_to_seq` names a message
    /// of this room (`not_found`; `gone`: it was dropped), the sender may mention all (`forbidden`), who is mentioned is a
    /// member (`not_found`), and not severed from the sender by a block (`forbidden`), and each file may be used
    /// ([`files::UploadState::refusal`]). Its files are then used, in the same transaction.
    Send {
        /// The sender's name for it.
        client_msg_id: ClientMsgId,
        /// The text; empty: none, which needs files.
        text: String,
        /// The message it answers.
        reply_to_seq: Option<Seq>,
        /// Who is named in it, sorted, without repeats, at most [`crate::limits::MENTIONS_MAX`].
        mentions: Vec<Mention>,
        /// Its files, if it is more than text.
        files: Option<Box<SentFiles>>,
    },
    /// Changes a message. Order of decisions: membership (`forbidden`, also where there is no such
    /// room), the message (`not_found`), whether this member may do that to it
    /// ([`super::access`], `forbidden`; nobody changes a system message), then as
    /// [`MessageChange`] says. What changed is one event, whose `seq` is the message's new
    /// `changed_seq`.
    ChangeMessage {
        /// Which message.
        seq: Seq,
        /// What is done to it.
        change: MessageChange,
    },
    /// Adds to a group, by its owner or an admin (`forbidden` otherwise, and in a direct room).
    /// One `member.joined` per user who was not a member; unknown users are `not_found`; more
    /// than [`crate::limits::MEMBERS_MAX`] members, or a user with
    /// [`crate::limits::ROOMS_PER_USER_MAX`] rooms, is `too_large`; nor one whom a block severs from the
    /// actor (`forbidden`). All or none.
    AddMembers {
        /// Who, sorted, without repeats.
        users: Vec<UserId>,
    },
    /// Removes from a group: the owner anybody else, an admin plain members (`forbidden`
    /// otherwise; removing oneself is a leave). One `member.left` per user who was a member.
    RemoveMembers {
        /// Who, sorted, without repeats.
        users: Vec<UserId>,
    },
    /// Gives members of a group another role, by its owner (`forbidden` otherwise, and to take the
    /// owner's role away). Who is no member is `not_found`. One `member.role_changed` per user who
    /// had another; whoever makes another the owner becomes admin, as the last event. All or none.
    SetRole {
        /// Who, sorted, without repeats; one if it is to be the owner.
        users: Vec<UserId>,
        /// The role.
        role: Role,
    },
    /// Gives a group another title or picture, by its owner or an admin (`forbidden` otherwise, and in a
    /// direct room). One `room.updated`, which tells what is otherwise, or nothing changed.
    UpdateRoom {
        /// The title; `Some(None)`: it has none; `None`: it stays.
        title: Option<Option<String>>,
        /// Where the picture is, likewise.
        picture: Option<Option<String>>,
    },
    /// Leaves a group; `forbidden` in a direct room. When the owner leaves, the longest-serving
    /// admin, else member, becomes owner (`member.role_changed` after `member.left`). By one who
    /// is no member: `changed: false` if the room is a group they once were in, else `forbidden`.
    Leave,
    /// Blocks a user, or no longer does; the room is that of the two ([`RoomId::direct`]), whether
    /// there is one or not. An unknown user is `not_found`; more than [`crate::limits::BLOCKS_MAX`] blocks are
    /// `too_large`. No event: raises the `version` of both users.
    SetBlock {
        /// Whom; not oneself.
        user: UserId,
        /// Blocked, or no longer.
        blocked: bool,
    },
    /// Erases the actor from the room, whose account is gone already ([`upkeep`]): a stretch of it, or,
    /// when all before is done, the rest and the event. Never refused; of a room they were never in nothing.
    Erase {
        /// When it was asked for.
        requested_at: UnixMs,
    },
}

/// What is done to a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MessageChange {
    /// Another text. Of a deleted message: `gone`; the text that it has: nothing changed; another
    /// revision than expected: `revision_conflict`.
    Edit {
        /// The text.
        text: String,
        /// The revision it must have.
        expected_revision: Option<u32>,
    },
    /// Makes it a tombstone: text, mentions, reactions and pin are gone, the hash of its body stays,
    /// so that a retried send stays a duplicate. Of a deleted message: nothing changed; another
    /// revision than expected: `revision_conflict`.
    Delete {
        /// The revision it must have.
        expected_revision: Option<u32>,
    },
    /// Puts an emoji on it. Of a deleted message: `gone`; if it is there: nothing changed; more than
    /// [`crate::limits::REACTIONS_PER_USER_MAX`] of this user or
    /// [`crate::limits::REACTION_EMOJIS_MAX`] in all: `too_large`.
    AddReaction {
        /// The emoji, spelt in full.
        emoji: String,
    },
    /// Takes it back. If it is not there: nothing changed.
    RemoveReaction {
        /// The emoji, spelt in full.
        emoji: String,
    },
    /// Pins it. Of a deleted message: `gone`; if it is pinned: nothing changed; more than
    /// [`crate::limits::PINS_MAX`]: `too_large`.
    Pin,
    /// Unpins it. If it is not pinned: nothing changed.
    Unpin,
    /// Notes that this user reports it, which is no event. Of a deleted message: `gone`; a second
    /// time: nothing changed.
    Report,
    /// Deletes it, whoever wrote it: by the service, which needs no membership. Settles all reports of
    /// it and notes the act, both also where it was deleted before.
    Moderate(Box<AuditEntry>),
}

/// What became of one write.
pub type OpOutcome = Result<OpDone, Refusal>;

/// A write that stands, or stood before.
#[derive(Clone, Debug)]
pub struct OpDone {
    /// What its author is told.
    pub reply: OpReply,
    /// Its durable events, by `seq`; none for a duplicate or where nothing changed.
    pub events: Vec<RoomEvent>,
}

/// What the author of a write is told.
#[derive(Clone, Debug)]
pub enum OpReply {
    /// To [`OpKind::Send`].
    Sent(Sent),
    /// To [`OpKind::CreateRoom`].
    Room {
        /// The room.
        room: Room,
        /// Whether it is new.
        created: bool,
    },
    /// To [`OpKind::ChangeMessage`].
    Message(MessageChanged),
    /// To the others: the last event of the change, or `None` if nothing changed.
    Changed(Option<Seq>),
    /// To [`OpKind::SetBlock`].
    Block {
        /// How it is now.
        block: BlockChange,
        /// Whether it was otherwise.
        changed: bool,
    },
    /// To [`OpKind::Erase`]: whether that was all.
    Erased(bool),
    /// To a [`StoreCall::TryCommit`]: nothing was done, for others hold the room. No author is told this.
    Held,
}

/// A user who connects.
#[derive(Clone, Debug)]
pub struct SignIn {
    /// The `sub` of a valid token.
    pub user: UserId,
    /// The `name` of the token; kept if given.
    pub name: Option<String>,
    /// The `picture` of the token; kept if given.
    pub picture: Option<String>,
    /// Rooms to describe first (those of `resume`).
    pub resume: Vec<RoomId>,
    /// How many rooms to describe in all.
    pub describe_max: usize,
}

/// What a connecting user has.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// Rises with every change of the user's rooms, blocks or sessions.
    pub version: u64,
    /// Rises with every change of the user's own blocks.
    pub block_version: u64,
    /// What ends sessions of the user: those that began before, and maybe this one.
    pub ends: Vec<SessionsEnd>,
    /// Every room of the user, up to [`crate::limits::ROOMS_PER_USER_MAX`]: the described ones
    /// first (those of `resume` that the user is a member of, then by activity), then the rest by
    /// activity.
    pub rooms: Vec<RoomForSignIn>,
}

/// A room of a connecting user.
#[derive(Clone, Debug)]
pub struct RoomForSignIn {
    /// The room.
    pub room: RoomId,
    /// Direct or group.
    pub kind: RoomKind,
    /// Its newest event.
    pub last_seq: Seq,
    /// Read up to here.
    pub read_seq: Seq,
    /// What only described rooms have.
    pub described: Option<RoomDescription>,
}

/// What only described rooms have.
#[derive(Clone, Debug)]
pub struct RoomDescription {
    /// Messages after `read_seq`, of others, not deleted, counted up to
    /// [`crate::limits::UNREAD_MAX`].
    pub unread: u32,
    /// See [`OwnState::muted_until`].
    pub muted_until: Option<UnixMs>,
    /// Whether it is archived.
    pub archived: Archived,
    /// Of all members, in rooms of up to [`crate::limits::READY_WATERMARK_MEMBERS_MAX`].
    pub watermarks: Vec<Watermark>,
}

/// State of a room for its home shard, on one snapshot.
#[derive(Clone, Debug)]
pub struct OpenedRoom {
    /// Its newest event.
    pub last_seq: Seq,
    /// Direct or group.
    pub kind: RoomKind,
    /// All its members as of `last_seq`.
    pub members: Vec<(UserId, Role)>,
    /// A direct room of two of whom one blocks the other.
    pub severed: bool,
    /// As [`EventsPage::floor`].
    pub floor: Seq,
}

/// A stretch of events to read: those with `after < seq`, from the oldest, or from the newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventsRead {
    /// The room.
    pub room: RoomId,
    /// Only later ones.
    pub after: Seq,
    /// Up to this one, included.
    pub to: Seq,
    /// At most so many.
    pub events_max: usize,
    /// At most so many bytes of text, but at least one event.
    pub bytes_max: usize,
    /// Keep the newest end of the stretch when it is cut by a maximum, instead of the oldest.
    pub newest: bool,
}

/// A stretch of events, ascending, without a gap, beginning above the floor.
#[derive(Clone, Debug)]
pub struct EventsPage {
    /// The events.
    pub events: Vec<RoomEvent>,
    /// The room's newest event on the same snapshot; 0 if there is no such room.
    pub last_seq: Seq,
    /// Events with `seq` ≤ this are no longer kept; 0: all are.
    pub floor: Seq,
}

/// A page of messages to read for a member (`forbidden` to others).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistoryRead {
    /// The room.
    pub room: RoomId,
    /// Who asks.
    pub user: UserId,
    /// Which page.
    pub page: HistoryPage,
    /// At most so many messages.
    pub limit: usize,
    /// At most so many bytes of text, but at least one message.
    pub bytes_max: usize,
}

/// Which page of a history.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HistoryPage {
    /// The newest messages, by `seq`.
    Newest,
    /// The newest messages before this `seq`, by `seq`.
    Before(Seq),
    /// Messages created or changed after this `seq`, by `changed_seq`.
    After(Seq),
    /// Messages around this `seq`, by `seq`.
    Around(Seq),
}

/// A page of a user's rooms to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListRead {
    /// Who asks.
    pub user: UserId,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: usize,
    /// Archived rooms instead of the others.
    pub archived: bool,
    /// The time, by which a room is muted or not.
    pub now: UnixMs,
}

/// That a user of this node is typing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TypingSample {
    /// Where.
    pub room: RoomId,
    /// Who.
    pub user: UserId,
    /// Until then, unless it is said again.
    pub expires_at: UnixMs,
}

/// A page of the users whom one blocks, to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BlocksRead {
    /// Who asks.
    pub user: UserId,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// Messages to look for, in rooms that the user is a member of: of persons, not deleted, and not of somebody
/// whom the user blocks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SearchRead {
    /// Who asks.
    pub user: UserId,
    /// The words ([`crate::protocol::search::Search::query`]).
    pub query: String,
    /// Only in this room (`forbidden` to others).
    pub room: Option<RoomId>,
    /// `next_before` of the page before.
    pub before: Option<String>,
    /// At most so many messages.
    pub limit: usize,
    /// At most so many bytes of text, but at least one message.
    pub bytes_max: usize,
}

/// A page of a user's rooms.
#[derive(Clone, Debug)]
pub struct RoomsPage {
    /// By last activity, newest first.
    pub rooms: Vec<ListedRoom>,
    /// For the next page, if there is one.
    pub next_cursor: Option<String>,
}

/// A room as seen by one of its members.
#[derive(Clone, Debug)]
pub struct RoomForUser {
    /// The room with its longest-serving members.
    pub room: Room,
    /// What it is to this member.
    pub own: OwnState,
}

/// What a room is to one of its members alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnState {
    /// Read up to here.
    pub read_seq: Seq,
    /// Messages after it, of others, not deleted, counted up to [`crate::limits::UNREAD_MAX`].
    pub unread: u32,
    /// Muted until then, which may have passed.
    pub muted_until: Option<UnixMs>,
    /// Whether it is archived.
    pub archived: Archived,
}

/// Whether a room is archived for one of its members.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Archived {
    /// It is not.
    #[default]
    No,
    /// It is, and no message of a person came since.
    Yes,
    /// It was, and a message of a person came since: it still is as long as it is muted.
    WhileMuted,
}

impl Archived {
    /// Whether it is archived at this time.
    pub fn is_now(self, muted_until: Option<UnixMs>, now: UnixMs) -> bool {
        match self {
            Archived::No => false,
            Archived::Yes => true,
            Archived::WhileMuted => muted_until.is_some_and(|until| until > now),
        }
    }
}

impl OwnState {
    /// As the member is told at this time.
    pub fn view(&self, now: UnixMs) -> OwnView {
        OwnView {
            read_seq: self.read_seq,
            unread: self.unread,
            muted_until: self.muted_until.filter(|until| *until > now),
            archived: self.archived.is_now(self.muted_until, now),
        }
    }
}

/// A change of what a room is to one of its members alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetOwn {
    /// Whose.
    pub user: UserId,
    /// The room.
    pub room: RoomId,
    /// What.
    pub change: OwnChange,
    /// The time, by which the room is muted or not.
    pub now: UnixMs,
}

/// What a member may choose for a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OwnChange {
    /// Muted until then; `None`: not muted. Nothing changes if it is so already. A room that came back from
    /// the archive by a message does not return to it by being muted.
    Mute(Option<UnixMs>),
    /// Archived with all it has by now, or not. Nothing changes if it is so already.
    Archive(bool),
}

/// How far a member is in a room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Receipt {
    /// The room.
    pub room: RoomId,
    /// The member.
    pub user: UserId,
    /// Read up to here; 0: nothing is said of it.
    pub read_seq: Seq,
    /// Received up to here; never below `read_seq`.
    pub delivered_seq: Seq,
}

/// What became of a receipt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiptOutcome {
    /// Passed over: the user is no member.
    NotAMember,
    /// Not written, because somebody else is writing there: to be given again.
    Busy,
    /// It was known.
    Known,
    /// It is written. The watermarks now: never above the room's newest event.
    Advanced {
        /// Read up to here.
        read_seq: Seq,
        /// Received up to here.
        delivered_seq: Seq,
        /// Whether what was read is what advanced, and not only what was received.
        is_read: bool,
    },
}

/// A page of a room's members to read for a member (`forbidden` to others).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MembersRead {
    /// The room.
    pub room: RoomId,
    /// Who asks.
    pub user: UserId,
    /// `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A page of a room's members.
#[derive(Clone, Debug)]
pub struct MembersPage {
    /// Longest-serving first.
    pub members: Vec<Member>,
    /// For the next page, if there is one.
    pub next_cursor: Option<String>,
}

/// What a valid token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// `sub`.
    pub user: UserId,
    /// `exp`.
    pub expires_at: UnixMs,
    /// `name`.
    pub name: Option<String>,
    /// `picture`.
    pub picture: Option<String>,
    /// `iat`.
    pub issued_at: Option<UnixMs>,
    /// `sid`: the session at the issuer.
    pub sid: Option<String>,
}

/// Why a token is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IdentityError {
    /// Forged, malformed, of another issuer or audience, not yet valid, oversize: close 4001.
    Invalid,
    /// Valid but for its `exp`: close 4202.
    Expired,
    /// Keys could not be fetched: try again.
    Unavailable,
}

/// The store as the shards see it. A backend runs the calls on threads of its own.
pub trait Store: Send + Sync {
    /// Takes a call and answers it exactly once, now or later, from any thread, by
    /// [`ReplySink::reply`]. Never blocks: where the backend's queue is full the answer is
    /// [`StoreError::Overloaded`], given at once. Commits of one caller are decided in the order
    /// they were given.
    fn submit(&self, ticket: Ticket, call: StoreCall, sink: &std::sync::Arc<dyn ReplySink>);

    /// The epoch now.
    fn epoch(&self) -> Epoch;

    /// What a commit means: `commit` (on disk) or `relaxed`.
    fn durability(&self) -> &'static str;
}

/// Where answers of the store go: into a shard's queue, or into a test. It holds as many as the
/// caller has calls under way, so it is never full, and it never blocks.
pub trait ReplySink: Send + Sync {
    /// Takes one answer.
    fn reply(&self, reply: StoreReply);
}

/// Where a verdict on a token goes that had to wait. Called exactly once, from any thread; must not block.
pub type Decided = Box<dyn FnOnce(Result<Identity, IdentityError>) + Send>;

/// Who a token names. May be asked from any thread; must not block.
pub trait Identify: Send + Sync {
    /// Checks a token at this time: whom it names, or how the connection is closed. `None`: something has to
    /// be fetched first. Then `later` was asked, once, for where the verdict goes, which is within
    /// [`crate::limits::IDENTIFY_MS_MAX`], or twice that where two things have to be fetched.
    fn identify(
        &self,
        token: &str,
        now: UnixMs,
        later: &mut dyn FnMut() -> Decided,
    ) -> Option<Result<Identity, IdentityError>>;
}
