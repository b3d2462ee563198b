//! Questions to the hub: what a repository holds, what a file is, its bytes from an offset on.

use std::collections::BTreeSet;
use std::error::Error;
use std::time::Duration;

use futures::TryStreamExt;
use hf_hub::repository::RepoTreeEntry;
use hf_hub::{HFClient, HFError, HFRepository, RepoTypeModel};
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Response, StatusCode, Url, redirect};

use super::cache::{is_blob_name, is_commit};
use super::error::HubError;
use super::options::HubOptions;
use super::reference::RepoId;

/// Tries after the first, as long as none brings a byte.
pub(super) const RETRIES: usize = 4;

/// The longest pause between two tries, and the longest `Retry-After` that is waited for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Redirects within the hub: a renamed repository, or the canonical spelling of its name.
const MAX_REDIRECTS: usize = 5;

const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");

/// A commit and the names of its files.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: BTreeSet<String>,
}

/// What the hub says of one file.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) file: String,
    /// The name of its blob: the SHA-256 of a large file, the git object id of a small one.
    pub(super) etag: String,
    pub(super) size: u64,
}

impl Meta {
    /// The SHA-256 that the bytes must have, where the hub tells it.
    pub(super) fn sha256(&self) -> Option<&str> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (self.etag.len() == 64 && self.etag.bytes().all(hex)).then_some(self.etag.as_str())
    }
}

/// Why a request brought nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another try may do better.
    Transient {
        detail: String,
        /// The pause that the hub asks for.
        retry_after: Option<Duration>,
    },
    /// It would not.
    Fatal(HubError),
}

impl Failure {
    pub(super) fn transient(detail: impl Into<String>) -> Self {
        Self::Transient {
            detail: detail.into(),
            retry_after: None,
        }
    }
}

/// The hub, for one repository.
#[derive(Debug)]
pub(super) struct Hub<'a> {
    repo: &'a RepoId,
    options: &'a HubOptions,
    /// A complete copy is in the cache, so that nobody should wait long for the hub.
    cached: bool,
    endpoint: Url,
    host: String,
    files: Client,
    heads: Client,
    auth: HeaderMap,
    listings: HFRepository<RepoTypeModel>,
}

impl<'a> Hub<'a> {
    pub(super) fn new(
        repo: &'a RepoId,
        options: &'a HubOptions,
        cached: bool,
    ) -> Result<Self, HubError> {
        let invalid = |reason: &str| HubError::InvalidEndpoint {
            reason: reason.to_owned(),
        };
        let endpoint =
            Url::parse(&options.endpoint).map_err(|error| invalid(&error.to_string()))?;
        if !["http", "https"].contains(&endpoint.scheme()) {
            return Err(invalid("it must start with https:// or http://"));
        }
        let host = endpoint
            .host_str()
            .ok_or_else(|| invalid("it names no host"))?;
        let host = match endpoint.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        };

        let mut auth = HeaderMap::new();
        if let Some(token) = &options.token {
            let value = format!("Bearer {}", token.expose());
            let mut value = HeaderValue::try_from(value).map_err(|_| HubError::InvalidToken)?;
            value.set_sensitive(true);
            auth.insert(header::AUTHORIZATION, value);
        }

        let client = |redirects| {
            Client::builder()
                .user_agent(concat!("mlxcel/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(options.timeout)
                .read_timeout(options.timeout)
                .redirect(redirects)
                .build()
                .map_err(|error| HubError::Tls {
                    detail: describe(error, options.timeout),
                })
        };
        let files = client(redirect::Policy::default())?;
        let heads = client(redirect::Policy::none())?;

        let mut builder = HFClient::builder()
            .client(files.clone())
            .endpoint(&options.endpoint)
            .cache_dir(&options.cache_dir)
            .retry_max_attempts(if cached { 0 } else { RETRIES })
            .retry_base_delay(options.retry_delay / 2);
        // Given none, hf-hub looks for one itself, by the rules of `HubOptions::from_env`.
        if let Some(token) = &options.token {
            builder = builder.token(token.expose());
        }
        let hf = builder.build().map_err(|error| HubError::Tls {
            detail: innermost(&error).to_string(),
        })?;
        let listings = hf.model(&repo.owner, &repo.name);
        Ok(Self {
            repo,
            options,
            cached,
            endpoint,
            host,
            files,
            heads,
            auth,
            listings,
        })
    }

    /// The commit that the revision stands for, and its files.
    pub(super) async fn listing(&self) -> Result<Listing, HubError> {
        // `expand` asks for these two fields alone; the whole answer holds the model's card.
        let expand = vec!["sha".to_owned(), "siblings".to_owned()];
        let info = self
            .listings
            .info()
            .revision(self.repo.revision())
            .expand(expand)
            .send()
            .await;
        let info = match info {
            Ok(info) => info,
            Err(error) => return Err(self.listing_error(error).await),
        };
        let commit = info.sha.filter(|sha| is_commit(sha));
        let commit = commit.ok_or_else(|| self.protocol("it names no commit"))?;
        let siblings = info.siblings.unwrap_or_default();
        let mut files: BTreeSet<String> = siblings.into_iter().map(|s| s.rfilename).collect();
        if files.is_empty() {
            // A hub leaves the list out when it is very long.
            files = match self.tree(&commit).await {
                Ok(files) => files,
                Err(error) => return Err(self.listing_error(error).await),
            };
        }
        Ok(Listing { commit, files })
    }

    async fn tree(&self, commit: &str) -> Result<BTreeSet<String>, HFError> {
        let entries = self.listings.list_tree().revision(commit).send()?;
        let files = entries.try_filter_map(|entry| async move {
            Ok(match entry {
                RepoTreeEntry::File { path, .. } => Some(path),
                RepoTreeEntry::Directory { .. } => None,
            })
        });
        files.try_collect().await
    }

    /// Asks what a file of a commit is.
    pub(super) async fn head(&self, commit: &str, file: &str) -> Result<Meta, HubError> {
        let mut failures = 0;
        loop {
            match self.try_head(commit, file).await {
                Ok(meta) => return Ok(meta),
                Err(failure) => {
                    failures += 1;
                    self.pause(failure, failures).await?;
                }
            }
        }
    }

    /// One try. The large files' answer is a redirect to their storage, whose own headers tell
    /// nothing of the repository: it must not be followed, as hf-hub's `get_file_metadata` does.
    async fn try_head(&self, commit: &str, file: &str) -> Result<Meta, Failure> {
        let mut url = self.url(commit, file)?;
        for _ in 0..=MAX_REDIRECTS {
            // Compressed on the way, a file would have neither its own length nor its own ETag.
            let request = self
                .heads
                .head(url.clone())
                .header(header::ACCEPT_ENCODING, "identity");
            let response = request.headers(self.auth.clone()).send().await;
            let response = response.map_err(|error| self.transport(error))?;
            let redirected = response.status().is_redirection();
            if redirected
                && !response.headers().contains_key(LINKED_ETAG)
                && let Some(to) = redirect_target(&response)
                && same_host(&to, &self.endpoint)
            {
                url = to;
                continue;
            }
            let response = if redirected {
                response
            } else {
                self.accept(response).await?
            };
            return self.meta(file, response.headers()).map_err(Failure::Fatal);
        }
        Err(Failure::Fatal(self.protocol("it redirects in circles")))
    }

    fn meta(&self, file: &str, headers: &HeaderMap) -> Result<Meta, HubError> {
        let text = |linked: HeaderName, plain: HeaderName| {
            let value = headers.get(linked).or_else(|| headers.get(plain));
            value.and_then(|value| value.to_str().ok())
        };
        let etag = text(LINKED_ETAG, header::ETAG)
            .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned())
            .filter(|etag| is_blob_name(etag))
            .ok_or_else(|| self.protocol(&format!("{file} has no ETag")))?;
        let size = text(LINKED_SIZE, header::CONTENT_LENGTH)
            .and_then(|size| size.parse().ok())
            .ok_or_else(|| self.protocol(&format!("{file} has no size")))?;
        Ok(Meta {
            file: file.to_owned(),
            etag,
            size,
        })
    }

    /// Asks for the bytes of a file from an offset on; the answer is 200 (from the start after all),
    /// 206, or 416 (there is nothing at that offset).
    pub(super) async fn get(
        &self,
        commit: &str,
        file: &str,
        from: u64,
    ) -> Result<Response, Failure> {
        let url = self.url(commit, file)?;
        let mut request = self
            .files
            .get(url)
            .header(header::ACCEPT_ENCODING, "identity");
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        let response = request.headers(self.auth.clone()).send().await;
        let response = response.map_err(|error| self.transport(error))?;
        if response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        self.accept(response).await
    }

    /// Waits before the next try, or gives up: `failures` tries in a row brought nothing.
    pub(super) async fn pause(&self, failure: Failure, failures: usize) -> Result<(), HubError> {
        let (detail, retry_after) = match failure {
            Failure::Fatal(error) => return Err(error),
            Failure::Transient {
                detail,
                retry_after,
            } => (detail, retry_after),
        };
        if failures > RETRIES {
            return Err(self.unreachable(detail));
        }
        let doubled = self.options.retry_delay * (1 << (failures - 1));
        let pause = doubled
            .max(retry_after.unwrap_or_default())
            .min(LONGEST_PAUSE);
        tracing::warn!(
            repo = %self.repo, host = %self.host, %detail, ?pause, "download interrupted, trying again"
        );
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// What went wrong below HTTP, without the URL.
    pub(super) fn transport(&self, error: reqwest::Error) -> Failure {
        Failure::transient(describe(error, self.options.timeout))
    }

    async fn accept(&self, response: Response) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        if !same_host(response.url(), &self.endpoint) {
            // The storage behind the hub: its links expire, and the hub gives new ones.
            return Err(Failure::transient(format!("its storage answered {status}")));
        }
        let code = response
            .headers()
            .get(ERROR_CODE)
            .and_then(|code| code.to_str().ok());
        if is_transient(status) {
            let seconds = response.headers().get(header::RETRY_AFTER);
            let seconds = seconds.and_then(|value| value.to_str().ok()?.parse().ok());
            return Err(Failure::Transient {
                detail: format!("it answered {status}"),
                retry_after: seconds.map(Duration::from_secs),
            });
        }
        Err(Failure::Fatal(self.refusal(status, code)))
    }

    async fn listing_error(&self, error: HFError) -> HubError {
        let (status, code) = match &error {
            HFError::Request { source, .. } if source.is_decode() => {
                return self.protocol(&innermost(source).to_string());
            }
            HFError::Request { source, .. } => {
                return self.unreachable(describe_ref(source, self.options.timeout));
            }
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::RateLimited { context, .. }
            | HFError::Http { context }
            | HFError::RevisionNotFound {
                context: Some(context),
                ..
            }
            | HFError::RepoNotFound {
                context: Some(context),
                ..
            } => (context.status, context.error_code.as_deref()),
            _ => return self.protocol("its answer has another form"),
        };
        if is_transient(status) {
            return self.unreachable(format!("it answered {status}"));
        }
        let nameless = status == StatusCode::NOT_FOUND && code.is_none();
        if nameless && matches!(self.listings.exists().send().await, Ok(true)) {
            return self.refusal(status, Some("RevisionNotFound"));
        }
        self.refusal(status, code)
    }

    /// The error for an answer that no further try will change. `code` is the hub's own name for
    /// it, in `X-Error-Code`.
    fn refusal(&self, status: StatusCode, code: Option<&str>) -> HubError {
        let (repo, host, cached) = (self.repo.to_string(), self.host.clone(), self.cached);
        match (status.as_u16(), code) {
            (401 | 403, Some("GatedRepo")) => {
                let page = format!(
                    "{}/{}",
                    self.endpoint.as_str().trim_end_matches('/'),
                    self.repo.id()
                );
                HubError::Gated { repo, page, cached }
            }
            (401, _) => {
                let remedy = if self.options.token.is_some() {
                    "it does not accept the token in use; renew HF_TOKEN, or log in again with \
                     `hf auth login`"
                } else {
                    "check the spelling; if the repository is private, set HF_TOKEN to a token \
                     with read access to it"
                };
                HubError::Unauthorized {
                    repo,
                    host,
                    remedy,
                    cached,
                }
            }
            (403, _) => HubError::Forbidden { repo, host, cached },
            (404, Some("RevisionNotFound")) => HubError::RevisionNotFound {
                repo: self.repo.id(),
                revision: self.repo.revision().to_owned(),
            },
            (404, None | Some("RepoNotFound")) => HubError::RepoNotFound {
                repo: self.repo.id(),
                host,
            },
            _ => self.protocol(&format!("it answered {status}")),
        }
    }

    pub(super) fn unreachable(&self, detail: String) -> HubError {
        HubError::Unreachable {
            repo: self.repo.to_string(),
            host: self.host.clone(),
            detail,
            cached: self.cached,
        }
    }

    pub(super) fn corrupt(&self, file: &str, detail: String) -> HubError {
        HubError::Corrupt {
            repo: self.repo.to_string(),
            file: file.to_owned(),
            detail,
        }
    }

    /// The error for `needed` bytes that the disk has no room for.
    pub(super) fn disk_full(&self, needed: u64) -> HubError {
        let cache = self.options.cache_dir.clone();
        match (self.options.free_space)(&cache) {
            Ok(free) => HubError::DiskFull {
                repo: self.repo.to_string(),
                needed,
                free,
                cache,
            },
            Err(error) => HubError::io("ask for the free space of", &cache)(error),
        }
    }

    fn protocol(&self, detail: &str) -> HubError {
        HubError::Protocol {
            repo: self.repo.to_string(),
            host: self.host.clone(),
            detail: detail.to_owned(),
        }
    }

    /// `{endpoint}/{owner}/{name}/resolve/{commit}/{file}`.
    fn url(&self, commit: &str, file: &str) -> Result<Url, Failure> {
        let mut url = self.endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                let repo = [&self.repo.owner, &self.repo.name];
                segments
                    .pop_if_empty()
                    .extend(repo)
                    .extend(["resolve", commit])
                    .extend(file.split('/'));
            }
            Err(()) => return Err(Failure::Fatal(self.protocol("its address takes no path"))),
        }
        Ok(url)
    }
}

fn is_transient(status: StatusCode) -> bool {
    status.is_server_error()
        || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(&status)
}

fn redirect_target(response: &Response) -> Option<Url> {
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    response.url().join(location).ok()
}

fn same_host(a: &Url, b: &Url) -> bool {
    a.host_str() == b.host_str() && a.port_or_known_default() == b.port_or_known_default()
}

fn describe(error: reqwest::Error, timeout: Duration) -> String {
    describe_ref(&error, timeout)
}

/// The cause alone: the outer errors repeat the URL, which may be a signed one.
fn describe_ref(error: &reqwest::Error, timeout: Duration) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", timeout.as_secs_f32());
    }
    innermost(error).to_string()
}

fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error
}
