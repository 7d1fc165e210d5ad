//! The archive of a user's data: read page by page, compressed, and sent as it comes.
//!
//! Invariants: no more than a page of the store and [`CHUNKS_MAX`] chunks are held; between two pages there is a pause, so
//! that whoever else asks the store is not slowed; an archive that cannot be ended is broken off, never ended short;
//! one at a time is made on a node.
//!
//! The bytes of the user's files come after the lists, a piece at a time, also with pauses; then the list of them, which
//! says of which there are none or not all, and why. No file that cannot be had keeps the rest away.

use super::problem::Problem;
use super::store_client::StoreClient;
use super::transfers::{Transfer, Transfers};
use crate::blob::signed::hex;
use crate::blob::{Blob, BlobError, file_name};
use crate::chat::port::admin::{AdminAnswer, AdminCall};
use crate::chat::port::export::{
    EXPORT_PAGE, ExportFound, ExportKind, ExportPage, ExportPart, ExportRead, ExportUpload,
};
use crate::chat::port::files::{Upload, UploadState};
use crate::chat::port::{StoreAnswer, StoreCall};
use crate::protocol::admin::{AdminConnection, AdminUserKept};
use crate::protocol::export::{AdminArchive, ExportFile, ExportMissing, README};
use crate::protocol::{ErrorCode, RoomId, Seq, UnixMs, UploadId, UserId};
use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper::body::Frame;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use zip::write::{SimpleFileOptions, StreamWriter};
use zip::{CompressionMethod, ZipWriter};

/// Bytes of a chunk, about.
const CHUNK_BYTES: usize = 64 << 10;
/// Chunks that wait for the client.
const CHUNKS_MAX: usize = 4;
/// Bytes of a file that are read at once.
const PIECE_BYTES: usize = 256 << 10;
/// How often the place of files is asked for something, and the pause after the first time; after each further one twice
/// as long.
const BLOB_TRIES: u32 = 4;
const BLOB_PAUSE: Duration = Duration::from_millis(200);
/// When it answered nothing for so long, it is asked once for each further thing, until it answers again.
const BLOB_AWAY_MAX: Duration = Duration::from_secs(60);
/// What is left for the list of files, of the time that a connection has.
const LIST_TIME: Duration = Duration::from_secs(120);
/// Between two pages, and between two pieces of a file.
const PAGE_PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for the store.
const STORE_MAX: Duration = Duration::from_secs(10);
/// Longest time in which a client takes nothing.
const CLIENT_MAX: Duration = Duration::from_secs(30);

/// Makes archives.
pub(super) struct Exports {
    store: StoreClient,
    blob: Blob,
    /// Whose turn it is.
    turn: Arc<Semaphore>,
}

/// Why an archive ends before its end.
type Broken = String;

impl Exports {
    /// Of what this store has, and where files are kept.
    pub fn new(store: StoreClient, blob: Blob) -> Exports {
        Exports {
            store,
            blob,
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes the turn.
    ///
    /// # Errors
    /// Another archive is being made.
    pub fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = self.turn.clone().try_acquire_owned();
        turn.map_err(|_| Problem::new(ErrorCode::Overloaded, "another export is under way"))
    }

    /// Begins an archive, and gives what there is of it as it comes.
    pub fn begin(
        &self,
        turn: OwnedSemaphorePermit,
        kept: &AdminUserKept,
        node: &str,
        connections: &[AdminConnection],
        transfers: &Transfers,
    ) -> Response {
        let user = &kept.user;
        let profile = json!({
            "user_id": user.user_id,
            "name": user.name,
            "picture": user.picture,
            "created_at": user.created_at,
            "sessions_ended_at": kept.sessions_ended_at,
        });
        let sessions = json!({"node": node, "connections": connections});
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let name = format!("attachment; filename=\"caffis-chat-{}.zip\"", user.user_id);
        let export = Export {
            store: self.store.clone(),
            blob: self.blob.clone(),
            user: user.user_id,
            archive: Archive::new(),
            sender,
            transfer: transfers.begin(),
            files_until: transfers.ends_at() - LIST_TIME,
            away_since: None,
            unreadable: Unreadable::default(),
        };
        tokio::spawn(async move {
            match export.make(&profile, &sessions).await {
                Ok(()) => tracing::info!("an export is done"),
                Err(broken) => tracing::warn!(error = broken, "an export is broken off"),
            }
            drop(turn);
        });
        let mut response = Response::new(Body::new(Chunks(receiver)));
        *response.status_mut() = StatusCode::OK;
        let headers = response.headers_mut();
        let media_type = HeaderValue::from_static(AdminArchive::MEDIA_TYPE);
        headers.insert(header::CONTENT_TYPE, media_type);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Ok(name) = HeaderValue::from_str(&name) {
            headers.insert(header::CONTENT_DISPOSITION, name);
        }
        response
    }
}

/// What the client is given: `None` is the end, and no archive ends without.
struct Chunks(mpsc::Receiver<Option<Bytes>>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let chunk = self.0.poll_recv(context);
        chunk.map(|chunk| match chunk {
            Some(chunk) => chunk.map(|chunk| Ok(Frame::data(chunk))),
            None => Some(Err(io::Error::other("broken off"))),
        })
    }
}

/// The bytes of the archive that were not sent yet.
#[derive(Clone, Default)]
struct Made(Arc<Mutex<Vec<u8>>>);

impl Made {
    fn len(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        made.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A zip archive whose bytes are taken while it is written.
struct Archive {
    zip: ZipWriter<StreamWriter<Made>>,
    made: Made,
    /// Whether the list that is being written has an entry.
    has_entry: bool,
}

impl Archive {
    fn new() -> Archive {
        let made = Made::default();
        Archive {
            zip: ZipWriter::new_stream(made.clone()),
            made,
            has_entry: false,
        }
    }

    /// Begins a file.
    fn file(&mut self, name: &str) -> Result<(), Broken> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .compression_level(Some(1))
            .large_file(true);
        let begun = self.zip.start_file(name, options);
        begun.map_err(|error| error.to_string())
    }

    fn text(&mut self, text: &str) -> Result<(), Broken> {
        self.bytes(text.as_bytes())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        let written = self.zip.write_all(bytes);
        written.map_err(|error| error.to_string())
    }

    /// Begins a file with a list.
    fn list(&mut self, name: &str) -> Result<(), Broken> {
        self.file(name)?;
        self.has_entry = false;
        self.text("[")
    }

    fn entry<T: Serialize>(&mut self, entry: &T) -> Result<(), Broken> {
        let json = serde_json::to_string(entry).map_err(|error| error.to_string())?;
        self.text(match self.has_entry {
            true => ",\n",
            false => "\n",
        })?;
        self.has_entry = true;
        self.text(&json)
    }

    fn end_list(&mut self) -> Result<(), Broken> {
        self.text("\n]\n")
    }
}

/// A file with a list.
#[derive(Clone, Copy)]
enum Part {
    Rooms,
    Blocks,
    InRooms(ExportKind),
}

impl Part {
    /// All of them, in their order.
    const ALL: [(&str, Part); 6] = [
        ("rooms.json", Part::Rooms),
        ("messages.json", Part::InRooms(ExportKind::Messages)),
        ("reactions.json", Part::InRooms(ExportKind::Reactions)),
        ("mentions.json", Part::InRooms(ExportKind::Mentions)),
        ("blocks.json", Part::Blocks),
        ("reports.json", Part::InRooms(ExportKind::Reports)),
    ];
}

/// A place in the order of uploads.
type Place = (UnixMs, UploadId);

fn place_of(found: &ExportUpload) -> Place {
    (found.created_at, found.upload.id)
}

/// What of a file is in the archive. All that is kept of it while others are written.
#[derive(Clone, Copy)]
struct Taken {
    /// Something of it.
    is_begun: bool,
    /// Why not all of it.
    missing: Option<ExportMissing>,
}

/// Of the files whose turn came.
type AllTaken = BTreeMap<UploadId, Taken>;

/// Files that could not be read, for the log.
#[derive(Default)]
struct Unreadable {
    files: u32,
    /// Why the first one could not.
    first: Option<BlobError>,
}

struct Export {
    store: StoreClient,
    blob: Blob,
    user: UserId,
    archive: Archive,
    sender: mpsc::Sender<Option<Bytes>>,
    transfer: Transfer,
    /// Then no more of the files is taken.
    files_until: Instant,
    /// Since when the place of files has not answered.
    away_since: Option<Instant>,
    unreadable: Unreadable,
}

impl Export {
    /// Makes all of it.
    async fn make(
        mut self,
        profile: &serde_json::Value,
        sessions: &serde_json::Value,
    ) -> Result<(), Broken> {
        self.archive.file("README.md")?;
        self.archive.text(README)?;
        for (name, value) in [("profile.json", profile), ("sessions.json", sessions)] {
            self.archive.file(name)?;
            self.archive.text(&format!("{value:#}\n"))?;
        }
        for (name, part) in Part::ALL {
            self.archive.list(name)?;
            match part {
                Part::Rooms => self.rooms(None).await?,
                Part::Blocks => self.blocks().await?,
                Part::InRooms(kind) => self.rooms(Some(kind)).await?,
            }
            self.archive.end_list()?;
        }
        let taken = self.files().await?;
        self.file_list(&taken).await?;
        if let Unreadable {
            files,
            first: Some(error),
        } = &self.unreadable
        {
            tracing::warn!(files, %error, "files of an export could not be read");
        }
        // Who was erased meanwhile is not whole in it.
        match self.ask(AdminCall::User(self.user)).await? {
            AdminAnswer::User(Some(_)) => (),
            AdminAnswer::User(None) => return Err("the user is gone".to_owned()),
            _ => return Err(confused()),
        }
        let Export {
            archive,
            sender,
            transfer,
            ..
        } = self;
        let Archive { zip, made, .. } = archive;
        zip.finish().map_err(|error| error.to_string())?;
        send(&sender, Some(made.take())).await?;
        transfer.moved();
        send(&sender, None).await
    }

    /// Writes the rooms, or what is found in each of them.
    async fn rooms(&mut self, kind: Option<ExportKind>) -> Result<(), Broken> {
        let mut after: Option<RoomId> = None;
        loop {
            let ExportFound::Rooms(rooms) = self.page(ExportPart::Rooms(after)).await?.found else {
                return Err(confused());
            };
            for room in &rooms {
                match kind {
                    None => self.archive.entry(room)?,
                    Some(kind) => self.in_room(kind, room.room_id).await?,
                }
                after = Some(room.room_id);
            }
            self.send_what_is_made().await?;
            if rooms.len() < EXPORT_PAGE {
                return Ok(());
            }
        }
    }

    async fn in_room(&mut self, kind: ExportKind, room: RoomId) -> Result<(), Broken> {
        let mut after: Seq = 0;
        loop {
            let ExportPage { found, next } =
                self.page(ExportPart::InRoom(kind, room, after)).await?;
            match found {
                ExportFound::Messages(found) => self.entries(&found).await?,
                ExportFound::Reactions(found) => self.entries(&found).await?,
                ExportFound::Mentions(found) => self.entries(&found).await?,
                ExportFound::Reports(found) => self.entries(&found).await?,
                ExportFound::Rooms(_) | ExportFound::Blocks(_) | ExportFound::Uploads(_) => {
                    return Err(confused());
                }
            }
            match next {
                Some(next) => after = next,
                None => return Ok(()),
            }
        }
    }

    async fn blocks(&mut self) -> Result<(), Broken> {
        let mut after: Option<UserId> = None;
        loop {
            let ExportFound::Blocks(found) = self.page(ExportPart::Blocks(after)).await?.found
            else {
                return Err(confused());
            };
            self.entries(&found).await?;
            after = found.last().map(|block| block.user_id);
            if found.len() < EXPORT_PAGE {
                return Ok(());
            }
        }
    }

    /// A page of what the user brought.
    async fn uploads(&self, after: Option<Place>) -> Result<Vec<ExportUpload>, Broken> {
        match self.page(ExportPart::Uploads(after)).await?.found {
            ExportFound::Uploads(found) => Ok(found),
            _ => Err(confused()),
        }
    }

    /// Writes the files, as long as there is time.
    async fn files(&mut self) -> Result<AllTaken, Broken> {
        let mut taken = AllTaken::new();
        let mut after = None;
        loop {
            let page = self.uploads(after).await?;
            for ExportUpload { upload, .. } in &page {
                if self.is_late() {
                    return Ok(taken);
                }
                let mut is_begun = false;
                let missing = self.pieces(upload, &mut is_begun).await?;
                taken.insert(upload.id, Taken { is_begun, missing });
            }
            after = page.last().map(place_of);
            if page.len() < EXPORT_PAGE {
                return Ok(taken);
            }
        }
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.files_until
    }

    /// Writes a file piece by piece; whether something of it is written, and why not all.
    async fn pieces(
        &mut self,
        upload: &Upload,
        is_begun: &mut bool,
    ) -> Result<Option<ExportMissing>, Broken> {
        let (blob, bucket, key) = (self.blob.clone(), upload.kind.bucket(), &upload.key);
        // What was brought and not looked at yet is nobody's to read before.
        if upload.state == UploadState::Created
            && let Err(missing) = self.patient(|| blob.seal(bucket, key)).await
        {
            return Ok(Some(missing));
        }
        let mut offset = 0;
        loop {
            if self.is_late() {
                return Ok(Some(ExportMissing::NotTaken));
            }
            let read = || blob.read(bucket, key, offset, PIECE_BYTES);
            let piece = match self.patient(read).await {
                Ok(piece) => piece,
                Err(missing) => return Ok(Some(missing)),
            };
            if !*is_begun {
                self.archive.file(&path_of(upload))?;
                *is_begun = true;
            }
            // To compress a piece takes some ms of a thread that others need.
            for part in piece.chunks(CHUNK_BYTES) {
                self.archive.bytes(part)?;
                self.send_what_is_made().await?;
                tokio::task::yield_now().await;
            }
            self.transfer.moved();
            tokio::time::sleep(PAGE_PAUSE).await;
            offset += piece.len() as u64;
            // What is sealed has the bytes that were declared, or was found wrong.
            if piece.len() < PIECE_BYTES {
                return Ok(None);
            }
        }
    }

    /// Asks the place of files, and again while it is away for a moment.
    async fn patient<T, F: Future<Output = Result<Option<T>, BlobError>>>(
        &mut self,
        ask: impl Fn() -> F,
    ) -> Result<T, ExportMissing> {
        let is_away = (self.away_since).is_some_and(|since| since.elapsed() > BLOB_AWAY_MAX);
        let mut left = if is_away { 1 } else { BLOB_TRIES };
        let mut pause = BLOB_PAUSE;
        loop {
            left -= 1;
            let asked = Instant::now();
            let answer = ask().await;
            self.transfer.moved();
            match answer {
                Ok(answer) => {
                    self.away_since = None;
                    return answer.ok_or(ExportMissing::NotFound);
                }
                Err(BlobError::Unavailable(_)) if left > 0 => {
                    self.away_since.get_or_insert(asked);
                }
                Err(error) => {
                    self.away_since.get_or_insert(asked);
                    self.unreadable.files += 1;
                    self.unreadable.first.get_or_insert(error);
                    return Err(ExportMissing::Unreadable);
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Writes what the files are, and what of them is in the archive. One whose turn did not come is listed, too.
    async fn file_list(&mut self, taken: &AllTaken) -> Result<(), Broken> {
        self.archive.list("files.json")?;
        let mut after = None;
        loop {
            let page = self.uploads(after).await?;
            for found in &page {
                let taken = taken.get(&found.upload.id);
                self.archive.entry(&listed(found, taken))?;
                self.send_what_is_made().await?;
            }
            after = page.last().map(place_of);
            if page.len() < EXPORT_PAGE {
                return self.archive.end_list();
            }
        }
    }

    async fn entries<T: Serialize>(&mut self, entries: &[T]) -> Result<(), Broken> {
        for entry in entries {
            self.archive.entry(entry)?;
            self.send_what_is_made().await?;
        }
        Ok(())
    }

    /// Reads a page, after a pause.
    async fn page(&self, part: ExportPart) -> Result<ExportPage, Broken> {
        tokio::time::sleep(PAGE_PAUSE).await;
        self.transfer.moved();
        let read = ExportRead {
            user: self.user,
            part,
        };
        match self.ask(AdminCall::Export(read)).await? {
            AdminAnswer::Export(page) => Ok(page),
            _ => Err(confused()),
        }
    }

    async fn ask(&self, call: AdminCall) -> Result<AdminAnswer, Broken> {
        let call = StoreCall::Admin(Box::new(call));
        match self.store.call_within(STORE_MAX, call).await {
            Ok(StoreAnswer::Admin(answer)) => Ok(*answer),
            Ok(_) => Err(confused()),
            Err(error) => Err(format!("{error:?}")),
        }
    }

    /// Sends what is a chunk.
    async fn send_what_is_made(&mut self) -> Result<(), Broken> {
        match self.archive.made.len() >= CHUNK_BYTES {
            true => send(&self.sender, Some(self.archive.made.take())).await,
            false => Ok(()),
        }
    }
}

/// Gives the client a chunk, or the end.
async fn send(sender: &mpsc::Sender<Option<Bytes>>, bytes: Option<Vec<u8>>) -> Result<(), Broken> {
    let chunk = bytes.map(Bytes::from);
    match tokio::time::timeout(CLIENT_MAX, sender.send(chunk)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err("nobody takes it any more".to_owned()),
        Err(_) => Err("nobody takes it".to_owned()),
    }
}

/// Where a file is in the archive: below the folder, under a name that is one file's everywhere.
fn path_of(upload: &Upload) -> String {
    format!("files/{}/{}", upload.id, file_name(&upload.name))
}

fn listed(found: &ExportUpload, taken: Option<&Taken>) -> ExportFile {
    let upload = &found.upload;
    let Taken { is_begun, missing } = taken.copied().unwrap_or(Taken {
        is_begun: false,
        missing: Some(ExportMissing::NotTaken),
    });
    ExportFile {
        upload_id: upload.id,
        room_id: found.room,
        message_seq: upload.message_seq,
        kind: upload.kind,
        name: upload.name.clone(),
        size: upload.size,
        content_type: upload.content_type.clone(),
        sha256: upload.sha256.map(|hash| hex(&hash)),
        created_at: found.created_at,
        path: is_begun.then(|| path_of(upload)),
        missing,
    }
}

fn confused() -> Broken {
    "an answer to another question".to_owned()
}

#[cfg(test)]
mod tests;
