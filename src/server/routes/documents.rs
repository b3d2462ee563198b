//! `GET /openapi.json`: the API's description, made from the types that read and write it.

use axum::Json;
use serde::Deserialize;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Ref, RefOr, SecurityRequirement};
use utoipa::{Modify, OpenApi, ToSchema};

use crate::server::anthropic::error as anthropic;
use crate::server::anthropic::request::{MessageFields, PromptFields};
use crate::server::error::Envelope;
use crate::server::openai::chat::{ChatChunk, ChatFields};
use crate::server::openai::completions::CompletionFields;
use crate::server::openai::reasoning::{BudgetFields, ReasoningFields};
use crate::server::openai::sampling::SamplingFields;
use crate::server::responses::request::ResponseFields;

/// The body of a chat. The fields of the two groups are read as they are described; the others are
/// taken out of the body one by one, so that an error names the very part that is at fault.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
pub struct ChatRequest {
    /// What was said so far, each with a `role`: `system` (or `developer`), `user`, `assistant` or
    /// `tool`.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<serde_json::Value>,
    /// Functions that the model may call, in OpenAI's form.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<serde_json::Value>>,
    /// `none`, `auto`, `required`, or the function to call.
    tool_choice: Option<serde_json::Value>,
    /// What the answer has to be: `text`, `json_object` or `json_schema`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<serde_json::Value>,
    #[serde(flatten)]
    constraint: ConstraintFields,
    /// Only requests with the same one share kept prompts.
    cache_salt: Option<String>,
    #[serde(flatten)]
    chat: ChatFields,
    #[serde(flatten)]
    reasoning: ReasoningFields,
    #[serde(flatten)]
    budget: BudgetFields,
    #[serde(flatten)]
    sampling: SamplingFields,
}

/// What an output has to be, said otherwise; one of them at most.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
struct ConstraintFields {
    /// A regular expression that the whole output matches; also as `guided_regex`.
    regex: Option<String>,
    /// The output is one of these texts; also as `guided_choice`.
    choice: Option<Vec<String>>,
    /// A grammar: llguidance's Lark from `start`, or llama.cpp's GBNF from `root`; also as
    /// `guided_grammar`.
    grammar: Option<String>,
    /// A JSON schema, as llama-server has it; also as `guided_json`.
    #[schema(value_type = Option<Object>)]
    json_schema: Option<serde_json::Value>,
    /// vLLM's form: an object with one of `json`, `json_object`, `regex`, `choice` and `grammar`.
    #[schema(value_type = Option<Object>)]
    structured_outputs: Option<serde_json::Value>,
}

/// The body of a completion, likewise.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
pub struct CompletionRequest {
    prompt: PromptForms,
    /// What the output has to be: `text`, `json_object` or `json_schema`.
    #[schema(value_type = Option<Object>)]
    response_format: Option<serde_json::Value>,
    #[serde(flatten)]
    constraint: ConstraintFields,
    /// Only requests with the same one share kept prompts.
    cache_salt: Option<String>,
    #[serde(flatten)]
    completion: CompletionFields,
    #[serde(flatten)]
    sampling: SamplingFields,
}

/// The body of a response, likewise.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
pub struct ResponseRequest {
    #[serde(flatten)]
    constraint: ConstraintFields,
    /// Only requests with the same one share kept prompts.
    cache_salt: Option<String>,
    #[serde(flatten)]
    what: CountRequest,
    #[serde(flatten)]
    sampling: SamplingFields,
}

/// What the prompt of a response is made of, likewise.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
pub struct CountRequest {
    input: ResponseInput,
    /// Functions that the model may call.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<serde_json::Value>>,
    /// `none`, `auto`, `required`, the function to call, or the ones that may be.
    tool_choice: Option<serde_json::Value>,
    /// What the answer has to be, in `format`: `text`, `json_object` or `json_schema`.
    #[schema(value_type = Option<Object>)]
    text: Option<serde_json::Value>,
    #[serde(flatten)]
    response: ResponseFields,
    #[serde(flatten)]
    budget: BudgetFields,
}

/// A text, or items: messages, calls, their results, thoughts.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
enum ResponseInput {
    Text(String),
    #[schema(value_type = Vec<Object>)]
    Items(Vec<serde_json::Value>),
}

/// The body of a message, likewise.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
pub struct MessageRequest {
    #[serde(flatten)]
    constraint: ConstraintFields,
    /// Only requests with the same one share kept prompts.
    cache_salt: Option<String>,
    #[serde(flatten)]
    prompt: CountTokensRequest,
    #[serde(flatten)]
    message: MessageFields,
    #[serde(flatten)]
    sampling: SamplingFields,
}

/// What the prompt of a message is made of, likewise.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
pub struct CountTokensRequest {
    /// What was said so far, by `user` and `assistant` in turns, each a text or content blocks.
    #[schema(value_type = Vec<Object>)]
    messages: Vec<serde_json::Value>,
    /// A text or text blocks.
    system: Option<serde_json::Value>,
    /// Functions that the model may call, each with `name` and `input_schema`.
    #[schema(value_type = Option<Vec<Object>>)]
    tools: Option<Vec<serde_json::Value>>,
    /// Of `type` `auto`, `any`, `tool` or `none`.
    #[schema(value_type = Option<Object>)]
    tool_choice: Option<serde_json::Value>,
    #[serde(flatten)]
    fields: PromptFields,
}

/// A text, several, token ids, or several lists of them.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
#[schema(as = CompletionPrompt)]
#[allow(dead_code, reason = "describes what a route reads in parts")]
enum PromptForms {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    ManyTokens(Vec<Vec<u32>>),
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mlxcel",
        description = "A local inference server for language models on Apple's MLX."
    ),
    paths(
        super::root::get,
        super::health::get,
        super::version::get,
        get,
        super::models::list,
        super::models::retrieve,
        super::completions::post,
        super::chat_completions::post,
        super::responses::create,
        super::responses::input_tokens,
        super::responses::kept::retrieve,
        super::responses::kept::delete,
        super::responses::kept::cancel,
        super::responses::kept::input_items,
        super::messages::create,
        super::messages::count_tokens,
        super::tokenize::post,
        super::detokenize::post,
        super::apply_template::post,
        super::props::get,
        super::slots::get,
        super::metrics::get,
        super::lease::get,
    ),
    components(schemas(Envelope, anthropic::Envelope, ChatChunk)),
    modifiers(&Around)
)]
struct Document;

/// What every route has in common: who may ask, and how it says no.
struct Around;

/// Routes that want no key.
const OPEN: [&str; 2] = ["/", "/health"];

impl Modify for Around {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let header = ApiKey::Header(ApiKeyValue::new("x-api-key"));
        if let Some(components) = &mut document.components {
            components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
            components.add_security_scheme("x-api-key", SecurityScheme::ApiKey(header));
        }
        for (path, item) in &mut document.paths.paths {
            let operations = [&mut item.get, &mut item.post, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                if !OPEN.contains(&path.as_str()) {
                    let one_of = ["bearer", "x-api-key"];
                    let none: [&str; 0] = [];
                    let wanted = one_of.map(|name| SecurityRequirement::new(name, none));
                    operation.security = Some(wanted.into());
                }
                refuses(path, operation);
            }
        }
    }
}

fn refuses(path: &str, operation: &mut Operation) {
    let (envelope, description) = if anthropic::speaks(path) {
        (
            "AnthropicErrorEnvelope",
            "An error; `type` says of which kind.",
        )
    } else {
        let description = "An error; `code` and `param` say which and where.";
        ("ErrorEnvelope", description)
    };
    let envelope = RefOr::Ref(Ref::from_schema_name(envelope));
    let content = ContentBuilder::new().schema(Some(envelope)).build();
    let response = ResponseBuilder::new()
        .description(description)
        .content("application/json", content)
        .build();
    operation
        .responses
        .responses
        .entry("default".to_owned())
        .or_insert(RefOr::T(response));
}

/// The document.
pub fn document() -> openapi::OpenApi {
    Document::openapi()
}

/// The API's description
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "server",
    responses((status = 200, description = "OpenAPI 3.1", body = Object))
)]
pub async fn get() -> Json<openapi::OpenApi> {
    Json(document())
}
