//! `POST /v1/completions`: text in, its continuation out.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;

use super::documents::CompletionRequest;
use crate::server::body::{Body, Ignored, RawBody};
use crate::server::error::ApiError;
use crate::server::generate::{Delta, Summary};
use crate::server::model::ServedModel;
use crate::server::openai::chat::Head;
use crate::server::openai::completions::{
    Completion, CompletionChoice, CompletionFields, Prompt, StreamOptions, include_usage, prompts,
};
use crate::server::openai::constraint::Constraint;
use crate::server::openai::logprobs::{CompletionLogprobs, CompletionOffsets};
use crate::server::openai::sampling::SamplingFields;
use crate::server::openai::usage::{Account, TimingsOut};
use crate::server::openai::{constraint, metadata, refused, response_format, shapes};
use crate::server::sse::{self, Shape};
use crate::server::state::{App, Ready};
use crate::server::submit::{Job, Output, interleave, offload, submit};
use crate::server::terms::Terms;

struct Prepared {
    job: Job,
    constraint: Option<Constraint>,
    /// Outputs to answer of each prompt; the job may make more.
    n: usize,
    stream: bool,
    include_usage: bool,
    ignored: Ignored,
}

/// Text in, its continuation out
#[utoipa::path(
    post,
    path = "/v1/completions",
    tag = "generation",
    request_body = CompletionRequest,
    responses((status = 200, description = "Whole, or a stream of the same with what is new.", content(
        (Completion = "application/json"),
        (Completion = "text/event-stream"),
    )))
)]
pub async fn post(
    State(app): State<App>,
    Ready(model): Ready,
    terms: Terms,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let shared = model.clone();
    let prepared = offload(bytes.len(), move || prepare(&shared, &bytes, terms)).await?;
    let Prepared {
        job,
        constraint,
        n,
        stream,
        include_usage,
        mut ignored,
    } = prepared;
    let field = constraint.as_ref().map_or("", |it| it.field);
    let spec = constraint.map(|it| it.spec);
    let constrain = job.constrain(&model, spec, field, &mut ignored);
    let mut job = constrain.await?;
    let logprobs = job.logprobs;
    if job.sampling.n > n {
        // What is best is told by them.
        job.logprobs = logprobs.or(Some(0));
    }
    let answer = Answer {
        head: Head::new("cmpl", "text_completion", &model.id),
        account: Account::new(job.prompts.len()),
        n,
        logprobs,
        offsets: HashMap::new(),
        include_usage,
        model: model.clone(),
    };
    let outputs = submit(&app, &model, job)?;
    let mut response = if stream {
        sse::respond(interleave(outputs), answer)
    } else {
        answer.whole(outputs).await?
    };
    ignored.report(&mut response);
    Ok(response)
}

fn prepare(model: &ServedModel, bytes: &[u8], terms: Terms) -> Result<Prepared, ApiError> {
    let mut body = Body::parse(bytes)?;
    model.check_name(&mut body)?;
    let terms = terms.read(&mut body)?;
    refused::completions(&mut body)?;
    shapes::completions(&mut body);
    let fields: CompletionFields = body.read()?;
    body.look_into::<StreamOptions>("stream_options");
    let mut sampling: SamplingFields = body.read()?;
    sampling.prompt_only = true;
    let vocab = model.engine.model().vocab_size;
    let mut sampling = sampling.resolve(&model.text.defaults.0, vocab)?;
    metadata::checked(fields.metadata.clone())?;
    let n = sampling.n;
    sampling.n = fields.best_of(n)?;
    let logprobs = fields.logprobs()?;
    let stream = fields.stream.unwrap_or(false);
    let include_usage = include_usage(stream, fields.stream_options)?;
    let constraint = response_format::parse(body.take("response_format"))?;
    let constraint = constraint::beside(&mut body, constraint, "response_format")?;
    let tokens = |prompt| match prompt {
        Prompt::Tokens(tokens) => Ok((tokens, None)),
        Prompt::Text(text) => Ok((model.encode("prompt", &text, true)?, Some(text))),
    };
    let (prompts, texts) = prompts(body.take("prompt"))?
        .into_iter()
        .map(tokens)
        .collect::<Result<_, ApiError>>()?;
    let mut job = Job::new(model, "prompt", prompts, sampling, logprobs, terms)?;
    if fields.echo.unwrap_or(false) {
        job = job.with_echo(model, texts)?;
    }
    Ok(Prepared {
        job,
        constraint,
        n,
        stream,
        include_usage,
        ignored: body.ignored(),
    })
}

/// Says how the outputs come about, in this endpoint's shapes.
struct Answer {
    head: Head,
    account: Account,
    n: usize,
    logprobs: Option<usize>,
    offsets: HashMap<usize, CompletionOffsets>,
    include_usage: bool,
    model: Arc<ServedModel>,
}

impl Answer {
    async fn whole(mut self, outputs: Vec<Output>) -> Result<Response, ApiError> {
        let collect = |output: Output| async move {
            let (delta, summary) = output.generation.collect().await?;
            Ok::<_, ApiError>((output.prompt, delta, summary))
        };
        let mut by_prompt: Vec<Vec<(Delta, Summary)>> = Vec::new();
        for (prompt, delta, summary) in try_join_all(outputs.into_iter().map(collect)).await? {
            self.account.add(prompt, &summary);
            by_prompt.resize_with(by_prompt.len().max(prompt + 1), Vec::new);
            by_prompt[prompt].push((delta, summary));
        }
        let mut choices = Vec::new();
        let n = self.n;
        for (delta, summary) in by_prompt.into_iter().flat_map(|all| best(all, n)) {
            let index = choices.len();
            let logprobs = self.logprobs(index, &delta);
            let reason = Some(summary.finish.reason);
            choices.push(CompletionChoice::new(index, delta.text, logprobs, reason));
        }
        self.account.log();
        let usage = Some(Some(self.account.usage()));
        let timings = Some(self.account.timings());
        Ok(Json(Completion {
            head: &self.head,
            choices,
            usage,
            timings,
        })
        .into_response())
    }

    fn logprobs(&mut self, index: usize, delta: &Delta) -> Option<CompletionLogprobs> {
        let top = self.logprobs?;
        let offsets = self.offsets.entry(index).or_default();
        Some(offsets.logprobs(delta, top, |id| self.model.piece(id)))
    }

    fn chunk(&self, choice: CompletionChoice, timings: Option<TimingsOut>) -> Vec<Event> {
        let usage = self.include_usage.then_some(None);
        vec![sse::data(&Completion {
            head: &self.head,
            choices: vec![choice],
            usage,
            timings,
        })]
    }
}

/// The `n` outputs with the highest logprob per token, best first; all of them as they are if they
/// are not more. An output without a token is the last choice.
fn best(mut outputs: Vec<(Delta, Summary)>, n: usize) -> Vec<(Delta, Summary)> {
    if outputs.len() > n {
        let score = |summary: &Summary| summary.mean_logprob.unwrap_or(f64::NEG_INFINITY);
        outputs.sort_by(|(_, a), (_, b)| score(b).total_cmp(&score(a)));
        outputs.truncate(n);
    }
    outputs
}

impl Shape for Answer {
    fn begin(&mut self) -> Vec<Event> {
        Vec::new()
    }

    fn delta(&mut self, index: usize, delta: Delta) -> Vec<Event> {
        let logprobs = self.logprobs(index, &delta);
        self.chunk(
            CompletionChoice::new(index, delta.text, logprobs, None),
            None,
        )
    }

    fn end(&mut self, index: usize, prompt: usize, summary: &Summary) -> Vec<Event> {
        self.account.add(prompt, summary);
        let reason = Some(summary.finish.reason);
        let choice = CompletionChoice::new(index, String::new(), None, reason);
        self.chunk(choice, Some(TimingsOut::of(&summary.finish)))
    }

    fn finish(&mut self) -> Vec<Event> {
        self.account.log();
        let done = Event::default().data("[DONE]");
        if !self.include_usage {
            return vec![done];
        }
        let usage = Some(Some(self.account.usage()));
        let timings = Some(self.account.timings());
        let last = Completion {
            head: &self.head,
            choices: Vec::new(),
            usage,
            timings,
        };
        vec![sse::data(&last), done]
    }
}
