//! What the backends have in common of the Admin API: cursors, and how pages end.

use crate::chat::port::Refusal;
use crate::protocol::admin::{AdminReport, ReportKey};
use crate::protocol::{ErrorCode, UnixMs};
use uuid::Uuid;

/// A page that others made.
fn bad_cursor() -> Refusal {
    Refusal {
        code: ErrorCode::BadRequest,
        message: "no such cursor",
    }
}

/// After which id a page begins; the nil one is before all.
pub(super) fn parse_id(cursor: Option<&str>) -> Result<Uuid, Refusal> {
    match cursor {
        None => Ok(Uuid::nil()),
        Some(cursor) => Uuid::try_parse(cursor).map_err(|_| bad_cursor()),
    }
}

/// Where a page ends.
pub(super) fn id_cursor(id: Uuid) -> String {
    id.simple().to_string()
}

/// The page of what was found, one more than fits if there is more; else, if the search was given up at a
/// place, what goes on from there.
pub(super) fn page_of<T>(
    mut found: Vec<T>,
    limit: usize,
    stopped_at: Option<Uuid>,
    id: impl Fn(&T) -> Uuid,
) -> (Vec<T>, Option<String>) {
    let is_full = found.len() > limit;
    found.truncate(limit);
    let next = match is_full {
        true => found.last().map(id),
        false => stopped_at,
    };
    (found, next.map(id_cursor))
}

/// What a search looks for: an id, or a part of a name in the lower case of ASCII.
pub(super) enum Wanted {
    All,
    Id(Uuid),
    Part(String),
}

impl Wanted {
    pub fn of(query: Option<&str>) -> Wanted {
        match query {
            None | Some("") => Wanted::All,
            Some(query) => match Uuid::try_parse(query) {
                Ok(id) => Wanted::Id(id),
                Err(_) => Wanted::Part(query.to_ascii_lowercase()),
            },
        }
    }
}

/// Where a report stands: by time, then by what it is of.
pub(super) type ReportPlace = (UnixMs, ReportKey);

/// After which report a page begins; `None`: after nothing.
pub(super) fn parse_report(cursor: Option<&str>) -> Result<Option<ReportPlace>, Refusal> {
    let Some(cursor) = cursor else {
        return Ok(None);
    };
    let parse = || {
        let (at, id) = cursor.split_once('-')?;
        let at = u64::from_str_radix(at, 16)
            .ok()
            .filter(|at| *at < 1 << 53)?;
        Some((UnixMs(at), ReportKey::from_id(id)?))
    };
    parse().map(Some).ok_or_else(bad_cursor)
}

/// The page of reports that were read, one more than fits if there are more.
pub(super) fn reports_page(
    mut reports: Vec<AdminReport>,
    limit: usize,
) -> (Vec<AdminReport>, Option<String>) {
    let is_full = reports.len() > limit;
    reports.truncate(limit);
    let last = reports.last().filter(|_| is_full);
    let next = last.map(|report| format!("{:x}-{}", report.created_at.0, report.report_id));
    (reports, next)
}

/// Before which entry of the audit trail a page begins.
pub(super) fn parse_entry(cursor: Option<&str>) -> Result<u64, Refusal> {
    match cursor {
        None => Ok(u64::MAX),
        Some(cursor) => cursor.parse().map_err(|_| bad_cursor()),
    }
}
