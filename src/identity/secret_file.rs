//! The secret of a development node that was given none: made once and kept in the data folder,
//! so that tokens stay valid over a restart.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// The file's name in the data folder.
pub const FILE: &str = "development.secret";
/// Random bytes of a secret: as long as the hash.
const RANDOM_BYTES: usize = 32;

/// The secret of this data folder, made now if there is none.
///
/// # Errors
/// The file cannot be read or written, or what it holds is no secret of ours.
pub fn read_or_create(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join(FILE);
    match File::open(&path) {
        Ok(file) => read(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir, &path),
        Err(error) => Err(error),
    }
}

fn read(file: File) -> io::Result<String> {
    let mut text = String::new();
    // One more than a secret has, so that what is too long is noticed.
    file.take(RANDOM_BYTES as u64 * 2 + 2)
        .read_to_string(&mut text)?;
    let secret = text.trim();
    let is_secret =
        secret.len() == RANDOM_BYTES * 2 && secret.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_secret {
        Ok(secret.to_owned())
    } else {
        let problem = format!("{FILE} holds no secret of this program; remove it for a new one");
        Err(io::Error::new(io::ErrorKind::InvalidData, problem))
    }
}

/// Written beside and renamed, so that a crash leaves no half of a secret behind.
fn create(data_dir: &Path, path: &Path) -> io::Result<String> {
    let mut random = [0u8; RANDOM_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let secret: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let beside = data_dir.join(format!("{FILE}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(secret.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(secret)
}
