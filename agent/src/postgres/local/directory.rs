//! The data directory: what it is, who uses it, what was begun in it, and how it is moved out of the way.
//!
//! Everything here is file work and may block on a slow disk: callers run it off the event loop.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::site::{Found, PidFile};
use super::{Error, files, text};

/// Looks at a data directory. `major` is the version of the installed server, if that is known.
pub(super) fn inspect(data_dir: &Path, major: Option<u32>) -> Found {
    let place = data_dir.display();
    if let Some(marker) = Marker::read(data_dir) {
        return Found::Incomplete(marker.describe(data_dir));
    }
    let meta = match fs::metadata(data_dir) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Empty,
        Err(error) => {
            return Found::Unusable(format!(
                "cannot look at {place}: {error}; give the agent's user access to it"
            ));
        }
    };
    if !meta.is_dir() {
        return Found::Unusable(format!("{place} is no directory; set postgresql.data_dir to one"));
    }
    let me = rustix::process::geteuid().as_raw();
    if meta.uid() != me {
        return Found::Unusable(format!(
            "{place} belongs to user id {}, and the agent runs as {me}; chown it to the agent's user",
            meta.uid()
        ));
    }
    let mut entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) => {
            return Found::Unusable(format!(
                "cannot read {place}: {error}; give it the permissions 0700 or 0750"
            ));
        }
    };
    if entries.next().is_none() {
        return Found::Empty;
    }
    let version = fs::read_to_string(data_dir.join("PG_VERSION")).ok();
    let control = data_dir.join("global/pg_control");
    match (version, control.exists()) {
        (None, false) => {
            return Found::Unusable(format!(
                "{place} is not empty and holds no PostgreSQL cluster (no PG_VERSION, no global/pg_control); \
                 empty it or set postgresql.data_dir to another directory"
            ));
        }
        (Some(_), false) | (None, true) => {
            return Found::Incomplete(format!(
                "{place} holds a part of a cluster (PG_VERSION or global/pg_control is missing), as an interrupted initdb or copy \
                 leaves it"
            ));
        }
        (Some(version), true) => {
            let version = version.trim();
            if let Some(major) = major
                && version != major.to_string()
            {
                return Found::Unusable(format!(
                    "{place} is of PostgreSQL {version}, and the installed server is {major}; set postgresql.bin_dir to the binaries \
                     of {version}, or run pg_upgrade"
                ));
            }
        }
    }
    if meta.mode() & 0o027 != 0 {
        return Found::Unusable(format!(
            "{place} has the permissions {:04o}, with which PostgreSQL does not start; chmod it to 0700 or 0750",
            meta.mode() & 0o7777
        ));
    }
    Found::Cluster
}

/// What is being done to a data directory, kept beside it until it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marker {
    /// `initdb`, `bootstrap`, `basebackup` or `rewind`.
    pub(super) operation: String,
    /// Process (and process group) that does it, once it runs.
    pub(super) pid: Option<u32>,
    /// Begun at, UTC.
    pub(super) since: String,
    /// Everything in the directory was put there by this operation, so a part of it is worth nothing.
    pub(super) only_ours: bool,
}

impl Marker {
    pub(super) fn path(data_dir: &Path) -> PathBuf {
        files::sibling(data_dir, ".surus.json")
    }

    /// The marker of a data directory. One that cannot be read counts as one.
    pub(super) fn read(data_dir: &Path) -> Option<Self> {
        match fs::read(Self::path(data_dir)) {
            Ok(bytes) => Some(serde_json::from_slice(&bytes).unwrap_or_else(|_| Self {
                operation: "unknown operation".to_owned(),
                pid: None,
                since: "an unknown time".to_owned(),
                only_ours: false,
            })),
            Err(_) => None,
        }
    }

    pub(super) fn write(&self, data_dir: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(|error| Error::Condition(error.to_string()))?;
        files::write(&Self::path(data_dir), &bytes, 0o600).map(|_| ())
    }

    pub(super) fn remove(data_dir: &Path) -> Result<(), Error> {
        files::remove(&Self::path(data_dir))
    }

    /// In words, for people.
    pub(super) fn describe(&self, data_dir: &Path) -> String {
        let place = data_dir.display();
        let marker = Self::path(data_dir);
        let runs = self
            .pid
            .is_some_and(|pid| Path::new(&format!("/proc/{pid}")).exists());
        if runs {
            format!("{} of {place} is under way since {}", self.operation, self.since)
        } else {
            format!(
                "{} of {place} begun at {} was not finished (marker {})",
                self.operation,
                self.since,
                marker.display()
            )
        }
    }
}

/// `postmaster.pid` of a data directory.
pub(super) fn read_pid_file(data_dir: &Path) -> Option<PidFile> {
    parse_pid_file(
        &fs::read_to_string(data_dir.join("postmaster.pid")).ok()?,
        data_dir,
    )
}

fn parse_pid_file(content: &str, data_dir: &Path) -> Option<PidFile> {
    let lines: Vec<&str> = content.lines().map(str::trim).collect();
    let line = |index: usize| lines.get(index).copied().filter(|line| !line.is_empty());
    // A postgres in single-user mode writes its process id negated.
    let pid = line(0)?.parse::<i64>().ok()?.unsigned_abs();
    Some(PidFile {
        pid: u32::try_from(pid).ok()?,
        port: line(3).and_then(|port| port.parse().ok()),
        socket_dir: line(4).map(|dir| data_dir.join(dir)),
        listen: line(5).map(str::to_owned),
        status: line(7).map(str::to_owned),
    })
}

/// The living postmaster of a data directory: named by its pid file, and really at work in it.
pub(super) fn postmaster(data_dir: &Path) -> Option<PidFile> {
    let file = read_pid_file(data_dir)?;
    (at_work(file.pid, data_dir)).then_some(file)
}

/// The process is a PostgreSQL server whose working directory is `data_dir`. Process ids are used again, so the number alone
/// proves nothing.
pub(super) fn at_work(pid: u32, data_dir: &Path) -> bool {
    let Ok(real) = fs::canonicalize(data_dir) else {
        return false;
    };
    server_in(pid, &real) && !zombie(pid)
}

fn server_in(pid: u32, real: &Path) -> bool {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let here = fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == real);
    here && fs::read_link(process.join("exe")).is_ok_and(|exe| {
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.trim_end_matches(" (deleted)");
        name.contains("postgres") || name.contains("postmaster")
    })
}

fn zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| {
            let (_, rest) = stat.rsplit_once(')')?;
            rest.trim_start().chars().next()
        })
        .is_none_or(|state| state == 'Z' || state == 'X')
}

fn processes() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// All PostgreSQL server processes at work in a data directory: the postmaster, or backends that outlived it.
pub(super) fn users(data_dir: &Path) -> BTreeSet<u32> {
    let Ok(real) = fs::canonicalize(data_dir) else {
        return BTreeSet::new();
    };
    processes()
        .filter(|pid| server_in(*pid, &real) && !zombie(*pid))
        .collect()
}

/// Tools that work on a data directory from outside (an initdb, a pg_basebackup of an agent that was killed).
pub(super) fn strays(data_dir: &Path) -> BTreeSet<u32> {
    const TOOLS: [&str; 3] = ["initdb", "pg_basebackup", "pg_rewind"];
    let wanted = text(data_dir);
    processes()
        .filter(|pid| {
            let process = PathBuf::from(format!("/proc/{pid}"));
            let tool = fs::read_link(process.join("exe"))
                .ok()
                .and_then(|exe| exe.file_name().map(|name| name.to_string_lossy().into_owned()))
                .is_some_and(|name| TOOLS.contains(&name.trim_end_matches(" (deleted)")));
            tool && !zombie(*pid)
                && fs::read(process.join("cmdline")).is_ok_and(|line| {
                    line.split(|byte| *byte == 0).any(|arg| {
                        let arg = String::from_utf8_lossy(arg);
                        arg == wanted.as_str() || arg.ends_with(&format!("={wanted}"))
                    })
                })
        })
        .collect()
}

/// Removes a `postmaster.pid` that nobody stands behind.
///
/// # Errors
/// When any PostgreSQL process is at work in the directory.
pub(super) fn remove_stale_pid_file(data_dir: &Path) -> Result<(), Error> {
    let users = users(data_dir);
    if !users.is_empty() {
        return Err(Error::Condition(format!(
            "PostgreSQL processes still work in {} ({users:?}); they must end before a server can be started",
            data_dir.display()
        )));
    }
    let path = data_dir.join("postmaster.pid");
    if path.exists() {
        if let Some(lock) = read_pid_file(data_dir).and_then(|file| socket_lock(&file, data_dir)) {
            tracing::info!(path = %lock.display(), "removed the socket's lock file of a dead postmaster");
            files::remove(&lock)?;
        }
        tracing::info!(path = %path.display(), "removed the pid file of a dead postmaster");
        files::remove(&path)?;
    }
    Ok(())
}

/// The lock file of a dead postmaster's socket. PostgreSQL removes a stale one itself, unless the process id still exists: as
/// a zombie, where process 1 reaps none (many containers), or as somebody else's.
fn socket_lock(file: &PidFile, data_dir: &Path) -> Option<PathBuf> {
    let path = file
        .socket_dir
        .as_ref()?
        .join(format!(".s.PGSQL.{}.lock", file.port?));
    let content = fs::read_to_string(&path).ok()?;
    let mut lines = content.lines();
    let same_process = lines.next()?.trim().parse() == Ok(file.pid);
    let same_directory = fs::canonicalize(lines.next()?.trim()).ok() == fs::canonicalize(data_dir).ok();
    (same_process && same_directory).then_some(path)
}

/// Makes an empty data directory with the permissions PostgreSQL wants.
pub(super) fn create(data_dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .map_err(Error::file("create", data_dir))
}

/// Moves whatever is in a data directory aside, to `<data_dir>.<label>-<time>`, with its WAL directory and tablespaces where those
/// are links to elsewhere. Returns where it went; `None` if there was nothing.
///
/// # Errors
/// When it cannot be renamed. Nothing has changed then, or the text says what has.
pub(super) fn move_aside(data_dir: &Path, label: &str, time: &str) -> Result<Option<PathBuf>, Error> {
    let real = match fs::canonicalize(data_dir) {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("resolve", data_dir)(error)),
    };
    let nothing = fs::read_dir(&real)
        .map_err(Error::file("read", &real))?
        .next()
        .is_none();
    if nothing {
        return Ok(None);
    }
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev());
    let mount_point = device(&real).ok() != device(&files::parent(&real)).ok();
    if mount_point {
        return Err(Error::Condition(format!(
            "{} is a mount point, so its content cannot be moved aside; move it by hand, and better set postgresql.data_dir to a \
             subdirectory of it",
            real.display()
        )));
    }
    let aside = unused(&real, &format!(".{label}-{time}"));
    fs::rename(&real, &aside).map_err(Error::file("move aside", &real))?;
    files::sync_parent(&aside)?;
    let mut links = vec![aside.join("pg_wal")];
    if let Ok(entries) = fs::read_dir(aside.join("pg_tblspc")) {
        links.extend(entries.flatten().map(|entry| entry.path()));
    }
    for link in links {
        let Ok(target) = fs::read_link(&link) else {
            continue;
        };
        let kept = unused(&target, &format!(".{label}-{time}"));
        fs::rename(&target, &kept).map_err(Error::file("move aside", &target))?;
        create(&target)?;
        fs::remove_file(&link)
            .and_then(|()| symlink(&kept, &link))
            .map_err(Error::file("link", &link))?;
    }
    create(&real)?;
    files::sync_parent(&real)?;
    tracing::warn!(from = %real.display(), to = %aside.display(), "moved a data directory aside");
    Ok(Some(aside))
}

/// Deletes the content of a directory, not the directory.
pub(super) fn empty(data_dir: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(data_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::file("read", data_dir)(error)),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        let removed = if directory {
            fs::remove_dir_all(&path)
        } else {
            fs::remove_file(&path)
        };
        removed.map_err(Error::file("remove", &path))?;
    }
    Ok(())
}

/// `path` with `suffix`, and a number if that name is taken.
pub(super) fn unused(path: &Path, suffix: &str) -> PathBuf {
    let plain = files::sibling(path, suffix);
    if fs::symlink_metadata(&plain).is_err() {
        return plain;
    }
    (2..)
        .map(|number| files::sibling(path, &format!("{suffix}.{number}")))
        .find(|candidate| fs::symlink_metadata(candidate).is_err())
        .unwrap_or(plain)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn cluster(dir: &Path, version: &str) {
        fs::create_dir_all(dir.join("global")).unwrap();
        fs::create_dir_all(dir.join("pg_tblspc")).unwrap();
        fs::write(dir.join("PG_VERSION"), format!("{version}\n")).unwrap();
        fs::write(dir.join("global/pg_control"), "x").unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).unwrap();
    }

    #[test]
    fn each_kind_of_bad_directory_is_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        assert_eq!(inspect(&dir, Some(15)), Found::Empty);
        fs::create_dir(&dir).unwrap();
        assert_eq!(inspect(&dir, Some(15)), Found::Empty);
        fs::write(dir.join("notes.txt"), "mine").unwrap();
        assert!(
            matches!(inspect(&dir, Some(15)), Found::Unusable(text) if text.contains("no PostgreSQL cluster"))
        );
        cluster(&dir, "15");
        assert_eq!(inspect(&dir, Some(15)), Found::Cluster);
        assert!(matches!(inspect(&dir, Some(16)), Found::Unusable(text) if text.contains("PostgreSQL 15")));
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(inspect(&dir, Some(15)), Found::Unusable(text) if text.contains("0755")));
        fs::remove_file(dir.join("global/pg_control")).unwrap();
        assert!(matches!(inspect(&dir, Some(15)), Found::Incomplete(_)));
    }

    #[test]
    fn a_marker_makes_a_directory_incomplete_even_when_it_cannot_be_read() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        cluster(&dir, "15");
        let marker = Marker {
            operation: "rewind".to_owned(),
            pid: None,
            since: "20261120T105800Z".to_owned(),
            only_ours: false,
        };
        marker.write(&dir).unwrap();
        assert!(matches!(inspect(&dir, None), Found::Incomplete(text) if text.contains("rewind")));
        fs::write(Marker::path(&dir), "{half").unwrap();
        assert!(matches!(inspect(&dir, None), Found::Incomplete(_)));
        Marker::remove(&dir).unwrap();
        assert_eq!(inspect(&dir, None), Found::Cluster);
    }

    #[test]
    fn a_directory_moves_aside_with_its_wal_and_its_tablespaces() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("data");
        cluster(&dir, "15");
        for outside in ["wal", "space"] {
            fs::create_dir(root.path().join(outside)).unwrap();
            fs::write(root.path().join(outside).join("file"), outside).unwrap();
        }
        symlink(root.path().join("wal"), dir.join("pg_wal")).unwrap();
        symlink(root.path().join("space"), dir.join("pg_tblspc/16384")).unwrap();
        let aside = move_aside(&dir, "aside", "T").unwrap().unwrap();
        assert_eq!(aside, root.path().join("data.aside-T"));
        assert_eq!(fs::read_to_string(aside.join("pg_wal/file")).unwrap(), "wal");
        assert_eq!(
            fs::read_to_string(aside.join("pg_tblspc/16384/file")).unwrap(),
            "space"
        );
        for emptied in ["data", "wal", "space"] {
            assert_eq!(
                fs::read_dir(root.path().join(emptied)).unwrap().count(),
                0,
                "{emptied}"
            );
        }
        cluster(&dir, "15");
        let second = move_aside(&dir, "aside", "T").unwrap().unwrap();
        assert_eq!(second, root.path().join("data.aside-T.2"));
        assert_eq!(move_aside(&dir, "aside", "T").unwrap(), None);
    }

    #[test]
    fn a_pid_file_tells_where_to_connect() {
        let content = "4711\n/data\n1795172288\n5433\n.\n127.0.0.1\n   123  4\nready   \n";
        let file = parse_pid_file(content, Path::new("/data")).unwrap();
        assert_eq!((file.pid, file.port), (4711, Some(5433)));
        assert_eq!(file.socket_dir, Some(PathBuf::from("/data/.")));
        assert!(!file.starting() && !file.stopping());
        assert!(parse_pid_file("", Path::new("/data")).is_none());
    }

    #[test]
    fn this_test_is_no_postmaster() {
        assert!(!at_work(std::process::id(), Path::new("/")));
        assert!(users(Path::new("/")).is_empty());
    }
}
