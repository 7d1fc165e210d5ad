//! The files of a node that keeps them in its own folder: the form by which a browser uploads one, and the URL by which
//! it fetches one. With an object store none of this is there: browsers go to the store.
//!
//! Invariants: nothing of a file is written before its ticket is found good, and never more than that says; what is
//! answered `204` is on disk; few are under way at once, and none without moving; no file is given out as a page.
//!
//! A refused upload is read on for a while before it is answered: a browser that is cut off while it sends never
//! reads why.

use super::problem::Problem;
use super::routes::Shared;
use super::transfers::{Transfer, Transfers};
use crate::blob::local::{Folder, NotTaken, Opened, Writing};
use crate::blob::signed::{Expected, NotGood, Permitted, Query};
use crate::blob::{Bucket, ObjectKey, disposition, served_type};
use crate::limits;
use crate::protocol::{ErrorCode, UnixMs};
use axum::body::{Body, Bytes};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query as UrlQuery, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use multer::{Field, Multipart};
use std::collections::BTreeMap;
use std::io;
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Where files are uploaded to.
pub(super) const UPLOADS: &str = "/v1/files/{bucket}";
/// Where files are fetched from; the last two make the key.
pub(super) const DOWNLOADS: &str = "/v1/files/{bucket}/{folder}/{name}";
/// The field of the form that is the file.
const FILE: &str = "file";
/// Fields of a form before the file.
const FIELDS_MAX: usize = 24;
/// Longest value of such a field, bytes.
const FIELD_BYTES_MAX: usize = 2 << 10;
/// Bytes of an upload that are written at once.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes of a download that are read at once.
const READ_BYTES: usize = 128 << 10;
/// What is read on of a refused upload, bytes, and for how long.
const READ_ON_BYTES: u64 = 16 << 20;
const READ_ON: Duration = Duration::from_secs(5);
/// An upload is not found slow before this.
const RATE_AFTER: Duration = Duration::from_secs(10);
/// A file may load nothing and run nothing, wherever it is opened.
const POLICY: HeaderValue = HeaderValue::from_static("default-src 'none'; sandbox");

/// The folder, as the outside reaches it.
pub(super) struct Files {
    folder: Arc<Folder>,
    uploads: Arc<Semaphore>,
    downloads: Arc<Semaphore>,
    counts: FileCounts,
}

/// What came of uploads and downloads, and their bytes.
#[derive(Clone, Default)]
pub(super) struct FileCounts(Arc<Mutex<BTreeMap<Ended, Sum>>>);

/// Direction and result.
pub(super) type Ended = (&'static str, &'static str);
/// How many, and how many bytes.
pub(super) type Sum = (u64, u64);

impl FileCounts {
    /// All that ended so far.
    pub fn rows(&self) -> Vec<(Ended, Sum)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(key, value)| (*key, *value)).collect()
    }

    fn count(&self, direction: &'static str, result: &'static str, bytes: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, sum) = counts.entry((direction, result)).or_default();
        *times += 1;
        *sum += bytes;
    }
}

/// Counts one transfer when it is over, also when it is given up.
struct Count {
    counts: FileCounts,
    direction: &'static str,
    result: &'static str,
    bytes: u64,
}

impl Count {
    fn ends(&mut self, result: &'static str) {
        self.result = result;
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.counts.count(self.direction, self.result, self.bytes);
    }
}

impl Files {
    pub fn new(folder: Arc<Folder>) -> Files {
        Files {
            folder,
            uploads: Arc::new(Semaphore::new(limits::FOLDER_UPLOADS_MAX)),
            downloads: Arc::new(Semaphore::new(limits::FOLDER_DOWNLOADS_MAX)),
            counts: FileCounts::default(),
        }
    }

    pub fn counts(&self) -> &FileCounts {
        &self.counts
    }

    /// One that is not finished is one that was broken off.
    fn begin(&self, direction: &'static str) -> Count {
        Count {
            counts: self.counts.clone(),
            direction,
            result: "broken",
            bytes: 0,
        }
    }
}

type App = State<Arc<Shared>>;

/// Takes a file.
pub(super) async fn upload(
    State(shared): App,
    Path(bucket): Path<String>,
    request: Request,
) -> Result<StatusCode, Problem> {
    let (Some(files), Some(bucket)) = (&shared.files, Bucket::named(&bucket)) else {
        return Err(Problem::new(ErrorCode::NotFound, "there is no such bucket"));
    };
    let Ok(_place) = files.uploads.clone().try_acquire_owned() else {
        return Err(busy());
    };
    let mut count = files.begin("upload");
    let result = take(&files.folder, bucket, request, &mut count).await;
    count.ends(if result.is_ok() { "ok" } else { "refused" });
    result.map(|()| StatusCode::NO_CONTENT)
}

async fn take(
    folder: &Arc<Folder>,
    bucket: Bucket,
    request: Request,
    count: &mut Count,
) -> Result<(), Problem> {
    let (head, body) = request.into_parts();
    let transfer = (head.extensions.get::<Transfers>().cloned())
        .unwrap_or_default()
        .begin();
    let boundary = (head.headers.get(header::CONTENT_TYPE))
        .and_then(|value| multer::parse_boundary(value.to_str().ok()?).ok())
        .ok_or_else(|| bad_form("it is no multipart/form-data"))?;
    // What may still come: first the form, then, with a good ticket, the file. So no more is ever held in memory.
    let left = Arc::new(AtomicU64::new(limits::FOLDER_FORM_BYTES_MAX as u64));
    let mut form = Multipart::new(limited(body, left.clone()), boundary);
    let time = Duration::from_millis(limits::FOLDER_FORM_MS_MAX);
    let (fields, file) = match timeout(time, fields(&mut form)).await {
        Ok(read) => read?,
        Err(_) => return Err(too_slow()),
    };
    let good = folder.signer().check_fields(bucket, &fields, now());
    let kept = match good {
        Ok(expected) => {
            left.fetch_add(expected.size, Ordering::Relaxed);
            keep(folder, expected, file, &transfer, count).await
        }
        Err(not_good) => Err((no_ticket(not_good), Some(file))),
    };
    let Err((problem, rest)) = kept else {
        return Ok(());
    };
    if let Some(mut rest) = rest {
        left.fetch_add(READ_ON_BYTES, Ordering::Relaxed);
        let all = async { while let Ok(Some(_)) = rest.chunk().await {} };
        // Who sends more is cut off.
        let _cut_off = timeout(READ_ON, all).await;
    }
    Err(problem)
}

/// The fields of the form, and the file, which comes after them.
async fn fields(
    form: &mut Multipart<'static>,
) -> Result<(BTreeMap<String, String>, Field<'static>), Problem> {
    let mut fields = BTreeMap::new();
    while fields.len() < FIELDS_MAX {
        let next = form.next_field().await;
        let next = next.map_err(|_| bad_form("it is broken or too long"))?;
        let mut field = next.ok_or_else(|| bad_form("it has no file"))?;
        let name = field.name().unwrap_or_default().to_owned();
        if name == FILE {
            return Ok((fields, field));
        }
        let mut value = Vec::new();
        while let Some(piece) = (field.chunk().await).map_err(|_| bad_form("it is broken"))? {
            value.extend_from_slice(&piece);
            if value.len() > FIELD_BYTES_MAX {
                return Err(bad_form("one of its fields is too long"));
            }
        }
        let value =
            String::from_utf8(value).map_err(|_| bad_form("one of its fields is no text"))?;
        if fields.insert(name, value).is_some() {
            return Err(bad_form("it has a field twice"));
        }
    }
    Err(bad_form("it has too many fields"))
}

/// Writes the file.
async fn keep<'a>(
    folder: &Arc<Folder>,
    expected: Expected,
    mut file: Field<'a>,
    transfer: &Transfer,
    count: &mut Count,
) -> Result<(), (Problem, Option<Field<'a>>)> {
    let began = Instant::now();
    let stall = Duration::from_millis(limits::FOLDER_STALL_MS_MAX);
    let longest = Duration::from_millis(limits::FOLDER_TRANSFER_MS_MAX);
    let (folder, size) = (folder.clone(), expected.size);
    let mut writing = match blocking(move || folder.begin(expected)).await {
        Ok(writing) => writing,
        Err(problem) => return Err((problem, Some(file))),
    };
    let mut held = Vec::new();
    loop {
        let piece = match timeout(stall, file.chunk()).await {
            Ok(Ok(Some(piece))) => piece,
            Ok(Ok(None)) => break,
            Ok(Err(_)) => return Err((bad_form("it is broken or too long"), None)),
            Err(_) => return Err((too_slow(), None)),
        };
        transfer.moved();
        count.bytes += piece.len() as u64;
        let (took, least) = (began.elapsed(), limits::FOLDER_UPLOAD_RATE_MIN);
        if took > longest || took > RATE_AFTER && count.bytes < took.as_secs() * least {
            return Err((too_slow(), None));
        }
        if count.bytes > size {
            return Err((not_taken(NotTaken::TooLong), Some(file)));
        }
        held.extend_from_slice(&piece);
        if held.len() >= PIECE_BYTES {
            writing = match written(writing, std::mem::take(&mut held)).await {
                Ok(writing) => writing,
                Err(problem) => return Err((problem, Some(file))),
            };
        }
    }
    let done = blocking(move || {
        writing.write(&held)?;
        writing.finish()
    });
    done.await.map_err(|problem| (problem, None))
}

async fn written(mut writing: Writing, bytes: Vec<u8>) -> Result<Writing, Problem> {
    blocking(move || {
        writing.write(&bytes)?;
        Ok(writing)
    })
    .await
}

/// Does something with the disk, beside the thread that serves.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, NotTaken> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(not_taken),
        Err(error) => Err(not_taken(NotTaken::Failed(io::Error::other(error)))),
    }
}

/// The body, up to what `left` says at the time.
fn limited(
    body: Body,
    left: Arc<AtomicU64>,
) -> impl stream::Stream<Item = Result<Bytes, axum::Error>> + Send + 'static {
    body.into_data_stream().map(move |piece| {
        let piece = piece?;
        let bytes = piece.len() as u64;
        let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(bytes)
        });
        match taken {
            Ok(_) => Ok(piece),
            Err(_) => Err(axum::Error::new(io::Error::other("longer than it may be"))),
        }
    })
}

/// Gives a file.
pub(super) async fn download(
    State(shared): App,
    Path((bucket, folder, name)): Path<(String, String, String)>,
    query: Result<UrlQuery<Query>, QueryRejection>,
    method: Method,
    transfers: Option<Extension<Transfers>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let nothing = || Problem::new(ErrorCode::NotFound, "there is no such file");
    let files = shared.files.as_ref().ok_or_else(nothing)?;
    let bucket = Bucket::named(&bucket).ok_or_else(nothing)?;
    let key = ObjectKey::parse(&format!("{folder}/{name}")).ok_or_else(nothing)?;
    let UrlQuery(query) = query.map_err(|_| no_ticket(NotGood::Forged))?;
    let signer = files.folder.signer();
    let permitted = signer.check_query(bucket, &key, &query, now());
    let permitted = permitted.map_err(no_ticket)?;
    let Ok(place) = files.downloads.clone().try_acquire_owned() else {
        return Err(busy());
    };
    let (from, asked) = (files.folder.clone(), key.clone());
    let opened = blocking(move || Ok(from.open_object(bucket, &asked)?)).await?;
    let opened = opened.ok_or_else(nothing)?;
    let mut giving = Giving {
        opened: Arc::new(opened),
        count: files.begin("download"),
        transfer: transfers.map_or_else(Transfers::default, |it| it.0).begin(),
        at: 0,
        end: 0,
        _place: place,
    };
    if method == Method::HEAD {
        // Nothing is read of it, and nothing is broken off.
        giving.count.ends("ok");
    }
    let size = giving.opened.facts.size;
    let tag = format!("\"{name}\"");
    let mut response = if names(&headers, header::IF_NONE_MATCH, &tag) {
        giving.count.ends("ok");
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        // A part of another version would not fit; here there are no versions, but other tags.
        let is_same =
            !headers.contains_key(header::IF_RANGE) || names(&headers, header::IF_RANGE, &tag);
        let range = headers.get(header::RANGE).filter(|_| is_same);
        match asked_range(range, size) {
            Asked::All => {
                giving.end = size;
                giving.answer(StatusCode::OK, size)
            }
            Asked::Part(part) => {
                (giving.at, giving.end) = (*part.start(), *part.end() + 1);
                let length = giving.end - giving.at;
                let told = format!("bytes {}-{}/{size}", part.start(), part.end());
                let mut response = giving.answer(StatusCode::PARTIAL_CONTENT, length);
                put(&mut response, header::CONTENT_RANGE, &told);
                response
            }
            Asked::Nothing => {
                giving.count.ends("refused");
                let problem = Problem::new(ErrorCode::BadRequest, "the file is not that long");
                let status = StatusCode::RANGE_NOT_SATISFIABLE;
                let mut response = problem.status(status).into_response();
                put(
                    &mut response,
                    header::CONTENT_RANGE,
                    &format!("bytes */{size}"),
                );
                return Ok(response);
            }
        }
    };
    describe(&mut response, &permitted, &tag);
    Ok(response)
}

/// A file on its way out.
struct Giving {
    opened: Arc<Opened>,
    count: Count,
    transfer: Transfer,
    at: u64,
    end: u64,
    _place: OwnedSemaphorePermit,
}

impl Giving {
    fn answer(self, status: StatusCode, length: u64) -> Response {
        let pieces = stream::unfold(self, |mut giving| async move {
            let bytes = giving.end - giving.at;
            if bytes == 0 {
                giving.count.ends("ok");
                return None;
            }
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(READ_BYTES);
            let (opened, at) = (giving.opened.clone(), giving.at);
            let read = tokio::task::spawn_blocking(move || opened.read(at, bytes)).await;
            let read = read.unwrap_or_else(|error| Err(io::Error::other(error)));
            if let Ok(read) = &read {
                giving.at += read.len() as u64;
                giving.count.bytes += read.len() as u64;
                giving.transfer.moved();
                if giving.at == giving.end {
                    // Nobody asks behind the length that was told.
                    giving.count.ends("ok");
                }
            }
            // A file that ends too early is an error: its length was told.
            let read = match read {
                Ok(read) if read.is_empty() => Err(io::ErrorKind::UnexpectedEof.into()),
                read => read.map(Bytes::from),
            };
            Some((read, giving))
        });
        let mut response = (status, Body::from_stream(pieces)).into_response();
        let length = HeaderValue::from(length);
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, length);
        response
    }
}

/// What goes with every answer that gives a file, or a part of it.
fn describe(response: &mut Response, permitted: &Permitted, tag: &str) {
    let content_type = served_type(&permitted.content_type);
    let left_s = permitted.expires_at.0.saturating_sub(now().0) / 1_000;
    // An object never changes; but after its time one has to ask for a URL again.
    let cache = format!("private, max-age={left_s}, immutable");
    for (name, value) in [
        (header::CONTENT_TYPE, content_type),
        (header::ETAG, tag),
        (header::CACHE_CONTROL, &cache),
        (header::ACCEPT_RANGES, "bytes"),
        (
            header::CONTENT_DISPOSITION,
            &disposition(&permitted.shown, content_type),
        ),
    ] {
        put(response, name, value);
    }
    let policy = header::CONTENT_SECURITY_POLICY;
    response.headers_mut().insert(policy, POLICY);
}

fn put(response: &mut Response, name: header::HeaderName, value: &str) {
    // All of them are plain text.
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Whether this header has this tag among its own.
fn names(headers: &HeaderMap, header: header::HeaderName, tag: &str) -> bool {
    let value = headers.get(header).and_then(|value| value.to_str().ok());
    value.is_some_and(|tags| {
        tags.split(',')
            .map(str::trim)
            .any(|it| it == tag || it == "*")
    })
}

/// What is asked for of a file.
#[derive(PartialEq, Eq, Debug)]
enum Asked {
    All,
    Part(RangeInclusive<u64>),
    /// What it does not have.
    Nothing,
}

/// RFC 9110, section 14: one range of bytes is given; of what is not understood, or of several, all.
fn asked_range(range: Option<&HeaderValue>, size: u64) -> Asked {
    let text = range.and_then(|range| range.to_str().ok()?.strip_prefix("bytes="));
    let Some((first, last)) = text.and_then(|text| text.trim().split_once('-')) else {
        return Asked::All;
    };
    let number = |text: &str| -> Option<u64> {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => (first, last),
        (Some(first), None) if last.is_empty() => (first, u64::MAX),
        (None, Some(count)) if first.is_empty() => match count {
            0 => return Asked::Nothing,
            count => (size.saturating_sub(count), u64::MAX),
        },
        _ => return Asked::All,
    };
    match first < size {
        true => Asked::Part(first..=last.min(size - 1)),
        false => Asked::Nothing,
    }
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    // A clock before 1970 lets nothing expire; nor could it sign anything that holds now.
    UnixMs(since.map_or(0, |since| since.as_millis() as u64))
}

fn busy() -> Problem {
    Problem::new(ErrorCode::Overloaded, "too many files are under way")
}

fn bad_form(why: &str) -> Problem {
    let detail = format!("the form cannot be read: {why}");
    Problem::new(ErrorCode::BadRequest, detail)
}

fn too_slow() -> Problem {
    Problem::new(ErrorCode::BadRequest, "the file did not come in time")
        .status(StatusCode::REQUEST_TIMEOUT)
}

fn no_ticket(not_good: NotGood) -> Problem {
    let detail = match not_good {
        NotGood::Forged => "this is not signed by this service",
        NotGood::Expired => "this was good until a while ago; ask for a new one",
    };
    Problem::new(ErrorCode::Forbidden, detail)
}

fn not_taken(not_taken: NotTaken) -> Problem {
    match not_taken {
        NotTaken::TooLong => Problem::new(
            ErrorCode::TooLarge,
            "the file has more bytes than were announced",
        ),
        NotTaken::TooShort => Problem::new(
            ErrorCode::BadRequest,
            "the file has fewer bytes than were announced",
        ),
        NotTaken::OtherHash => Problem::new(
            ErrorCode::BadRequest,
            "the file's sha256 is not the one that was announced",
        ),
        NotTaken::Exists => Problem::new(
            ErrorCode::IdempotencyConflict,
            "another file was uploaded with this ticket",
        ),
        NotTaken::Full => {
            tracing::warn!("no room is left for files in the data folder");
            Problem::new(ErrorCode::Unavailable, "there is no room for files")
                .status(StatusCode::INSUFFICIENT_STORAGE)
        }
        NotTaken::Failed(error) => {
            tracing::error!(%error, "a file could not be written or read");
            Problem::new(ErrorCode::Unavailable, "the disk failed")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_what_the_standard_says() {
        for (text, expected) in [
            ("bytes=0-0", Asked::Part(0..=0)),
            ("bytes=2-5", Asked::Part(2..=5)),
            ("bytes=2-", Asked::Part(2..=9)),
            ("bytes=2-99", Asked::Part(2..=9)),
            ("bytes=-3", Asked::Part(7..=9)),
            ("bytes=-99", Asked::Part(0..=9)),
            ("bytes=9-9", Asked::Part(9..=9)),
            ("bytes=0-99999999999999999999999", Asked::Part(0..=9)),
            ("bytes=10-", Asked::Nothing),
            ("bytes=10-12", Asked::Nothing),
            ("bytes=-0", Asked::Nothing),
            ("bytes=99999999999999999999999-", Asked::Nothing),
            ("bytes=5-2", Asked::All),
            ("bytes=0-1,3-4", Asked::All),
            ("bytes=-", Asked::All),
            ("bytes=a-b", Asked::All),
            ("bytes=+1-2", Asked::All),
            ("lines=0-1", Asked::All),
        ] {
            let value = HeaderValue::from_static(text);
            assert_eq!(asked_range(Some(&value), 10), expected, "{text}");
        }
        assert_eq!(asked_range(None, 10), Asked::All);
    }
}
