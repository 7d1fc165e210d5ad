//! The contract of files, the same for every backend: the folder behind a real node, and a real object store. Every
//! upload and download is a request over a socket, as a browser's.
#![cfg(all(feature = "server", not(feature = "echo")))]

mod support;

use caffis_chat::blob::local::{Folder, Local};
use caffis_chat::blob::s3::{S3, S3Options};
use caffis_chat::blob::signed::hex;
use caffis_chat::blob::{Blob, BlobError, Bucket, Download, ObjectKey, Shown, Ticket, Upload};
use caffis_chat::protocol::UnixMs;
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use support::form::form;
use support::s3::{ACCESS_KEY, ObjectStore, SECRET_KEY};
use support::server::{DEADLINE, Server, command};

/// A page that may upload.
const ORIGIN: &str = "http://localhost:3000";

/// A service token.
const ADMIN: &str = "a-service-token-of-the-tests-0123456789";

/// A backend, and what runs it.
struct Place {
    blob: Blob,
    runtime: tokio::runtime::Runtime,
    /// Whether an object is sealed as soon as it is there.
    seals_at_once: bool,
    _store: Option<ObjectStore>,
    _node: Option<Server>,
    _folder: Option<tempfile::TempDir>,
}

fn runtime() -> tokio::runtime::Runtime {
    // Two programs' worth of crates bring two providers; the program names its own as this does.
    let _first = rustls::crypto::aws_lc_rs::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn of_a_node(node: &Server, folder: &Path) -> Blob {
    let url = format!("http://{}", node.address);
    let folder = Folder::open(folder, Some(&url)).expect("the node's folder");
    Blob::new(Arc::new(Local(Arc::new(folder))))
}

fn folder() -> Place {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Server::start(folder.path(), &[]);
    Place {
        blob: of_a_node(&node, folder.path()),
        runtime: runtime(),
        seals_at_once: true,
        _store: None,
        _node: Some(node),
        _folder: Some(folder),
    }
}

fn options(store: &ObjectStore) -> S3Options {
    S3Options {
        endpoint: store.endpoint(),
        public_endpoint: None,
        region: "us-east-1".to_owned(),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: SECRET_KEY.to_owned(),
        bucket_prefix: "of-tests-".to_owned(),
        cdn_base_url: None,
        origins: vec![ORIGIN.to_owned()],
    }
}

fn object_store() -> Place {
    let store = ObjectStore::start();
    let runtime = runtime();
    let blob = S3::new(options(&store)).expect("settings");
    let blob = Blob::new(Arc::new(blob));
    runtime.block_on(blob.init()).expect("buckets");
    Place {
        blob,
        runtime,
        seals_at_once: false,
        _store: Some(store),
        _node: None,
        _folder: None,
    }
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMs(since.expect("after 1970").as_millis() as u64)
}

fn key() -> ObjectKey {
    ObjectKey::new(*uuid::Uuid::new_v4().as_bytes())
}

/// An image of so many bytes, no two alike.
fn bytes(size: usize) -> Vec<u8> {
    let seed = *uuid::Uuid::new_v4().as_bytes();
    let mut bytes: Vec<u8> = (0..size)
        .map(|place| seed[place % 16].wrapping_add((place / 16) as u8))
        .collect();
    let head = b"\x89PNG\r\n\x1a\n";
    let length = head.len().min(size);
    bytes[..length].copy_from_slice(&head[..length]);
    bytes
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    hash.as_ref().try_into().expect("32 bytes")
}

fn an_upload(bytes: &[u8]) -> Upload {
    Upload {
        bucket: Bucket::Images,
        key: key(),
        content_type: "image/png".to_owned(),
        size: bytes.len() as u64,
        sha256: None,
        shown: Shown {
            name: "Grüße.png".to_owned(),
            inline: true,
        },
        expires_at: UnixMs(now().0 + 60_000),
    }
}

fn a_download(upload: &Upload) -> Download {
    Download {
        bucket: upload.bucket,
        key: upload.key.clone(),
        content_type: upload.content_type.clone(),
        shown: upload.shown.clone(),
        expires_at: UnixMs(now().0 + 60_000),
    }
}

/// An answer over HTTP.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or("")
    }

    fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Host and path of a URL.
fn parts(url: &str) -> (&str, &str) {
    let rest = url.strip_prefix("http://").expect("a URL");
    let at = rest.find('/').expect("a path");
    rest.split_at(at)
}

fn exchange(host: &str, request: &[u8]) -> Answer {
    let address: SocketAddr = host.parse().expect("an address");
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    // Who is refused may be cut off while sending; the answer tells.
    let _cut_off = stream.write_all(request);
    let mut read = Vec::new();
    let _reset = stream.read_to_end(&mut read);
    let end = read.windows(4).position(|it| it == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("no answer: {:?}", String::from_utf8_lossy(&read)));
    let head = String::from_utf8_lossy(&read[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status: u16 = status.and_then(|it| it.parse().ok()).expect("a status");
    if status == 100 {
        unreachable!("nothing was asked to be told before");
    }
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Answer {
        status,
        headers,
        body: read[end + 4..].to_vec(),
    }
}

fn post_request(ticket: &Ticket, file: &[u8]) -> (String, Vec<u8>) {
    let (multipart, body) = form(&ticket.fields, ("a.png", "image/png"), file);
    let (host, path) = parts(&ticket.url);
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\norigin: {ORIGIN}\r\nconnection: close\r\n\
         content-type: {multipart}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(&body);
    (host.to_owned(), request)
}

fn post(ticket: &Ticket, file: &[u8]) -> Answer {
    let (host, request) = post_request(ticket, file);
    exchange(&host, &request)
}

fn get(url: &str, more: &str) -> Answer {
    let (host, path) = parts(url);
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\norigin: {ORIGIN}\r\nconnection: close\r\n{more}\r\n"
    );
    exchange(host, request.as_bytes())
}

impl Place {
    fn ticket(&self, upload: &Upload) -> Ticket {
        let ticket = self.runtime.block_on(self.blob.ticket(upload));
        ticket.expect("a ticket")
    }

    fn url(&self, download: &Download) -> String {
        let url = self.runtime.block_on(self.blob.download_url(download));
        url.expect("a URL")
    }

    fn seal(&self, upload: &Upload) -> Option<caffis_chat::blob::Facts> {
        let sealed = self.blob.seal(upload.bucket, &upload.key);
        self.runtime.block_on(sealed).expect("an answer")
    }

    fn read(&self, upload: &Upload, offset: u64, bytes: usize) -> Option<Vec<u8>> {
        let read = self.blob.read(upload.bucket, &upload.key, offset, bytes);
        self.runtime.block_on(read).expect("an answer")
    }

    /// Uploads and seals.
    fn keep(&self, upload: &Upload, file: &[u8]) {
        let answer = post(&self.ticket(upload), file);
        assert_eq!(answer.status, 204, "{}", answer.text());
        assert!(self.seal(upload).is_some());
    }

    /// Nothing was taken.
    fn has_none(&self, upload: &Upload) {
        assert_eq!(self.seal(upload), None);
        assert_eq!(self.read(upload, 0, 1), None);
    }
}

/// Every case, on a backend of its own.
macro_rules! contract {
    ($($name:ident)*) => {
        mod in_the_folder {
            $(#[test] fn $name() { super::$name(&super::folder()); })*
        }
        mod in_an_object_store {
            $(#[test] fn $name() { super::$name(&super::object_store()); })*
        }
    };
}

contract! {
    what_was_uploaded_is_sealed_and_fetched
    a_part_of_it_can_be_fetched
    another_size_is_refused
    another_type_is_refused
    other_bytes_than_announced_are_refused
    a_ticket_ends
    a_ticket_is_not_changed
    what_is_sealed_stays_as_it_is
    a_url_is_for_one_thing_and_a_while
    nothing_is_given_out_as_a_page
    what_is_deleted_is_gone
    what_is_set_up_is_set_up_once
    pages_of_allowed_origins_may_upload
    a_large_file_comes_whole
}

fn what_was_uploaded_is_sealed_and_fetched(place: &Place) {
    let file = bytes(1_000);
    for hash in [None, Some(sha256(&file))] {
        for bucket in Bucket::ALL {
            let upload = Upload {
                bucket,
                sha256: hash,
                ..an_upload(&file)
            };
            place.has_none(&upload);
            let answer = post(&place.ticket(&upload), &file);
            assert_eq!(answer.status, 204, "{}", answer.text());
            let head = place.blob.head(bucket, &upload.key);
            let before = place.runtime.block_on(head).expect("an answer");
            assert_eq!(before.is_some(), place.seals_at_once);
            let facts = place.seal(&upload).expect("it is there");
            assert_eq!(facts.size, 1_000);
            assert_eq!(facts.content_type, "image/png");
            if hash.is_some() {
                assert_eq!(facts.sha256, hash);
            }
            assert_eq!(place.seal(&upload), Some(facts));
            assert_eq!(place.read(&upload, 0, 8).as_deref(), Some(&file[..8]));
            assert_eq!(place.read(&upload, 990, 99).as_deref(), Some(&file[990..]));
            assert_eq!(place.read(&upload, 1_000, 9), Some(Vec::new()));
            assert_eq!(place.read(&upload, 5, 0), Some(Vec::new()));

            let answer = get(&place.url(&a_download(&upload)), "");
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.body, file);
            assert_eq!(answer.header("content-type"), "image/png");
            let disposition = answer.header("content-disposition");
            let expected = "inline; filename=\"Gr__e.png\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe.png";
            assert_eq!(disposition, expected);
        }
    }
}

fn a_part_of_it_can_be_fetched(place: &Place) {
    let file = bytes(1_000);
    let upload = an_upload(&file);
    place.keep(&upload, &file);
    let url = place.url(&a_download(&upload));
    for (range, part) in [
        ("0-99", 0..100),
        ("900-", 900..1_000),
        ("-10", 990..1_000),
        ("990-5000", 990..1_000),
    ] {
        let answer = get(&url, &format!("range: bytes={range}\r\n"));
        assert_eq!(answer.status, 206, "{range}: {}", answer.text());
        assert_eq!(answer.body, file[part.clone()], "{range}");
        let told = format!("bytes {}-{}/1000", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), told);
    }
    let answer = get(&url, "range: bytes=1000-\r\n");
    assert_eq!(answer.status, 416, "{}", answer.text());
}

fn another_size_is_refused(place: &Place) {
    let file = bytes(1_000);
    for size in [1, 999, 1_001, 5_000_000] {
        let upload = an_upload(&file);
        let answer = post(&place.ticket(&upload), &bytes(size));
        assert!(answer.is_refusal(), "{size}: {answer:?}");
        place.has_none(&upload);
    }
}

fn another_type_is_refused(place: &Place) {
    let file = bytes(100);
    for content_type in ["text/html", "image/gif", "", "image/png2"] {
        let upload = an_upload(&file);
        let mut ticket = place.ticket(&upload);
        let field = ticket.fields.get_mut("Content-Type").expect("a type");
        content_type.clone_into(field);
        let answer = post(&ticket, &file);
        assert!(answer.is_refusal(), "{content_type}: {answer:?}");
        place.has_none(&upload);
    }
    let upload = an_upload(&file);
    let mut ticket = place.ticket(&upload);
    ticket.fields.remove("Content-Type");
    let answer = post(&ticket, &file);
    assert!(answer.is_refusal(), "{answer:?}");
    place.has_none(&upload);
}

fn other_bytes_than_announced_are_refused(place: &Place) {
    let (file, other) = (bytes(1_000), bytes(1_000));
    let upload = Upload {
        sha256: Some(sha256(&file)),
        ..an_upload(&file)
    };
    let good = place.ticket(&upload);
    let answer = post(&good, &other);
    assert!(answer.is_refusal(), "{answer:?}");
    place.has_none(&upload);
    // Nor without saying which they should be.
    let mut without = good.clone();
    let about_it = |name: &str| name.contains("sha256") || name.contains("checksum");
    without.fields.retain(|name, _| !about_it(name));
    assert!(without.fields.len() < good.fields.len());
    let answer = post(&without, &other);
    assert!(answer.is_refusal(), "{answer:?}");
    place.has_none(&upload);
    place.keep(&upload, &file);
}

fn a_ticket_ends(place: &Place) {
    let file = bytes(100);
    for ago_ms in [0, 1_000, 3_600_000] {
        let upload = Upload {
            expires_at: UnixMs(now().0 - ago_ms),
            ..an_upload(&file)
        };
        let answer = post(&place.ticket(&upload), &file);
        assert_eq!(answer.status, 403, "{}", answer.text());
        place.has_none(&upload);
    }
}

fn a_ticket_is_not_changed(place: &Place) {
    let file = bytes(100);
    let (upload, other) = (an_upload(&file), an_upload(&file));
    let (good, others) = (place.ticket(&upload), place.ticket(&other));
    // Whatever is taken away or is another's: the key, the policy, the signature, …
    for name in good.fields.keys() {
        let mut ticket = good.clone();
        ticket.fields.remove(name);
        let answer = post(&ticket, &file);
        // Where it was uploaded all the same, it was as announced.
        if answer.status == 204 {
            let facts = place.seal(&upload).expect("it is there");
            assert_eq!(
                (facts.size, facts.content_type.as_str()),
                (100, "image/png")
            );
            panic!("{name} is not needed");
        }
        assert!(answer.is_refusal(), "without {name}: {answer:?}");
        let mut ticket = good.clone();
        if ticket.fields[name] == others.fields[name] {
            ticket.fields.insert(name.clone(), "0".to_owned());
        } else {
            ticket
                .fields
                .insert(name.clone(), others.fields[name].clone());
        }
        let answer = post(&ticket, &file);
        assert!(answer.is_refusal(), "with another {name}: {answer:?}");
        place.has_none(&upload);
        place.has_none(&other);
    }
    // Into another bucket.
    let mut ticket = good.clone();
    ticket.url = ticket.url.replace("chat-images", "chat-files");
    assert!(post(&ticket, &file).is_refusal());
    let moved = Upload {
        bucket: Bucket::Files,
        ..upload.clone()
    };
    place.has_none(&moved);
    // And the good one is still good.
    assert_eq!(post(&good, &file).status, 204);
}

fn what_is_sealed_stays_as_it_is(place: &Place) {
    let (file, other) = (bytes(1_000), bytes(1_000));
    let upload = an_upload(&file);
    place.keep(&upload, &file);
    let facts = place.seal(&upload);
    // Whatever is answered to whoever still has the ticket.
    for again in [&other, &file, &other] {
        let _whatever = post(&place.ticket(&upload), again);
        assert_eq!(place.seal(&upload), facts);
        assert_eq!(place.read(&upload, 0, 2_000).as_deref(), Some(&file[..]));
        let answer = get(&place.url(&a_download(&upload)), "");
        assert_eq!(answer.body, file);
    }
}

fn a_url_is_for_one_thing_and_a_while(place: &Place) {
    let (file, other) = (bytes(100), bytes(100));
    let (upload, others) = (an_upload(&file), an_upload(&other));
    place.keep(&upload, &file);
    place.keep(&others, &other);
    let url = place.url(&a_download(&upload));
    assert_eq!(get(&url, "").body, file);
    let (bare, query) = url.split_once('?').expect("a query");
    assert_eq!(get(bare, "").status, 403, "without a signature");
    let elsewhere = bare.replace(upload.key.as_str(), others.key.as_str());
    assert_ne!(elsewhere, bare);
    let answer = get(&format!("{elsewhere}?{query}"), "");
    assert_eq!(answer.status, 403, "another key: {}", answer.text());
    let mut changed = 0;
    for (from, to) in [
        ("image%2Fpng", "text%2Fhtml"),
        ("image/png", "text/html"),
        ("Gr%C3%BC%C3%9Fe.png", "evil.exe"),
        ("inline%3B", "attachment%3B"),
        ("inline=1", "inline=0"),
        ("ignature=", "ignature=0"),
        ("xpires=", "xpires=9"),
    ] {
        let forged = url.replace(from, to);
        if forged != url {
            changed += 1;
            let answer = get(&forged, "");
            assert!(answer.is_refusal(), "{forged}: {answer:?}");
            assert_ne!(answer.body, file);
        }
    }
    assert!(changed >= 4, "{url}");
    // What is not there, with a good signature.
    let nothing = an_upload(&file);
    assert_eq!(get(&place.url(&a_download(&nothing)), "").status, 404);
    // A second later at most it is over.
    let short = Download {
        expires_at: UnixMs(now().0 + 1),
        ..a_download(&upload)
    };
    let (url, began) = (place.url(&short), Instant::now());
    while get(&url, "").status != 403 {
        assert!(began.elapsed() < Duration::from_secs(20), "it goes on");
    }
}

fn nothing_is_given_out_as_a_page(place: &Place) {
    let file = b"<script>alert(1)</script>".to_vec();
    for content_type in ["text/html", "image/svg+xml", "application/xhtml+xml"] {
        let upload = Upload {
            bucket: Bucket::Files,
            content_type: content_type.to_owned(),
            ..an_upload(&file)
        };
        place.keep(&upload, &file);
        let answer = get(&place.url(&a_download(&upload)), "");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        let disposition = answer.header("content-disposition");
        assert!(disposition.starts_with("attachment;"), "{disposition}");
    }
}

fn what_is_deleted_is_gone(place: &Place) {
    let file = bytes(100);
    let (sealed, loose) = (an_upload(&file), an_upload(&file));
    place.keep(&sealed, &file);
    assert_eq!(post(&place.ticket(&loose), &file).status, 204);
    let url = place.url(&a_download(&sealed));
    assert_eq!(get(&url, "").status, 200);
    let never = an_upload(&file);
    let all = [&sealed, &loose, &never].map(|it| (it.bucket, &it.key));
    for _ in 0..2 {
        let deleted = place.runtime.block_on(place.blob.delete(all));
        deleted.expect("deleted");
        for upload in [&sealed, &loose] {
            place.has_none(upload);
        }
        assert_eq!(get(&url, "").status, 404);
    }
}

fn what_is_set_up_is_set_up_once(place: &Place) {
    let told = place.runtime.block_on(place.blob.check()).expect("ready");
    assert!(told.contains("files are kept in"), "{told}");
    let again = place.runtime.block_on(place.blob.init()).expect("done");
    // Whatever would be changed again stands on a line of its own.
    for line in &again {
        let changes = ["was made", "(CORS)", "(lifecycle)"];
        assert!(!changes.iter().any(|it| line.contains(it)), "{again:?}");
    }
    let file = bytes(100);
    place.keep(&an_upload(&file), &file);
}

fn pages_of_allowed_origins_may_upload(place: &Place) {
    let file = bytes(100);
    let upload = an_upload(&file);
    let ticket = place.ticket(&upload);
    let answer = post(&ticket, &file);
    assert_eq!(answer.status, 204, "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
    assert!(place.seal(&upload).is_some());
    let answer = get(&place.url(&a_download(&upload)), "");
    assert_eq!(answer.header("access-control-allow-origin"), ORIGIN);
    let (host, path) = parts(&ticket.url);
    let asked = |origin: &str| {
        let request = format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\norigin: {origin}\r\n\
             access-control-request-method: POST\r\n\r\n"
        );
        let answer = exchange(host, request.as_bytes());
        answer.header("access-control-allow-origin").to_owned()
    };
    assert_eq!(asked(ORIGIN), ORIGIN);
    assert_eq!(asked("https://evil.example"), "");
}

fn a_large_file_comes_whole(place: &Place) {
    let file = bytes(20 << 20);
    let upload = Upload {
        bucket: Bucket::Files,
        sha256: Some(sha256(&file)),
        ..an_upload(&file)
    };
    place.keep(&upload, &file);
    let answer = get(&place.url(&a_download(&upload)), "");
    assert_eq!(answer.status, 200);
    assert!(answer.body == file, "{} bytes", answer.body.len());
    let part = place.read(&upload, 19 << 20, 64);
    assert_eq!(part.as_deref(), Some(&file[19 << 20..(19 << 20) + 64]));
}

/// Files below the folder of unfinished uploads that are no locks.
fn unfinished(folder: &Path) -> Vec<u64> {
    let all = fs::read_dir(folder.join("files/unfinished")).expect("a folder");
    let files = all.flat_map(|it| fs::read_dir(it.expect("an entry").path()).expect("a folder"));
    files
        .map(|file| file.expect("an entry"))
        .filter(|file| file.file_name() != "lock")
        .map(|file| file.metadata().map_or(0, |it| it.len()))
        .collect()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "not so: {what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_node_that_is_killed_in_mid_upload_keeps_what_it_acknowledged_and_no_half_of_anything() {
    let folder = tempfile::tempdir().expect("a folder");
    let node = Server::start(folder.path(), &[]);
    let runtime = runtime();
    let blob = of_a_node(&node, folder.path());
    let (whole, half) = (bytes(300_000), bytes(3_000_000));
    let (kept, lost) = (an_upload(&whole), an_upload(&half));
    let ticket = |blob: &Blob, upload| runtime.block_on(blob.ticket(upload)).expect("a ticket");
    assert_eq!(post(&ticket(&blob, &kept), &whole).status, 204);
    let (host, request) = post_request(&ticket(&blob, &lost), &half);
    let mut stream = TcpStream::connect(&host).expect("connected");
    let sent = request.len() / 2;
    stream.write_all(&request[..sent]).expect("sent");
    until("half of it is written", || {
        unfinished(folder.path()).iter().any(|&it| it > 1_000_000)
    });
    node.signal("KILL");
    drop(node.ended());
    let head = |blob: &Blob, upload: &Upload| {
        let head = blob.head(upload.bucket, &upload.key);
        runtime.block_on(head).expect("an answer")
    };
    assert_eq!(head(&blob, &lost), None);
    assert_eq!(unfinished(folder.path()).len(), 1, "as the crash left it");

    let node = Server::start(folder.path(), &[]);
    assert!(
        unfinished(folder.path()).is_empty(),
        "as the start leaves it"
    );
    let blob = of_a_node(&node, folder.path());
    assert_eq!(head(&blob, &lost), None);
    assert_eq!(head(&blob, &kept).map(|it| it.size), Some(300_000));
    let url = runtime.block_on(blob.download_url(&a_download(&kept)));
    assert!(get(&url.expect("a URL"), "").body == whole);
    // The same ticket, as the secret is the same.
    assert_eq!(post(&ticket(&blob, &lost), &half).status, 204);
    assert_eq!(head(&blob, &lost).map(|it| it.size), Some(3_000_000));
}

#[test]
fn who_goes_in_mid_upload_leaves_nothing_and_is_counted() {
    let place = folder();
    let (node, folder) = (place._node.as_ref(), place._folder.as_ref());
    let (node, folder) = (node.expect("a node"), folder.expect("a folder").path());
    let file = bytes(3_000_000);
    let upload = an_upload(&file);
    let (host, request) = post_request(&place.ticket(&upload), &file);
    let mut stream = TcpStream::connect(&host).expect("connected");
    stream.write_all(&request[..2_000_000]).expect("sent");
    until("some of it is written", || {
        unfinished(folder).iter().any(|&it| it > 1_000_000)
    });
    drop(stream);
    until("it is removed", || unfinished(folder).is_empty());
    place.keep(&upload, &file);
    assert_eq!(
        get(&place.url(&a_download(&upload)), "").body.len(),
        3_000_000
    );
    let metrics = node.http("GET", "/metrics", "").1;
    for line in [
        "caffis_file_transfers_total{direction=\"upload\",result=\"ok\"} 1",
        "caffis_file_bytes_total{direction=\"upload\",result=\"ok\"} 3000000",
        "caffis_file_transfers_total{direction=\"download\",result=\"ok\"} 1",
        "caffis_file_bytes_total{direction=\"download\",result=\"ok\"} 3000000",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
    }
    // Whichever it is found as: cut off, or too short.
    let other = metrics.lines().filter(|it| {
        it.starts_with("caffis_file_transfers_total{direction=\"upload\"") && it.ends_with(" 1")
    });
    assert_eq!(other.count(), 2, "{metrics}");
}

#[test]
fn a_folder_takes_one_file_for_one_ticket() {
    let place = folder();
    let (file, other) = (bytes(1_000), bytes(1_000));
    let upload = an_upload(&file);
    place.keep(&upload, &file);
    // An answer that was not heard is heard again.
    assert_eq!(post(&place.ticket(&upload), &file).status, 204);
    let answer = post(&place.ticket(&upload), &other);
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert!(answer.text().contains("idempotency_conflict"));
}

#[test]
fn a_file_of_the_folder_is_given_out_as_one_that_does_no_harm() {
    let place = folder();
    let file = bytes(1_000);
    let upload = an_upload(&file);
    place.keep(&upload, &file);
    let url = place.url(&a_download(&upload));
    let answer = get(&url, "");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let policy = answer.header("content-security-policy");
    assert_eq!(policy, "default-src 'none'; sandbox");
    let cache = answer.header("cache-control");
    assert!(cache.starts_with("private, max-age="), "{cache}");
    assert_eq!(answer.header("accept-ranges"), "bytes");
    assert_eq!(answer.header("content-length"), "1000");
    let tag = answer.header("etag").to_owned();
    let same = get(&url, &format!("if-none-match: {tag}\r\n"));
    assert_eq!((same.status, same.body.len()), (304, 0));
    for (tag, status) in [(tag.as_str(), 206), ("\"another\"", 200)] {
        let more = format!("range: bytes=0-9\r\nif-range: {tag}\r\n");
        assert_eq!(get(&url, &more).status, status, "{tag}");
    }
    let (host, path) = parts(&url);
    let head = format!("HEAD {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    let answer = exchange(host, head.as_bytes());
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert_eq!(answer.header("content-length"), "1000");
}

#[test]
fn a_form_that_cannot_be_read_is_refused() {
    let place = folder();
    let file = bytes(100);
    let ticket = place.ticket(&an_upload(&file));
    let (host, path) = parts(&ticket.url);
    let send = |content_type: &str, body: &[u8]| {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
             content-type: {content_type}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        exchange(host, &[head.as_bytes(), body].concat()).status
    };
    let with = |more: &[(&str, String)]| {
        let mut fields = ticket.fields.clone();
        fields.extend(
            more.iter()
                .map(|(name, value)| ((*name).to_owned(), value.clone())),
        );
        post(
            &Ticket {
                fields,
                ..ticket.clone()
            },
            &file,
        )
        .status
    };
    let (multipart, body) = form(&ticket.fields, ("a.png", "image/png"), &file);
    assert_eq!(send("application/json", &body), 400);
    assert_eq!(send("multipart/form-data", &body), 400);
    assert_eq!(send("multipart/form-data; boundary=other", &body), 400);
    assert_eq!(send(&multipart, b""), 400);
    assert_eq!(send(&multipart, &body[..body.len() / 2]), 400);
    assert_eq!(with(&[("more", "x".repeat(5_000))]), 400);
    assert_eq!(with(&[("more", "x".repeat(500_000))]), 400);
    let names: Vec<String> = (0..40).map(|it| format!("a{it}")).collect();
    let many: Vec<_> = names
        .iter()
        .map(|it| (it.as_str(), String::new()))
        .collect();
    assert_eq!(with(&many), 400);
    assert_eq!(
        with(&[("acl", "private".to_owned())]),
        204,
        "others are passed over"
    );
}

#[test]
fn a_form_that_does_not_go_on_is_given_up() {
    let place = folder();
    let file = bytes(100);
    let (host, request) = post_request(&place.ticket(&an_upload(&file)), &file);
    let mut stream = TcpStream::connect(&host).expect("connected");
    stream.set_read_timeout(Some(DEADLINE)).expect("set");
    stream
        .write_all(&request[..request.len() / 2])
        .expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn a_full_disk_refuses_a_file_and_nothing_is_left_of_it() {
    let disk = tempfile::tempdir().expect("a folder");
    let run = |program: &str, args: &[&str]| {
        let status = Command::new(program).args(args).arg(disk.path()).status();
        assert!(status.expect("runs").success(), "mounting takes root");
    };
    run("mount", &["-t", "tmpfs", "-o", "size=8388608", "tmpfs"]);
    let node = Server::start(disk.path(), &[]);
    let place = Place {
        blob: of_a_node(&node, disk.path()),
        runtime: runtime(),
        seals_at_once: true,
        _store: None,
        _node: Some(node),
        _folder: None,
    };
    let (large, small) = (bytes(9_000_000), bytes(1_000));
    let (too_large, fits) = (an_upload(&large), an_upload(&small));
    let answer = post(&place.ticket(&too_large), &large);
    let left = unfinished(disk.path());
    place.has_none(&too_large);
    place.keep(&fits, &small);
    drop(place);
    run("umount", &["--lazy"]);
    assert_eq!(answer.status, 507, "{}", answer.text());
    assert!(answer.text().contains("\"code\":\"unavailable\""));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_object_store_that_is_away_or_knows_us_not_is_told() {
    let mut store = ObjectStore::start();
    let runtime = runtime();
    let file = bytes(100);
    let upload = an_upload(&file);
    let stranger = S3Options {
        secret_key: "another".to_owned(),
        ..options(&store)
    };
    let stranger = Blob::new(Arc::new(S3::new(stranger).expect("settings")));
    let refused = runtime.block_on(stranger.init());
    assert!(matches!(refused, Err(BlobError::Refused(_))), "{refused:?}");
    let blob = Blob::new(Arc::new(S3::new(options(&store)).expect("settings")));
    store.kill();
    let began = Instant::now();
    let sealed = runtime.block_on(blob.seal(upload.bucket, &upload.key));
    assert!(
        matches!(sealed, Err(BlobError::Unavailable(_))),
        "{sealed:?}"
    );
    assert!(began.elapsed() < Duration::from_secs(12));
    // Nobody is asked for a ticket, or for a URL.
    assert!(runtime.block_on(blob.ticket(&upload)).is_ok());
    let download = a_download(&upload);
    let url = runtime.block_on(blob.download_url(&download));
    assert!(url.is_ok(), "{url:?}");
    let cdn = S3Options {
        cdn_base_url: Some("https://cdn.example.org/files".to_owned()),
        ..options(&store)
    };
    let cdn = Blob::new(Arc::new(S3::new(cdn).expect("settings")));
    let url = runtime.block_on(cdn.download_url(&download));
    let expected = format!(
        "https://cdn.example.org/files/of-tests-chat-images/{}",
        upload.key
    );
    assert_eq!(url, Ok(expected));
}

#[test]
fn the_program_sets_up_an_object_store_and_says_whether_it_is() {
    let store = ObjectStore::start();
    let folder = tempfile::tempdir().expect("a folder");
    let endpoint = store.endpoint();
    let env = [
        ("CAFFIS_S3_ENDPOINT", endpoint.as_str()),
        ("CAFFIS_S3_ACCESS_KEY", ACCESS_KEY),
        ("CAFFIS_S3_SECRET_KEY", SECRET_KEY),
    ];
    let run = |env: &[(&str, &str)], args: &[&str]| {
        let output = command(folder.path(), env).args(args).output();
        let output = output.expect("runs");
        let told = [output.stdout, output.stderr].concat();
        let told = String::from_utf8(told).expect("text");
        assert!(!told.contains(SECRET_KEY), "{told}");
        (output.status.code(), told)
    };
    let verdict = |env: &[(&str, &str)]| {
        let report: serde_json::Value =
            serde_json::from_str(&run(env, &["doctor", "--json"]).1).expect("JSON");
        let checks = report["checks"].as_array().expect("checks").clone();
        let files = checks.into_iter().find(|it| it["check"] == "files");
        files.expect("files")["verdict"]
            .as_str()
            .expect("one")
            .to_owned()
    };
    assert_eq!(verdict(&env), "fail");
    let (code, told) = run(&env, &["storage", "init"]);
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told.matches("was made, private").count(), 3, "{told}");
    let (code, told) = run(&env, &["storage", "init"]);
    assert_eq!(code, Some(0), "{told}");
    let lines: Vec<_> = told.lines().collect();
    let there = ["chat-images", "chat-files", "chat-voice"].map(|it| format!("{it} is there"));
    assert_eq!(lines, there);
    assert_eq!(verdict(&env), "ok");
    assert_eq!(verdict(&[]), "ok", "in the data folder");
    let (code, told) = run(&env[..1], &["storage", "init"]);
    assert_eq!(code, Some(2), "{told}");
    assert!(told.contains("CAFFIS_S3_SECRET_KEY"), "{told}");
}

#[test]
fn with_an_object_store_no_byte_of_a_file_passes_through_the_node() {
    let store = ObjectStore::start();
    let folder = tempfile::tempdir().expect("a folder");
    let endpoint = store.endpoint();
    let env = [
        ("CAFFIS_S3_ENDPOINT", endpoint.as_str()),
        ("CAFFIS_S3_ACCESS_KEY", ACCESS_KEY),
        ("CAFFIS_S3_SECRET_KEY", SECRET_KEY),
        ("CAFFIS_ADMIN_TOKEN", ADMIN),
    ];
    let made = command(folder.path(), &env)
        .args(["storage", "init"])
        .output();
    assert!(made.expect("runs").status.success());
    let node = Server::start(folder.path(), &env);
    let (ada_token, ada_id) = node.login("Ada");
    let (bob_token, bob_id) = node.login("Bob");
    let (mut ada, _) = node.sign_in(&ada_token);
    let (mut bob, _) = node.sign_in(&bob_token);
    let wanted = serde_json::json!({
        "kind": "direct", "member_ids": [bob_id], "client_room_id": uuid::Uuid::new_v4()
    });
    let created = ada.ask("room.create", &wanted);
    let room = created["data"]["room"]["room_id"].clone();
    let file = bytes(600_000);
    let wanted = serde_json::json!({
        "room_id": room, "kind": "image", "name": "river.png", "size": file.len(),
        "content_type": "image/png", "sha256": hex(&sha256(&file))
    });
    let told = ada.ask("upload.create", &wanted);
    let fields = told["data"]["fields"].as_object().expect("fields").clone();
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let ticket = Ticket {
        url: text(&told["data"]["url"]),
        fields: fields
            .iter()
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        expires_at: now(),
    };
    assert!(ticket.url.starts_with(&endpoint), "{}", ticket.url);
    let upload = &told["data"]["upload_id"];
    let message = serde_json::json!({
        "room_id": room, "client_msg_id": uuid::Uuid::now_v7(), "kind": "image",
        "attachments": [{"upload_id": upload}]
    });
    let early = ada.ask("message.send", &message);
    assert_eq!(early["error"]["code"], "not_found", "{early}");
    let answer = post(&ticket, &file);
    assert_eq!(answer.status, 204, "{}", answer.text());
    let sent = ada.ask("message.send", &message);
    assert!(sent["data"]["seq"].is_u64(), "{sent}");
    let event = bob.event_of("message.created");
    let attachment = &event["data"]["message"]["attachments"][0];
    assert_eq!(attachment["upload_id"], *upload);
    assert_eq!(attachment["size"], file.len());
    let wanted = serde_json::json!({"room_id": room, "upload_ids": [upload]});
    let told = bob.ask("attachment.urls", &wanted);
    let url = text(&told["data"]["urls"][0]["url"]);
    assert!(url.starts_with(&endpoint), "{url}");
    let answer = get(&url, "");
    assert!(answer.body == file, "{}", answer.status);
    // Pages may go there, and nothing of it is served here.
    let (host, _) = parts(&url);
    let page = get(&format!("http://{}/", node.address), "");
    let policy = page.header("content-security-policy");
    assert!(
        policy.contains(&format!("connect-src 'self' http://{host};")),
        "{policy}"
    );
    let here = get(
        &url.replace(&endpoint, &format!("http://{}/v1/files", node.address)),
        "",
    );
    assert_eq!(here.status, 404);
    let metrics = node.http("GET", "/metrics", "").1;
    assert!(
        !metrics.contains("caffis_file_transfers_total{"),
        "{metrics}"
    );
    for line in [
        "caffis_upload_tickets_total{result=\"ok\"} 1",
        &format!("caffis_upload_bytes_declared_total {}", file.len()),
        "caffis_upload_looks_total{result=\"checked\"} 1",
        "caffis_uploads_not_removed_seconds 0",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} in {metrics}");
    }

    // But in the archive of who brought it, piece by piece.
    let export = format!(
        "GET /v1/admin/users/{ada_id}/export HTTP/1.0\r\nhost: x\r\nauthorization: Bearer {ADMIN}\r\n\r\n"
    );
    let archive = exchange(&node.address.to_string(), export.as_bytes()).body;
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).expect("an archive");
    let path = format!("files/{}/river.png", text(upload));
    let mut found = Vec::new();
    let mut kept = archive.by_name(&path).expect("the file");
    kept.read_to_end(&mut found).expect("whole");
    assert!(found == file, "{} bytes", found.len());
}
