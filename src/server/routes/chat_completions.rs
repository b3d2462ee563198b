//! `POST /v1/chat/completions`: a conversation in, its next message out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;

use super::documents::ChatRequest;
use crate::server::body::{Body, Ignored, RawBody};
use crate::server::conversation::{Manner, Prepared};
use crate::server::error::ApiError;
use crate::server::generate::{Delta, Summary};
use crate::server::model::ServedModel;
use crate::server::openai::chat::{
    self, ChatChoice, ChatChunk, ChatCompletion, ChatFields, ChunkChoice, Head,
};
use crate::server::openai::completions::{StreamOptions, include_usage};
use crate::server::openai::message::CallIds;
use crate::server::openai::sampling::SamplingFields;
use crate::server::openai::usage::{Account, TimingsOut};
use crate::server::openai::{constraint, refused, response_format, shapes};
use crate::server::sse::{self, Shape};
use crate::server::state::{App, Ready};
use crate::server::submit::{Output, interleave, offload};
use crate::server::terms::Terms;

struct Asked {
    prepared: Prepared,
    choices: usize,
    logprobs: bool,
    stream: bool,
    include_usage: bool,
    ignored: Ignored,
}

/// A conversation in, its next message out
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    tag = "generation",
    request_body = ChatRequest,
    responses((status = 200, description = "Whole, or a stream of chunks.", content(
        (ChatCompletion = "application/json"),
        (ChatChunk = "text/event-stream"),
    )))
)]
pub async fn post(
    State(app): State<App>,
    Ready(model): Ready,
    terms: Terms,
    RawBody(bytes): RawBody,
) -> Result<Response, ApiError> {
    let shared = model.clone();
    let mut asked = offload(bytes.len(), move || read(&shared, &bytes, terms)).await?;
    let object = if asked.stream {
        "chat.completion.chunk"
    } else {
        "chat.completion"
    };
    let answer = Answer {
        head: Head::new("chatcmpl", object, &model.id),
        account: Account::new(1),
        choices: asked.choices,
        logprobs: asked.logprobs,
        include_usage: asked.include_usage,
        tools: asked.prepared.may_call(),
        ids: asked.prepared.call_ids(),
        model: model.clone(),
    };
    let submit = asked.prepared.submit(&app, &model, &mut asked.ignored);
    let outputs = submit.await?;
    let mut response = if asked.stream {
        sse::respond(interleave(outputs), answer)
    } else {
        answer.whole(outputs).await?
    };
    asked.ignored.report(&mut response);
    Ok(response)
}

fn read(model: &ServedModel, bytes: &[u8], terms: Terms) -> Result<Asked, ApiError> {
    let mut body = Body::parse(bytes)?;
    model.check_name(&mut body)?;
    let terms = terms.read(&mut body)?;
    refused::chat(&mut body)?;
    shapes::chat(&mut body);
    body.look_into::<StreamOptions>("stream_options");
    let fields: ChatFields = body.read()?;
    let sampling: SamplingFields = body.read()?;
    let vocab = model.engine.model().vocab_size;
    let sampling = sampling.resolve(&model.text.defaults.0, vocab)?;
    let logprobs = fields.logprobs()?;
    let stream = fields.stream.unwrap_or(false);
    let include_usage = include_usage(stream, fields.stream_options)?;
    let answer = response_format::parse(body.take("response_format"))?;
    let answer = constraint::beside(&mut body, answer, "response_format")?;
    let conversation = chat::conversation(&mut body, fields, model.policy.telling)?;
    let choices = sampling.n;
    let manner = Manner {
        answer,
        sampling,
        logprobs,
        terms,
    };
    Ok(Asked {
        prepared: conversation.prepare(model, manner)?,
        choices,
        logprobs: logprobs.is_some(),
        stream,
        include_usage,
        ignored: body.ignored(),
    })
}

/// Says how the outputs come about, in this endpoint's shapes.
struct Answer {
    head: Head,
    account: Account,
    choices: usize,
    logprobs: bool,
    include_usage: bool,
    tools: bool,
    ids: CallIds,
    model: Arc<ServedModel>,
}

impl Answer {
    async fn whole(mut self, outputs: Vec<Output>) -> Result<Response, ApiError> {
        let collect = |output: Output| async move {
            let (delta, summary) = output.generation.collect().await?;
            Ok::<_, ApiError>((output.index, output.prompt, delta, summary))
        };
        let mut choices = Vec::with_capacity(outputs.len());
        for (index, prompt, delta, summary) in
            try_join_all(outputs.into_iter().map(collect)).await?
        {
            self.account.add(prompt, &summary);
            let (logprobs, ids) = (self.logprobs, self.ids);
            let piece = |id| self.model.piece(id);
            choices.push(ChatChoice::new(
                index, delta, &summary, logprobs, ids, piece,
            ));
        }
        self.account.log();
        let (usage, timings) = (self.account.usage(), self.account.timings());
        Ok(Json(ChatCompletion {
            head: self.head,
            choices,
            usage,
            timings,
        })
        .into_response())
    }

    fn chunk(&self, choice: ChunkChoice, timings: Option<TimingsOut>) -> Event {
        let usage = self.include_usage.then_some(None);
        sse::data(&ChatChunk {
            head: &self.head,
            choices: vec![choice],
            usage,
            timings,
        })
    }
}

impl Shape for Answer {
    fn begin(&mut self) -> Vec<Event> {
        (0..self.choices)
            .map(|index| self.chunk(ChunkChoice::role(index, self.tools), None))
            .collect()
    }

    fn delta(&mut self, index: usize, delta: Delta) -> Vec<Event> {
        let piece = |id| self.model.piece(id);
        let choice = ChunkChoice::delta(index, delta, self.logprobs, self.ids, piece);
        vec![self.chunk(choice, None)]
    }

    fn end(&mut self, index: usize, prompt: usize, summary: &Summary) -> Vec<Event> {
        self.account.add(prompt, summary);
        let timings = Some(TimingsOut::of(&summary.finish));
        vec![self.chunk(ChunkChoice::end(index, summary), timings)]
    }

    fn finish(&mut self) -> Vec<Event> {
        self.account.log();
        let done = Event::default().data("[DONE]");
        if !self.include_usage {
            return vec![done];
        }
        let usage = Some(Some(self.account.usage()));
        let timings = Some(self.account.timings());
        let last = ChatChunk {
            head: &self.head,
            choices: Vec::new(),
            usage,
            timings,
        };
        vec![sse::data(&last), done]
    }
}
