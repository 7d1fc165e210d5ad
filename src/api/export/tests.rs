//! The files of an archive, whatever the store and the place of files do meanwhile.

use super::*;
use crate::blob::{Answer, Backend, Bucket, Download, Facts, ObjectKey, Ticket};
use crate::chat::port::{ReplySink, Store, StoreReply};
use crate::protocol::upload::UploadKind;
use crate::protocol::{Epoch, RoomId};
use std::io::{Cursor, Read};
use zip::ZipArchive;

/// A store that has uploads: for each time it is asked for some those that it has then; the last time's from then on.
struct Asked(Mutex<Vec<Vec<ExportUpload>>>);

impl Store for Asked {
    fn submit(&self, ticket: u64, call: StoreCall, sink: &Arc<dyn ReplySink>) {
        assert!(matches!(call, StoreCall::Admin(_)), "{call:?}");
        let mut times = self.0.lock().expect("not poisoned");
        let now = match times.len() {
            1 => times[0].clone(),
            _ => times.remove(0),
        };
        let page = ExportPage {
            found: ExportFound::Uploads(now),
            next: None,
        };
        sink.reply(StoreReply {
            ticket,
            epoch: self.epoch(),
            result: Ok(StoreAnswer::Admin(Box::new(AdminAnswer::Export(page)))),
        });
    }

    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn durability(&self) -> &'static str {
        "commit"
    }
}

/// A place of files: what each is, and from where on it cannot be read.
struct Place(BTreeMap<String, (Vec<u8>, u64)>);

fn away<'a, T: Send + 'a>() -> Answer<'a, T> {
    Box::pin(std::future::ready(Err(BlobError::Unavailable(
        "away".to_owned(),
    ))))
}

impl Backend for Place {
    fn ticket<'a>(&'a self, _: &'a crate::blob::Upload) -> Answer<'a, Ticket> {
        away()
    }
    fn seal<'a>(&'a self, _: Bucket, _: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        away()
    }
    fn head<'a>(&'a self, _: Bucket, _: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        away()
    }
    fn read<'a>(
        &'a self,
        _: Bucket,
        key: &'a ObjectKey,
        offset: u64,
        bytes: usize,
    ) -> Answer<'a, Option<Vec<u8>>> {
        let Some((all, broken)) = self.0.get(key.as_str()) else {
            return Box::pin(std::future::ready(Ok(None)));
        };
        if offset >= *broken {
            return away();
        }
        let rest = &all[usize::try_from(offset).expect("small")..];
        let piece = rest[..bytes.min(rest.len())].to_vec();
        Box::pin(std::future::ready(Ok(Some(piece))))
    }
    fn download_url<'a>(&'a self, _: &'a Download) -> Answer<'a, String> {
        away()
    }
    fn delete<'a>(&'a self, _: Bucket, _: &'a ObjectKey) -> Answer<'a, ()> {
        away()
    }
    fn init(&self) -> Answer<'_, Vec<String>> {
        away()
    }
    fn check(&self) -> Answer<'_, String> {
        away()
    }
}

fn key(n: u8) -> ObjectKey {
    ObjectKey::new([n; 16])
}

fn an_upload(n: u8, state: UploadState) -> ExportUpload {
    ExportUpload {
        upload: Upload {
            id: UploadId(uuid::Uuid::from_bytes([n; 16])),
            kind: UploadKind::File,
            key: key(n),
            name: format!("{n}.txt"),
            size: 1,
            content_type: "text/plain".to_owned(),
            sha256: None,
            state,
            message_seq: None,
        },
        room: RoomId(uuid::Uuid::nil()),
        created_at: UnixMs(u64::from(n)),
    }
}

fn used(n: u8) -> ExportUpload {
    an_upload(n, UploadState::Used)
}

/// Of each upload: its number, whether `path` is told, and what is missing; and how long of each file is in the archive.
type Shown = (Vec<(u8, bool, Option<String>)>, BTreeMap<u8, usize>);

fn exported(times: Vec<Vec<ExportUpload>>, place: Place, time: Duration) -> Shown {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let bytes = runtime.block_on(async {
        let (sender, mut receiver) = mpsc::channel(CHUNKS_MAX);
        let mut export = Export {
            store: StoreClient::new(Arc::new(Asked(Mutex::new(times)))),
            blob: Blob::new(Arc::new(place)),
            user: UserId(uuid::Uuid::nil()),
            archive: Archive::new(),
            sender,
            transfer: Transfers::default().begin(),
            files_until: Instant::now() + time,
            away_since: None,
            unreadable: Unreadable::default(),
        };
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(Some(chunk)) = receiver.recv().await {
                all.extend_from_slice(&chunk);
            }
            all
        });
        let taken = export.files().await.expect("files");
        export.file_list(&taken).await.expect("a list");
        let Archive { zip, made, .. } = export.archive;
        zip.finish().expect("an end");
        drop(export.sender.send(Some(made.take().into())).await);
        drop(export.sender);
        reader.await.expect("all of it")
    });
    let mut archive = ZipArchive::new(Cursor::new(bytes)).expect("an archive");
    let mut files = BTreeMap::new();
    for at in 0..archive.len() {
        let mut file = archive.by_index(at).expect("a file");
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).expect("whole");
        files.insert(file.name().expect("a name").to_string(), bytes);
    }
    let list = files.remove("files.json").expect("a list");
    let list: Vec<serde_json::Value> = serde_json::from_slice(&list).expect("JSON");
    let number = |text: &serde_json::Value| {
        let id: uuid::Uuid = text.as_str().expect("text").parse().expect("an id");
        id.as_bytes()[0]
    };
    let mut listed = Vec::new();
    let mut sizes = BTreeMap::new();
    for entry in &list {
        let n = number(&entry["upload_id"]);
        if let Some(path) = entry["path"].as_str() {
            let bytes = files.remove(path).expect("what is told is there");
            sizes.insert(n, bytes.len());
        }
        let missing = entry["missing"].as_str().map(str::to_owned);
        listed.push((n, !entry["path"].is_null(), missing));
    }
    assert!(files.is_empty(), "not told: {:?}", files.keys());
    (listed, sizes)
}

const NEVER: u64 = u64::MAX;
const LONG: Duration = Duration::from_secs(600);

fn place(files: &[(u8, usize, u64)]) -> Place {
    let of = |&(n, size, broken): &(u8, usize, u64)| {
        (key(n).as_str().to_owned(), (vec![n; size], broken))
    };
    Place(files.iter().map(of).collect())
}

fn why(missing: &str) -> Option<String> {
    Some(missing.to_owned())
}

#[test]
fn a_file_that_cannot_be_read_keeps_no_other_out() {
    let whole = PIECE_BYTES + 10;
    let place = place(&[
        (1, whole, NEVER),
        (2, whole, 0),
        (3, whole, PIECE_BYTES as u64),
        (6, whole, NEVER),
    ]);
    let unsealed = an_upload(5, UploadState::Created);
    let uploads = vec![used(1), used(2), used(3), used(4), unsealed, used(6)];
    let (listed, sizes) = exported(vec![uploads], place, LONG);
    let expected = [
        (1, true, None),
        (2, false, why("unreadable")),
        (3, true, why("unreadable")),
        (4, false, why("not_found")),
        (5, false, why("unreadable")),
        (6, true, None),
    ];
    assert_eq!(listed, expected);
    assert_eq!(
        sizes,
        BTreeMap::from([(1, whole), (3, PIECE_BYTES), (6, whole)])
    );
}

#[test]
fn when_time_is_over_the_list_says_what_was_not_taken() {
    let place = place(&[(1, 10, NEVER), (2, 10, NEVER)]);
    let (listed, sizes) = exported(vec![vec![used(1), used(2)]], place, Duration::ZERO);
    let late = why("not_taken");
    assert_eq!(listed, [(1, false, late.clone()), (2, false, late)]);
    assert!(sizes.is_empty(), "{sizes:?}");
}

#[test]
fn only_what_was_written_is_told_to_be_there() {
    let place = place(&[(1, 10, NEVER), (2, 10, NEVER), (3, 10, NEVER)]);
    // An earlier one and a later one come to be known when the files are written.
    let times = vec![vec![used(2)], vec![used(1), used(2), used(3)]];
    let (listed, sizes) = exported(times, place, LONG);
    let late = || why("not_taken");
    assert_eq!(
        listed,
        [(1, false, late()), (2, true, None), (3, false, late())]
    );
    assert_eq!(sizes, BTreeMap::from([(2, 10)]));
}

#[test]
fn between_two_pieces_there_is_a_pause() {
    const PIECES: u32 = 20;
    let size = PIECES as usize * PIECE_BYTES;
    let began = Instant::now();
    let (listed, _) = exported(vec![vec![used(1)]], place(&[(1, size, NEVER)]), LONG);
    assert_eq!(listed, [(1, true, None)]);
    let pauses = PAGE_PAUSE * PIECES;
    // The pages have two of their own.
    assert!(began.elapsed() > pauses, "{:?}", began.elapsed());
}
