//! Files: what users bring, which messages have it, and what is to be removed.

use super::row::{Failure, int, role, room_kind, text, uint, uint_or_null, uuid};
use super::write::Batch;
use crate::chat::access::{self, Action};
use crate::chat::port::Refusal;
use crate::chat::port::files::{
    FilesRefusal, NamedUploads, NewFile, REMOVE_LEASE_MS, SentFiles, Upload, UploadAnswer,
    UploadCall, UploadQuota, UploadState, over_quota,
};
use crate::limits;
use crate::protocol::object::ObjectKey;
use crate::protocol::upload::UploadKind;
use crate::protocol::view::Attachment;
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs, UploadId, UserId};
use crate::store::changes;
use crate::store::files::{Wanted, usable};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// What [`upload`] reads, in its order; behind it until when it can be brought, and when it is removed.
macro_rules! upload_columns {
    () => {
        "upload_id, kind, object_key, name, size, content_type, sha256, state, message_seq, \
         expires_at, remove_at"
    };
}
pub(super) use upload_columns;

pub(super) fn upload(row: &Row<'_>) -> Result<Upload, Failure> {
    let named = |column| {
        let name = text(row, column)?;
        name.ok_or_else(|| Failure::Data(format!("column {column} is empty")))
    };
    let unknown = || Failure::Data("an upload of an unknown kind".to_owned());
    Ok(Upload {
        id: UploadId(uuid(row, 0)?),
        kind: UploadKind::from_name(named(1)?).ok_or_else(unknown)?,
        key: ObjectKey::parse(named(2)?).ok_or_else(unknown)?,
        name: row.get(3)?,
        size: uint(row, 4)?,
        content_type: row.get(5)?,
        sha256: row.get(6)?,
        state: UploadState::from_name(named(7)?).ok_or_else(unknown)?,
        message_seq: uint_or_null(row, 8)?,
    })
}

/// Answers a call that changes nothing.
pub(super) fn read(connection: &Connection, call: &UploadCall) -> Result<UploadAnswer, Failure> {
    Ok(match call {
        UploadCall::Own(named) => UploadAnswer::Own(own(connection, named)?),
        UploadCall::Shown(named) => UploadAnswer::Shown(shown(connection, named)?),
        UploadCall::Create { .. }
        | UploadCall::Seen(_)
        | UploadCall::ToRemove { .. }
        | UploadCall::Removed(_) => return Err(Failure::Data("not a read".to_owned())),
    })
}

/// Does what changes something, inside a transaction.
pub(super) fn write(
    connection: &Connection,
    now: UnixMs,
    call: &UploadCall,
) -> Result<UploadAnswer, Failure> {
    Ok(match call {
        UploadCall::Create {
            id,
            key,
            file,
            quota,
        } => UploadAnswer::Created(create(connection, now, *id, key, file, *quota)?),
        UploadCall::Seen(seen) => {
            for (id, state) in seen {
                connection
                    .prepare_cached(
                        "UPDATE uploads SET state = ?2 WHERE upload_id = ?1 AND state = 'created'",
                    )?
                    .execute(params![id.0.as_bytes(), state.name()])?;
            }
            UploadAnswer::Seen
        }
        UploadCall::ToRemove { owner, limit } => {
            UploadAnswer::ToRemove(to_remove(connection, now, *owner, *limit)?)
        }
        UploadCall::Removed(ids) => {
            for id in ids {
                removed(connection, now, *id)?;
            }
            UploadAnswer::Removed
        }
        UploadCall::Own(_) | UploadCall::Shown(_) => read(connection, call)?,
    })
}

/// Whether this user may do this in this room now.
fn may(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    action: Action,
) -> Result<bool, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT p.role, r.kind, r.severed FROM room_participants p
         JOIN chat_rooms r ON r.room_id = p.room_id
         WHERE p.room_id = ?1 AND p.user_id = ?2 AND p.left_seq IS NULL",
    )?;
    let mut rows = statement.query([room.0.as_bytes(), user.0.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(false);
    };
    let severed: bool = row.get(2)?;
    Ok(!severed && access::may(role(row, 0)?, room_kind(row, 1)?, action))
}

fn create(
    connection: &Connection,
    now: UnixMs,
    id: UploadId,
    key: &ObjectKey,
    file: &NewFile,
    quota: UploadQuota,
) -> Result<Result<UnixMs, FilesRefusal>, Failure> {
    // An erased user is in no room soon, but may be in some now.
    let is_known = connection
        .prepare_cached("SELECT 1 FROM chat_users WHERE user_id = ?1")?
        .exists([file.owner.0.as_bytes()])?;
    if !is_known || !may(connection, file.room, file.owner, Action::Send)? {
        return Ok(Err(changes::not_a_member().into()));
    }
    let known: Option<i64> = connection
        .prepare_cached("SELECT expires_at FROM uploads WHERE upload_id = ?1")?
        .query_row([id.0.as_bytes()], |row| row.get(0))
        .optional()?;
    if let Some(expires_at) = known {
        return Ok(Ok(UnixMs(expires_at.unsigned_abs())));
    }
    let window = now.0.saturating_sub(limits::UPLOAD_QUOTA_MS);
    let (count, bytes, oldest): (u32, i64, i64) = connection
        .prepare_cached(
            "SELECT count(*), coalesce(sum(size), 0), coalesce(min(created_at), ?3)
             FROM uploads WHERE owner_id = ?1 AND created_at > ?2",
        )?
        .query_row(
            params![file.owner.0.as_bytes(), int(window), int(now.0)],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )?;
    if count >= quota.uploads || bytes.unsigned_abs().saturating_add(file.size) > quota.bytes {
        let until = oldest.unsigned_abs() + limits::UPLOAD_QUOTA_MS;
        return Ok(Err(over_quota(until.saturating_sub(now.0))));
    }
    let expires_at = UnixMs(now.0 + limits::UPLOAD_TICKET_MS);
    connection
        .prepare_cached(
            "INSERT INTO uploads (upload_id, owner_id, room_id, kind, object_key, name, size,
                 content_type, sha256, created_at, expires_at, state, remove_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, 'created', ?12)",
        )?
        .execute(params![
            id.0.as_bytes(),
            file.owner.0.as_bytes(),
            file.room.0.as_bytes(),
            file.kind.name(),
            key.as_str(),
            file.name,
            int(file.size),
            file.content_type,
            file.sha256,
            int(now.0),
            int(expires_at.0),
            int(now.0 + limits::UPLOAD_UNUSED_MS),
        ])?;
    Ok(Ok(expires_at))
}

/// One upload, if it is this user's for this room, until when it can be brought, and when it is removed.
fn own_one(
    connection: &Connection,
    room: RoomId,
    user: UserId,
    id: UploadId,
) -> Result<Option<(Upload, u64, Option<u64>)>, Failure> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT ",
        upload_columns!(),
        " FROM uploads WHERE upload_id = ?1 AND owner_id = ?2 AND room_id = ?3"
    ))?;
    let key = [id.0.as_bytes(), user.0.as_bytes(), room.0.as_bytes()];
    let mut rows = statement.query(key)?;
    match rows.next()? {
        Some(row) => Ok(Some((upload(row)?, uint(row, 9)?, uint_or_null(row, 10)?))),
        None => Ok(None),
    }
}

fn own(connection: &Connection, named: &NamedUploads) -> Result<Vec<Upload>, Failure> {
    let mut found = Vec::new();
    for id in &named.uploads {
        let one = own_one(connection, named.room, named.user, *id)?;
        found.extend(one.map(|(upload, ..)| upload));
    }
    Ok(found)
}

fn shown(
    connection: &Connection,
    named: &NamedUploads,
) -> Result<Result<Vec<Upload>, Refusal>, Failure> {
    let is_member = connection
        .prepare_cached(
            "SELECT 1 FROM room_participants
             WHERE room_id = ?1 AND user_id = ?2 AND left_seq IS NULL",
        )?
        .exists([named.room.0.as_bytes(), named.user.0.as_bytes()])?;
    if !is_member {
        return Ok(Err(Refusal {
            code: ErrorCode::Forbidden,
            message: "not a member of this room",
        }));
    }
    let mut found = Vec::new();
    for id in &named.uploads {
        let mut statement = connection.prepare_cached(concat!(
            "SELECT ",
            upload_columns!(),
            " FROM uploads WHERE upload_id = ?1 AND room_id = ?2 AND state = 'used'"
        ))?;
        let mut rows = statement.query([id.0.as_bytes(), named.room.0.as_bytes()])?;
        if let Some(row) = rows.next()? {
            found.push(upload(row)?);
        }
    }
    Ok(Ok(found))
}

fn to_remove(
    connection: &Connection,
    now: UnixMs,
    owner: Option<UserId>,
    limit: usize,
) -> Result<Vec<Upload>, Failure> {
    let (sql, key) = match owner {
        Some(owner) => (
            concat!(
                "SELECT ",
                upload_columns!(),
                " FROM uploads WHERE owner_id = ?1 AND lease_until <= ?2 LIMIT ?3"
            ),
            Some(*owner.0.as_bytes()),
        ),
        None => (
            concat!(
                "SELECT ",
                upload_columns!(),
                " FROM uploads WHERE ?1 IS NULL AND remove_at <= ?2 AND lease_until <= ?2
                  ORDER BY remove_at LIMIT ?3"
            ),
            None,
        ),
    };
    let mut found = Vec::new();
    let mut statement = connection.prepare_cached(sql)?;
    let mut rows = statement.query(params![key, int(now.0), int(limit as u64)])?;
    while let Some(row) = rows.next()? {
        found.push(upload(row)?);
    }
    drop(rows);
    for upload in &mut found {
        upload.state = UploadState::Removed;
        connection
            .prepare_cached(
                "UPDATE uploads SET state = 'removed', lease_until = ?3,
                     remove_at = coalesce(remove_at, ?2)
                 WHERE upload_id = ?1",
            )?
            .execute(params![
                upload.id.0.as_bytes(),
                int(now.0),
                int(now.0 + REMOVE_LEASE_MS)
            ])?;
    }
    Ok(found)
}

/// Its bytes are gone: so is the row, unless it counts for what its owner brings in a day.
fn removed(connection: &Connection, now: UnixMs, id: UploadId) -> Result<(), Failure> {
    let kept = connection
        .prepare_cached(
            "UPDATE uploads SET name = '', remove_at = created_at + ?2, lease_until = 0
             WHERE upload_id = ?1 AND state = 'removed' AND created_at + ?2 > ?3
                 AND EXISTS (SELECT 1 FROM chat_users u WHERE u.user_id = owner_id)",
        )?
        .execute(params![
            id.0.as_bytes(),
            int(limits::UPLOAD_QUOTA_MS),
            int(now.0)
        ])?;
    if kept == 0 {
        connection
            .prepare_cached("DELETE FROM uploads WHERE upload_id = ?1 AND state = 'removed'")?
            .execute([id.0.as_bytes()])?;
    }
    Ok(())
}

/// Whether anything is left of what this user brought.
pub(super) fn has_any(connection: &Connection, owner: UserId) -> Result<bool, Failure> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM uploads WHERE owner_id = ?1")?
        .exists([owner.0.as_bytes()])?)
}

impl Batch<'_> {
    /// What the files of a message are, if it may use them.
    pub(super) fn usable_files(
        &self,
        room: RoomId,
        sender: UserId,
        files: &SentFiles,
    ) -> Result<Result<Vec<Attachment>, Refusal>, Failure> {
        let mut found = Vec::with_capacity(files.files.len());
        for file in &files.files {
            if let Some((upload, expires_at, remove_at)) =
                own_one(self.connection, room, sender, file.upload)?
            {
                found.push(Wanted {
                    upload,
                    is_expired: expires_at <= self.now.0,
                    is_due: remove_at.is_some_and(|at| at <= self.now.0),
                });
            }
        }
        Ok(usable(files, &found))
    }

    /// The message has these files from now on.
    pub(super) fn use_files(&self, seq: Seq, files: &SentFiles) -> Result<(), Failure> {
        for file in &files.files {
            self.connection
                .prepare_cached(
                    "UPDATE uploads SET state = 'used', message_seq = ?2, remove_at = NULL
                     WHERE upload_id = ?1",
                )?
                .execute(params![file.upload.0.as_bytes(), int(seq)])?;
        }
        Ok(())
    }

    /// A message has these files no longer.
    pub(super) fn drop_files(&self, files: &[Attachment]) -> Result<(), Failure> {
        for file in files {
            self.connection
                .prepare_cached(
                    "UPDATE uploads SET state = 'removed', remove_at = ?2 WHERE upload_id = ?1",
                )?
                .execute(params![file.upload_id.0.as_bytes(), int(self.now.0)])?;
        }
        Ok(())
    }
}
