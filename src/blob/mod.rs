//! The seam of blobs: where the bytes of files are kept, and how a browser brings and fetches them.
//!
//! Invariants: who uploads can bring only what the ticket binds (key, type, size, time, and hash if given); what was
//! sealed is never changed by anybody, also not by whoever still holds its ticket; nobody gets at an object without a
//! URL that was signed for it. Bytes on their way to or from an object store never pass through this process, but
//! for the few that are looked at.
//!
//! The life of an object: [`Blob::ticket`] → the browser uploads → [`Blob::seal`] and [`Blob::read`] of its first
//! bytes, when a message is to use it → [`Blob::download_url`] … → [`Blob::delete`].
//!
//! Used on the threads of the control plane only, never on a shard. Next: the backends, each in a file of its own.

pub mod local;
pub mod s3;
pub mod signed;

use crate::protocol::UnixMs;
pub use crate::protocol::object::{Bucket, ObjectKey};
use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// Where the bytes are. Cheap to clone.
#[derive(Clone)]
pub struct Blob(Arc<dyn Backend>);

/// What somebody may upload.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upload {
    /// Where to.
    pub bucket: Bucket,
    /// As what.
    pub key: ObjectKey,
    /// As what type: `type/subtype`, in lower case ([`is_content_type`]).
    pub content_type: String,
    /// Its bytes, exactly; 1 or more.
    pub size: u64,
    /// The hash that the bytes must have.
    pub sha256: Option<[u8; 32]>,
    /// Its name, and whether a browser may show it, for those who fetch it from a CDN.
    pub shown: Shown,
    /// Until when.
    pub expires_at: UnixMs,
}

/// How a browser is to treat what it fetched.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shown {
    /// Under which name it is saved; what a name cannot have is replaced ([`disposition`]).
    pub name: String,
    /// To be shown in the page. What could be a page itself (HTML, SVG, …) never is.
    pub inline: bool,
}

/// How to upload: a POST of `multipart/form-data` to `url`, of all `fields` and then of the bytes as `file`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ticket {
    /// Where to; a path on this server if it is told no public URL of its own.
    pub url: String,
    /// The fields of the form.
    pub fields: BTreeMap<String, String>,
    /// Until when.
    pub expires_at: UnixMs,
}

/// What is known of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Facts {
    /// Its bytes.
    pub size: u64,
    /// As what type it was uploaded.
    pub content_type: String,
    /// The hash of its bytes, if the backend knows it.
    pub sha256: Option<[u8; 32]>,
}

/// What somebody may fetch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Download {
    /// Where from.
    pub bucket: Bucket,
    /// What.
    pub key: ObjectKey,
    /// As what type: `type/subtype`, in lower case.
    pub content_type: String,
    /// How it is treated.
    pub shown: Shown,
    /// Until when. A CDN's URL is good for longer.
    pub expires_at: UnixMs,
}

/// Why the backend did not do it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BlobError {
    /// It cannot now (away, slow, full): later it may. Says nothing about the outcome.
    Unavailable(String),
    /// It will not: settings or rights are wrong.
    Refused(String),
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlobError::Unavailable(why) => write!(f, "files cannot be reached now: {why}"),
            BlobError::Refused(why) => write!(f, "files cannot be used: {why}"),
        }
    }
}

impl std::error::Error for BlobError {}

/// An answer of a backend, on its way.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, BlobError>> + Send + 'a>>;

/// What every backend does; [`Blob`] tells what each is for.
pub trait Backend: Send + Sync {
    /// See [`Blob::ticket`].
    fn ticket<'a>(&'a self, upload: &'a Upload) -> Answer<'a, Ticket>;
    /// See [`Blob::seal`].
    fn seal<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, Option<Facts>>;
    /// See [`Blob::head`].
    fn head<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, Option<Facts>>;
    /// See [`Blob::read`].
    fn read<'a>(
        &'a self,
        bucket: Bucket,
        key: &'a ObjectKey,
        offset: u64,
        bytes: usize,
    ) -> Answer<'a, Option<Vec<u8>>>;
    /// See [`Blob::download_url`].
    fn download_url<'a>(&'a self, download: &'a Download) -> Answer<'a, String>;
    /// See [`Blob::delete`].
    fn delete<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, ()>;
    /// See [`Blob::init`].
    fn init(&self) -> Answer<'_, Vec<String>>;
    /// See [`Blob::check`].
    fn check(&self) -> Answer<'_, String>;
}

impl Blob {
    /// Of this backend.
    pub fn new(backend: Arc<dyn Backend>) -> Blob {
        Blob(backend)
    }

    /// Of a node that can keep no files, and why: it answers that to everything.
    pub fn nowhere(why: String) -> Blob {
        Blob(Arc::new(Nowhere(BlobError::Unavailable(why))))
    }

    /// Lets somebody upload one object, which nobody can fetch before it is sealed.
    ///
    /// # Errors
    /// [`BlobError`]; no backend asks another machine for this.
    pub async fn ticket(&self, upload: &Upload) -> Result<Ticket, BlobError> {
        self.0.ticket(upload).await
    }

    /// Takes an uploaded object out of its uploader's hands, and tells what it is: from now on it is what it is. To be
    /// done before anything of it is believed. Done again it tells the same. `None`: nothing was uploaded.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn seal(&self, bucket: Bucket, key: &ObjectKey) -> Result<Option<Facts>, BlobError> {
        self.0.seal(bucket, key).await
    }

    /// What is known of a sealed object; `None`: there is none.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn head(&self, bucket: Bucket, key: &ObjectKey) -> Result<Option<Facts>, BlobError> {
        self.0.head(bucket, key).await
    }

    /// Bytes of a sealed object from `offset` on, `bytes` of them, fewer at its end, none behind it; `None`: there is
    /// no such object. For its first bytes, or piece by piece for the whole.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn read(
        &self,
        bucket: Bucket,
        key: &ObjectKey,
        offset: u64,
        bytes: usize,
    ) -> Result<Option<Vec<u8>>, BlobError> {
        self.0.read(bucket, key, offset, bytes).await
    }

    /// A URL from which one sealed object can be fetched; whether there is such an object is not asked.
    ///
    /// # Errors
    /// [`BlobError`]; no backend asks another machine for this.
    pub async fn download_url(&self, download: &Download) -> Result<String, BlobError> {
        self.0.download_url(download).await
    }

    /// Removes objects, sealed or not; what is not there is removed already.
    ///
    /// # Errors
    /// [`BlobError`] of the first that was not removed; those before it are, and it may be done again.
    pub async fn delete<'a>(
        &self,
        objects: impl IntoIterator<Item = (Bucket, &'a ObjectKey)>,
    ) -> Result<(), BlobError> {
        for (bucket, key) in objects {
            self.0.delete(bucket, key).await?;
        }
        Ok(())
    }

    /// Makes and configures the buckets; done again it changes nothing. Tells what was done, a sentence each.
    ///
    /// # Errors
    /// [`BlobError`].
    pub async fn init(&self) -> Result<Vec<String>, BlobError> {
        self.0.init().await
    }

    /// Whether it is ready for use: a sentence.
    ///
    /// # Errors
    /// [`BlobError`], which tells what to do.
    pub async fn check(&self) -> Result<String, BlobError> {
        self.0.check().await
    }
}

/// The backend of a node that can keep no files.
struct Nowhere(BlobError);

impl Nowhere {
    fn told<'a, T: Send + 'a>(&'a self) -> Answer<'a, T> {
        Box::pin(std::future::ready(Err(self.0.clone())))
    }
}

impl Backend for Nowhere {
    fn ticket<'a>(&'a self, _: &'a Upload) -> Answer<'a, Ticket> {
        self.told()
    }
    fn seal<'a>(&'a self, _: Bucket, _: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        self.told()
    }
    fn head<'a>(&'a self, _: Bucket, _: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        self.told()
    }
    fn read<'a>(
        &'a self,
        _: Bucket,
        _: &'a ObjectKey,
        _: u64,
        _: usize,
    ) -> Answer<'a, Option<Vec<u8>>> {
        self.told()
    }
    fn download_url<'a>(&'a self, _: &'a Download) -> Answer<'a, String> {
        self.told()
    }
    fn delete<'a>(&'a self, _: Bucket, _: &'a ObjectKey) -> Answer<'a, ()> {
        self.told()
    }
    fn init(&self) -> Answer<'_, Vec<String>> {
        self.told()
    }
    fn check(&self) -> Answer<'_, String> {
        self.told()
    }
}

/// Whether this is a type as headers have it: `type/subtype` of RFC 9110's tokens, in lower case, without parameters,
/// at most 100 bytes.
pub fn is_content_type(text: &str) -> bool {
    let is_token = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| {
                matches!(byte, b'a'..=b'z' | b'0'..=b'9') || b"!#$&^_.+-".contains(&byte)
            })
    };
    text.len() <= 100
        && text
            .split_once('/')
            .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
}

/// Types that a browser shows without running anything of theirs.
const SHOWN_INLINE: &[&str] = &[
    "image/png",
    "image/jpeg",
    "image/gif",
    "image/webp",
    "image/avif",
    "audio/aac",
    "audio/mp4",
    "audio/mpeg",
    "audio/ogg",
    "audio/wav",
    "audio/webm",
    "video/mp4",
    "video/webm",
];

/// Types that a browser would run in the place where they come from, if it were let.
const RUN: &[&str] = &["html", "javascript", "ecmascript", "svg", "wasm"];

/// The type as which an object of this type is given out.
pub fn served_type(content_type: &str) -> &str {
    let runs = content_type.ends_with("xml") || RUN.iter().any(|it| content_type.contains(it));
    match is_content_type(content_type) && !runs {
        true => content_type,
        false => "application/octet-stream",
    }
}

/// `Content-Disposition` (RFC 6266) of an object of this type: ASCII throughout, with the name in both spellings.
pub fn disposition(shown: &Shown, content_type: &str) -> String {
    let name = file_name(&shown.name);
    let kind = match shown.inline && SHOWN_INLINE.contains(&content_type) {
        true => "inline",
        false => "attachment",
    };
    let plain: String = name
        .chars()
        .map(|c| match c {
            ' '..='~' if !"\"\\%".contains(c) => c,
            _ => '_',
        })
        .collect();
    // RFC 8187: what is no attr-char is percent-encoded.
    let mut encoded = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{encoded}")
}

/// Longest name that is given to a file, characters.
const NAME_CHARS_MAX: usize = 120;

/// A name that is one file's everywhere: no path, no control characters, none that turn the reading direction (which
/// make `exe.jpg` of `gpj.exe`), not hidden, not empty.
pub fn file_name(name: &str) -> String {
    let turns = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let chars = name.chars().filter(|c| !turns(*c)).map(|c| {
        match c.is_control() || "/\\:*?\"<>|".contains(c) {
            true => '_',
            false => c,
        }
    });
    let cleaned: String = chars.collect();
    let cleaned = cleaned.trim_matches([' ', '.']);
    let count = cleaned.chars().count();
    if cleaned.is_empty() {
        return "file".to_owned();
    }
    if count <= NAME_CHARS_MAX {
        return cleaned.to_owned();
    }
    // The ending tells what it is.
    let ending = cleaned.rsplit_once('.').map(|(_, ending)| ending);
    let ending = ending.filter(|it| it.chars().count() <= 12);
    let ending = ending.map_or_else(String::new, |it| format!(".{it}"));
    let kept = NAME_CHARS_MAX - ending.chars().count();
    cleaned.chars().take(kept).collect::<String>() + &ending
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(name: &str, inline: bool) -> Shown {
        Shown {
            name: name.to_owned(),
            inline,
        }
    }

    #[test]
    fn a_name_stands_in_a_header_in_both_spellings() {
        for (name, expected) in [
            (
                "a.png",
                "inline; filename=\"a.png\"; filename*=UTF-8''a.png",
            ),
            (
                "Grüße \"1\".png",
                "inline; filename=\"Gr__e _1_.png\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20_1_.png",
            ),
            (
                "../../etc/passwd",
                "inline; filename=\"_.._etc_passwd\"; filename*=UTF-8''_.._etc_passwd",
            ),
            (
                "a\r\nSet-Cookie: b",
                "inline; filename=\"a__Set-Cookie_ b\"; filename*=UTF-8''a__Set-Cookie_%20b",
            ),
            ("...", "inline; filename=\"file\"; filename*=UTF-8''file"),
            (
                "photo\u{202e}gpj.exe",
                "inline; filename=\"photogpj.exe\"; filename*=UTF-8''photogpj.exe",
            ),
        ] {
            assert_eq!(disposition(&shown(name, true), "image/png"), expected);
        }
        let long = format!("{}.tar", "ä".repeat(500));
        assert_eq!(file_name(&long).chars().count(), NAME_CHARS_MAX);
        assert!(file_name(&long).ends_with("ä.tar"));
    }

    #[test]
    fn only_what_runs_nothing_is_shown_in_a_page() {
        let kind = |inline, content_type| {
            let text = disposition(&shown("a", inline), content_type);
            text.split(';').next().unwrap_or_default().to_owned()
        };
        assert_eq!(kind(true, "image/png"), "inline");
        assert_eq!(kind(false, "image/png"), "attachment");
        for content_type in [
            "text/html",
            "image/svg+xml",
            "text/plain",
            "application/zip",
        ] {
            assert_eq!(kind(true, content_type), "attachment");
        }
    }

    #[test]
    fn what_could_run_is_given_out_as_bytes() {
        for content_type in [
            "text/html",
            "image/svg+xml",
            "application/xhtml+xml",
            "text/javascript",
            "no type",
            "text/plain; charset=utf-8",
        ] {
            assert_eq!(served_type(content_type), "application/octet-stream");
        }
        let docx = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
        for content_type in ["image/png", "text/plain", "application/zip", docx] {
            assert_eq!(served_type(content_type), content_type);
        }
    }

    #[test]
    fn a_type_is_what_headers_take_for_one() {
        for text in ["image/png", "application/vnd.ms-excel", "audio/x-m4a"] {
            assert!(is_content_type(text), "{text}");
        }
        let long = format!("a/{}", "b".repeat(100));
        for text in [
            "",
            "/",
            "image",
            "image/",
            "IMAGE/png",
            "a/b/c",
            "a/b\n",
            "a/b; c=d",
            &long,
        ] {
            assert!(!is_content_type(text), "{text}");
        }
    }
}
