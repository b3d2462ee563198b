//! Where the server listens: a TCP port or a Unix socket.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
#[cfg(target_os = "linux")]
use std::{fs::File, fs::Permissions, os::unix::fs::PermissionsExt};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::net::{TcpListener, UnixListener, UnixSocket, UnixStream};

/// Bytes that a socket's path may have: `sun_path` less its final zero.
const PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A host and a port; port 0 lets the system choose.
    Tcp {
        /// A name or an IP address.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a socket file.
    Unix(PathBuf),
}

impl Address {
    /// A host that ends in `.sock`, or has a slash in it, is the path of a Unix socket.
    pub fn new(host: &str, port: u16) -> Self {
        if host.ends_with(".sock") || host.contains('/') {
            Self::Unix(PathBuf::from(host))
        } else {
            let host = host
                .trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned();
            Self::Tcp { host, port }
        }
    }

    /// Removes the folder that the Python client made for the socket alone, and that it would have removed
    /// itself: one of that name, and empty.
    pub fn remove_private_folder(&self) {
        let Self::Unix(path) = self else { return };
        let folder = path.parent().filter(|folder| is_private(folder));
        // What is not empty is not the socket's alone, and stays.
        let _stays = folder.map(std::fs::remove_dir);
    }

    /// The name or number of a TCP port's host.
    pub fn host(&self) -> Option<&str> {
        match self {
            Self::Tcp { host, .. } => Some(host),
            Self::Unix(_) => None,
        }
    }
}

/// Why the server cannot listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody listens there.
    #[error("{0} is already in use; choose another with --port (0 takes a free one) or --host")]
    TcpInUse(String),
    /// The system refuses.
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// Where.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// The path does not fit into a socket's address.
    #[error("the socket path {path} has {length} bytes, at most {PATH_LIMIT} work here")]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        length: usize,
    },
    /// Somebody answers on the socket.
    #[error("the socket {0} is already in use by another server")]
    UnixInUse(PathBuf),
    /// Something that is not a socket is in the way; it is never removed.
    #[error("{0} exists and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    /// The system refuses.
    #[error("cannot listen on the socket {path}: {source}")]
    Unix {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A bound address. Dropping it closes it, and removes its socket file.
pub struct Listener {
    socket: Socket,
    address: String,
    reach: Reach,
}

/// Who can connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This user, by the socket's file.
    File,
    /// Processes of this machine.
    Machine,
    /// Other machines.
    Network,
}

enum Socket {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        _file: SocketFile,
    },
}

/// A connection, whatever it came over.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// A client's connection.
pub struct Accepted {
    /// To read from and write to.
    pub stream: Box<dyn Connection>,
    /// Tells when the client is gone.
    pub hangup: Hangup,
}

/// Notices the end of a connection without reading from it. HTTP does not read while an answer is in
/// the making if the client has sent more than the one request, and would not see it go.
pub struct Hangup(AsyncFd<OwnedFd>);

impl Hangup {
    fn of(socket: impl AsFd) -> io::Result<Self> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        // SAFETY: the descriptor is a duplicate that the `AsyncFd` owns, so that it stays open, the
        // same, and the same socket's for as long as it is registered.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self(socket))
    }

    /// Resolves when the client has closed its side.
    pub async fn wait(&self) {
        while let Ok(mut guard) = self.0.ready(Interest::READABLE).await {
            if guard.ready().is_read_closed() {
                return;
            }
            // Only the news counts: what there is to read is for HTTP. The end stays set.
            guard.clear_ready();
        }
        // Only a runtime that shuts down ends the loop, and then nobody waits.
        std::future::pending().await
    }
}

impl Listener {
    /// Binds. Nothing else is listening there when it succeeds. `scheme` is what clients put before
    /// the address of a TCP port.
    pub async fn bind(address: &Address, scheme: &str) -> Result<Self, ListenError> {
        match address {
            Address::Tcp { host, port } => Self::bind_tcp(host, *port, scheme).await,
            Address::Unix(path) => Self::bind_unix(path).await,
        }
    }

    async fn bind_tcp(host: &str, port: u16, scheme: &str) -> Result<Self, ListenError> {
        let failed = |source: io::Error| {
            let address = format!("{host}:{port}");
            match source.kind() {
                ErrorKind::AddrInUse => ListenError::TcpInUse(address),
                _ => ListenError::Tcp { address, source },
            }
        };
        let listener = TcpListener::bind((host, port)).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        Ok(Self {
            socket: Socket::Tcp(listener),
            address: format!("{scheme}://{local}"),
            reach: if local.ip().to_canonical().is_loopback() {
                Reach::Machine
            } else {
                Reach::Network
            },
        })
    }

    async fn bind_unix(path: &Path) -> Result<Self, ListenError> {
        let length = path.as_os_str().len();
        if length > PATH_LIMIT {
            return Err(ListenError::PathTooLong {
                path: path.to_owned(),
                length,
            });
        }
        let failed = |source| ListenError::Unix {
            path: path.to_owned(),
            source,
        };
        remove_stale(path).await?;
        let listener = match private_bind(path) {
            Ok(listener) => listener,
            // Somebody was quicker.
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                return Err(ListenError::UnixInUse(path.to_owned()));
            }
            Err(error) => return Err(failed(error)),
        };
        let file = SocketFile::of(path).map_err(failed)?;
        let address = format!("unix:{}", file.path.display());
        Ok(Self {
            socket: Socket::Unix {
                listener,
                _file: file,
            },
            address,
            reach: Reach::File,
        })
    }

    /// Who can connect.
    pub fn reach(&self) -> Reach {
        self.reach
    }

    /// The next connection.
    pub async fn accept(&self) -> io::Result<Accepted> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                // Tokens are small and each should leave at once.
                stream.set_nodelay(true)?;
                Ok(Accepted {
                    hangup: Hangup::of(&stream)?,
                    stream: Box::new(stream),
                })
            }
            Socket::Unix { listener, .. } => {
                let (stream, _) = listener.accept().await?;
                Ok(Accepted {
                    hangup: Hangup::of(&stream)?,
                    stream: Box::new(stream),
                })
            }
        }
    }
}

impl fmt::Display for Listener {
    /// `http://127.0.0.1:8080` or `unix:/path`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// Makes way for a new socket: removes one that nobody listens on, and nothing else.
async fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix {
        path: path.to_owned(),
        source,
    };
    let found = match std::fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !found.file_type().is_socket() {
        return Err(ListenError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path).await {
        // A full backlog is somebody too.
        Ok(_) => Err(ListenError::UnixInUse(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            Err(ListenError::UnixInUse(path.to_owned()))
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            let file = SocketFile {
                path: path.to_owned(),
                identity: identity(&found),
            };
            file.remove().map_err(failed)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Binds with a mode of 0600 from the first moment on.
fn private_bind(path: &Path) -> io::Result<UnixListener> {
    let socket = UnixSocket::new_stream()?;
    bind_privately(&socket, path)?;
    socket.listen(BACKLOG)
}

/// On Linux a socket's file takes the mode of the socket itself, so that no other thread's files are
/// touched by it.
#[cfg(target_os = "linux")]
fn bind_privately(socket: &UnixSocket, path: &Path) -> io::Result<()> {
    let own = File::from(socket.as_fd().try_clone_to_owned()?);
    own.set_permissions(Permissions::from_mode(0o600))?;
    socket.bind(path)
}

#[cfg(not(target_os = "linux"))]
fn bind_privately(socket: &UnixSocket, path: &Path) -> io::Result<()> {
    // SAFETY: `umask` takes and returns a plain number and cannot fail. It is the process's, which at
    // this point of the start has no other thread that makes files.
    let before = unsafe { libc::umask(0o177) };
    let bound = socket.bind(path);
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    bound
}

/// Whether a folder is named as the client names those that it makes for a socket.
fn is_private(folder: &Path) -> bool {
    let name = folder.file_name().and_then(OsStr::to_str);
    let random = name.and_then(|name| name.strip_prefix("mlxcel-"));
    random.is_some_and(|random| random.len() == 8)
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// A socket file that is ours; removed on drop, unless another has taken its place.
struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    fn of(path: &Path) -> io::Result<Self> {
        // The working directory may change until the file is removed.
        let path = std::path::absolute(path)?;
        let identity = identity(&std::fs::symlink_metadata(&path)?);
        Ok(Self { path, identity })
    }

    fn remove(&self) -> io::Result<()> {
        match std::fs::symlink_metadata(&self.path) {
            Ok(found) if identity(&found) == self.identity => std::fs::remove_file(&self.path),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the socket file");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tokio::io::AsyncWriteExt;

    async fn bind(address: &Address) -> Result<Listener, ListenError> {
        Listener::bind(address, "http").await
    }

    #[tokio::test]
    async fn who_can_connect_is_known() {
        for (host, reach) in [
            ("127.0.0.1", Reach::Machine),
            ("127.1.2.3", Reach::Machine),
            ("localhost", Reach::Machine),
            ("0.0.0.0", Reach::Network),
        ] {
            let listener = bind(&Address::new(host, 0)).await.unwrap();
            assert_eq!(listener.reach(), reach, "{host}");
        }
    }

    #[test]
    fn a_path_is_a_socket_and_anything_else_a_host() {
        let tcp = |host: &str| Address::Tcp {
            host: host.to_owned(),
            port: 1,
        };
        assert_eq!(Address::new("127.0.0.1", 1), tcp("127.0.0.1"));
        assert_eq!(Address::new("localhost", 1), tcp("localhost"));
        assert_eq!(Address::new("[::1]", 1), tcp("::1"));
        assert_eq!(Address::new("a.sock", 0), Address::Unix("a.sock".into()));
        assert_eq!(Address::new("/run/a", 0), Address::Unix("/run/a".into()));
    }

    #[tokio::test]
    async fn a_socket_is_private_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = bind(&Address::Unix(path.clone())).await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(listener.to_string(), format!("unix:{}", path.display()));
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_that_answers_is_in_use_and_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let address = Address::Unix(path.clone());
        let first = bind(&address).await.unwrap();
        let second = bind(&address).await;
        assert!(matches!(second, Err(ListenError::UnixInUse(_))));
        assert!(path.exists());
        drop(first);
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = bind(&Address::Unix(path.clone())).await.unwrap();
        UnixStream::connect(&path).await.unwrap();
        drop(listener);
    }

    #[tokio::test]
    async fn what_is_not_a_socket_is_never_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        std::fs::write(&path, "precious").unwrap();
        let refused = bind(&Address::Unix(path.clone())).await;
        assert!(matches!(refused, Err(ListenError::NotASocket(_))));
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let refused = bind(&Address::Unix(link)).await;
        assert!(matches!(refused, Err(ListenError::NotASocket(_))));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn a_file_that_took_the_sockets_place_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let listener = bind(&Address::Unix(path.clone())).await.unwrap();
        // Moved, not removed: a new file could else get the old one's inode.
        std::fs::rename(&path, dir.path().join("b.sock")).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_named_with_the_limit() {
        let path = PathBuf::from(format!("/tmp/{}.sock", "x".repeat(200)));
        let error = bind(&Address::Unix(path)).await.err().unwrap();
        assert!(
            error.to_string().contains(&PATH_LIMIT.to_string()),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_one_clear_line() {
        let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = first.local_addr().unwrap().port();
        let error = bind(&Address::new("127.0.0.1", port)).await.err().unwrap();
        assert!(matches!(&error, ListenError::TcpInUse(at) if *at == format!("127.0.0.1:{port}")));
    }

    #[tokio::test]
    async fn a_hangup_is_noticed_behind_bytes_that_nobody_reads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let unix = bind(&Address::Unix(path.clone())).await.unwrap();
        let tcp = bind(&Address::new("127.0.0.1", 0)).await.unwrap();
        let port = tcp
            .to_string()
            .rsplit(':')
            .next()
            .unwrap()
            .parse::<u16>()
            .unwrap();
        let soon = std::time::Duration::from_millis(50);
        let late = std::time::Duration::from_secs(5);
        for listener in [&unix, &tcp] {
            let mut client: Box<dyn Connection> = match listener.socket {
                Socket::Unix { .. } => Box::new(UnixStream::connect(&path).await.unwrap()),
                Socket::Tcp(_) => Box::new(
                    tokio::net::TcpStream::connect(("127.0.0.1", port))
                        .await
                        .unwrap(),
                ),
            };
            let accepted = listener.accept().await.unwrap();
            for _ in 0..2 {
                client.write_all(b"more than one request").await.unwrap();
                assert!(
                    tokio::time::timeout(soon, accepted.hangup.wait())
                        .await
                        .is_err()
                );
            }
            drop(client);
            tokio::time::timeout(late, accepted.hangup.wait())
                .await
                .unwrap();
        }
    }
}
