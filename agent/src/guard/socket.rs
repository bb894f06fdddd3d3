//! Where a guard is found: a unix socket, and beside it a lock file that one guard at most can hold.
//!
//! The lock decides who guards, the socket is only the door. Whoever holds the lock may clear away a socket that its
//! predecessor left, because the predecessor is dead: the kernel drops a lock with its holder.
//!
//! A socket's address has 108 bytes. Where the path is longer, it is reached through `/proc/self/fd/N/NAME`, `N` being
//! a descriptor of its directory. The socket then still lies where it belongs, and not under a name in `/tmp` that
//! would have to be derived, guarded against its neighbours, and saved from whoever cleans up there.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, openat};

/// The longest path that fits a socket's address, its final NUL not counted.
const LONGEST: usize = 107;

/// Why a guard cannot take its place.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another guard holds the lock.
    #[error("guard {pid} holds the lock {}; one guard is enough", path.display())]
    Taken {
        /// The lock file.
        path: PathBuf,
        /// The holder, as far as the file says it.
        pid: String,
    },
    /// The file at the socket's place is something else, and stays.
    #[error("{} is not a socket; move it away or name another socket", .0.display())]
    NotASocket(PathBuf),
    /// The file belongs to somebody else.
    #[error("{} belongs to another user; the guard must run as the user of its agent", .0.display())]
    NotOurs(PathBuf),
    /// The path has no file name, or one that is too long by itself.
    #[error("{} cannot be a socket's path; its last component must have 1 to 80 bytes", .0.display())]
    BadName(PathBuf),
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A path that fits an address; keeps the descriptor that it goes through.
struct Address {
    path: PathBuf,
    _directory: Option<OwnedFd>,
}

fn address(path: &Path) -> Result<Address, SocketError> {
    if path.as_os_str().len() <= LONGEST {
        return Ok(Address {
            path: path.to_owned(),
            _directory: None,
        });
    }
    let name = path.file_name().filter(|name| name.len() <= 80);
    let name = name.ok_or_else(|| SocketError::BadName(path.to_owned()))?;
    let parent = path.parent().unwrap_or(Path::new("/"));
    let directory = openat(
        CWD,
        parent,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|errno| SocketError::Io {
        what: "open the directory",
        path: parent.to_owned(),
        source: errno.into(),
    })?;
    let path = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    Ok(Address {
        path,
        _directory: Some(directory),
    })
}

/// Connects to a guard's socket, without ever waiting: a guard so long frozen that its queue is full is an error.
pub(super) fn connect(path: &Path) -> Result<UnixStream, SocketError> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let address = address(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connected = || {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(&address.path)?)?;
        Ok(socket)
    };
    let connected = connected().map_err(|errno: rustix::io::Errno| SocketError::Io {
        what: "connect to the guard's socket",
        path: path.to_owned(),
        source: errno.into(),
    })?;
    Ok(connected.into())
}

/// The guard's place: dropped, it is free again.
pub(super) struct Place {
    pub(super) listener: UnixListener,
    _lock: std::fs::File,
}

fn listen(path: &Path) -> rustix::io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Before bind: the file is then born with this mode, and there is no instant at which others could connect.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, 16)?;
    Ok(socket.into())
}

/// The lock file of a socket.
fn lock_path(socket: &Path) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

impl Place {
    /// Takes the lock, clears a dead guard's socket away, and listens.
    pub(super) fn take(socket: &Path) -> Result<Self, SocketError> {
        let io = |what: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source: io::Error| SocketError::Io { what, path, source }
        };
        let me = rustix::process::geteuid().as_raw();
        let path = lock_path(socket);
        let mut lock = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&path)
            .map_err(io("open the lock file", &path))?;
        let found = lock.metadata().map_err(io("look at the lock file", &path))?;
        if found.uid() != me {
            return Err(SocketError::NotOurs(path));
        }
        if let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK {
                return Err(io("lock", &path)(errno.into()));
            }
            let mut pid = String::new();
            let _ = lock.read_to_string(&mut pid);
            return Err(SocketError::Taken {
                path,
                pid: pid.trim().to_owned(),
            });
        }
        // The pid is for people and error messages; the lock itself is what counts.
        lock.set_len(0).map_err(io("write", &path))?;
        writeln!(lock, "{}", std::process::id()).map_err(io("write", &path))?;

        match std::fs::symlink_metadata(socket) {
            Ok(found) if !found.file_type().is_socket() => {
                return Err(SocketError::NotASocket(socket.to_owned()));
            }
            Ok(found) if found.uid() != me => return Err(SocketError::NotOurs(socket.to_owned())),
            Ok(_) => std::fs::remove_file(socket).map_err(io("remove the stale socket", socket))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io("look at", socket)(error)),
        }
        let address = address(socket)?;
        let listener = listen(&address.path).map_err(|errno| io("listen at", socket)(errno.into()))?;
        Ok(Self {
            listener,
            _lock: lock,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn one_guard_only_and_stale_sockets_go() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("guard.sock");
        let place = Place::take(&socket).unwrap();
        assert_eq!(
            std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
            0o600
        );
        connect(&socket).unwrap();
        let Err(SocketError::Taken { pid, .. }) = Place::take(&socket) else {
            panic!("a second guard got the place");
        };
        assert_eq!(pid, std::process::id().to_string());
        drop(place);
        assert!(connect(&socket).is_err());
        Place::take(&socket).unwrap();
    }

    #[test]
    fn a_path_beyond_the_limit_works() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        std::fs::create_dir_all(&deep).unwrap();
        let socket = deep.join("guard.sock");
        let _place = Place::take(&socket).unwrap();
        assert!(
            std::fs::symlink_metadata(&socket)
                .unwrap()
                .file_type()
                .is_socket()
        );
        connect(&socket).unwrap();
        assert!(matches!(
            connect(&deep.join("x".repeat(90))),
            Err(SocketError::BadName(_))
        ));
    }

    #[test]
    fn a_file_in_the_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("guard.sock");
        std::fs::write(&socket, "precious").unwrap();
        assert!(matches!(Place::take(&socket), Err(SocketError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&socket).unwrap(), "precious");
    }
}
