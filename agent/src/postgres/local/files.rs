//! Writing files so that a crash at any instant leaves the old or the new content, never a part.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::Error;

/// Makes names of temporary files differ when two tasks write the same file.
static COUNTER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

/// Replaces `path` by `content` with permissions `mode`: temporary file, fsync, rename, fsync of the directory. Returns whether
/// anything changed; an equal file is left alone.
pub(super) fn write(path: &Path, content: &[u8], mode: u32) -> Result<bool, Error> {
    let same = fs::read(path).is_ok_and(|old| old == content)
        && fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & 0o777 == mode);
    if same {
        return Ok(false);
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    let number = COUNTER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    name.push(format!(".surus-{}-{number}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let result = fill(&temporary, content, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(Error::file("write", path));
    if result.is_err() {
        // The rename did not happen, so the temporary file is only litter; failing to sweep it changes nothing.
        let _ = fs::remove_file(&temporary);
    }
    result?;
    sync_parent(path)?;
    Ok(true)
}

fn fill(path: &Path, content: &[u8], mode: u32) -> std::io::Result<()> {
    let _ = fs::remove_file(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    // The umask may have taken bits away from what `mode` asked for.
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)?;
    file.sync_all()
}

/// Makes creation, renaming or removal of `path` durable.
pub(super) fn sync_parent(path: &Path) -> Result<(), Error> {
    let parent = parent(path);
    File::open(&parent)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::file("sync", &parent))
}

/// Removes a file if it is there.
pub(super) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::file("remove", path)(error)),
    }
}

/// The directory that holds `path`.
pub(super) fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// `path` with `suffix` appended to its last component.
pub(super) fn sibling(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(suffix);
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_file_has_its_content_and_mode_and_leaves_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pgpass");
        assert!(write(&path, b"one", 0o600).unwrap());
        assert!(!write(&path, b"one", 0o600).unwrap());
        assert!(write(&path, b"two", 0o600).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
