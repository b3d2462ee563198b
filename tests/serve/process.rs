//! A server as a child process, and plain HTTP to it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The built-in model's folder.
pub const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tiny-model/mlxcel-tiny");

/// A completion that runs to the end of the context: the tokens that would end it are ruled out.
pub const ENDLESS: &str =
    r#"{"prompt": "a", "temperature": 1, "logit_bias": {"2040": -100, "2041": -100}}"#;

/// What takes longer than this on a busy machine will not happen.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A server that is killed when the test ends, however it ends.
pub struct Server(pub Child);

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already, which is what is wanted.
        let _gone = self.0.kill();
        let _gone = self.0.wait();
    }
}

/// The command line of a server, its output piped. More can be added.
pub fn command(model: &str, host: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mlxcel"));
    command
        .args(["serve", "-m", model, "--port", "0", "--host", host])
        .env_remove("LLAMA_API_KEY")
        .env_remove("MLXCEL_LIFELINE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

impl Server {
    /// Starts one. Its log is shown with a test that fails.
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Where it says that it listens.
    pub fn address(&mut self) -> Address {
        let stdout: ChildStdout = self.0.stdout.take().unwrap();
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["event"], "listening");
        Address(line["address"].as_str().unwrap().to_owned())
    }

    /// Where it listens, once it can answer.
    pub fn ready(&mut self) -> Address {
        let address = self.address();
        within(|| (address.status("/health") == 200).then_some(()));
        address
    }

    /// Sends a signal.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.0.id()).unwrap();
        // SAFETY: sends a signal to a child that has not been waited for, so that the id is still its.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
    }

    /// Waits for its end; the exit code and what it logged.
    pub fn ended(&mut self) -> (Option<i32>, String) {
        let status = within(|| self.0.try_wait().unwrap());
        assert_eq!(status.signal(), None);
        let mut log = String::new();
        self.0
            .stderr
            .take()
            .unwrap()
            .read_to_string(&mut log)
            .unwrap();
        (status.code(), log)
    }
}

/// Where a server listens, as it announced it.
pub struct Address(pub String);

/// A connection of either kind.
pub trait Stream: Read + Write {}

impl<T: Read + Write> Stream for T {}

impl Address {
    /// A socket's.
    pub fn unix(path: &Path) -> Self {
        Self(format!("unix:{}", path.display()))
    }

    /// A connection with a request sent and its answer not read; reading gives up after [`PATIENCE`].
    pub fn request(&self, method: &str, path: &str, body: &str) -> Box<dyn Stream> {
        self.try_request(method, path, body).unwrap()
    }

    /// The same, from a server that may be gone.
    pub fn try_request(&self, method: &str, path: &str, body: &str) -> io::Result<Box<dyn Stream>> {
        let mut stream = self.connect()?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        Ok(stream)
    }

    /// A connection on which nothing was said yet; reading gives up after [`PATIENCE`].
    pub fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let stream: Box<dyn Stream> = if let Some(path) = self.0.strip_prefix("unix:") {
            let stream = UnixStream::connect(Path::new(path))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        } else {
            let stream = TcpStream::connect(self.0.strip_prefix("http://").unwrap())?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Box::new(stream)
        };
        Ok(stream)
    }

    /// The answer to a request with a head of one's own, `Name: value` a line.
    pub fn ask(&self, method: &str, path: &str, head: &[&str], body: &str) -> Answer {
        let head: String = head.iter().map(|line| format!("{line}\r\n")).collect();
        let mut stream = self.connect().unwrap();
        let sent = write!(
            stream,
            "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n{head}\r\n{body}",
            body.len()
        );
        // A server that refuses early may have closed before everything was sent; it has answered.
        drop(sent);
        Answer::read(stream)
    }

    /// The status and the body of an answer.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut answer = String::new();
        self.request("GET", path, "")
            .read_to_string(&mut answer)
            .unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, body.to_owned())
    }

    /// The status of an answer.
    pub fn status(&self, path: &str) -> u16 {
        self.get(path).0
    }

    /// A field of `/props`, by its path.
    pub fn prop(&self, pointer: &str) -> Value {
        let props: Value = serde_json::from_str(&self.get("/props").1).unwrap();
        props.pointer(pointer).unwrap().clone()
    }
}

/// An answer as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers.
    pub head: String,
    pub body: String,
}

impl Answer {
    /// Reads to the end of the connection.
    pub fn read(mut stream: impl Read) -> Self {
        let mut bytes = Vec::new();
        // An end that is broken off shows in what is missing.
        drop(stream.read_to_end(&mut bytes));
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
        Self {
            status: head.split_whitespace().nth(1).unwrap().parse().unwrap(),
            head: head.to_owned(),
            body: body.to_owned(),
        }
    }

    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap();
        body["error"]["code"].as_str().unwrap().to_owned()
    }
}

/// Waits until something is there; fails after [`PATIENCE`].
pub fn within<T>(mut poll: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = poll() {
            return value;
        }
        assert!(Instant::now() < deadline, "it did not happen in time");
        std::thread::sleep(Duration::from_millis(10));
    }
}
