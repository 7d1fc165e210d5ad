//! Copies of the embedded store: taken while a node runs, and put in place of one that is lost.
//!
//! Invariants: a backup is one snapshot, whole and on disk when it is said to be made; nothing that
//! exists is overwritten; a history that was put back has a new epoch before any node can open it,
//! so every client notices that what it has may be newer.

use super::options::{DbOptions, OpenError};
use super::schema;
use super::threads::{DATABASE_FILE, lock};
use crate::protocol::Epoch;
use std::fs::{self, File};
use std::io;
use std::path::Path;

/// What a restore works on until it is whole.
const UNFINISHED_FILE: &str = "chat.db.restoring";

/// Writes what the database of this data folder holds now to a new file. A node may run on the
/// folder meanwhile, and goes on writing.
///
/// # Errors
/// [`OpenError`]: there is no database, the file exists, or the disk refuses.
pub fn backup(folder: &Path, file: &Path) -> Result<(), OpenError> {
    refuse_existing(file)?;
    let connection = schema::open_reader(&folder.join(DATABASE_FILE))?;
    schema::applied(&connection)?;
    // It may write to another file than the one that it reads.
    connection.execute_batch("PRAGMA query_only = OFF;")?;
    let name = file
        .to_str()
        .ok_or_else(|| OpenError::Io(format!("{}: not a name in UTF-8", file.display())))?;
    let written = connection
        .execute("VACUUM INTO ?1", [name])
        .map_err(OpenError::from)
        .and_then(|_| sync(file));
    if written.is_err() {
        // Half a backup must not be taken for one.
        let _gone = fs::remove_file(file);
    }
    written
}

/// Makes the database of this data folder from a backup, with a new epoch, which it returns.
///
/// # Errors
/// [`OpenError`]: the folder is in use or has a database, or the file is no sound database of ours.
/// Then nothing was changed.
pub fn restore(folder: &Path, file: &Path) -> Result<Epoch, OpenError> {
    fs::create_dir_all(folder)?;
    let _lock = lock(folder)?;
    let target = folder.join(DATABASE_FILE);
    for name in [DATABASE_FILE, "chat.db-wal", "chat.db-shm"] {
        refuse_existing(&folder.join(name))?;
    }
    let unfinished = folder.join(UNFINISHED_FILE);
    let restored = copy(file, &unfinished).and_then(|epoch| {
        fs::rename(&unfinished, &target)?;
        sync(&target)?;
        Ok(epoch)
    });
    if restored.is_err() {
        for end in ["", "-wal", "-shm"] {
            let _gone = fs::remove_file(folder.join(format!("{UNFINISHED_FILE}{end}")));
        }
    }
    restored
}

fn copy(file: &Path, unfinished: &Path) -> Result<Epoch, OpenError> {
    fs::copy(file, unfinished)?;
    let options = DbOptions::default();
    // Brings an older backup to the newest schema, and refuses what is none.
    let (connection, meta) = schema::open_existing(unfinished, &options)?;
    let sound: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if sound != "ok" {
        return Err(OpenError::Io(format!("the backup is damaged: {sound}")));
    }
    let epoch = schema::renew_epoch(&connection, &options, meta.epoch)?;
    // Closing it copies the log into it; only then is the one file everything.
    connection.close().map_err(|(_, error)| error)?;
    Ok(epoch)
}

fn refuse_existing(path: &Path) -> Result<(), OpenError> {
    if path.symlink_metadata().is_ok() {
        let told = format!("{} exists: move it away first", path.display());
        return Err(OpenError::Io(told));
    }
    Ok(())
}

/// The bytes of a file, and its name.
fn sync(file: &Path) -> Result<(), OpenError> {
    File::open(file)?.sync_all()?;
    let folder = match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    let synced: io::Result<()> = File::open(folder)?.sync_all();
    Ok(synced?)
}
