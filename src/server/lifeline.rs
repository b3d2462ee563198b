//! The tie to the process that this server works for: when that one is gone, the server ends.
//!
//! Whoever starts a server for itself sets `MLXCEL_LIFELINE=<descriptor>:<process id>`: the end of a
//! pipe to read from, which the child inherits, and the id of the owner, who keeps the end to write
//! to. However the owner ends, the kernel closes its end. A child that the owner forked may hold a
//! copy of it, so the owner must also stay the parent of this process.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use tokio::sync::oneshot;

/// The variable that names the pipe and the owner.
pub const VARIABLE: &str = "MLXCEL_LIFELINE";

/// Between two looks at who the parent is.
const PARENT_EVERY: Duration = Duration::from_millis(200);

/// What is left of the process after this, for whatever reason, is ended without further ado.
const END_TIMEOUT: Duration = Duration::from_millis(1600);

/// The pipe, and who holds its other end.
#[derive(Debug)]
pub struct Lifeline {
    pipe: File,
    owner: libc::pid_t,
}

/// Why the variable makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum LifelineError {
    /// Not `<descriptor>:<process id>`.
    #[error(
        "{VARIABLE} is {0:?}, not `<descriptor>:<process id>`; unset it, or leave it to the mlxcel package"
    )]
    Malformed(String),
    /// The descriptor is nothing that an owner's end closes.
    #[error(
        "{VARIABLE} names the descriptor {descriptor}, which is not the reading end of a pipe: {source}"
    )]
    NotAPipe {
        /// As it was given.
        descriptor: RawFd,
        /// What is wrong with it.
        source: io::Error,
    },
    /// There is no thread to watch it.
    #[error("cannot watch over the owner: {0}")]
    Thread(io::Error),
}

impl Lifeline {
    /// The lifeline that the environment names, if it does. Takes it out of the environment, and from
    /// the children that this process might have.
    ///
    /// # Safety
    ///
    /// No other thread runs yet, and nothing else in the process uses the descriptor.
    pub unsafe fn take() -> Result<Option<Self>, LifelineError> {
        let Some(value) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        // SAFETY: the caller promises that this is the only thread.
        unsafe { std::env::remove_var(VARIABLE) };
        let (descriptor, owner) = parse(&value.to_string_lossy())?;
        prepare(descriptor).map_err(|source| LifelineError::NotAPipe { descriptor, source })?;
        // SAFETY: it is open, as `prepare` saw, and the caller promises that it is nobody else's.
        let pipe = File::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        Ok(Some(Self { pipe, owner }))
    }

    /// Watches from a thread of its own. The receiver hears of the owner's end; the process ends a
    /// short while later even if nobody listens any more.
    pub fn watch(self) -> Result<oneshot::Receiver<()>, LifelineError> {
        let (gone, receiver) = oneshot::channel();
        let watch = move || {
            self.wait();
            // Without a listener the server is at its end already.
            let _ = gone.send(());
            std::thread::sleep(END_TIMEOUT);
            // SAFETY: takes a number and does not return. The runtime did not get there in time.
            unsafe { libc::_exit(1) }
        };
        std::thread::Builder::new()
            .name("lifeline".to_owned())
            .spawn(watch)
            .map_err(LifelineError::Thread)?;
        Ok(receiver)
    }

    /// Returns when the owner is gone.
    fn wait(mut self) {
        // SAFETY: takes nothing, returns a number, cannot fail.
        while unsafe { libc::getppid() } == self.owner {
            match self.closed() {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%error, "the lifeline broke; only the parent is watched");
                    std::thread::sleep(PARENT_EVERY);
                }
            }
        }
    }

    /// Looks at the pipe until it has news, or until it is time to look at the parent.
    fn closed(&mut self) -> io::Result<bool> {
        let mut poll = libc::pollfd {
            fd: self.pipe.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        let wait = PARENT_EVERY.as_millis() as libc::c_int;
        // SAFETY: one valid `pollfd`, as the count says.
        match unsafe { libc::poll(&raw mut poll, 1, wait) } {
            0 => Ok(false),
            1 => match self.pipe.read(&mut [0; 64]) {
                Ok(read) => Ok(read == 0),
                Err(error) if is_passing(&error) => Ok(false),
                Err(error) => Err(error),
            },
            _ => match io::Error::last_os_error() {
                error if is_passing(&error) => Ok(false),
                error => Err(error),
            },
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

fn parse(value: &str) -> Result<(RawFd, libc::pid_t), LifelineError> {
    let parsed = value.split_once(':').and_then(|(descriptor, owner)| {
        let descriptor: RawFd = descriptor.parse().ok()?;
        let owner: libc::pid_t = owner.parse().ok()?;
        // Below three are stdin, stdout and stderr.
        (descriptor > 2 && owner > 0).then_some((descriptor, owner))
    });
    parsed.ok_or_else(|| LifelineError::Malformed(value.to_owned()))
}

/// Checks that it is the reading end of a pipe, and keeps it from being inherited further.
fn prepare(descriptor: RawFd) -> io::Result<()> {
    let check = |result: libc::c_int| match result {
        -1 => Err(io::Error::last_os_error()),
        result => Ok(result),
    };
    // SAFETY: `fcntl` with these commands and `fstat` read and set properties of a descriptor, and
    // fail for one that is not open; `stat` is plain data that `fstat` fills.
    let (mode, stat) = unsafe {
        let mode = check(libc::fcntl(descriptor, libc::F_GETFL))?;
        let mut stat: libc::stat = std::mem::zeroed();
        check(libc::fstat(descriptor, &raw mut stat))?;
        (mode, stat)
    };
    if stat.st_mode & libc::S_IFMT != libc::S_IFIFO {
        return Err(io::Error::other("it is something else"));
    }
    if mode & libc::O_ACCMODE != libc::O_RDONLY {
        return Err(io::Error::other("it is the end to write to"));
    }
    // SAFETY: as above.
    check(unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    fn lifeline(owner: libc::pid_t) -> (Lifeline, io::PipeWriter) {
        let (reader, writer) = io::pipe().unwrap();
        let pipe = File::from(OwnedFd::from(reader));
        (Lifeline { pipe, owner }, writer)
    }

    fn parent() -> libc::pid_t {
        // SAFETY: takes nothing, returns a number, cannot fail.
        unsafe { libc::getppid() }
    }

    #[test]
    fn the_value_is_a_descriptor_and_an_owner() {
        assert_eq!(parse("7:4711").unwrap(), (7, 4711));
        for value in [
            "", "7", ":", "7:", ":4711", "2:4711", "-1:4711", "7:0", "7:-5", "7:4711:", "x:y",
        ] {
            let error = parse(value).unwrap_err().to_string();
            assert!(error.contains(VARIABLE), "{error}");
        }
    }

    #[test]
    fn only_the_reading_end_of_a_pipe_will_do() {
        let (reader, writer) = io::pipe().unwrap();
        prepare(reader.as_fd().as_raw_fd()).unwrap();
        let writing = prepare(writer.as_fd().as_raw_fd()).unwrap_err();
        assert!(writing.to_string().contains("write"), "{writing}");
        let file = tempfile::tempfile().unwrap();
        assert!(prepare(file.as_raw_fd()).is_err());
        assert_eq!(
            prepare(4_000_000).unwrap_err().raw_os_error(),
            Some(libc::EBADF)
        );
    }

    #[test]
    fn it_ends_with_the_last_writer_whatever_was_written() {
        let (lifeline, mut writer) = lifeline(parent());
        io::Write::write_all(&mut writer, &[1; 200]).unwrap();
        let other = writer.try_clone().unwrap();
        let waiting = std::thread::spawn(move || lifeline.wait());
        drop(writer);
        std::thread::sleep(2 * PARENT_EVERY);
        assert!(!waiting.is_finished());
        drop(other);
        waiting.join().unwrap();
    }

    #[test]
    fn it_ends_when_the_parent_is_another() {
        let (lifeline, _writer) = lifeline(parent() + 1);
        lifeline.wait();
    }
}
