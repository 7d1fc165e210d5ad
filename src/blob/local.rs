//! The folder below the data folder: the backend of a node that is told no object store.
//!
//! ```text
//! files.key                     the secret of tickets and URLs, 0600
//! files/chat-images/ab/ab…      an object: its bytes, then what is known of it, then how long that is, then a mark
//! files/unfinished/RUN/…        uploads under way of one process, whose `lock` it holds
//! ```
//!
//! Invariants: an object appears under its key whole, with its facts, on disk, and then never changes; what a crash
//! left of an upload is removed at the next start, and never under the feet of another process; an upload that is
//! refused leaves nothing. An object is sealed as soon as it is there: nothing overwrites it, also not another process
//! that has the same folder.

use super::signed::{Expected, Signer, hex, unhex};
use super::{Answer, Backend, BlobError, Bucket, Download, Facts, ObjectKey, Ticket, Upload};
use aws_lc_rs::digest;
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where this server has its files: the path of both the uploads and the downloads.
pub const PATH: &str = "/v1/files";
/// The file of the secret, in the data folder.
const KEY_FILE: &str = "files.key";
/// The folder of all files, in the data folder.
const FOLDER: &str = "files";
/// The folder of the uploads under way.
const UNFINISHED: &str = "unfinished";
/// The file in a process's folder of uploads that tells whether the process lives.
const LOCK: &str = "lock";
/// The last bytes of an object's file.
const MARK: &[u8; 8] = b"caffisF1";
/// Before them: how long the facts are, as 32 bits, the lowest first.
const LENGTH_BYTES: u64 = 4;
/// Longest facts that are believed.
const FACTS_BYTES_MAX: u64 = 4 << 10;

/// The folder, open.
pub struct Folder {
    root: PathBuf,
    unfinished: PathBuf,
    signer: Signer,
    /// What the URLs that browsers get begin with: empty, or `https://host`.
    public_url: String,
    /// Held while an object gets its name where there are no hard links.
    naming: Mutex<()>,
    /// Held as long as this process lives.
    _lock: File,
}

/// What stands behind the bytes of an object.
#[derive(Serialize, Deserialize)]
struct Stored {
    size: u64,
    content_type: String,
    sha256: String,
}

/// An object that is being read.
pub struct Opened {
    file: File,
    /// What is known of it.
    pub facts: Facts,
}

/// Why an upload was not taken.
#[derive(Debug)]
pub enum NotTaken {
    /// More bytes than the ticket says.
    TooLong,
    /// Fewer bytes than the ticket says.
    TooShort,
    /// Other bytes than the ticket says.
    OtherHash,
    /// The key is in use for other bytes, which stay.
    Exists,
    /// The disk is full.
    Full,
    /// The disk failed.
    Failed(io::Error),
}

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> NotTaken {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => NotTaken::Full,
            _ => NotTaken::Failed(error),
        }
    }
}

/// An upload under way. Dropped before its end it leaves nothing.
pub struct Writing {
    folder: Arc<Folder>,
    expected: Expected,
    file: File,
    path: PathBuf,
    written: u64,
    hash: digest::Context,
}

impl Folder {
    /// Opens the files of this data folder, and removes what dead processes left unfinished.
    ///
    /// # Errors
    /// The folder cannot be made, read or written, or its key is none of ours.
    pub fn open(data_dir: &Path, public_url: Option<&str>) -> io::Result<Folder> {
        fs::create_dir_all(data_dir)?;
        let root = data_dir.join(FOLDER);
        for bucket in Bucket::ALL {
            make_folder(&root.join(bucket.name()))?;
        }
        let all_unfinished = root.join(UNFINISHED);
        make_folder(&all_unfinished)?;
        // One process at a time does what follows; given up when this returns.
        let opening = File::create(root.join(LOCK))?;
        opening.lock()?;
        remove_the_dead(&all_unfinished)?;
        let unfinished = all_unfinished.join(uuid::Uuid::new_v4().simple().to_string());
        make_folder(&unfinished)?;
        let lock = File::create(unfinished.join(LOCK))?;
        lock.lock()?;
        let secret = read_or_create_key(data_dir)?;
        Ok(Folder {
            root,
            unfinished,
            signer: Signer::new(&secret),
            public_url: public_url.unwrap_or_default().to_owned(),
            naming: Mutex::new(()),
            _lock: lock,
        })
    }

    /// Who checks tickets and URLs.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    fn path(&self, bucket: Bucket, key: &ObjectKey) -> PathBuf {
        // A key is letters and digits by construction, so this leads nowhere else.
        self.root.join(bucket.name()).join(key.as_str())
    }

    /// Begins an upload. Blocks.
    ///
    /// # Errors
    /// [`NotTaken`].
    pub fn begin(self: &Arc<Self>, expected: Expected) -> Result<Writing, NotTaken> {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path = self.unfinished.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Writing {
            folder: self.clone(),
            expected,
            file,
            path,
            written: 0,
            hash: digest::Context::new(&digest::SHA256),
        })
    }

    /// An object, to be read; `None`: there is none. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or is none of ours.
    pub fn open_object(&self, bucket: Bucket, key: &ObjectKey) -> io::Result<Option<Opened>> {
        let file = match File::open(self.path(bucket, key)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let facts = read_facts(&file)?;
        Ok(Some(Opened { file, facts }))
    }

    fn remove(&self, bucket: Bucket, key: &ObjectKey) -> io::Result<()> {
        let path = self.path(bucket, key);
        match fs::remove_file(&path) {
            Ok(()) => sync_folder_of(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether something can be written: by doing it.
    fn try_out(&self) -> io::Result<()> {
        let path = self.unfinished.join("try");
        let mut file = File::create(&path)?;
        let written = file.write_all(b"try").and_then(|()| file.sync_all());
        fs::remove_file(&path)?;
        written
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left is removed at the next start.
        let _left = fs::remove_dir_all(&self.unfinished);
    }
}

impl Writing {
    /// Takes further bytes. Blocks.
    ///
    /// # Errors
    /// [`NotTaken`]; then it is over.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), NotTaken> {
        let left = self.expected.size - self.written;
        if bytes.len() as u64 > left {
            return Err(NotTaken::TooLong);
        }
        self.file.write_all(bytes)?;
        self.hash.update(bytes);
        self.written += bytes.len() as u64;
        Ok(())
    }

    /// Makes an object of what was written; when this returns, it is on disk. Blocks.
    ///
    /// # Errors
    /// [`NotTaken`]; then nothing is there.
    pub fn finish(self) -> Result<(), NotTaken> {
        self.finish_by(|from, to| fs::hard_link(from, to))
    }

    fn finish_by(mut self, link: impl Fn(&Path, &Path) -> io::Result<()>) -> Result<(), NotTaken> {
        if self.written != self.expected.size {
            return Err(NotTaken::TooShort);
        }
        let hash = digest::Context::finish(self.hash.clone());
        if (self.expected.sha256).is_some_and(|expected| hash.as_ref() != expected) {
            return Err(NotTaken::OtherHash);
        }
        let stored = Stored {
            size: self.written,
            content_type: self.expected.content_type.clone(),
            sha256: hex(hash.as_ref()),
        };
        let mut tail = serde_json::to_vec(&stored).map_err(io::Error::from)?;
        let length = u32::try_from(tail.len()).map_err(io::Error::other)?;
        tail.extend_from_slice(&length.to_le_bytes());
        tail.extend_from_slice(MARK);
        self.file.write_all(&tail)?;
        self.file.sync_all()?;
        let target = self.folder.path(self.expected.bucket, &self.expected.key);
        if let Some(folder) = target.parent() {
            make_folder(folder)?;
        }
        // A link, other than a rename, replaces nothing, whoever else has this folder.
        let there = match link(&self.path, &target) {
            // The other name goes with this.
            Ok(()) => None,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Some(read_facts(&File::open(&target)?)?)
            }
            // Not every file system has links.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied
                ) =>
            {
                self.rename(&target)?
            }
            Err(error) => return Err(error.into()),
        };
        sync_folder_of(&target)?;
        match there {
            // Uploaded once more by somebody who did not hear the answer: then nothing is to be done.
            Some(there) if there.sha256.is_none_or(|it| hash.as_ref() != it) => {
                Err(NotTaken::Exists)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Names it, unless an object has that name. A rename replaces what is there; so nobody else of this process may come
    /// between looking and renaming. Of another process that has the same folder it is not known.
    fn rename(&self, target: &Path) -> io::Result<Option<Facts>> {
        let naming = self.folder.naming.lock();
        let _naming = naming.unwrap_or_else(PoisonError::into_inner);
        match File::open(target) {
            Ok(file) => read_facts(&file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::rename(&self.path, target)?;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // An object has a name of its own by now; what cannot be removed is removed at the next start.
        let _left = fs::remove_file(&self.path);
    }
}

impl Opened {
    /// Bytes from `offset` on, as many as `bytes` and as there are. Blocks.
    ///
    /// # Errors
    /// The disk failed.
    pub fn read(&self, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let left = self.facts.size.saturating_sub(offset);
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(bytes);
        let mut read = vec![0; length];
        self.file.read_exact_at(&mut read, offset)?;
        Ok(read)
    }
}

fn read_facts(file: &File) -> io::Result<Facts> {
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a file that is no object");
    let length = file.metadata()?.len();
    let footer_bytes = LENGTH_BYTES + MARK.len() as u64;
    let footer_at = length.checked_sub(footer_bytes).ok_or_else(broken)?;
    let mut footer = [0; 12];
    file.read_exact_at(&mut footer, footer_at)?;
    let ([a, b, c, d], mark) = match footer.split_first_chunk::<4>() {
        Some((length, mark)) => (*length, mark),
        None => return Err(broken()),
    };
    let facts_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    if mark != MARK || facts_bytes > FACTS_BYTES_MAX {
        return Err(broken());
    }
    let size = footer_at.checked_sub(facts_bytes).ok_or_else(broken)?;
    let mut facts = vec![0; usize::try_from(facts_bytes).map_err(io::Error::other)?];
    file.read_exact_at(&mut facts, size)?;
    let stored: Stored = serde_json::from_slice(&facts).map_err(|_| broken())?;
    if stored.size != size {
        return Err(broken());
    }
    Ok(Facts {
        size,
        content_type: stored.content_type,
        sha256: unhex(&stored.sha256),
    })
}

/// Makes it, and what it lies in, and sees that its name is on disk.
fn make_folder(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path)?;
    sync_folder_of(path)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// The lock of a process's folder, open for writing: on NFS nothing else can be locked exclusively.
fn open_lock(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).open(folder.join(LOCK))
}

/// Removes the uploads under way of processes that are gone. What cannot be looked at or removed is left.
fn remove_the_dead(all: &Path) -> io::Result<()> {
    for entry in fs::read_dir(all)? {
        let path = entry?.path();
        if let Err(error) = remove_if_dead(&path) {
            let path = path.display();
            tracing::warn!(%path, %error, "what may be left of uploads stays");
        }
    }
    Ok(())
}

/// Removes the folder of a process that is gone. Its lock is given up before: on NFS a file that is open leaves another
/// name, which keeps the folder; nobody else takes it, as one process at a time does this.
fn remove_if_dead(path: &Path) -> io::Result<()> {
    match open_lock(path) {
        Ok(lock) => match lock.try_lock() {
            Ok(()) => drop(lock),
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        },
        // Ended between making its folder and its lock.
        Err(error) if error.kind() == io::ErrorKind::NotFound => (),
        Err(error) => return Err(error),
    }
    fs::remove_dir_all(path)
}

/// The secret of this data folder, made now if there is none: written beside and renamed, so that a crash leaves no half
/// of it.
fn read_or_create_key(data_dir: &Path) -> io::Result<[u8; 32]> {
    let path = data_dir.join(KEY_FILE);
    if !path.exists() {
        let mut random = [0; 32];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let beside = data_dir.join(format!("{KEY_FILE}.new"));
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(hex(&random).as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        sync_folder_of(&path)?;
    }
    let mut text = String::new();
    File::open(&path)?.take(128).read_to_string(&mut text)?;
    unhex(text.trim()).ok_or_else(|| {
        let problem = format!("{KEY_FILE} holds no key of this program; remove it for a new one");
        io::Error::new(io::ErrorKind::InvalidData, problem)
    })
}

/// Does something that blocks, where that harms nobody.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, BlobError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(BlobError::Unavailable(error.to_string())),
        Err(_) => Err(BlobError::Unavailable("was given up".to_owned())),
    }
}

/// As a backend: what it does is done beside the thread that asks.
pub struct Local(pub Arc<Folder>);

impl Local {
    fn look(&self, bucket: Bucket, key: &ObjectKey) -> Answer<'_, Option<Facts>> {
        let (folder, key) = (self.0.clone(), key.clone());
        Box::pin(blocking(move || {
            let opened = folder.open_object(bucket, &key)?;
            Ok(opened.map(|opened| opened.facts))
        }))
    }
}

impl Backend for Local {
    fn ticket<'a>(&'a self, upload: &'a Upload) -> Answer<'a, Ticket> {
        Box::pin(async move {
            Ok(Ticket {
                url: format!("{}{PATH}/{}", self.0.public_url, upload.bucket.name()),
                fields: self.0.signer.fields(upload),
                expires_at: upload.expires_at,
            })
        })
    }

    fn seal<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        self.look(bucket, key)
    }

    fn head<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, Option<Facts>> {
        self.look(bucket, key)
    }

    fn read<'a>(
        &'a self,
        bucket: Bucket,
        key: &'a ObjectKey,
        offset: u64,
        bytes: usize,
    ) -> Answer<'a, Option<Vec<u8>>> {
        let (folder, key) = (self.0.clone(), key.clone());
        Box::pin(blocking(move || {
            let opened = folder.open_object(bucket, &key)?;
            opened.map(|opened| opened.read(offset, bytes)).transpose()
        }))
    }

    fn download_url<'a>(&'a self, download: &'a Download) -> Answer<'a, String> {
        Box::pin(async move {
            let (bucket, key) = (download.bucket.name(), &download.key);
            let query = self.0.signer.query(download);
            Ok(format!(
                "{}{PATH}/{bucket}/{key}?{query}",
                self.0.public_url
            ))
        })
    }

    fn delete<'a>(&'a self, bucket: Bucket, key: &'a ObjectKey) -> Answer<'a, ()> {
        let (folder, key) = (self.0.clone(), key.clone());
        Box::pin(blocking(move || folder.remove(bucket, &key)))
    }

    fn init(&self) -> Answer<'_, Vec<String>> {
        // Opening it was all.
        Box::pin(async move {
            let folder = self.0.root.display();
            Ok(vec![format!(
                "{folder} holds the files; nothing was changed"
            )])
        })
    }

    fn check(&self) -> Answer<'_, String> {
        let folder = self.0.clone();
        Box::pin(blocking(move || {
            folder.try_out()?;
            Ok(format!("files are kept in {}", folder.root.display()))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    fn expected(key: [u8; 16]) -> Expected {
        Expected {
            bucket: Bucket::Files,
            key: ObjectKey::new(key),
            content_type: "text/plain".to_owned(),
            size: 5,
            sha256: None,
        }
    }

    fn written(folder: &Arc<Folder>, key: [u8; 16], bytes: &[u8]) -> Writing {
        let mut writing = folder.begin(expected(key)).expect("it is begun");
        writing.write(bytes).expect("it is taken");
        writing
    }

    fn bytes(folder: &Folder, key: [u8; 16]) -> Vec<u8> {
        let opened = folder.open_object(Bucket::Files, &ObjectKey::new(key));
        let opened = opened.expect("it is read").expect("it is there");
        opened.read(0, 100).expect("it is read")
    }

    #[test]
    fn of_two_processes_that_bring_one_object_the_first_stays() {
        let data = tempfile::tempdir().expect("a folder");
        let folders = [(); 2].map(|()| Folder::open(data.path(), None).expect("it opens"));
        let folders = folders.map(Arc::new);
        for round in 0..300_u128 {
            let key = round.to_le_bytes();
            let brings = [b"hello", b"other"];
            let both = Barrier::new(2);
            let done = std::thread::scope(|scope| {
                let ends = [0, 1].map(|at| {
                    let writing = written(&folders[at], key, brings[at]);
                    let both = &both;
                    scope.spawn(move || {
                        both.wait();
                        writing.finish()
                    })
                });
                ends.map(|end| end.join().expect("no panic"))
            });
            let first = match &done {
                [Ok(()), Err(NotTaken::Exists)] => 0,
                [Err(NotTaken::Exists), Ok(())] => 1,
                both => panic!("round {round}: {both:?}"),
            };
            assert_eq!(bytes(&folders[0], key), brings[first]);
            // Once more by who did not hear the answer, and by who brings something else.
            let again = written(&folders[1 - first], key, brings[first]).finish();
            assert!(again.is_ok(), "{again:?}");
            let other = written(&folders[first], key, brings[1 - first]).finish();
            assert!(matches!(other, Err(NotTaken::Exists)), "{other:?}");
            assert_eq!(bytes(&folders[1], key), brings[first]);
        }
        for folder in folders {
            let left = fs::read_dir(&folder.unfinished).expect("it is read");
            assert_eq!(left.count(), 1, "the lock alone");
        }
    }

    #[test]
    fn without_hard_links_an_object_that_is_there_stays_too() {
        let data = tempfile::tempdir().expect("a folder");
        let folder = Arc::new(Folder::open(data.path(), None).expect("it opens"));
        let none = |_: &Path, _: &Path| Err(io::ErrorKind::Unsupported.into());
        let first = written(&folder, [1; 16], b"hello").finish_by(none);
        assert!(first.is_ok(), "{first:?}");
        let again = written(&folder, [1; 16], b"hello").finish_by(none);
        assert!(again.is_ok(), "{again:?}");
        let other = written(&folder, [1; 16], b"other").finish_by(none);
        assert!(matches!(other, Err(NotTaken::Exists)), "{other:?}");
        assert_eq!(bytes(&folder, [1; 16]), b"hello");
        let denied = |_: &Path, _: &Path| Err(io::ErrorKind::StorageFull.into());
        let full = written(&folder, [2; 16], b"hello").finish_by(denied);
        assert!(matches!(full, Err(NotTaken::Full)), "{full:?}");
    }

    #[test]
    fn what_the_dead_left_goes_and_what_cannot_be_told_is_left_alone() {
        let data = tempfile::tempdir().expect("a folder");
        let living = Folder::open(data.path(), None).expect("it opens");
        let all = data.path().join(FOLDER).join(UNFINISHED);
        let [dead, lockless, odd] = ["dead", "lockless", "odd"].map(|name| all.join(name));
        for folder in [&dead, &lockless, &odd] {
            fs::create_dir(folder).expect("it is made");
            fs::write(folder.join("half"), "half").expect("it is written");
        }
        File::create(dead.join(LOCK)).expect("it is made");
        // A lock that nobody can open, and something that is no folder.
        std::os::unix::fs::symlink(LOCK, odd.join(LOCK)).expect("it is made");
        fs::write(all.join(".nfs0001"), "x").expect("it is written");
        let _second = Folder::open(data.path(), None).expect("it opens all the same");
        assert!(living.unfinished.join(LOCK).exists() && odd.exists());
        assert!(!dead.exists() && !lockless.exists());
    }

    #[test]
    fn a_lock_is_opened_as_nfs_wants_it() {
        let data = tempfile::tempdir().expect("a folder");
        let folder = Folder::open(data.path(), None).expect("it opens");
        let mut lock = open_lock(&folder.unfinished).expect("it opens");
        // An exclusive lock there takes a file that is open for writing.
        assert!(lock.write_all(b"x").is_ok());
        assert!(matches!(lock.try_lock(), Err(TryLockError::WouldBlock)));
    }
}
