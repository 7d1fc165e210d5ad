//! What those who run the service read, and do.
//!
//! Invariants: what an act changes and its entry in the audit trail are one statement; a call that is repeated
//! because the connection broke finds its entry and changes nothing more. None of these statements is prepared
//! beforehand: they are rare.

use super::history::history_for_service;
use super::row::{Failure, get, role, room_id, room_kind, uint, user_id};
use super::session::Session;
use crate::chat::port::admin::{ActOutcome, AdminAnswer, AdminCall, AuditEntry, PageRead};
use crate::chat::port::{HistoryRead, Refusal};
use crate::limits;
use crate::protocol::admin::{
    AdminActDone, AdminAudit, AdminMember, AdminReport, AdminReportFilter, AdminReportState,
    AdminReports, AdminRoom, AdminRoomSummary, AdminRooms, AdminUserKept, AdminUserRoom,
    AdminUserSummary, AdminUsers, ReportKey, SERVICE,
};
use crate::protocol::ending::{EndsWhich, SessionsEnd};
use crate::protocol::{CloseCode, RoomId, UnixMs, UserId};
use crate::store::admin::{Wanted, page_of, parse_entry, parse_id, parse_report, reports_page};
use crate::store::common::{from_json, int, to_json};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

/// Answers a call.
pub(super) async fn answer(
    session: &Session,
    now: Option<UnixMs>,
    call: &AdminCall,
) -> Result<AdminAnswer, Failure> {
    let now = now.map(|now| int(now.0));
    Ok(match call {
        AdminCall::Note(entry) => {
            let (act, outcome) = (act_of(entry)?, ActOutcome::Begun.name());
            let sql = "SELECT admin_note(chat_now($1), $2::text::jsonb, $3)";
            session.query(sql, &[&now, &act, &outcome]).await?;
            AdminAnswer::Noted
        }
        AdminCall::EndSessions { user, code, entry } => {
            let (act, number) = (act_of(entry)?, i32::from(*code as u16));
            let sql = "SELECT admin_end_sessions($1, $2, $3, $4::text::jsonb)";
            let rows = session.query(sql, &[&now, &user.0, &number, &act]).await?;
            let version: Option<i64> = get(one(&rows)?, 0)?;
            AdminAnswer::SessionsEnded(version.map(|version| SessionsEnd {
                user: *user,
                version: version.unsigned_abs(),
                code: *code,
                which: EndsWhich::BeganBefore,
            }))
        }
        AdminCall::Dismiss { report: key, entry } => {
            let (act, seq) = (act_of(entry)?, int(key.message_seq));
            let sql = "SELECT admin_dismiss($1, $2, $3, $4, $5::text::jsonb)";
            let params: [&(dyn ToSql + Sync); 5] = [&now, &key.room.0, &seq, &key.reporter.0, &act];
            let rows = session.query(sql, &params).await?;
            let changed: Option<bool> = get(one(&rows)?, 0)?;
            AdminAnswer::Dismissed(match changed {
                Some(changed) => report(session, *key).await?.map(|report| (report, changed)),
                None => None,
            })
        }
        AdminCall::SetRetention { room, days, entry } => {
            let (act, days) = (act_of(entry)?, days.map(u32::cast_signed));
            let sql = "SELECT admin_retention($1, $2, $3, $4::text::jsonb)";
            let rows = session.query(sql, &[&now, &room.0, &days, &act]).await?;
            AdminAnswer::RetentionSet(get(one(&rows)?, 0)?)
        }
        AdminCall::Users(page) => AdminAnswer::Users(users(session, page).await?),
        AdminCall::User(id) => AdminAnswer::User(user(session, *id).await?.map(Box::new)),
        AdminCall::Rooms(page) => AdminAnswer::Rooms(rooms(session, page).await?),
        AdminCall::Room(id) => AdminAnswer::Room(room(session, *id).await?.map(Box::new)),
        AdminCall::Messages {
            room,
            page,
            limit,
            bytes_max,
        } => {
            let read = HistoryRead {
                room: *room,
                user: SERVICE,
                page: *page,
                limit: *limit,
                bytes_max: *bytes_max,
            };
            AdminAnswer::Messages(history_for_service(session, &read).await?.ok())
        }
        AdminCall::Reports(filter, page) => {
            AdminAnswer::Reports(reports(session, *filter, page).await?)
        }
        AdminCall::Report(key) => AdminAnswer::Report(report(session, *key).await?),
        AdminCall::Audit(page) => AdminAnswer::Audit(audit(session, page).await?),
        AdminCall::Export(read) => AdminAnswer::Export(super::export::read(session, read).await?),
    })
}

fn act_of(entry: &AuditEntry) -> Result<String, Failure> {
    to_json(entry).map_err(Failure::Data)
}

fn one(rows: &[Row]) -> Result<&Row, Failure> {
    rows.first()
        .ok_or_else(|| Failure::Data("an answer without a row".to_owned()))
}

/// What ends sessions of a user, as the database tells it: versions, codes, which, and a session or a time.
pub(super) fn ends_of(user: UserId, json: Option<&str>) -> Result<Vec<SessionsEnd>, Failure> {
    let Some(json) = json else {
        return Ok(Vec::new());
    };
    type End = (u64, u16, u8, Option<Uuid>, Option<u64>);
    let ends: Vec<End> = from_json(json).map_err(Failure::Data)?;
    let end = |(version, number, which, sid, until): End| {
        let which = match (which, sid, until) {
            (0, _, _) => EndsWhich::BeganBefore,
            (1, Some(sid), _) => EndsWhich::OfSession(sid),
            (2, _, Some(until)) => EndsWhich::IssuedUntil(UnixMs(until)),
            _ => return Err(Failure::Data("an unknown end of sessions".to_owned())),
        };
        let code = CloseCode::from_number(number)
            .ok_or_else(|| Failure::Data("an unknown close code".to_owned()))?;
        Ok(SessionsEnd {
            user,
            version,
            code,
            which,
        })
    };
    ends.into_iter().map(end).collect()
}

/// All rows of a statement as values.
async fn all<T>(
    session: &Session,
    sql: &'static str,
    params: &[&(dyn ToSql + Sync)],
    value: impl Fn(&Row) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let rows = session.query(sql, params).await?;
    rows.iter().map(value).collect()
}

const SCANNED_MAX: i64 = limits::ADMIN_SCANNED_MAX as i64;
const SHOWN_MAX: i64 = limits::ADMIN_SHOWN_MAX as i64;

macro_rules! user_columns {
    () => {
        "SELECT u.user_id, u.name, u.picture, u.created_at, u.room_count, u.version"
    };
}

const USER: &str = concat!(user_columns!(), " FROM chat_users u WHERE u.user_id = $1");
/// After `$1`, with `$2` in the name, of so many that are looked at (`$3`) at most `$4`.
const USERS: &str = concat!(
    user_columns!(),
    " FROM (SELECT * FROM chat_users WHERE user_id > $1 ORDER BY user_id LIMIT $3) u
     WHERE $2::text IS NULL OR strpos(lower(u.name COLLATE \"C\"), $2) > 0
     ORDER BY u.user_id LIMIT $4"
);
/// The last that was looked at, if there may be more.
const USERS_END: &str =
    "SELECT user_id FROM chat_users WHERE user_id > $1 ORDER BY user_id OFFSET $2 LIMIT 1";

fn user_summary(row: &Row) -> Result<AdminUserSummary, Failure> {
    Ok(AdminUserSummary {
        user_id: user_id(row, 0)?,
        name: get(row, 1)?,
        picture: get(row, 2)?,
        created_at: UnixMs(uint(row, 3)?),
        room_count: get::<i32>(row, 4)?.unsigned_abs(),
        version: uint(row, 5)?,
    })
}

/// Where a search stopped that found no full page.
async fn stopped_at(
    session: &Session,
    sql: &'static str,
    after: Uuid,
    is_full: bool,
) -> Result<Option<Uuid>, Failure> {
    if is_full {
        return Ok(None);
    }
    let places = all(session, sql, &[&after, &(SCANNED_MAX - 1)], |row| {
        get::<Uuid>(row, 0)
    })
    .await?;
    Ok(places.into_iter().next_back())
}

async fn users(session: &Session, page: &PageRead) -> Result<Result<AdminUsers, Refusal>, Failure> {
    let after = match parse_id(page.cursor.as_deref()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let part = match Wanted::of(page.query.as_deref()) {
        Wanted::All => None,
        Wanted::Part(part) => Some(part),
        Wanted::Id(id) => {
            return Ok(Ok(AdminUsers {
                users: all(session, USER, &[&id], user_summary).await?,
                next_cursor: None,
            }));
        }
    };
    let limit = int(page.limit as u64 + 1);
    let params: [&(dyn ToSql + Sync); 4] = [&after, &part, &SCANNED_MAX, &limit];
    let found = all(session, USERS, &params, user_summary).await?;
    let end = stopped_at(session, USERS_END, after, found.len() > page.limit).await?;
    let (users, next_cursor) = page_of(found, page.limit, end, |user| user.user_id.0);
    Ok(Ok(AdminUsers { users, next_cursor }))
}

const USER_ROOMS: &str = "SELECT p.room_id, r.kind, r.title, p.role, p.joined_at
     FROM room_participants p JOIN chat_rooms r ON r.room_id = p.room_id
     WHERE p.user_id = $1 AND p.left_seq IS NULL ORDER BY p.room_id LIMIT $2";
const USER_BLOCKS: &str = "SELECT other_id FROM user_relationships
     WHERE user_id = $1 AND kind = 'block' ORDER BY other_id LIMIT $2";
const ENDED_AT: &str = "SELECT max(ended_at) FROM user_ends WHERE user_id = $1";

async fn user(session: &Session, id: UserId) -> Result<Option<AdminUserKept>, Failure> {
    let Some(user) = all(session, USER, &[&id.0], user_summary).await?.pop() else {
        return Ok(None);
    };
    let rows = session.query(ENDED_AT, &[&id.0]).await?;
    let ended_at: Option<i64> = get(one(&rows)?, 0)?;
    let rooms = all(session, USER_ROOMS, &[&id.0, &SHOWN_MAX], |row| {
        Ok(AdminUserRoom {
            room_id: room_id(row, 0)?,
            kind: room_kind(row, 1)?,
            title: get(row, 2)?,
            role: role(row, 3)?,
            joined_at: UnixMs(uint(row, 4)?),
        })
    })
    .await?;
    let blocks = all(session, USER_BLOCKS, &[&id.0, &SHOWN_MAX], |row| {
        user_id(row, 0)
    })
    .await?;
    let scanned_max = limits::ADMIN_REPORTS_SCANNED_MAX as i64;
    let params: [&(dyn ToSql + Sync); 3] = [&id.0, &scanned_max, &SHOWN_MAX];
    Ok(Some(AdminUserKept {
        user,
        sessions_ended_at: ended_at.map(|at| UnixMs(at.unsigned_abs())),
        rooms,
        blocks,
        reports_by: all(session, REPORTS_BY, &params, report_of).await?,
        reports_about: all(session, REPORTS_ABOUT, &params, report_of).await?,
    }))
}

macro_rules! room_columns {
    () => {
        "SELECT r.room_id, r.kind, r.title, r.created_by, r.created_at, r.member_count, r.last_seq,
             r.last_ts"
    };
}

const ROOM: &str = concat!(
    room_columns!(),
    " FROM chat_rooms r WHERE r.room_id = $1 AND r.last_seq > 0"
);
const ROOMS: &str = concat!(
    room_columns!(),
    " FROM (SELECT * FROM chat_rooms WHERE room_id > $1 ORDER BY room_id LIMIT $3) r
     WHERE r.last_seq > 0
         AND ($2::text IS NULL OR strpos(lower(r.title COLLATE \"C\"), $2) > 0)
     ORDER BY r.room_id LIMIT $4"
);
const ROOMS_END: &str =
    "SELECT room_id FROM chat_rooms WHERE room_id > $1 ORDER BY room_id OFFSET $2 LIMIT 1";

fn room_summary(row: &Row) -> Result<AdminRoomSummary, Failure> {
    Ok(AdminRoomSummary {
        room_id: room_id(row, 0)?,
        kind: room_kind(row, 1)?,
        title: get(row, 2)?,
        created_by: user_id(row, 3)?,
        created_at: UnixMs(uint(row, 4)?),
        member_count: get::<i32>(row, 5)?.unsigned_abs(),
        last_seq: uint(row, 6)?,
        last_at: UnixMs(uint(row, 7)?),
    })
}

async fn rooms(session: &Session, page: &PageRead) -> Result<Result<AdminRooms, Refusal>, Failure> {
    let after = match parse_id(page.cursor.as_deref()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let part = match Wanted::of(page.query.as_deref()) {
        Wanted::All => None,
        Wanted::Part(part) => Some(part),
        Wanted::Id(id) => {
            return Ok(Ok(AdminRooms {
                rooms: all(session, ROOM, &[&id], room_summary).await?,
                next_cursor: None,
            }));
        }
    };
    let limit = int(page.limit as u64 + 1);
    let params: [&(dyn ToSql + Sync); 4] = [&after, &part, &SCANNED_MAX, &limit];
    let found = all(session, ROOMS, &params, room_summary).await?;
    let end = stopped_at(session, ROOMS_END, after, found.len() > page.limit).await?;
    let (rooms, next_cursor) = page_of(found, page.limit, end, |room| room.room_id.0);
    Ok(Ok(AdminRooms { rooms, next_cursor }))
}

const MEMBERS: &str = "SELECT p.user_id, u.name, p.role, p.joined_at FROM room_participants p
     JOIN chat_users u ON u.user_id = p.user_id
     WHERE p.room_id = $1 AND p.left_seq IS NULL ORDER BY p.joined_seq, p.user_id LIMIT $2";
const COUNTS: &str = "SELECT
     (SELECT count(*) FROM (SELECT FROM messages m
         WHERE m.room_id = $1 AND m.kind <> 'system' AND m.seq > r.floor_seq LIMIT $2) c),
     (SELECT count(*) FROM room_pins x WHERE x.room_id = $1),
     (SELECT count(*) FROM (SELECT FROM message_reports x
         WHERE x.room_id = $1 AND x.resolution IS NULL LIMIT $2) c),
     r.retention_days, r.floor_seq
     FROM chat_rooms r WHERE r.room_id = $1";

async fn room(session: &Session, id: RoomId) -> Result<Option<AdminRoom>, Failure> {
    let Some(room) = all(session, ROOM, &[&id.0], room_summary).await?.pop() else {
        return Ok(None);
    };
    let members = all(session, MEMBERS, &[&id.0, &SHOWN_MAX], |row| {
        Ok(AdminMember {
            user_id: user_id(row, 0)?,
            name: get(row, 1)?,
            role: role(row, 2)?,
            joined_at: UnixMs(uint(row, 3)?),
        })
    })
    .await?;
    let counted_max = limits::ADMIN_COUNTED_MAX as i64;
    let rows = session.query(COUNTS, &[&id.0, &counted_max]).await?;
    let row = one(&rows)?;
    let count = |column| Ok::<_, Failure>(u32::try_from(uint(row, column)?).unwrap_or(u32::MAX));
    Ok(Some(AdminRoom {
        room,
        members,
        messages: count(0)?,
        pins: count(1)?,
        reports_open: count(2)?,
        retention_days: get::<Option<i32>>(row, 3)?.map(i32::cast_unsigned),
        floor_seq: uint(row, 4)?,
    }))
}

/// What [`report_of`] reads, of a report called `x` and its message called `m`.
macro_rules! report_columns {
    () => {
        "SELECT x.room_id, x.message_seq, x.reporter_id, x.revision, x.created_at, x.resolution,
             x.resolved_at, x.resolved_by, x.note, m.sender_id"
    };
}

/// The message of a report.
macro_rules! reported_message {
    () => {
        " LEFT JOIN messages m ON m.room_id = x.room_id AND m.seq = x.message_seq "
    };
}

/// By one user: `$1`; among so many of the newest: `$2`; at most: `$3`.
macro_rules! reports_of_user {
    ($whose:literal) => {
        concat!(
            report_columns!(),
            " FROM (SELECT * FROM message_reports
                 ORDER BY created_at DESC, room_id DESC, message_seq DESC, reporter_id DESC
                 LIMIT $2) x",
            reported_message!(),
            "WHERE ",
            $whose,
            " = $1
             ORDER BY x.created_at DESC, x.room_id DESC, x.message_seq DESC, x.reporter_id DESC
             LIMIT $3"
        )
    };
}

const REPORTS_BY: &str = reports_of_user!("x.reporter_id");
const REPORTS_ABOUT: &str = reports_of_user!("m.sender_id");

fn report_of(row: &Row) -> Result<AdminReport, Failure> {
    let key = ReportKey {
        room: room_id(row, 0)?,
        message_seq: uint(row, 1)?,
        reporter: user_id(row, 2)?,
    };
    let state = AdminReportState::from_resolution(get(row, 5)?)
        .ok_or_else(|| Failure::Data("an unknown resolution".to_owned()))?;
    let resolved_at: Option<i64> = get(row, 6)?;
    Ok(AdminReport {
        report_id: key.to_id(),
        room_id: key.room,
        message_seq: key.message_seq,
        sender_id: get::<Option<Uuid>>(row, 9)?.map(UserId),
        reporter_id: key.reporter,
        revision: get::<i32>(row, 3)?.unsigned_abs(),
        created_at: UnixMs(uint(row, 4)?),
        state,
        resolved_at: resolved_at.map(|at| UnixMs(at.unsigned_abs())),
        resolved_by: get(row, 7)?,
        note: get(row, 8)?,
    })
}

const REPORT: &str = concat!(
    report_columns!(),
    " FROM message_reports x",
    reported_message!(),
    "WHERE x.room_id = $1 AND x.message_seq = $2 AND x.reporter_id = $3"
);

async fn report(session: &Session, key: ReportKey) -> Result<Option<AdminReport>, Failure> {
    let seq = int(key.message_seq);
    let params: [&(dyn ToSql + Sync); 3] = [&key.room.0, &seq, &key.reporter.0];
    Ok(all(session, REPORT, &params, report_of).await?.pop())
}

/// After a place (`$1` to `$4`), at most `$5`.
macro_rules! reports_page {
    ($state:literal) => {
        concat!(
            report_columns!(),
            " FROM message_reports x",
            reported_message!(),
            "WHERE x.resolution ",
            $state,
            " AND (x.created_at, x.room_id, x.message_seq, x.reporter_id) > ($1, $2, $3, $4)
             ORDER BY x.created_at, x.room_id, x.message_seq, x.reporter_id LIMIT $5"
        )
    };
}

async fn reports(
    session: &Session,
    filter: AdminReportFilter,
    page: &PageRead,
) -> Result<Result<AdminReports, Refusal>, Failure> {
    let after = match parse_report(page.cursor.as_deref()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let first = (-1, Uuid::nil(), 0, Uuid::nil());
    let (at, room, seq, reporter) = after.map_or(first, |(at, key)| {
        (int(at.0), key.room.0, int(key.message_seq), key.reporter.0)
    });
    let sql = match filter {
        AdminReportFilter::Open => reports_page!("IS NULL"),
        AdminReportFilter::Resolved => reports_page!("IS NOT NULL"),
    };
    let limit = int(page.limit as u64 + 1);
    let params: [&(dyn ToSql + Sync); 5] = [&at, &room, &seq, &reporter, &limit];
    let found = all(session, sql, &params, report_of).await?;
    let (reports, next_cursor) = reports_page(found, page.limit);
    Ok(Ok(AdminReports {
        reports,
        next_cursor,
    }))
}

const AUDIT: &str = "SELECT n, at, who, node, request_id, act, target, detail, outcome
     FROM admin_audit WHERE n < $1 ORDER BY n DESC LIMIT $2";

async fn audit(session: &Session, page: &PageRead) -> Result<Result<AdminAudit, Refusal>, Failure> {
    let before = match parse_entry(page.cursor.as_deref()) {
        Ok(before) => before,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let limit = int(page.limit as u64 + 1);
    let entry = |row: &Row| {
        let act = AdminActDone {
            at: UnixMs(uint(row, 1)?),
            who: get(row, 2)?,
            node: get(row, 3)?,
            request_id: get(row, 4)?,
            act: get(row, 5)?,
            target: get(row, 6)?,
            detail: get(row, 7)?,
            outcome: get(row, 8)?,
        };
        Ok((uint(row, 0)?, act))
    };
    let mut found = all(session, AUDIT, &[&int(before), &limit], entry).await?;
    let is_full = found.len() > page.limit;
    found.truncate(page.limit);
    let last = found.last().filter(|_| is_full);
    Ok(Ok(AdminAudit {
        next_cursor: last.map(|(n, _)| n.to_string()),
        acts: found.into_iter().map(|(_, act)| act).collect(),
    }))
}
