//! What every API for conversations comes down to, whatever it looks like on the wire: messages,
//! tools and a way to answer in, a job for the engine out.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::body::Ignored;
use super::call_grammar::Wish;
use super::error::ApiError;
use super::model::ServedModel;
use super::openai::constraint::Constraint;
use super::openai::message::CallIds;
use super::openai::sampling::Sampling;
use super::openai::tools::Tools;
use super::prefill::Prefill;
use super::reader::Telling;
use super::state::App;
use super::submit::{Job, Output, submit};
use super::terms::Terms;
use super::thinking::Thinking;
use crate::engine::grammar::GrammarSpec;
use crate::text::TemplateInput;
use crate::text::output::ToolFormat;

/// What the fields are called on the wire, where that is not what chat calls them: pairs of chat's
/// name and the other. Errors name fields by it.
pub type FieldNames = &'static [(&'static str, &'static str)];

/// What a model is to continue.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// As templates read them: see [`messages::normalize`](super::openai::messages::normalize).
    pub messages: Value,
    /// The functions that may be called.
    pub tools: Tools,
    /// Whether to think first.
    pub thinking: Thinking,
    /// Most tokens of the thought before the answer; `None` bounds nothing.
    pub thinking_budget: Option<usize>,
    /// Where thoughts are told.
    pub telling: Telling,
    /// Further variables for the template.
    pub template_kwargs: Map<String, Value>,
    /// Whether to end the prompt with the header of the assistant's turn.
    pub add_generation_prompt: bool,
    /// Whether the last message is gone on with.
    pub continues: bool,
    /// For errors.
    pub names: FieldNames,
}

/// How the answer is made.
#[derive(Debug)]
pub struct Manner {
    /// What the text of an answer has to be; `None` is anything.
    pub answer: Option<Constraint>,
    /// How, how many, how long.
    pub sampling: Sampling,
    /// Likeliest tokens to report with each token.
    pub logprobs: Option<usize>,
    /// On which terms.
    pub terms: Terms,
}

impl Conversation {
    /// With everything but the messages left to the model.
    pub fn new(messages: Value, names: FieldNames) -> Self {
        Self {
            messages,
            tools: Tools::default(),
            thinking: Thinking::default(),
            thinking_budget: None,
            telling: Telling::default(),
            template_kwargs: Map::new(),
            add_generation_prompt: true,
            continues: false,
            names,
        }
    }

    /// The prompt.
    pub fn render(&self, model: &ServedModel) -> Result<String, ApiError> {
        let rendered = self.rendered(model);
        rendered.map_err(|error| error.renamed(self.names))
    }

    /// The prompt's tokens.
    pub fn tokens(&self, model: &ServedModel) -> Result<Vec<u32>, ApiError> {
        let prompt = self.render(model)?;
        self.encode(model, &prompt)
    }

    /// A job that makes the next message. Slow for large conversations: see
    /// [`offload`](super::submit::offload).
    pub fn prepare(self, model: &ServedModel, manner: Manner) -> Result<Prepared, ApiError> {
        let names = self.names;
        let prepared = self.prepared(model, manner);
        prepared.map_err(|error| error.renamed(names))
    }

    fn prepared(self, model: &ServedModel, manner: Manner) -> Result<Prepared, ApiError> {
        self.check_continued(model, &manner)?;
        let text = &model.text;
        let Manner {
            answer,
            sampling,
            logprobs,
            terms,
        } = manner;
        text.dialect.check(&self.tools, &model.id)?;
        let prompt = self.rendered(model)?;
        let tools = &self.tools;
        let tokenizer = &text.tokenizer;
        // Where nothing is said of the answer, only a thought can be held to something.
        let field = answer.as_ref().map_or("thinking_budget", |it| it.field);
        let budget = self.thinking_budget;
        let wish = Wish {
            tools,
            answer: answer.map(|answer| answer.spec),
            budget: budget.map(|budget| budget.min(model.engine.context_length())),
            prompt: &prompt,
        };
        let grammar = text.dialect.grammar(tokenizer, wish)?;
        let telling = self.telling;
        let readers = text
            .dialect
            .readers(tokenizer, tools, &prompt, telling, sampling.n)?;
        let tokens = self.encode(model, &prompt)?;
        let job = Job::new(model, "messages", vec![tokens], sampling, logprobs, terms)?;
        Ok(Prepared {
            job: job.with_readers(readers),
            field: match &grammar {
                Some(GrammarSpec::Message(message)) if message.calls.is_some() => "tools",
                _ => field,
            },
            grammar,
            calls: tools.offered().is_some(),
            call_ids: CallIds::of(text.dialect.tools()),
            names: self.names,
        })
    }

    fn encode(&self, model: &ServedModel, prompt: &str) -> Result<Vec<u32>, ApiError> {
        // The template writes the special tokens itself.
        let tokens = model.encode("messages", prompt, false);
        tokens.map_err(|error| error.renamed(self.names))
    }

    fn rendered(&self, model: &ServedModel) -> Result<String, ApiError> {
        let Some(template) = &model.text.template else {
            let message = format!(
                "the model `{}` has no chat template; send a prompt to /v1/completions instead",
                model.id
            );
            return Err(ApiError::unsupported("messages", message));
        };
        let kwargs = self.kwargs(model)?;
        let prefill = match self.continues {
            true => Some(Prefill::new(&self.messages)?),
            false => None,
        };
        let messages = prefill
            .as_ref()
            .map_or(&self.messages, |prefill| &prefill.messages);
        let input = TemplateInput {
            messages,
            tools: self.tools.offered(),
            add_generation_prompt: self.add_generation_prompt && !self.continues,
            kwargs: &kwargs,
        };
        let rendered = template.render(&input);
        let rendered =
            rendered.map_err(|error| ApiError::invalid("messages", error.to_string()))?;
        match prefill {
            Some(prefill) => prefill.cut(rendered),
            None => Ok(rendered),
        }
    }

    /// Refuses what a message that goes on cannot keep to.
    fn check_continued(&self, model: &ServedModel, manner: &Manner) -> Result<(), ApiError> {
        let refused = |why: &str| {
            let message = format!("`continue_final_message`: {why}");
            Err(ApiError::unsupported("continue_final_message", message))
        };
        if !self.continues {
            return Ok(());
        }
        if manner.answer.is_some() {
            return refused(
                "an answer that goes on cannot be held to a format, which it would begin anew",
            );
        }
        if self.thinking_budget.is_some() || self.thinking.enabled == Some(true) {
            return refused("an answer that goes on has no thoughts, which come before it");
        }
        if model.text.dialect.tools() == Some(ToolFormat::Harmony) {
            return refused(
                "the messages of this model begin with a channel, and cannot be gone on with",
            );
        }
        Ok(())
    }

    fn kwargs(&self, model: &ServedModel) -> Result<Map<String, Value>, ApiError> {
        let mut kwargs = self.template_kwargs.clone();
        let refused = |name: &str, message: String| {
            let path = format!("chat_template_kwargs.{name}");
            Err(ApiError::invalid(&path, message))
        };
        for name in ["messages", "tools", "add_generation_prompt"] {
            if kwargs.contains_key(name) {
                return refused(
                    name,
                    format!("send `{name}` as a field of the request itself"),
                );
            }
        }
        let habits = model.text.dialect.habits();
        // Who bounds thoughts wants some.
        let thinking = match self.thinking_budget {
            Some(1..) => self.thinking.where_possible(&habits),
            _ => self.thinking,
        };
        for (name, value) in thinking.variables(&habits)? {
            if kwargs.get(&name).is_some_and(|given| *given != value) {
                let message = format!("`{name}` contradicts another field of the request");
                return refused(&name, message);
            }
            kwargs.insert(name, value);
        }
        Ok(kwargs)
    }
}

/// A conversation on its way to the engine.
pub struct Prepared {
    job: Job,
    grammar: Option<GrammarSpec>,
    /// What asked for it.
    field: &'static str,
    calls: bool,
    call_ids: CallIds,
    names: FieldNames,
}

impl Prepared {
    /// Whether the answer may call something.
    pub fn may_call(&self) -> bool {
        self.calls
    }

    /// What ids of calls look like.
    pub fn call_ids(&self) -> CallIds {
        self.call_ids
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.job.prompts.iter().map(Vec::len).sum()
    }

    /// Hands it to the engine: one output for each choice. Adds to `ignored` what of the tools cannot be
    /// enforced.
    pub async fn submit(
        self,
        app: &App,
        model: &Arc<ServedModel>,
        ignored: &mut Ignored,
    ) -> Result<Vec<Output>, ApiError> {
        let constrain = self.job.constrain(model, self.grammar, self.field, ignored);
        let job = constrain.await;
        job.and_then(|job| submit(app, model, job))
            .map_err(|error| error.renamed(self.names))
    }
}
