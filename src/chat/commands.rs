//! Requests of a ready connection: what is checked here is what needs no store; rights, ids and
//! everything that others may change at the same time are decided inside the store's transaction.
//!
//! Next: a write goes to its room's home ([`super::commits`]), a read to the store.

use super::ConnId;
use super::blocks::block_of;
use super::bus::{Context, MeshMessage, PageWanted, Write};
use super::commits::room_to_create;
use super::files::files_of;
use super::guests;
use super::load::Load;
use super::port::{
    BlocksRead, HistoryPage, HistoryRead, ListRead, MembersRead, MessageChange, Op, OpKind,
    Refusal, RoomForUser, SearchRead, SetOwn, StoreAnswer, StoreCall, StoreError,
};
use super::session::{Read, State};
use super::sessions::{Call, Sessions, may_begin};
use crate::limits;
use crate::protocol::reply::{self, MembersListed, RoomGot, RoomsListed};
use crate::protocol::request::{
    Command, HistoryGet, MessageSend, Request, RoomCreate, RoomMembers, RoomRoleSet, RoomUpdate,
    TypingIn,
};
use crate::protocol::search::Search;
use crate::protocol::text::Text;
use crate::protocol::view::{Role, RoomKind};
use crate::protocol::{CloseCode, ErrorCode, RequestId, RoomId, UnixMs, UserId};

/// A request that was refused here.
pub(super) type Refused = (ErrorCode, &'static str);

impl Sessions {
    /// One text message of a client.
    pub fn text(&mut self, conn: ConnId, text: &str, ctx: &mut Context<'_>) {
        self.heard(conn, ctx);
        ctx.stats.frames_received += 1;
        match self.get(conn).map(|session| &session.state) {
            Some(State::Fresh { .. }) => self.first(conn, Request::parse(text), ctx),
            Some(State::Joining(_)) => self.early(conn, text, ctx),
            Some(State::Ready(ready)) => {
                let user = ready.user;
                self.request(conn, user, Request::parse(text), ctx);
            }
            Some(State::Closing) | None => (),
        }
    }

    /// A binary message is against the protocol.
    pub fn binary(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        self.close(conn, CloseCode::ProtocolViolation, ctx);
    }

    /// The first frame must be `auth`.
    fn first(&mut self, conn: ConnId, request: Request, ctx: &mut Context<'_>) {
        let Request { id, command } = request;
        match command {
            Ok(Command::Auth(auth)) => self.auth(conn, id, auth, ctx),
            Ok(_) => {
                self.refuse(
                    conn,
                    id,
                    ErrorCode::Unauthenticated,
                    "`auth` comes first",
                    ctx,
                );
                self.close(conn, CloseCode::Unauthenticated, ctx);
            }
            Err(refused) => {
                self.refuse(conn, id, refused.code, &refused.message, ctx);
                self.close(conn, CloseCode::Unauthenticated, ctx);
            }
        }
    }

    pub(super) fn request(
        &mut self,
        conn: ConnId,
        user: UserId,
        request: Request,
        ctx: &mut Context<'_>,
    ) {
        let Request { id, command } = request;
        if matches!(command, Ok(Command::Pong(_))) {
            // A guest asks by it whether it may ask at all.
            return self.taken(conn, ctx);
        }
        let sends = matches!(command, Ok(Command::MessageSend(_)));
        if let Err(retry_after_ms) = self.take_rate(conn, sends, ctx) {
            return self.rate_limited(conn, id, retry_after_ms, ctx);
        }
        let result = match command {
            Err(refused) => return self.refuse(conn, id, refused.code, &refused.message, ctx),
            Ok(Command::Pong(_)) => Ok(()),
            Ok(Command::Auth(_)) => Err((ErrorCode::BadRequest, "already authenticated")),
            Ok(Command::AuthRefresh(refresh)) => {
                self.refresh(conn, id, refresh.token.into_string(), ctx)
            }
            Ok(Command::RoomsList(list)) => self.read(conn, id, Read::List(list), ctx),
            Ok(Command::RoomGet(get)) => self.read(conn, id, Read::Room(get), ctx),
            Ok(Command::RoomMembersList(list)) => self.read(conn, id, Read::Members(list), ctx),
            Ok(Command::RoomMute(mute)) => self.mute(conn, id, mute, ctx),
            Ok(Command::RoomArchive(archive)) => self.archive(conn, id, archive, ctx),
            Ok(Command::ReceiptDelivered(marks)) => self
                .hint(id, |all| all.receipts(conn, user, marks, false, ctx))
                .map(|()| self.taken(conn, ctx)),
            Ok(Command::ReceiptRead(marks)) => self
                .hint(id, |all| all.receipts(conn, user, marks, true, ctx))
                .map(|()| self.taken(conn, ctx)),
            Ok(Command::HistoryGet(get)) => match page_of(&get) {
                Ok(_) => self.read(conn, id, Read::History(get), ctx),
                Err(refused) => Err(refused),
            },
            Ok(Command::PresenceSet(set)) => self.choose_presence(conn, id, set.state, ctx),
            Ok(Command::PresenceSubscribe(subscribe)) => {
                sorted(subscribe.user_ids).and_then(|users| self.watch(conn, id, users, ctx))
            }
            Ok(Command::UserBlock(block)) => block_of(user, block.user_id, true)
                .and_then(|(room, kind)| self.write(conn, id, user, room, kind, ctx)),
            Ok(Command::UserUnblock(block)) => block_of(user, block.user_id, false)
                .and_then(|(room, kind)| self.write(conn, id, user, room, kind, ctx)),
            Ok(Command::Search(search)) => match is_search(&search) {
                Ok(()) => self.read(conn, id, Read::Search(search), ctx),
                Err(refused) => Err(refused),
            },
            Ok(Command::UserBlocks(blocks)) => self.read(conn, id, Read::Blocks(blocks), ctx),
            Ok(Command::TypingStart(TypingIn { room_id })) => {
                self.hint(id, |all| all.typing(conn, user, room_id, true, ctx))
            }
            Ok(Command::TypingStop(TypingIn { room_id })) => {
                self.hint(id, |all| all.typing(conn, user, room_id, false, ctx))
            }
            Ok(Command::RoomCreate(create)) => {
                let write = create_of(user, create);
                write.and_then(|(room, kind)| self.write(conn, id, user, room, kind, ctx))
            }
            Ok(Command::RoomLeave(leave)) => {
                self.write(conn, id, user, leave.room_id, OpKind::Leave, ctx)
            }
            Ok(Command::RoomMembersAdd(members)) => {
                members_of(members).and_then(|(room, users)| {
                    self.write(conn, id, user, room, OpKind::AddMembers { users }, ctx)
                })
            }
            Ok(Command::RoomMembersRemove(members)) => {
                members_of(members).and_then(|(room, users)| match users.as_slice() {
                    [only] if *only == user => self.write(conn, id, user, room, OpKind::Leave, ctx),
                    _ => self.write(conn, id, user, room, OpKind::RemoveMembers { users }, ctx),
                })
            }
            Ok(Command::RoomRoleSet(set)) => {
                role_of(set).and_then(|(room, kind)| self.write(conn, id, user, room, kind, ctx))
            }
            Ok(Command::RoomUpdate(update)) => {
                let room = update.room_id;
                update_of(update).and_then(|kind| self.write(conn, id, user, room, kind, ctx))
            }
            Ok(Command::MessageSend(send)) => {
                let room = send.room_id;
                send_of(send).and_then(|kind| self.send(conn, id, user, room, kind, ctx))
            }
            Ok(Command::UploadCreate(create)) => self.create_upload(conn, id, user, create, ctx),
            Ok(Command::AttachmentUrls(urls)) => self.attachment_urls(conn, id, user, urls, ctx),
            Ok(
                change @ (Command::MessageEdit(_)
                | Command::MessageDelete(_)
                | Command::ReactionAdd(_)
                | Command::ReactionRemove(_)
                | Command::MessagePin(_)
                | Command::MessageUnpin(_)
                | Command::MessageReport(_)),
            ) => change_of(change)
                .and_then(|(room, kind)| self.write(conn, id, user, room, kind, ctx)),
        };
        if let Err((code, message)) = result {
            self.refuse(conn, id, code, message, ctx);
        }
    }

    /// Counts a command, and a send as both; says when to come back if it is too many.
    fn take_rate(&mut self, conn: ConnId, sends: bool, ctx: &mut Context<'_>) -> Result<(), u64> {
        let (now_us, limits) = (ctx.now.mono_us, ctx.rate_limits());
        if guests::is_guest(conn) {
            return self.take_rate_of_guest(conn, limits, sends, ctx);
        }
        let Some(session) = self.get_mut(conn) else {
            return Ok(());
        };
        session.budget.take(now_us, limits, sends)?;
        if session.shared && session.budget.add_untold(sends) {
            self.spenders.push(conn);
        }
        Ok(())
    }

    fn rate_limited(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        retry_after_ms: u64,
        ctx: &mut Context<'_>,
    ) {
        ctx.stats.commands_refused += 1;
        if let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) {
            ready.refusals += 1;
            if ready.refusals > limits::RATE_REFUSALS_MAX {
                return self.close(conn, CloseCode::RateLimited, ctx);
            }
        }
        let message = "more often than `ready.limits` allows";
        let json = reply::error(
            request,
            ErrorCode::RateLimited,
            message,
            Some(retry_after_ms),
        );
        self.say_json(conn, &json, ctx);
    }

    /// Sends a write to its room's home.
    pub(super) fn write(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        actor: UserId,
        room: RoomId,
        kind: OpKind,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let home = ctx.home_of(room);
        if !ctx.takes_writes(home) {
            return Err((ErrorCode::Overloaded, "too many writes are waiting"));
        }
        let write = Write {
            shard: ctx.shard,
            conn,
            request,
            received_us: ctx.now.mono_us,
            op: Op { actor, room, kind },
        };
        ctx.tell(home, MeshMessage::Write(Box::new(write)));
        Ok(())
    }

    /// A request that has no reply: who gave it no `id` is not told of a refusal either, which would cost
    /// more than what was refused.
    fn hint(
        &mut self,
        request: Option<RequestId>,
        take: impl FnOnce(&mut Sessions) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        take(self).or_else(|refused| request.map_or(Ok(()), |_| Err(refused)))
    }

    /// Tells a room's home that the user types there, or stops. A hint, so nobody waits for it.
    fn typing(
        &mut self,
        conn: ConnId,
        user: UserId,
        room: RoomId,
        is_typing: bool,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let place = self.index.get(&room).copied();
        let hears = match self.get(conn).map(|session| &session.state) {
            Some(State::Ready(ready)) => place.is_some_and(|place| ready.rooms.contains(&place)),
            _ => false,
        };
        let Some(local) = place
            .filter(|_| hears)
            .and_then(|place| self.rooms.get(place as usize))
        else {
            return Err((ErrorCode::Forbidden, "not a member of this room"));
        };
        if is_typing && local.subscribers.len() > limits::TYPING_CONNECTIONS_MAX {
            return Ok(());
        }
        if is_typing && ctx.bus.load >= Load::NoTyping {
            return Err((ErrorCode::Overloaded, "typing is not told for now"));
        }
        let home = ctx.home_of(room);
        if ctx.takes_writes(home) {
            ctx.tell(
                home,
                MeshMessage::Typing {
                    room,
                    user,
                    is_typing,
                },
            );
        }
        Ok(())
    }

    /// Begins a read, or lets it wait for the one under way.
    fn read(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        read: Read,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        // Nobody wants the answer.
        match request {
            None => Ok(()),
            Some(_) => self.queue_read(conn, request, read, ctx),
        }
    }

    /// Begins it, or lets it wait for the one under way.
    pub(super) fn queue_read(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        read: Read,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        if guests::is_guest(conn) {
            return self.read_for_guest(conn, request, read, ctx);
        }
        let Some(State::Ready(ready)) = self.get_mut(conn).map(|session| &mut session.state) else {
            return Ok(());
        };
        if ready.reads.len() >= limits::READS_WAITING_MAX {
            return Err((ErrorCode::RateLimited, "too many reads are waiting"));
        }
        ready.reads.push_back((request, read));
        self.go_on_reading(conn, ctx);
        Ok(())
    }

    /// Begins the next read, if there is one and room for its answer.
    pub(super) fn go_on_reading(&mut self, conn: ConnId, ctx: &mut Context<'_>) {
        let may_read = ctx.may_read();
        let Some(session) = self.get_mut(conn) else {
            return;
        };
        let has_room = may_begin(session);
        let State::Ready(ready) = &mut session.state else {
            return;
        };
        if ready.reading || !has_room || ready.reads.is_empty() {
            return;
        }
        if !may_read {
            return self.held_reads.push(conn);
        }
        let Some((request, read)) = ready.reads.pop_front() else {
            return;
        };
        ready.reading = true;
        if ready.reads.is_empty() {
            ready.reads.shrink_to_fit();
        }
        let user = ready.user;
        self.begin_read(conn, user, request, read, ctx);
    }

    /// Asks the store, or the room's home while that is away.
    pub(super) fn begin_read(
        &mut self,
        conn: ConnId,
        user: UserId,
        request: Option<RequestId>,
        read: Read,
        ctx: &mut Context<'_>,
    ) {
        let own = match &read {
            Read::Presence(users) => {
                self.begin_watch(conn, users);
                Some(Call::Shared(conn, request, users.clone()))
            }
            Read::SetOwn(room, _) => Some(Call::SetOwn(conn, request, *room)),
            Read::History(_)
            | Read::List(_)
            | Read::Room(_)
            | Read::Members(_)
            | Read::Blocks(_)
            | Read::Search(_) => None,
        };
        let call = call_of(user, read, ctx.now.unix);
        let after = match (&call, own, request) {
            (_, Some(own), _) => own,
            (StoreCall::History(read), None, Some(id)) => {
                let wanted = PageWanted {
                    conn,
                    request: id,
                    read: *read,
                    is_last_try: false,
                };
                if ctx.bus.store_away {
                    let home = ctx.home_of(read.room);
                    return ctx.tell(home, MeshMessage::Page(wanted));
                }
                Call::Page(wanted)
            }
            (_, None, _) => Call::Read(conn, request),
        };
        let ticket = ctx.call(call);
        self.calls.insert(ticket, after);
    }

    /// The store answered a read.
    pub(super) fn read_done(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        result: Result<StoreAnswer, StoreError>,
        ctx: &mut Context<'_>,
    ) {
        if !self.has_read(conn) {
            return;
        }
        let Some(id) = request else { return };
        let json = match result {
            Ok(StoreAnswer::History(history)) => history.map(|history| reply::ack(id, &history)),
            Ok(StoreAnswer::Search(page)) => page.map(|page| reply::ack(id, &page)),
            Ok(StoreAnswer::Blocks(page)) => page.map(|page| reply::ack(id, &page)),
            Ok(StoreAnswer::ListRooms(page)) => page.map(|page| {
                let listed = RoomsListed {
                    rooms: page.rooms,
                    next_cursor: page.next_cursor,
                };
                reply::ack(id, &listed)
            }),
            Ok(StoreAnswer::ListMembers(page)) => page.map(|page| {
                let listed = MembersListed {
                    members: page.members,
                    next_cursor: page.next_cursor,
                };
                reply::ack(id, &listed)
            }),
            Ok(StoreAnswer::GetRooms(mut rooms)) => match rooms.pop() {
                Some(room) => room.map(|RoomForUser { room, own }| {
                    let own = own.view(ctx.now.unix);
                    reply::ack(id, &RoomGot { room, own })
                }),
                None => Err(Refusal {
                    code: ErrorCode::NotFound,
                    message: "no such room",
                }),
            },
            Err(StoreError::Overloaded) => Err(Refusal {
                code: ErrorCode::Overloaded,
                message: "the store is busy",
            }),
            Ok(_) | Err(StoreError::Unavailable(_)) => Err(Refusal {
                code: ErrorCode::Unavailable,
                message: "the store does not answer",
            }),
        };
        match json {
            Ok(json) => {
                self.say_json(conn, &json, ctx);
            }
            Err(Refusal { code, message }) => self.refuse(conn, request, code, message, ctx),
        }
        self.go_on_reading(conn, ctx);
    }
}

impl Sessions {
    /// The home of the room has the page in its window, or has it not.
    pub(super) fn paged(
        &mut self,
        wanted: PageWanted,
        json: Option<String>,
        ctx: &mut Context<'_>,
    ) {
        let PageWanted { conn, request, .. } = wanted;
        let Some(json) = json else {
            if wanted.is_last_try {
                let away = StoreError::Unavailable("nor is it in the window".to_owned());
                return self.read_done(conn, Some(request), Err(away), ctx);
            }
            // It may be back by now. The window has said what it can.
            let asked = PageWanted {
                is_last_try: true,
                ..wanted
            };
            let ticket = ctx.call(StoreCall::History(wanted.read));
            self.calls.insert(ticket, Call::Page(asked));
            return;
        };
        if self.has_read(conn) {
            self.say_json(conn, &json, ctx);
            self.go_on_reading(conn, ctx);
        }
    }

    /// The read under way is done. Whether somebody still waits for it.
    pub(super) fn has_read(&mut self, conn: ConnId) -> bool {
        match self.get_mut(conn).map(|session| &mut session.state) {
            Some(State::Ready(ready)) => {
                ready.reading = false;
                true
            }
            _ => guests::is_guest(conn),
        }
    }
}

fn call_of(user: UserId, read: Read, now: UnixMs) -> StoreCall {
    let limit_of = |limit: Option<u32>, max: usize| {
        limit
            .map_or(max, |limit| {
                usize::try_from(limit).map_or(max, |limit| limit.min(max))
            })
            .max(1)
    };
    match read {
        Read::History(get) => StoreCall::History(HistoryRead {
            room: get.room_id,
            user,
            // Checked when it came.
            page: page_of(&get).unwrap_or(HistoryPage::Newest),
            limit: limit_of(get.limit, limits::HISTORY_PAGE_MAX),
            bytes_max: limits::HISTORY_PAGE_BYTES_MAX,
        }),
        Read::List(list) => StoreCall::ListRooms(ListRead {
            user,
            limit: limit_of(list.limit, limits::ROOMS_PAGE_MAX),
            archived: list.archived.unwrap_or(false),
            cursor: list.cursor.map(|cursor| cursor.into_string()),
            now,
        }),
        Read::Members(list) => StoreCall::ListMembers(MembersRead {
            room: list.room_id,
            user,
            cursor: list.cursor.map(|cursor| cursor.into_string()),
            limit: limit_of(list.limit, limits::MEMBERS_PAGE_MAX),
        }),
        Read::SetOwn(room, change) => StoreCall::SetOwn(SetOwn {
            user,
            room,
            change,
            now,
        }),
        Read::Room(get) => StoreCall::GetRooms(vec![(get.room_id, user)]),
        Read::Search(search) => StoreCall::Search(SearchRead {
            user,
            query: search.query.into_string(),
            room: search.room_id,
            before: search.before.map(|before| before.into_string()),
            limit: limit_of(search.limit, limits::SEARCH_PAGE_MAX),
            bytes_max: limits::HISTORY_PAGE_BYTES_MAX,
        }),
        Read::Blocks(blocks) => StoreCall::Blocks(BlocksRead {
            user,
            limit: limit_of(blocks.limit, limits::BLOCKS_PAGE_MAX),
            cursor: blocks.cursor.map(|cursor| cursor.into_string()),
        }),
        Read::Presence(others) => StoreCall::WhoShares { user, others },
    }
}

fn is_search(search: &Search) -> Result<(), Refused> {
    if search.query.trim().is_empty() {
        return Err((ErrorCode::BadRequest, "`query` is empty"));
    }
    match search.query.chars().count() > limits::SEARCH_CHARS_MAX {
        true => Err((ErrorCode::TooLarge, "`query` is too long")),
        false => Ok(()),
    }
}

fn page_of(get: &HistoryGet) -> Result<HistoryPage, Refused> {
    match (get.before_seq, get.after_seq, get.around_seq) {
        (None, None, None) => Ok(HistoryPage::Newest),
        (Some(seq), None, None) => Ok(HistoryPage::Before(seq)),
        (None, Some(seq), None) => Ok(HistoryPage::After(seq)),
        (None, None, Some(seq)) => Ok(HistoryPage::Around(seq)),
        _ => Err((
            ErrorCode::BadRequest,
            "at most one of `before_seq`, `after_seq`, `around_seq`",
        )),
    }
}

fn send_of(send: MessageSend) -> Result<OpKind, Refused> {
    let MessageSend {
        client_msg_id,
        kind,
        text,
        attachments,
        reply_to_seq,
        mut mentions,
        ..
    } = send;
    let files = files_of(kind, attachments)?;
    let text = match text {
        None if files.is_some() => String::new(),
        text => text_of(text.unwrap_or_default())?,
    };
    mentions.sort_unstable();
    mentions.dedup();
    if mentions.len() > limits::MENTIONS_MAX {
        return Err((ErrorCode::TooLarge, "too many mentions in one message"));
    }
    Ok(OpKind::Send {
        client_msg_id,
        text,
        reply_to_seq,
        mentions,
        files,
    })
}

/// The text of a message, as it was typed: docs/decisions/0013.
fn text_of(text: Text) -> Result<String, Refused> {
    let text = text.into_string();
    if text.trim().is_empty() {
        return Err((ErrorCode::BadRequest, "`text` is empty"));
    }
    if text.len() > limits::TEXT_CHARS_MAX && text.chars().count() > limits::TEXT_CHARS_MAX {
        return Err((
            ErrorCode::TooLarge,
            "`text` is longer than `limits.text_chars`",
        ));
    }
    Ok(text)
}

/// The change that one of the requests about a single message asks for.
fn change_of(command: Command) -> Result<(RoomId, OpKind), Refused> {
    let (room, seq, change) = match command {
        Command::MessageEdit(edit) => {
            let change = MessageChange::Edit {
                text: text_of(edit.text)?,
                expected_revision: edit.expected_revision,
            };
            (edit.room_id, edit.message_seq, change)
        }
        Command::MessageDelete(delete) => {
            let expected_revision = delete.expected_revision;
            let change = MessageChange::Delete { expected_revision };
            (delete.room_id, delete.message_seq, change)
        }
        Command::ReactionAdd(reaction) => {
            let emoji = emoji_of(&reaction.emoji)?;
            let change = MessageChange::AddReaction { emoji };
            (reaction.room_id, reaction.message_seq, change)
        }
        Command::ReactionRemove(reaction) => {
            let emoji = emoji_of(&reaction.emoji)?;
            let change = MessageChange::RemoveReaction { emoji };
            (reaction.room_id, reaction.message_seq, change)
        }
        Command::MessagePin(named) => (named.room_id, named.message_seq, MessageChange::Pin),
        Command::MessageUnpin(named) => (named.room_id, named.message_seq, MessageChange::Unpin),
        Command::MessageReport(named) => (named.room_id, named.message_seq, MessageChange::Report),
        _ => return Err((ErrorCode::UnknownType, "no change of a message")),
    };
    Ok((room, OpKind::ChangeMessage { seq, change }))
}

/// The full spelling of an emoji, by which it is counted.
fn emoji_of(emoji: &str) -> Result<String, Refused> {
    match emojis::get(emoji) {
        Some(emoji) => Ok(emoji.as_str().to_owned()),
        None => Err((ErrorCode::BadRequest, "`emoji` is not one emoji")),
    }
}

fn create_of(actor: UserId, create: RoomCreate) -> Result<(RoomId, OpKind), Refused> {
    let RoomCreate {
        kind,
        member_ids,
        title,
        client_room_id,
    } = create;
    let mut members = sorted(member_ids)?;
    members.retain(|member| *member != actor);
    let title = title_of(title)?;
    if kind == RoomKind::Direct && (members.len() != 1 || title.is_some()) {
        return Err((
            ErrorCode::BadRequest,
            "a direct room has exactly one other member and no title",
        ));
    }
    let room = room_to_create(actor, kind, &members, client_room_id);
    Ok((
        room,
        OpKind::CreateRoom {
            kind,
            title,
            members,
        },
    ))
}

fn update_of(update: RoomUpdate) -> Result<OpKind, Refused> {
    let RoomUpdate { title, picture, .. } = update;
    if title.is_none() && picture.is_none() {
        return Err((ErrorCode::BadRequest, "neither `title` nor `picture`"));
    }
    Ok(OpKind::UpdateRoom {
        title: title.map(title_of).transpose()?,
        picture: picture.map(picture_of).transpose()?,
    })
}

/// The URL of a picture; an empty one is none.
fn picture_of(picture: Option<Text>) -> Result<Option<String>, Refused> {
    let picture = picture
        .map(|picture| picture.trim().to_owned())
        .filter(|picture| !picture.is_empty());
    let Some(picture) = picture else {
        return Ok(None);
    };
    if picture.len() > limits::PICTURE_BYTES_MAX {
        return Err((ErrorCode::TooLarge, "`picture` is too long"));
    }
    let rest = ["https://", "http://"]
        .iter()
        .find_map(|scheme| picture.strip_prefix(scheme));
    let has_host = rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', '?', '#']));
    let is_whole = !picture.contains(|char: char| char.is_whitespace() || char.is_control());
    match has_host && is_whole {
        true => Ok(Some(picture)),
        false => Err((
            ErrorCode::BadRequest,
            "`picture` is no URL of https or http",
        )),
    }
}

/// A title without the space around it; an empty one is none.
fn title_of(title: Option<Text>) -> Result<Option<String>, Refused> {
    let title = title
        .map(|title| title.trim().to_owned())
        .filter(|title| !title.is_empty());
    let chars = title.as_ref().map_or(0, |title| title.chars().count());
    match chars > limits::TITLE_CHARS_MAX {
        true => Err((ErrorCode::TooLarge, "`title` is too long")),
        false => Ok(title),
    }
}

fn members_of(members: RoomMembers) -> Result<(RoomId, Vec<UserId>), Refused> {
    let users = sorted(members.user_ids)?;
    match users.is_empty() {
        true => Err((ErrorCode::BadRequest, "`user_ids` is empty")),
        false => Ok((members.room_id, users)),
    }
}

fn role_of(set: RoomRoleSet) -> Result<(RoomId, OpKind), Refused> {
    let RoomRoleSet {
        room_id,
        user_ids,
        role,
    } = set;
    let members = RoomMembers { room_id, user_ids };
    let (room, users) = members_of(members)?;
    if role == Role::Owner && users.len() > 1 {
        return Err((ErrorCode::BadRequest, "a group has one owner"));
    }
    Ok((room, OpKind::SetRole { users, role }))
}

fn sorted(mut users: Vec<UserId>) -> Result<Vec<UserId>, Refused> {
    if users.len() > limits::USERS_PER_REQUEST_MAX {
        return Err((ErrorCode::TooLarge, "too many users in one request"));
    }
    users.sort_unstable();
    users.dedup();
    Ok(users)
}
