//! A hub to test against: the routes of huggingface.co that a download needs, with its headers, on a
//! port of this machine, and with faults on request.
//!
//! Large files (LFS) are answered with a redirect to a storage on another host, as the real hub
//! does: the same listener under the name `localhost`, with a link that is "signed".

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode, header};
use futures::StreamExt;
use serde_json::json;
use sha2::{Digest, Sha256};

/// What the storage's links are signed with; it must not appear in any error.
pub const SIGNATURE: &str = "SIGNED-LINK";

/// The size of a chunk of an answer.
const CHUNK: usize = 4096;

#[derive(Clone)]
pub struct HubFile {
    pub bytes: Vec<u8>,
    pub lfs: bool,
    pub etag: String,
}

impl HubFile {
    pub fn small(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let etag = hex(&bytes)[..40].to_owned();
        Self {
            bytes,
            lfs: false,
            etag,
        }
    }

    pub fn large(bytes: impl Into<Vec<u8>>) -> Self {
        let bytes = bytes.into();
        let etag = hex(&bytes);
        Self {
            bytes,
            lfs: true,
            etag,
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What goes wrong with one answer that should bring a file's bytes.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection breaks after so many bytes.
    Cut(usize),
    /// Nothing more comes after so many bytes.
    Stall(usize),
    /// A pause after each chunk.
    Slow(Duration),
    /// One byte is wrong.
    Damage,
    /// The range that was asked for is ignored.
    WholeFile,
    /// An error page.
    Status(u16),
}

/// Why the hub refuses a repository, in its own words.
#[derive(Clone, Copy, Debug)]
pub struct Refusal {
    pub status: u16,
    pub code: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub struct Logged {
    pub method: Method,
    pub path: String,
    pub host: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Default)]
struct Repo {
    revisions: HashMap<String, String>,
    commits: HashMap<String, BTreeMap<String, HubFile>>,
    refuses: Option<Refusal>,
    /// Refuses the files only: a gated repository can be listed by everybody.
    gated: bool,
}

#[derive(Default)]
struct Inner {
    repos: HashMap<String, Repo>,
    faults: HashMap<String, VecDeque<Fault>>,
    /// What the listing is refused with, and how often.
    listing_faults: VecDeque<u16>,
    codeless: bool,
    unlisted: bool,
    log: Vec<Logged>,
}

/// The hub. It stops when it is dropped.
pub struct StandIn {
    pub port: u16,
    inner: Arc<Mutex<Inner>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl StandIn {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Mutex::new(Inner::default()));
        let app = Router::new()
            .fallback(answer)
            .with_state((port, inner.clone()));
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            port,
            inner,
            server,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes `commit` of a repository, and lets `revision` stand for it.
    pub fn push(&self, id: &str, revision: &str, commit: &str, files: &[(&str, HubFile)]) {
        let files = files
            .iter()
            .map(|(name, file)| ((*name).to_owned(), file.clone()))
            .collect();
        let mut inner = self.inner.lock().unwrap();
        let repo = inner.repos.entry(id.to_owned()).or_default();
        repo.revisions
            .insert(revision.to_owned(), commit.to_owned());
        repo.commits.insert(commit.to_owned(), files);
    }

    /// The next answers with this file's bytes go wrong, one after the other.
    pub fn fail(&self, file: &str, faults: impl IntoIterator<Item = Fault>) {
        let mut inner = self.inner.lock().unwrap();
        inner
            .faults
            .entry(file.to_owned())
            .or_default()
            .extend(faults);
    }

    /// The next listings are answered with these statuses.
    pub fn fail_listing(&self, statuses: impl IntoIterator<Item = u16>) {
        self.inner.lock().unwrap().listing_faults.extend(statuses);
    }

    pub fn refuse(&self, id: &str, status: u16, code: Option<&'static str>) {
        let mut inner = self.inner.lock().unwrap();
        inner.repos.entry(id.to_owned()).or_default().refuses = Some(Refusal { status, code });
    }

    pub fn gate(&self, id: &str) {
        self.inner.lock().unwrap().repos.get_mut(id).unwrap().gated = true;
    }

    /// Leaves `X-Error-Code` out, as a mirror may.
    pub fn without_codes(&self) {
        self.inner.lock().unwrap().codeless = true;
    }

    /// Leaves the files out of the answer about a revision, as the hub does when they are many.
    pub fn without_siblings(&self) {
        self.inner.lock().unwrap().unlisted = true;
    }

    pub fn log(&self) -> Vec<Logged> {
        self.inner.lock().unwrap().log.clone()
    }

    pub fn forget_log(&self) {
        self.inner.lock().unwrap().log.clear();
    }

    /// The requests for the bytes of a large file, at the storage.
    pub fn fetches(&self, file: &str) -> Vec<Logged> {
        let storage = format!("/storage/{file}/");
        self.log()
            .into_iter()
            .filter(|request| request.path.starts_with(&storage))
            .collect()
    }

    /// The requests for the bytes of any file, at the hub.
    pub fn gets(&self) -> Vec<Logged> {
        let get = |r: &Logged| r.method == Method::GET && r.path.contains("/resolve/");
        self.log().into_iter().filter(get).collect()
    }
}

type Shared = (u16, Arc<Mutex<Inner>>);

async fn answer(State((port, inner)): State<Shared>, request: Request) -> Response<Body> {
    let text = |name: header::HeaderName| {
        request
            .headers()
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
    };
    let path = request.uri().path().replace("%2F", "/");
    let mut inner = inner.lock().unwrap();
    inner.log.push(Logged {
        method: request.method().clone(),
        path: path.clone(),
        host: text(header::HOST).unwrap_or_default(),
        range: text(header::RANGE),
        authorization: text(header::AUTHORIZATION),
    });
    if let Some(rest) = path.strip_prefix("/api/models/") {
        return inner.api(rest);
    }
    if let Some(rest) = path.strip_prefix("/storage/") {
        let (file, etag) = rest.rsplit_once('/').unwrap();
        let all = inner.repos.values().flat_map(|repo| repo.commits.values());
        let found = all
            .filter_map(|files| files.get(file))
            .find(|f| f.etag == etag)
            .cloned();
        return inner.bytes(file, &found.unwrap(), request.headers());
    }
    inner.resolve(port, &path, request.method(), request.headers())
}

impl Inner {
    fn refusal(&self, status: u16, code: Option<&str>) -> Response<Body> {
        let response = Response::builder().status(status);
        match code.filter(|_| !self.codeless) {
            Some(code) => response.header("X-Error-Code", code),
            None => response,
        }
        .body(Body::from(r#"{"error":"refused"}"#))
        .unwrap()
    }

    /// `owner/name`, `owner/name/revision/{revision}`, `owner/name/tree/{commit}`.
    fn api(&mut self, rest: &str) -> Response<Body> {
        let mut parts = rest.splitn(4, '/');
        let mut part = || parts.next().unwrap_or_default();
        let id = format!("{}/{}", part(), part());
        let (kind, revision) = (part(), part());
        if let Some(status) = self.listing_faults.pop_front() {
            return self.refusal(status, None);
        }
        let Some(repo) = self.repos.get(&id) else {
            return self.refusal(404, Some("RepoNotFound"));
        };
        if let Some(refusal) = repo.refuses {
            return self.refusal(refusal.status, refusal.code);
        }
        let revision = if revision.is_empty() {
            "main"
        } else {
            revision
        };
        let commit = repo
            .revisions
            .get(revision)
            .map_or(revision, String::as_str);
        let Some(files) = repo.commits.get(commit) else {
            return self.refusal(404, Some("RevisionNotFound"));
        };
        let body = if kind == "tree" {
            let entry = |(name, file): (&String, &HubFile)| {
                let mut entry = json!({
                    "type": "file", "oid": &file.etag[..40], "size": file.bytes.len(), "path": name,
                });
                if file.lfs {
                    entry["lfs"] =
                        json!({"oid": file.etag, "size": file.bytes.len(), "pointerSize": 130});
                }
                entry
            };
            files.iter().map(entry).collect()
        } else {
            let listed = files.keys().filter(|_| !self.unlisted);
            let names = listed.map(|name| json!({"rfilename": name}));
            json!({
                "_id": "1", "id": id, "modelId": id, "sha": commit, "private": false, "tags": [],
                "gated": repo.gated, "siblings": names.collect::<Vec<_>>(),
            })
        };
        let response = Response::builder().header(header::CONTENT_TYPE, "application/json");
        response.body(Body::from(body.to_string())).unwrap()
    }

    /// `/owner/name/resolve/{revision}/{file}`.
    fn resolve(
        &mut self,
        port: u16,
        path: &str,
        method: &Method,
        headers: &HeaderMap,
    ) -> Response<Body> {
        let parts: Vec<&str> = path.trim_start_matches('/').splitn(5, '/').collect();
        let [owner, name, "resolve", revision, file_name] = parts[..] else {
            return self.refusal(404, None);
        };
        let Some(repo) = self.repos.get(&format!("{owner}/{name}")) else {
            return self.refusal(404, Some("RepoNotFound"));
        };
        if repo.gated {
            return self.refusal(403, Some("GatedRepo"));
        }
        let commit = repo
            .revisions
            .get(revision)
            .map_or(revision, String::as_str)
            .to_owned();
        let file = repo
            .commits
            .get(&commit)
            .and_then(|files| files.get(file_name))
            .cloned();
        let Some(file) = file else {
            return self.refusal(404, Some("EntryNotFound"));
        };
        let mut response = if file.lfs {
            let link = format!(
                "http://localhost:{port}/storage/{file_name}/{}?X-Signature={SIGNATURE}",
                file.etag
            );
            Response::builder()
                .status(StatusCode::FOUND)
                .header(header::LOCATION, link)
                .header("X-Linked-Etag", format!("\"{}\"", file.etag))
                .header("X-Linked-Size", file.bytes.len())
                .header(header::ETAG, "\"of-the-pointer\"")
                .body(Body::empty())
                .unwrap()
        } else if method == Method::HEAD {
            Response::builder()
                .header(header::ETAG, format!("W/\"{}\"", file.etag))
                .header(header::CONTENT_LENGTH, file.bytes.len())
                .body(Body::empty())
                .unwrap()
        } else {
            self.bytes(file_name, &file, headers)
        };
        response
            .headers_mut()
            .insert("X-Repo-Commit", commit.parse().unwrap());
        response
    }

    fn bytes(&mut self, name: &str, file: &HubFile, headers: &HeaderMap) -> Response<Body> {
        let fault = self.faults.get_mut(name).and_then(VecDeque::pop_front);
        if let Some(Fault::Status(status)) = fault {
            return self.refusal(status, None);
        }
        let total = file.bytes.len();
        let range = headers
            .get(header::RANGE)
            .filter(|_| !matches!(fault, Some(Fault::WholeFile)));
        let from = range.map(|range| {
            let range = range.to_str().unwrap();
            range
                .strip_prefix("bytes=")
                .unwrap()
                .trim_end_matches('-')
                .parse::<usize>()
                .unwrap()
        });
        if from.is_some_and(|from| from >= total) {
            return self.refusal(416, None);
        }
        let mut bytes = file.bytes[from.unwrap_or(0)..].to_vec();
        if matches!(fault, Some(Fault::Damage)) {
            bytes[0] ^= 1;
        }
        let mut response = Response::builder().header(header::CONTENT_LENGTH, bytes.len());
        if let Some(from) = from {
            let range = format!("bytes {from}-{}/{total}", total - 1);
            response = response
                .status(StatusCode::PARTIAL_CONTENT)
                .header(header::CONTENT_RANGE, range);
        }
        response.body(body(bytes, fault)).unwrap()
    }
}

fn body(bytes: Vec<u8>, fault: Option<Fault>) -> Body {
    let chunks = |bytes: &[u8]| {
        let chunks: Vec<_> = bytes.chunks(CHUNK).map(Bytes::copy_from_slice).collect();
        futures::stream::iter(chunks).map(Ok::<_, std::io::Error>)
    };
    match fault {
        Some(Fault::Cut(after)) => {
            let cut = async {
                // What was sent is to arrive before the connection goes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                Err(std::io::Error::other("cut"))
            };
            Body::from_stream(chunks(&bytes[..after]).chain(futures::stream::once(cut)))
        }
        Some(Fault::Stall(after)) => {
            Body::from_stream(chunks(&bytes[..after]).chain(futures::stream::pending()))
        }
        Some(Fault::Slow(pause)) => {
            Body::from_stream(chunks(&bytes).then(move |chunk| async move {
                tokio::time::sleep(pause).await;
                chunk
            }))
        }
        _ => Body::from(bytes),
    }
}
