//! What those who run the service read, and do.
//!
//! Invariant: what an act changes and its entry in the audit trail are one transaction.

use super::read::newest;
use super::row::{Failure, int, role, room_id, room_kind, text, uint, user_id};
use crate::chat::port::admin::{ActOutcome, AdminAnswer, AdminCall, AuditEntry, PageRead};
use crate::chat::port::{HistoryRead, Refusal};
use crate::limits;
use crate::protocol::admin::{
    AdminActDone, AdminAudit, AdminMember, AdminReport, AdminReportFilter, AdminReportState,
    AdminReports, AdminRoom, AdminRoomSummary, AdminRooms, AdminUserKept, AdminUserRoom,
    AdminUserSummary, AdminUsers, ReportKey, SERVICE,
};
use crate::protocol::ending::{EndsWhich, SessionsEnd};
use crate::protocol::{CloseCode, RoomId, Seq, UnixMs, UserId};
use crate::store::admin::{Wanted, page_of, parse_entry, parse_id, parse_report, reports_page};
use rusqlite::{Connection, Row, Statement, ToSql, params};
use uuid::Uuid;

/// Answers a call that changes nothing.
pub(super) fn read(connection: &Connection, call: &AdminCall) -> Result<AdminAnswer, Failure> {
    Ok(match call {
        AdminCall::Users(page) => AdminAnswer::Users(users(connection, page)?),
        AdminCall::User(id) => AdminAnswer::User(user(connection, *id)?.map(Box::new)),
        AdminCall::Rooms(page) => AdminAnswer::Rooms(rooms(connection, page)?),
        AdminCall::Room(id) => AdminAnswer::Room(room(connection, *id)?.map(Box::new)),
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
            let is_there = newest(connection, *room)?.0 > 0;
            let history = is_there.then(|| super::history::for_service(connection, &read));
            AdminAnswer::Messages(history.transpose()?)
        }
        AdminCall::Reports(filter, page) => {
            AdminAnswer::Reports(reports(connection, *filter, page)?)
        }
        AdminCall::Report(key) => AdminAnswer::Report(report(connection, *key)?),
        AdminCall::Audit(page) => AdminAnswer::Audit(audit(connection, page)?),
        AdminCall::Note(_)
        | AdminCall::EndSessions { .. }
        | AdminCall::Dismiss { .. }
        | AdminCall::SetRetention { .. }
        | AdminCall::Export(_) => {
            return Err(Failure::Data("not a read".to_owned()));
        }
    })
}

/// Does what changes something, inside a transaction.
pub(super) fn write(
    connection: &Connection,
    now: UnixMs,
    call: &AdminCall,
) -> Result<AdminAnswer, Failure> {
    Ok(match call {
        AdminCall::Note(entry) => {
            note(connection, now, entry, ActOutcome::Begun)?;
            AdminAnswer::Noted
        }
        AdminCall::EndSessions { user, code, entry } => {
            let ended = match is_noted(connection, entry)? {
                true => ended_by(connection, *user)?.pop(),
                false => end_sessions(connection, now, *user, *code)?,
            };
            if ended.is_some() {
                note(connection, now, entry, ActOutcome::Done)?;
            }
            AdminAnswer::SessionsEnded(ended)
        }
        AdminCall::Dismiss { report: key, entry } => {
            AdminAnswer::Dismissed(dismiss(connection, now, *key, entry)?)
        }
        AdminCall::SetRetention { room, days, entry } => {
            AdminAnswer::RetentionSet(set_retention(connection, now, *room, *days, entry)?)
        }
        _ => return read(connection, call),
    })
}

/// For how many days a room keeps its messages: whether it was otherwise, or `None` for no room.
fn set_retention(
    connection: &Connection,
    now: UnixMs,
    room: RoomId,
    days: Option<u32>,
    entry: &AuditEntry,
) -> Result<Option<bool>, Failure> {
    let mut statement = connection
        .prepare_cached("SELECT retention_days IS NOT ?2 FROM chat_rooms WHERE room_id = ?1")?;
    let mut rows = statement.query(params![room.0.as_bytes(), days])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let changes: bool = row.get(0)?;
    drop(rows);
    let outcome = match changes {
        true => ActOutcome::Done,
        false => ActOutcome::Unchanged,
    };
    if !note(connection, now, entry, outcome)? || !changes {
        return Ok(Some(false));
    }
    connection
        .prepare_cached("UPDATE chat_rooms SET retention_days = ?2 WHERE room_id = ?1")?
        .execute(params![room.0.as_bytes(), days])?;
    Ok(Some(true))
}

/// Whether this very act came before.
fn is_noted(connection: &Connection, entry: &AuditEntry) -> Result<bool, Failure> {
    Ok(connection
        .prepare_cached("SELECT 1 FROM admin_audit WHERE act_id = ?1")?
        .exists([entry.id.as_bytes()])?)
}

/// Adds an entry to the audit trail; whether it was not there yet.
pub(super) fn note(
    connection: &Connection,
    now: UnixMs,
    entry: &AuditEntry,
    outcome: ActOutcome,
) -> Result<bool, Failure> {
    let added = connection
        .prepare_cached(
            "INSERT INTO admin_audit (act_id, at, who, node, request_id, act, target, detail,
                 outcome)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
        )?
        .execute(params![
            entry.id.as_bytes(),
            int(now.0),
            entry.who,
            entry.node,
            entry.request_id,
            entry.act,
            entry.target,
            entry.detail,
            outcome.name(),
        ])?;
    Ok(added > 0)
}

/// Ends all sessions of a user that began before; `None`: there is no such user. What ended sessions earlier
/// ends none that this one does not.
pub(super) fn end_sessions(
    connection: &Connection,
    now: UnixMs,
    user: UserId,
    code: CloseCode,
) -> Result<Option<SessionsEnd>, Failure> {
    let mut statement = connection.prepare_cached(
        "UPDATE chat_users SET version = version + 1 WHERE user_id = ?1 RETURNING version",
    )?;
    let mut rows = statement.query([user.0.as_bytes()])?;
    let Some(row) = rows.next()? else {
        return Ok(None);
    };
    let version = uint(row, 0)?;
    drop(rows);
    connection
        .prepare_cached("DELETE FROM user_ends WHERE user_id = ?1")?
        .execute([user.0.as_bytes()])?;
    connection
        .prepare_cached(
            "INSERT INTO user_ends (user_id, version, code, ended_at) VALUES (?1, ?2, ?3, ?4)",
        )?
        .execute(params![
            user.0.as_bytes(),
            int(version),
            code as u16,
            int(now.0)
        ])?;
    Ok(Some(SessionsEnd {
        user,
        version,
        code,
        which: EndsWhich::BeganBefore,
    }))
}

/// What ended sessions of a user.
pub(super) fn ended_by(connection: &Connection, user: UserId) -> Result<Vec<SessionsEnd>, Failure> {
    let mut statement =
        connection.prepare_cached("SELECT version, code FROM user_ends WHERE user_id = ?1")?;
    let mut rows = statement.query([user.0.as_bytes()])?;
    let mut ends = Vec::new();
    while let Some(row) = rows.next()? {
        let code = CloseCode::from_number(row.get(1)?)
            .ok_or_else(|| Failure::Data("an unknown close code".to_owned()))?;
        ends.push(SessionsEnd {
            user,
            version: uint(row, 0)?,
            code,
            which: EndsWhich::BeganBefore,
        });
    }
    Ok(ends)
}

fn dismiss(
    connection: &Connection,
    now: UnixMs,
    key: ReportKey,
    entry: &AuditEntry,
) -> Result<Option<(AdminReport, bool)>, Failure> {
    let settled = connection
        .prepare_cached(
            "UPDATE message_reports SET resolution = 'dismissed', resolved_at = ?4,
                 resolved_by = ?5, note = ?6
             WHERE room_id = ?1 AND message_seq = ?2 AND reporter_id = ?3 AND resolution IS NULL",
        )?
        .execute(params![
            key.room.0.as_bytes(),
            int(key.message_seq),
            key.reporter.0.as_bytes(),
            int(now.0),
            entry.who,
            entry.detail,
        ])?
        > 0;
    let Some(report) = report(connection, key)? else {
        return Ok(None);
    };
    let outcome = match settled {
        true => ActOutcome::Done,
        false => ActOutcome::Unchanged,
    };
    note(connection, now, entry, outcome)?;
    Ok(Some((report, settled)))
}

/// Settles all reports of a message that was deleted.
pub(super) fn settle_reports(
    connection: &Connection,
    now: UnixMs,
    room: RoomId,
    seq: Seq,
    entry: &AuditEntry,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE message_reports SET resolution = 'deleted', resolved_at = ?3,
                 resolved_by = ?4, note = ?5
             WHERE room_id = ?1 AND message_seq = ?2 AND resolution IS NOT 'deleted'",
        )?
        .execute(params![
            room.0.as_bytes(),
            int(seq),
            int(now.0),
            entry.who,
            entry.detail
        ])?;
    Ok(())
}

/// All rows of a statement as values.
fn all<T>(
    statement: &mut Statement<'_>,
    params: &[&dyn ToSql],
    value: impl Fn(&Row<'_>) -> Result<T, Failure>,
) -> Result<Vec<T>, Failure> {
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(value(row)?);
    }
    Ok(found)
}

/// Looks through rows by id, so many at most, for those that have the part in a column; and where it stopped, if
/// it did not see the last one.
fn search<T>(
    statement: &mut Statement<'_>,
    after: Uuid,
    part: Option<&str>,
    limit: usize,
    name_at: usize,
    value: impl Fn(&Row<'_>) -> Result<T, Failure>,
) -> Result<(Vec<T>, Option<Uuid>), Failure> {
    let mut rows = statement.query([after.as_bytes()])?;
    let mut found = Vec::new();
    let mut scanned = 0;
    while let Some(row) = rows.next()? {
        scanned += 1;
        let name = text(row, name_at)?.unwrap_or_default().to_ascii_lowercase();
        if part.is_none_or(|part| name.contains(part)) {
            found.push(value(row)?);
            if found.len() > limit {
                break;
            }
        }
        if scanned == limits::ADMIN_SCANNED_MAX {
            return Ok((found, Some(user_id(row, 0)?.0)));
        }
    }
    Ok((found, None))
}

macro_rules! user_columns {
    () => {
        "SELECT user_id, name, picture, created_at, room_count, version FROM chat_users"
    };
}

fn user_summary(row: &Row<'_>) -> Result<AdminUserSummary, Failure> {
    Ok(AdminUserSummary {
        user_id: user_id(row, 0)?,
        name: row.get(1)?,
        picture: row.get(2)?,
        created_at: UnixMs(uint(row, 3)?),
        room_count: row.get(4)?,
        version: uint(row, 5)?,
    })
}

fn users(connection: &Connection, page: &PageRead) -> Result<Result<AdminUsers, Refusal>, Failure> {
    let after = match parse_id(page.cursor.as_deref()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let part = match Wanted::of(page.query.as_deref()) {
        Wanted::All => None,
        Wanted::Part(part) => Some(part),
        Wanted::Id(id) => {
            let mut statement =
                connection.prepare_cached(concat!(user_columns!(), " WHERE user_id = ?1"))?;
            return Ok(Ok(AdminUsers {
                users: all(&mut statement, &[id.as_bytes()], user_summary)?,
                next_cursor: None,
            }));
        }
    };
    let mut statement = connection.prepare_cached(concat!(
        user_columns!(),
        " WHERE user_id > ?1 ORDER BY user_id"
    ))?;
    let (found, stopped_at) = search(
        &mut statement,
        after,
        part.as_deref(),
        page.limit,
        1,
        user_summary,
    )?;
    let (users, next_cursor) = page_of(found, page.limit, stopped_at, |user| user.user_id.0);
    Ok(Ok(AdminUsers { users, next_cursor }))
}

fn user(connection: &Connection, id: UserId) -> Result<Option<AdminUserKept>, Failure> {
    let key = id.0.as_bytes();
    let shown = int(limits::ADMIN_SHOWN_MAX as u64);
    let mut statement =
        connection.prepare_cached(concat!(user_columns!(), " WHERE user_id = ?1"))?;
    let Some(user) = all(&mut statement, &[key], user_summary)?.pop() else {
        return Ok(None);
    };
    let mut statement =
        connection.prepare_cached("SELECT max(ended_at) FROM user_ends WHERE user_id = ?1")?;
    let ended_at: Option<i64> = statement.query_row([key], |row| row.get(0))?;
    let mut statement = connection.prepare_cached(
        "SELECT p.room_id, r.kind, r.title, p.role, p.joined_at FROM room_participants p
         CROSS JOIN chat_rooms r ON r.room_id = p.room_id
         WHERE p.user_id = ?1 AND p.left_seq IS NULL ORDER BY p.room_id LIMIT ?2",
    )?;
    let rooms = all(&mut statement, &[key, &shown], |row| {
        Ok(AdminUserRoom {
            room_id: room_id(row, 0)?,
            kind: room_kind(row, 1)?,
            title: row.get(2)?,
            role: role(row, 3)?,
            joined_at: UnixMs(uint(row, 4)?),
        })
    })?;
    let mut statement = connection.prepare_cached(
        "SELECT other_id FROM user_relationships WHERE user_id = ?1 AND kind = 'block'
         ORDER BY other_id LIMIT ?2",
    )?;
    let blocks = all(&mut statement, &[key, &shown], |row| user_id(row, 0))?;
    let reports = |sql: &str| {
        let scanned = int(limits::ADMIN_REPORTS_SCANNED_MAX as u64);
        let mut statement = connection.prepare_cached(sql)?;
        all(&mut statement, &[key, &scanned, &shown], report_of)
    };
    Ok(Some(AdminUserKept {
        user,
        sessions_ended_at: ended_at.map(|at| UnixMs(at.unsigned_abs())),
        rooms,
        blocks,
        reports_by: reports(REPORTS_BY)?,
        reports_about: reports(REPORTS_ABOUT)?,
    }))
}

macro_rules! room_columns {
    () => {
        "SELECT room_id, title, kind, created_by, created_at, member_count FROM chat_rooms"
    };
}

fn room_summary(connection: &Connection, row: &Row<'_>) -> Result<AdminRoomSummary, Failure> {
    let id = room_id(row, 0)?;
    let (last_seq, last_at) = newest(connection, id)?;
    Ok(AdminRoomSummary {
        room_id: id,
        title: row.get(1)?,
        kind: room_kind(row, 2)?,
        created_by: user_id(row, 3)?,
        created_at: UnixMs(uint(row, 4)?),
        member_count: row.get(5)?,
        last_seq,
        last_at,
    })
}

fn rooms(connection: &Connection, page: &PageRead) -> Result<Result<AdminRooms, Refusal>, Failure> {
    let after = match parse_id(page.cursor.as_deref()) {
        Ok(after) => after,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let summary = |row: &Row<'_>| room_summary(connection, row);
    let part = match Wanted::of(page.query.as_deref()) {
        Wanted::All => None,
        Wanted::Part(part) => Some(part),
        Wanted::Id(id) => {
            let mut statement =
                connection.prepare_cached(concat!(room_columns!(), " WHERE room_id = ?1"))?;
            return Ok(Ok(AdminRooms {
                rooms: all(&mut statement, &[id.as_bytes()], summary)?,
                next_cursor: None,
            }));
        }
    };
    let mut statement = connection.prepare_cached(concat!(
        room_columns!(),
        " WHERE room_id > ?1 ORDER BY room_id"
    ))?;
    let (found, stopped_at) = search(
        &mut statement,
        after,
        part.as_deref(),
        page.limit,
        1,
        summary,
    )?;
    let (rooms, next_cursor) = page_of(found, page.limit, stopped_at, |room| room.room_id.0);
    Ok(Ok(AdminRooms { rooms, next_cursor }))
}

fn room(connection: &Connection, id: RoomId) -> Result<Option<AdminRoom>, Failure> {
    let key = id.0.as_bytes();
    let mut statement =
        connection.prepare_cached(concat!(room_columns!(), " WHERE room_id = ?1"))?;
    let summary = |row: &Row<'_>| room_summary(connection, row);
    let Some(room) = all(&mut statement, &[key], summary)?.pop() else {
        return Ok(None);
    };
    let mut statement = connection.prepare_cached(
        "SELECT p.user_id, u.name, p.role, p.joined_at FROM room_participants p
         CROSS JOIN chat_users u ON u.user_id = p.user_id
         WHERE p.room_id = ?1 AND p.left_seq IS NULL ORDER BY p.joined_seq, p.user_id LIMIT ?2",
    )?;
    let shown = int(limits::ADMIN_SHOWN_MAX as u64);
    let members = all(&mut statement, &[key, &shown], |row| {
        Ok(AdminMember {
            user_id: user_id(row, 0)?,
            name: row.get(1)?,
            role: role(row, 2)?,
            joined_at: UnixMs(uint(row, 3)?),
        })
    })?;
    let count = |sql: &str| -> Result<u32, Failure> {
        let counted = int(limits::ADMIN_COUNTED_MAX as u64);
        let mut statement = connection.prepare_cached(sql)?;
        Ok(statement.query_row(params![key, counted], |row| row.get(0))?)
    };
    let mut statement = connection
        .prepare_cached("SELECT retention_days, floor_seq FROM chat_rooms WHERE room_id = ?1")?;
    let (retention_days, floor_seq): (Option<u32>, i64) =
        statement.query_row([key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(Some(AdminRoom {
        room,
        retention_days,
        floor_seq: floor_seq.unsigned_abs(),
        members,
        messages: count(
            "SELECT count(*) FROM (SELECT 1 FROM messages
                 WHERE room_id = ?1 AND kind <> 'system' AND seq > (
                     SELECT floor_seq FROM chat_rooms WHERE room_id = ?1) LIMIT ?2)",
        )?,
        pins: count("SELECT count(*) FROM (SELECT 1 FROM room_pins WHERE room_id = ?1 LIMIT ?2)")?,
        reports_open: count(
            "SELECT count(*) FROM (SELECT 1 FROM message_reports
                 WHERE room_id = ?1 AND resolution IS NULL LIMIT ?2)",
        )?,
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

/// By one user: `?1`; among so many of the newest: `?2`; at most: `?3`.
macro_rules! reports_of_user {
    ($whose:literal) => {
        concat!(
            report_columns!(),
            " FROM (SELECT * FROM message_reports
                 ORDER BY created_at DESC, room_id DESC, message_seq DESC, reporter_id DESC
                 LIMIT ?2) x",
            reported_message!(),
            "WHERE ",
            $whose,
            " = ?1
             ORDER BY x.created_at DESC, x.room_id DESC, x.message_seq DESC, x.reporter_id DESC
             LIMIT ?3"
        )
    };
}

const REPORTS_BY: &str = reports_of_user!("x.reporter_id");
const REPORTS_ABOUT: &str = reports_of_user!("m.sender_id");

fn report_of(row: &Row<'_>) -> Result<AdminReport, Failure> {
    let key = ReportKey {
        room: room_id(row, 0)?,
        message_seq: uint(row, 1)?,
        reporter: user_id(row, 2)?,
    };
    let sender: Option<[u8; 16]> = row.get(9)?;
    let state = AdminReportState::from_resolution(text(row, 5)?)
        .ok_or_else(|| Failure::Data("an unknown resolution".to_owned()))?;
    Ok(AdminReport {
        report_id: key.to_id(),
        room_id: key.room,
        message_seq: key.message_seq,
        sender_id: sender.map(|bytes| UserId(Uuid::from_bytes(bytes))),
        reporter_id: key.reporter,
        revision: row.get(3)?,
        created_at: UnixMs(uint(row, 4)?),
        state,
        resolved_at: row
            .get::<_, Option<i64>>(6)?
            .map(|at| UnixMs(at.unsigned_abs())),
        resolved_by: row.get(7)?,
        note: row.get(8)?,
    })
}

fn report(connection: &Connection, key: ReportKey) -> Result<Option<AdminReport>, Failure> {
    let mut statement = connection.prepare_cached(concat!(
        report_columns!(),
        " FROM message_reports x",
        reported_message!(),
        "WHERE x.room_id = ?1 AND x.message_seq = ?2 AND x.reporter_id = ?3"
    ))?;
    let (seq, reporter) = (int(key.message_seq), key.reporter.0.as_bytes());
    let params: [&dyn ToSql; 3] = [key.room.0.as_bytes(), &seq, reporter];
    Ok(all(&mut statement, &params, report_of)?.pop())
}

/// After a place (`?1` to `?4`), at most `?5`.
macro_rules! reports_page {
    ($state:literal) => {
        concat!(
            report_columns!(),
            " FROM message_reports x",
            reported_message!(),
            "WHERE x.resolution ",
            $state,
            " AND (x.created_at, x.room_id, x.message_seq, x.reporter_id) > (?1, ?2, ?3, ?4)
             ORDER BY x.created_at, x.room_id, x.message_seq, x.reporter_id LIMIT ?5"
        )
    };
}

fn reports(
    connection: &Connection,
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
    let mut statement = connection.prepare_cached(match filter {
        AdminReportFilter::Open => reports_page!("IS NULL"),
        AdminReportFilter::Resolved => reports_page!("IS NOT NULL"),
    })?;
    let limit = int(page.limit as u64 + 1);
    let params: [&dyn ToSql; 5] = [&at, room.as_bytes(), &seq, reporter.as_bytes(), &limit];
    let found = all(&mut statement, &params, report_of)?;
    let (reports, next_cursor) = reports_page(found, page.limit);
    Ok(Ok(AdminReports {
        reports,
        next_cursor,
    }))
}

fn audit(connection: &Connection, page: &PageRead) -> Result<Result<AdminAudit, Refusal>, Failure> {
    let before = match parse_entry(page.cursor.as_deref()) {
        Ok(before) => before,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut statement = connection.prepare_cached(
        "SELECT n, at, who, node, request_id, act, target, detail, outcome FROM admin_audit
         WHERE n < ?1 ORDER BY n DESC LIMIT ?2",
    )?;
    let limit = int(page.limit as u64 + 1);
    let mut found = all(&mut statement, &[&int(before), &limit], |row| {
        let act = AdminActDone {
            at: UnixMs(uint(row, 1)?),
            who: row.get(2)?,
            node: row.get(3)?,
            request_id: row.get(4)?,
            act: row.get(5)?,
            target: row.get(6)?,
            detail: row.get(7)?,
            outcome: row.get(8)?,
        };
        Ok((uint(row, 0)?, act))
    })?;
    let is_full = found.len() > page.limit;
    found.truncate(page.limit);
    let last = found.last().filter(|_| is_full);
    Ok(Ok(AdminAudit {
        next_cursor: last.map(|(n, _)| n.to_string()),
        acts: found.into_iter().map(|(_, act)| act).collect(),
    }))
}
