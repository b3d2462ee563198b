//! From a checked request to running generations.

use std::sync::{Arc, LazyLock};

use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use tokio::sync::Semaphore;

use super::body::Ignored;
use super::error::ApiError;
use super::generate::{Echo, Generation, Step};
use super::metrics::Tally;
use super::model::ServedModel;
use super::openai::ending::StopTokens;
use super::openai::sampling::Sampling;
use super::reader::Reader;
use super::state::App;
use super::terms::Terms;
use crate::engine::grammar::{GrammarSpec, Matcher};
use crate::engine::{Event, Request, SamplingParams, Sibling, TokenStream};
use crate::text::TextError;

/// Most outputs of one request, prompts times choices.
pub const MAX_OUTPUTS: usize = 128;

/// Bytes of a request up to which its tokenizing, templates and checks are done where they stand:
/// less than a millisecond. More goes to a thread that no connection waits for.
const INLINE_BYTES: usize = 16 << 10;

/// Heavy preparations at a time: more of them would take the processor from the engine.
static HEAVY: LazyLock<Semaphore> = LazyLock::new(|| {
    Semaphore::new(
        std::thread::available_parallelism()
            .map_or(1, |cores| cores.get().div_ceil(2))
            .max(2),
    )
});

/// Does a request's preparation where it holds nobody up. `size` is that of its body.
pub async fn offload<T: Send + 'static>(
    size: usize,
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    if size <= INLINE_BYTES {
        return work();
    }
    // The semaphore is never closed. The permit goes with the work, which outlives its client.
    let permit = HEAVY.acquire().await;
    beside(move || {
        let _permit = permit;
        work()
    })
    .await
}

/// Does what takes some milliseconds on a thread that no connection waits for.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(ApiError::internal(format!(
            "the preparation failed: {error}"
        )))
    })
}

/// Everything the engine needs for one request.
pub struct Job {
    /// Tokens of each prompt.
    pub prompts: Vec<Vec<u32>>,
    /// How, how many, how long.
    pub sampling: Sampling,
    /// Likeliest tokens to report with each token.
    pub logprobs: Option<usize>,
    /// On which terms it is served.
    pub terms: Terms,
    /// What is repeated of each prompt; none where nothing is.
    echoes: Vec<Echo>,
    grammars: Vec<Matcher>,
    readers: Vec<Reader>,
}

impl Job {
    /// Checks the prompts against the model. `param` names where they came from.
    pub fn new(
        model: &ServedModel,
        param: &str,
        prompts: Vec<Vec<u32>>,
        sampling: Sampling,
        logprobs: Option<usize>,
        terms: Terms,
    ) -> Result<Self, ApiError> {
        let context = model.engine.context_length();
        let vocab = model.engine.model().vocab_size;
        let many = prompts.len() > 1;
        for (index, prompt) in prompts.iter().enumerate() {
            let param = if many {
                format!("{param}[{index}]")
            } else {
                param.to_owned()
            };
            if prompt.is_empty() {
                return Err(ApiError::invalid(
                    &param,
                    format!("`{param}` has no tokens"),
                ));
            }
            if prompt.len() >= context {
                return Err(ApiError::context_exceeded(&param, prompt.len(), context));
            }
            if let Some(token) = prompt.iter().find(|&&token| token as usize >= vocab) {
                let message = format!("the model has no token {token}; ids go to {}", vocab - 1);
                return Err(ApiError::invalid(&param, message));
            }
        }
        let most = most_tokens(&sampling, model);
        sampling.ending.within(most)?;
        let outputs = prompts.len().saturating_mul(sampling.n);
        if outputs > MAX_OUTPUTS {
            let message = format!(
                "{} prompts with `n` {} are {outputs} outputs, at most {MAX_OUTPUTS} are made",
                prompts.len(),
                sampling.n
            );
            return Err(ApiError::invalid("n", message));
        }
        let room = model.engine.room();
        if outputs > room {
            let message = format!(
                "{outputs} outputs are more than this server computes and queues together, {room}; \
                 ask for fewer at a time"
            );
            return Err(ApiError::invalid("n", message));
        }
        Ok(Self {
            prompts,
            sampling,
            logprobs,
            terms,
            echoes: Vec::new(),
            grammars: Vec::new(),
            readers: Vec::new(),
        })
    }

    /// Reads each output as a chat message.
    pub fn with_readers(self, readers: Vec<Reader>) -> Self {
        Self { readers, ..self }
    }

    /// Repeats each prompt before its outputs, with logprobs where the outputs have them. `texts` are
    /// what the prompts were encoded from, where they were.
    pub fn with_echo(
        self,
        model: &ServedModel,
        texts: Vec<Option<String>>,
    ) -> Result<Self, ApiError> {
        let echo = |(tokens, text): (&Vec<u32>, Option<String>)| match (text, self.logprobs) {
            (Some(text), None) => Ok(Echo::of_text(text)),
            (None, None) => {
                let text = model.text.tokenizer.decode(tokens, true)?;
                Ok(Echo::of_text(text))
            }
            (text, Some(_)) => Echo::of_tokens(model.text.tokenizer.clone(), tokens, text),
        };
        let echoes: Result<_, TextError> = self.prompts.iter().zip(texts).map(echo).collect();
        let undecodable = |error: TextError| ApiError::invalid("prompt", error.to_string());
        Ok(Self {
            echoes: echoes.map_err(undecodable)?,
            ..self
        })
    }

    /// Constrains every output, and finds the tokens that break DRY's sequences. Both can take long,
    /// so no connection waits for it. `field` is what asked for the grammar; what of it cannot be
    /// enforced, and nobody insists on, is `ignored`.
    pub async fn constrain(
        mut self,
        model: &Arc<ServedModel>,
        spec: Option<GrammarSpec>,
        field: &'static str,
        ignored: &mut Ignored,
    ) -> Result<Self, ApiError> {
        if self.sampling.params.dry.is_on() {
            let (model, strings) = (model.clone(), self.sampling.breakers.take());
            let find = move || model.breakers(strings.as_deref());
            self.sampling.params.dry.breakers = offload(usize::MAX, find).await?;
        }
        let Some(spec) = spec else {
            return Ok(self);
        };
        let known = model.knows(&spec);
        let (model, outputs) = (model.clone(), self.prompts.len() * self.sampling.n);
        let compile = move || -> Result<Vec<Matcher>, ApiError> {
            (0..outputs).map(|_| model.compile(&spec, field)).collect()
        };
        // What is compiled already does not wait for what is not.
        let grammars = match known {
            true => beside(compile).await,
            false => offload(usize::MAX, compile).await,
        };
        let grammars = grammars?;
        ignored.extend(grammars.first().into_iter().flat_map(unenforced));
        Ok(Self { grammars, ..self })
    }
}

/// Most tokens of an output: what was asked for, within what the server allows.
fn most_tokens(sampling: &Sampling, model: &ServedModel) -> Option<usize> {
    match (sampling.max_tokens, model.n_predict) {
        (Some(asked), Some(most)) => Some(asked.min(most)),
        (asked, most) => asked.or(most),
    }
}

/// What of the tools' schemas is not enforced, as parts of the request.
fn unenforced(matcher: &Matcher) -> impl Iterator<Item = String> {
    matcher
        .unenforced()
        .iter()
        .map(|name| format!("tools.{name}"))
}

/// One output of a request.
pub struct Output {
    /// Its place among all of them.
    pub index: usize,
    /// The prompt it continues.
    pub prompt: usize,
    /// How it comes about.
    pub generation: Generation<BoxStream<'static, Event>>,
}

/// Hands a job to the engine. If a part is refused nothing of it runs.
pub fn submit(app: &App, model: &Arc<ServedModel>, job: Job) -> Result<Vec<Output>, ApiError> {
    let Job {
        prompts,
        sampling,
        logprobs,
        terms,
        echoes,
        grammars,
        readers,
    } = job;
    let prompt_logprobs = logprobs.filter(|_| !echoes.is_empty());
    let mut echoes = echoes.into_iter();
    let mut grammars = grammars.into_iter();
    let mut readers = readers.into_iter();
    let mut outputs = Vec::with_capacity(prompts.len() * sampling.n);
    let max_tokens = most_tokens(&sampling, model);
    let StopTokens { ending, withheld } = sampling.ending.tokens(&model.text.stop_tokens);
    for (prompt, tokens) in prompts.into_iter().enumerate() {
        let prompt_tokens = tokens.len();
        let mut siblings: Vec<Sibling> = (0..sampling.n as u64)
            .map(|choice| Sibling {
                sampling: SamplingParams {
                    choice,
                    withheld: withheld.clone(),
                    ..sampling.params.clone()
                },
                grammar: grammars.next(),
            })
            .collect();
        let first = siblings.remove(0);
        let request = Request {
            prompt: tokens,
            max_tokens,
            sampling: first.sampling,
            logprobs,
            prompt_logprobs,
            stop_tokens: ending.clone(),
            grammar: first.grammar,
            siblings,
            cache_salt: terms.cache_salt,
            deadline: terms.deadline,
        };
        let echo = echoes.next();
        for stream in model.engine.submit_all(request)? {
            let tokenizer = model.text.tokenizer.clone();
            let mut generation = Generation::new(
                events(stream),
                app.aborted().boxed(),
                tokenizer.clone(),
                sampling.stop.clone(),
                prompt_tokens,
            )
            .with_min_tokens(sampling.ending.min_tokens)
            .with_tally(Tally::new(&model.metrics));
            if let Some(echo) = &echo {
                generation = generation.with_echo(echo.clone());
            }
            if let Some(reader) = readers.next() {
                generation = generation.with_reader(tokenizer, reader);
            }
            outputs.push(Output {
                index: outputs.len(),
                prompt,
                generation,
            });
        }
    }
    Ok(outputs)
}

/// What happens to which output.
pub struct Happening {
    /// The output.
    pub index: usize,
    /// The prompt it continues.
    pub prompt: usize,
    /// What happened.
    pub step: Result<Step, ApiError>,
}

/// The steps of all outputs as they come. Dropping it cancels all of them.
pub fn interleave(outputs: Vec<Output>) -> impl Stream<Item = Happening> + Send + Unpin + 'static {
    stream::select_all(outputs.into_iter().map(
        |Output {
             index,
             prompt,
             generation,
         }| {
            generation
                .into_stream()
                .map(move |step| Happening {
                    index,
                    prompt,
                    step,
                })
                .boxed()
        },
    ))
}

fn events(tokens: TokenStream) -> BoxStream<'static, Event> {
    stream::unfold(tokens, |mut tokens| async move {
        tokens.recv().await.map(|event| (event, tokens))
    })
    .boxed()
}
