//! `POST /v1/chat/completions`: a conversation in, its next message out.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::sse::Event;
use axum::response::{IntoResponse, Response};
use futures::future::try_join_all;
use serde_json::{Map, Value};

use crate::engine::grammar::GrammarSpec;
use crate::server::body::{Body, Ignored, RawBody};
use crate::server::error::ApiError;
use crate::server::generate::{Delta, Summary};
use crate::server::model::ServedModel;
use crate::server::openai::chat::{
    ChatChoice, ChatChunk, ChatCompletion, ChatFields, ChunkChoice, Head,
};
use crate::server::openai::completions::include_usage;
use crate::server::openai::message::CallIds;
use crate::server::openai::sampling::SamplingFields;
use crate::server::openai::tools::Tools;
use crate::server::openai::usage::{Account, TimingsOut};
use crate::server::openai::{messages, refused, response_format};
use crate::server::sse::{self, Shape};
use crate::server::state::{App, Ready};
use crate::server::submit::{Job, Output, interleave, offload, submit};
use crate::server::terms::Terms;
use crate::text::TemplateInput;

struct Prepared {
    job: Job,
    grammar: Option<GrammarSpec>,
    stream: bool,
    include_usage: bool,
    /// Whether the output may call something.
    tools: bool,
    ignored: Ignored,
}

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
        grammar,
        stream,
        include_usage,
        tools,
        ignored,
    } = prepared;
    let job = job.constrain(&model, grammar).await?;
    let object = if stream {
        "chat.completion.chunk"
    } else {
        "chat.completion"
    };
    let answer = Answer {
        head: Head::new("chatcmpl", object, &model.id),
        account: Account::new(job.prompts.len()),
        choices: job.sampling.n,
        logprobs: job.logprobs.is_some(),
        include_usage,
        tools,
        ids: CallIds::of(model.text.dialect.tools()),
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
    model.check_name(&body)?;
    let terms = terms.read(&mut body)?;
    refused::chat(&mut body)?;
    let fields: ChatFields = body.read()?;
    let sampling: SamplingFields = body.read()?;
    let vocab = model.engine.model().vocab_size;
    let sampling = sampling.resolve(&model.text.defaults.0, vocab)?;
    let logprobs = fields.logprobs()?;
    let stream = fields.stream.unwrap_or(false);
    let include_usage = include_usage(stream, fields.stream_options)?;
    let grammar = response_format::parse(body.take("response_format"))?;
    let messages = body
        .take("messages")
        .ok_or_else(|| ApiError::missing("messages", "`messages` is required"))?;
    let messages = messages::normalize(messages)?;
    let tools = Tools::parse(
        body.take("tools"),
        body.take("tool_choice"),
        fields.parallel_tool_calls,
    )?;
    let text = &model.text;
    text.dialect.check(&tools, &model.id)?;
    let prompt = render(model, &messages, &tools, &fields)?;
    let grammar = text
        .dialect
        .grammar(&text.tokenizer, &tools, grammar, &prompt)?;
    let readers = text
        .dialect
        .readers(&text.tokenizer, &tools, &prompt, sampling.n);
    // The template writes the special tokens itself.
    let tokens = model.encode("messages", &prompt, false)?;
    let job =
        Job::new(model, "messages", vec![tokens], sampling, logprobs, terms)?.with_readers(readers);
    Ok(Prepared {
        job,
        grammar,
        stream,
        include_usage,
        tools: tools.offered().is_some(),
        ignored: body.ignored(),
    })
}

fn render(
    model: &ServedModel,
    messages: &Value,
    tools: &Tools,
    fields: &ChatFields,
) -> Result<String, ApiError> {
    let Some(template) = &model.text.template else {
        let message = format!(
            "the model `{}` has no chat template; send a prompt to /v1/completions instead",
            model.id
        );
        return Err(ApiError::unsupported("messages", message));
    };
    let none = Map::new();
    let kwargs = fields.chat_template_kwargs.as_ref().unwrap_or(&none);
    for name in ["messages", "tools", "add_generation_prompt"] {
        if kwargs.contains_key(name) {
            let path = format!("chat_template_kwargs.{name}");
            let message = format!("send `{name}` as a field of the request itself");
            return Err(ApiError::invalid(&path, message));
        }
    }
    let add_generation_prompt = fields.add_generation_prompt.unwrap_or(true);
    let input = TemplateInput {
        messages,
        tools: tools.offered(),
        add_generation_prompt,
        kwargs,
    };
    template
        .render(&input)
        .map_err(|error| ApiError::invalid("messages", error.to_string()))
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
            self.account.add(prompt, &summary.finish);
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
        self.account.add(prompt, &summary.finish);
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
