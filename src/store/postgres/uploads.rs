//! Files: what users bring, which messages have it, and what is to be removed. Each call is one statement.

use super::row::{Failure, get, uint, uint_or_null};
use super::session::Session;
use crate::chat::port::Refusal;
use crate::chat::port::files::{
    FilesRefusal, NamedUploads, NewFile, REMOVE_LEASE_MS, Upload, UploadAnswer, UploadCall,
    UploadQuota, UploadState, over_quota,
};
use crate::limits;
use crate::protocol::object::ObjectKey;
use crate::protocol::upload::UploadKind;
use crate::protocol::{ErrorCode, UnixMs, UploadId};
use crate::store::changes::not_a_member;
use crate::store::common::int;
use tokio_postgres::Row;
use uuid::Uuid;

const CREATE: &str =
    "SELECT outcome, told FROM chat_upload($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
         $13, $14, $15)";

/// What [`upload`] reads, in its order, of a row called `u`.
macro_rules! upload_columns {
    () => {
        "u.upload_id, u.kind, u.object_key, u.name, u.size, u.content_type, u.sha256, u.state, u.message_seq"
    };
}
pub(super) use upload_columns;

const OWN: &str = concat!(
    "SELECT ",
    upload_columns!(),
    " FROM uploads u WHERE u.upload_id = ANY ($1) AND u.owner_id = $2 AND u.room_id = $3"
);

/// Without anything to show one row, which says whether there may be.
const SHOWN: &str = concat!(
    "SELECT ",
    upload_columns!(),
    ", h.is_member FROM (SELECT EXISTS (SELECT FROM room_participants p
         WHERE p.room_id = $3 AND p.user_id = $2 AND p.left_seq IS NULL) AS is_member) h
     LEFT JOIN uploads u ON h.is_member AND u.upload_id = ANY ($1) AND u.room_id = $3 AND u.state = 'used'"
);

const SEEN: &str = "UPDATE uploads u SET state = a.state
     FROM (SELECT x.upload_id, b.state FROM uploads x
         JOIN unnest($1::uuid[], $2::text[]) AS b (upload_id, state) ON b.upload_id = x.upload_id
         ORDER BY x.upload_id FOR NO KEY UPDATE OF x) a
     WHERE u.upload_id = a.upload_id AND u.state = 'created'";

macro_rules! to_remove {
    ($which:literal) => {
        concat!(
            "WITH taken AS MATERIALIZED (
                 SELECT x.upload_id FROM uploads x WHERE ",
            $which,
            " AND x.lease_until <= (SELECT chat_now($1)) LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED)
             UPDATE uploads u SET state = 'removed', lease_until = chat_now($1) + $3,
                 remove_at = coalesce(u.remove_at, chat_now($1))
             FROM taken t WHERE u.upload_id = t.upload_id RETURNING ",
            upload_columns!()
        )
    };
}

const TO_REMOVE: &str = to_remove!("x.remove_at <= (SELECT chat_now($1))");
const TO_REMOVE_OF: &str = to_remove!("x.owner_id = $4");

/// A row that counts for what its owner brings in a day stays so long.
const REMOVED: &str = "WITH done AS MATERIALIZED (
         SELECT x.upload_id, x.created_at + $3 > chat_now($2) AND EXISTS (
             SELECT FROM chat_users c WHERE c.user_id = x.owner_id) AS counts
         FROM uploads x WHERE x.upload_id = ANY ($1) AND x.state = 'removed'
         ORDER BY x.upload_id FOR NO KEY UPDATE OF x
     ), kept AS (
         UPDATE uploads u SET name = '', remove_at = u.created_at + $3, lease_until = 0
         FROM done d WHERE u.upload_id = d.upload_id AND d.counts
     )
     DELETE FROM uploads u USING done d WHERE u.upload_id = d.upload_id AND NOT d.counts";

/// Answers a call.
pub(super) async fn answer(
    session: &Session,
    now: Option<UnixMs>,
    call: &UploadCall,
) -> Result<UploadAnswer, Failure> {
    let clock = now.map(|now| int(now.0));
    Ok(match call {
        UploadCall::Create {
            id,
            key,
            file,
            quota,
        } => UploadAnswer::Created(create(session, clock, *id, key, file, *quota).await?),
        UploadCall::Own(named) => {
            let rows = named_rows(session, OWN, named).await?;
            UploadAnswer::Own(rows.iter().map(upload).collect::<Result<_, _>>()?)
        }
        UploadCall::Shown(named) => UploadAnswer::Shown(shown(session, named).await?),
        UploadCall::Seen(seen) => {
            let ids: Vec<Uuid> = seen.iter().map(|(id, _)| id.0).collect();
            let states: Vec<&str> = seen.iter().map(|(_, state)| state.name()).collect();
            session.query(SEEN, &[&ids, &states]).await?;
            UploadAnswer::Seen
        }
        UploadCall::ToRemove { owner, limit } => {
            let (limit, lease) = (int(*limit as u64), int(REMOVE_LEASE_MS));
            let rows = match owner {
                None => session.query(TO_REMOVE, &[&clock, &limit, &lease]).await?,
                Some(owner) => {
                    let of = &[&clock as _, &limit as _, &lease as _, &owner.0 as _];
                    session.query(TO_REMOVE_OF, of).await?
                }
            };
            UploadAnswer::ToRemove(rows.iter().map(upload).collect::<Result<_, _>>()?)
        }
        UploadCall::Removed(ids) => {
            let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
            let window = int(limits::UPLOAD_QUOTA_MS);
            session.query(REMOVED, &[&ids, &clock, &window]).await?;
            UploadAnswer::Removed
        }
    })
}

async fn create(
    session: &Session,
    clock: Option<i64>,
    id: UploadId,
    key: &ObjectKey,
    file: &NewFile,
    quota: UploadQuota,
) -> Result<Result<UnixMs, FilesRefusal>, Failure> {
    let sha256 = file.sha256.as_ref().map(<[u8; 32]>::as_slice);
    let rows = session
        .query(
            CREATE,
            &[
                &clock,
                &id.0,
                &file.owner.0,
                &file.room.0,
                &file.kind.name(),
                &key.as_str(),
                &file.name,
                &int(file.size),
                &file.content_type,
                &sha256,
                &int(limits::UPLOAD_TICKET_MS),
                &int(limits::UPLOAD_UNUSED_MS),
                &int(limits::UPLOAD_QUOTA_MS),
                &i64::from(quota.uploads),
                &int(quota.bytes),
            ],
        )
        .await?;
    let Some(row) = rows.first() else {
        return Err(Failure::Data("a ticket was not kept".to_owned()));
    };
    Ok(match get::<i32>(row, 0)? {
        0 => Ok(UnixMs(uint(row, 1)?)),
        3 => Err(not_a_member().into()),
        4 => Err(over_quota(uint(row, 1)?)),
        code => return Err(Failure::Data(format!("outcome {code} of an upload"))),
    })
}

async fn shown(
    session: &Session,
    named: &NamedUploads,
) -> Result<Result<Vec<Upload>, Refusal>, Failure> {
    let rows = named_rows(session, SHOWN, named).await?;
    let mut found = Vec::new();
    for row in &rows {
        if !get::<bool>(row, 9)? {
            return Ok(Err(Refusal {
                code: ErrorCode::Forbidden,
                message: "not a member of this room",
            }));
        }
        if get::<Option<Uuid>>(row, 0)?.is_some() {
            found.push(upload(row)?);
        }
    }
    Ok(Ok(found))
}

async fn named_rows(
    session: &Session,
    statement: &'static str,
    named: &NamedUploads,
) -> Result<Vec<Row>, Failure> {
    let ids: Vec<Uuid> = named.uploads.iter().map(|id| id.0).collect();
    Ok(session
        .query(statement, &[&ids, &named.user.0, &named.room.0])
        .await?)
}

pub(super) fn upload(row: &Row) -> Result<Upload, Failure> {
    let unknown = || Failure::Data("an upload of an unknown kind".to_owned());
    let sha256: Option<&[u8]> = get(row, 6)?;
    Ok(Upload {
        id: UploadId(get(row, 0)?),
        kind: UploadKind::from_name(get(row, 1)?).ok_or_else(unknown)?,
        key: ObjectKey::parse(get(row, 2)?).ok_or_else(unknown)?,
        name: get(row, 3)?,
        size: uint(row, 4)?,
        content_type: get(row, 5)?,
        sha256: sha256.and_then(|hash| hash.try_into().ok()),
        state: UploadState::from_name(get(row, 7)?).ok_or_else(unknown)?,
        message_seq: uint_or_null(row, 8)?,
    })
}

/// Why a message may not use a file, as `chat_mention` says.
pub(super) fn refusal(row: &Row, code: i32) -> Result<Refusal, Failure> {
    let state = UploadState::from_name(get(row, 4)?);
    let refusal = state.and_then(|state| state.refusal(code == 43));
    refusal.ok_or_else(|| Failure::Data("a file that may be used was refused".to_owned()))
}
