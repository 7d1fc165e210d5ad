//! Files: tickets to bring one, addresses to fetch one, and sends that wait until theirs were looked at.
//!
//! What files are is known outside the core ([`super::port::files`]); a question about them is one effect and one
//! input. A send with files asks first, and goes its way when it is told that all were looked at: whether they may
//! be used the store decides with the message. Meanwhile later sends of the same connection to the same room wait
//! behind it, for their order is to hold; nobody else waits.
//!
//! Invariants: a question is answered once, after [`limits::FILES_MS_MAX`] at the latest; what waits is bounded; a
//! send without files of a connection that has none waiting costs one look at an empty map.

use super::bus::Context;
use super::commands::Refused;
use super::map::{Map, Seeded};
use super::port::OpKind;
use super::port::files::{
    FilesAnswer, FilesAsk, FilesAskId, FilesRefusal, FilesTold, NamedUploads, NewFile, SentFile,
    SentFiles,
};
use super::sessions::Sessions;
use super::{ConnId, Effect, guests};
use crate::limits;
use crate::protocol::request::SendKind;
use crate::protocol::upload::{AttachmentUrls, SendAttachment, UploadCreate, UploadKind};
use crate::protocol::{ErrorCode, RequestId, RoomId, UserId, media, reply};
use std::collections::VecDeque;

/// The questions of a shard about files, and the sends that wait for them.
#[derive(Debug)]
pub struct FilesAsked {
    next: FilesAskId,
    asked: Map<FilesAskId, Asked>,
    behind: Map<(ConnId, RoomId), VecDeque<Behind>>,
    /// How many sends stand in `behind`.
    waiting: usize,
}

/// Who waits for an answer.
#[derive(Debug)]
struct Asked {
    conn: ConnId,
    request: Option<RequestId>,
    since_ms: u64,
    /// The room of the send that waits for it; else it is answered itself.
    send_to: Option<RoomId>,
}

/// A send in its connection's order.
#[derive(Debug)]
struct Behind {
    request: Option<RequestId>,
    user: UserId,
    op: OpKind,
    /// The question that it waits for.
    until: Option<FilesAskId>,
}

impl FilesAsked {
    /// Nothing.
    pub fn new(seed: u64) -> FilesAsked {
        FilesAsked {
            next: 0,
            asked: Map::with_hasher(Seeded::with_seed(seed)),
            behind: Map::with_hasher(Seeded::with_seed(seed)),
            waiting: 0,
        }
    }

    /// Whether nobody waits.
    pub fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.behind.is_empty()
    }
}

impl Sessions {
    /// `upload.create`.
    pub(super) fn create_upload(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        user: UserId,
        create: UploadCreate,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let file = file_of(user, create)?;
        self.ask_files(conn, request, None, FilesAsk::Create(file), ctx)
            .map(drop)
    }

    /// `attachment.urls`.
    pub(super) fn attachment_urls(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        user: UserId,
        asked: AttachmentUrls,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let mut uploads = asked.upload_ids;
        if uploads.len() > limits::FILE_URLS_MAX {
            return Err((ErrorCode::TooLarge, "too many files in one request"));
        }
        uploads.sort_unstable();
        uploads.dedup();
        let named = NamedUploads {
            room: asked.room_id,
            user,
            uploads,
        };
        self.ask_files(conn, request, None, FilesAsk::Urls(named), ctx)
            .map(drop)
    }

    /// Sends a message to its room's home, at once or in its turn.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        user: UserId,
        room: RoomId,
        op: OpKind,
        ctx: &mut Context<'_>,
    ) -> Result<(), Refused> {
        let files = match &op {
            OpKind::Send {
                files: Some(files), ..
            } => files,
            _ if self.files.behind.is_empty() => {
                return self.write(conn, request, user, room, op, ctx);
            }
            _ => match self.files.behind.contains_key(&(conn, room)) {
                true => return self.wait_behind(conn, request, user, room, op, None),
                false => return self.write(conn, request, user, room, op, ctx),
            },
        };
        let named = NamedUploads {
            room,
            user,
            uploads: files.files.iter().map(|file| file.upload).collect(),
        };
        self.may_wait_behind(conn, room)?;
        let asked = self.ask_files(conn, request, Some(room), FilesAsk::Check(named), ctx)?;
        self.wait_behind(conn, request, user, room, op, Some(asked))
    }

    fn may_wait_behind(&self, conn: ConnId, room: RoomId) -> Result<(), Refused> {
        let behind = self.files.behind.get(&(conn, room));
        let is_full = self.files.waiting >= limits::FILES_BEHIND_SHARD_MAX
            || behind.is_some_and(|behind| behind.len() >= limits::FILES_BEHIND_MAX);
        match is_full {
            true => Err((
                ErrorCode::Overloaded,
                "too many messages wait until a file was looked at",
            )),
            false => Ok(()),
        }
    }

    fn wait_behind(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        user: UserId,
        room: RoomId,
        op: OpKind,
        until: Option<FilesAskId>,
    ) -> Result<(), Refused> {
        self.may_wait_behind(conn, room)?;
        self.files.waiting += 1;
        let behind = self.files.behind.entry((conn, room)).or_default();
        behind.push_back(Behind {
            request,
            user,
            op,
            until,
        });
        Ok(())
    }

    fn ask_files(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        send_to: Option<RoomId>,
        ask: FilesAsk,
        ctx: &mut Context<'_>,
    ) -> Result<FilesAskId, Refused> {
        let files = &mut self.files;
        if files.asked.len() >= limits::FILES_ASKED_MAX {
            return Err((ErrorCode::Overloaded, "too many files are asked for"));
        }
        let id = files.next;
        files.next += 1;
        files.asked.insert(
            id,
            Asked {
                conn,
                request,
                since_ms: ctx.now_ms(),
                send_to,
            },
        );
        ctx.stats.files_asked += 1;
        ctx.effects.push(Effect::Files(id, ask));
        Ok(id)
    }

    /// A question about files was answered.
    pub fn files_told(&mut self, id: FilesAskId, answer: FilesAnswer, ctx: &mut Context<'_>) {
        // One that was given up is answered.
        let Some(asked) = self.files.asked.remove(&id) else {
            return;
        };
        let Asked { conn, request, .. } = asked;
        if let Some(room) = asked.send_to {
            return self.looked_at(conn, room, id, answer, ctx);
        }
        let json = match answer {
            Ok(FilesTold::Ticket(ticket)) => request.map(|id| reply::ack(id, &ticket)),
            Ok(FilesTold::Urls(urls)) => request.map(|id| reply::ack(id, &urls)),
            Ok(FilesTold::Checked) => None,
            Err(refusal) => return self.refuse_file(conn, request, &refusal, ctx),
        };
        if let Some(json) = json {
            self.say_json(conn, &json, ctx);
        }
    }

    fn refuse_file(
        &mut self,
        conn: ConnId,
        request: Option<RequestId>,
        refusal: &FilesRefusal,
        ctx: &mut Context<'_>,
    ) {
        let FilesRefusal {
            code,
            message,
            retry_after_ms: Some(retry_after_ms),
        } = refusal
        else {
            return self.refuse(conn, request, refusal.code, refusal.message, ctx);
        };
        ctx.stats.commands_refused += 1;
        let json = reply::error(request, *code, message, Some(*retry_after_ms));
        self.say_json(conn, &json, ctx);
    }

    /// The files of a send were looked at, or could not be: whoever is first in the connection's order goes on.
    fn looked_at(
        &mut self,
        conn: ConnId,
        room: RoomId,
        id: FilesAskId,
        answer: FilesAnswer,
        ctx: &mut Context<'_>,
    ) {
        let place = (conn, room);
        let Some(mut behind) = self.files.behind.remove(&place) else {
            return;
        };
        self.files.waiting -= behind.len();
        // Whose connection is gone retries on another one, where it is the same message.
        if !self.is_there(conn) {
            return;
        }
        if let Some(at) = behind.iter().position(|it| it.until == Some(id)) {
            match answer {
                Ok(_) => behind[at].until = None,
                Err(refusal) => {
                    if let Some(refused) = behind.remove(at) {
                        self.refuse_file(conn, refused.request, &refusal, ctx);
                    }
                }
            }
        }
        while let Some(first) = behind.pop_front_if(|first| first.until.is_none()) {
            let written = self.write(conn, first.request, first.user, room, first.op, ctx);
            if let Err((code, message)) = written {
                self.refuse(conn, first.request, code, message, ctx);
            }
        }
        if !behind.is_empty() {
            self.files.waiting += behind.len();
            self.files.behind.insert(place, behind);
        }
    }

    fn is_there(&mut self, conn: ConnId) -> bool {
        match guests::is_guest(conn) {
            true => self.guest_user(conn).is_some(),
            false => self.get(conn).is_some_and(|session| session.is_ready()),
        }
    }

    /// Time has passed: what was not answered is given up.
    pub(super) fn tick_files(&mut self, ctx: &mut Context<'_>) {
        if self.files.asked.is_empty() {
            return;
        }
        let now_ms = ctx.now_ms();
        let late = |asked: &Asked| asked.since_ms + limits::FILES_MS_MAX <= now_ms;
        let asked = self.files.asked.iter();
        let mut given_up: Vec<FilesAskId> = asked
            .filter(|(_, it)| late(it))
            .map(|(id, _)| *id)
            .collect();
        given_up.sort_unstable();
        for id in given_up {
            let message = "the files cannot be reached now; retry with the same id";
            let refusal = FilesRefusal::new(ErrorCode::Unavailable, message);
            self.files_told(id, Err(refusal), ctx);
        }
    }
}

fn file_of(owner: UserId, create: UploadCreate) -> Result<NewFile, Refused> {
    let UploadCreate {
        room_id,
        kind,
        name,
        size,
        content_type,
        sha256,
    } = create;
    let name = name.trim().to_owned();
    if name.is_empty() {
        return Err((ErrorCode::BadRequest, "`name` is empty"));
    }
    if name.chars().count() > limits::FILE_NAME_CHARS_MAX {
        return Err((ErrorCode::TooLarge, "`name` is too long"));
    }
    if size == 0 {
        return Err((ErrorCode::BadRequest, "`size` is 0"));
    }
    if size > limits::UPLOAD_BYTES_MAX {
        return Err((ErrorCode::TooLarge, "`size` is more than is taken"));
    }
    let Some(content_type) = media::accepted(kind, &content_type) else {
        return Err((
            ErrorCode::UnsupportedMedia,
            "`content_type` is none that is taken for this kind",
        ));
    };
    let sha256 = match sha256 {
        Some(text) => Some(hash_of(&text).ok_or((
            ErrorCode::BadRequest,
            "`sha256` is not 64 hexadecimal digits",
        ))?),
        None => None,
    };
    Ok(NewFile {
        owner,
        room: room_id,
        kind,
        name,
        size,
        content_type,
        sha256,
    })
}

fn hash_of(text: &str) -> Option<[u8; 32]> {
    let (bytes, rest) = text.as_bytes().as_chunks::<2>();
    let mut hash = [0; 32];
    if bytes.len() != hash.len() || !rest.is_empty() {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(bytes) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        *byte = (digit(digits[0])? * 16 + digit(digits[1])?) as u8;
    }
    Some(hash)
}

/// The files of a message, as far as it may have such.
pub(super) fn files_of(
    kind: SendKind,
    attachments: Vec<SendAttachment>,
) -> Result<Option<Box<SentFiles>>, Refused> {
    let Some(kind) = kind.of_files() else {
        return match attachments.is_empty() {
            true => Ok(None),
            false => Err((
                ErrorCode::BadRequest,
                "a message of kind `text` has no files",
            )),
        };
    };
    let most = match kind {
        UploadKind::Voice => 1,
        UploadKind::Image | UploadKind::File => limits::ATTACHMENTS_MAX,
    };
    if attachments.is_empty() {
        return Err((ErrorCode::BadRequest, "`attachments` is empty"));
    }
    if attachments.len() > most {
        return Err((ErrorCode::TooLarge, "too many files in one message"));
    }
    let mut files: Vec<SentFile> = Vec::with_capacity(attachments.len());
    for attachment in attachments {
        let file = sent_file_of(attachment)?;
        if files.iter().any(|other| other.upload == file.upload) {
            return Err((ErrorCode::BadRequest, "a file is in `attachments` twice"));
        }
        files.push(file);
    }
    Ok(Some(Box::new(SentFiles { kind, files })))
}

fn sent_file_of(attachment: SendAttachment) -> Result<SentFile, Refused> {
    let SendAttachment {
        upload_id,
        width,
        height,
        duration_ms,
        placeholder,
    } = attachment;
    let is_side =
        |side: Option<u32>| side.is_none_or(|it| (1..=limits::IMAGE_SIDE_MAX).contains(&it));
    if !is_side(width) || !is_side(height) || width.is_some() != height.is_some() {
        return Err((
            ErrorCode::BadRequest,
            "`width` and `height` are not those of an image",
        ));
    }
    if duration_ms.is_some_and(|it| it > limits::DURATION_MS_MAX) {
        return Err((ErrorCode::BadRequest, "`duration_ms` is too long"));
    }
    let placeholder = placeholder.map(|it| it.into_string());
    if let Some(placeholder) = &placeholder {
        if placeholder.len() > limits::PLACEHOLDER_BYTES_MAX {
            return Err((ErrorCode::TooLarge, "`placeholder` is too long"));
        }
        if !placeholder.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err((ErrorCode::BadRequest, "`placeholder` is not visible ASCII"));
        }
    }
    Ok(SentFile {
        upload: upload_id,
        width,
        height,
        duration_ms,
        placeholder,
    })
}
