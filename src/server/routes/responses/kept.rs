//! The responses that are kept: read, continued from, forgotten, cancelled.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use utoipa::ToSchema;

use crate::server::auth::KeyId;
use crate::server::error::{ApiError, Envelope};
use crate::server::openai::ranges::integer;
use crate::server::responses::request::includable;
use crate::server::responses::response::Response;
use crate::server::responses::store::Kept;
use crate::server::state::App;

/// Items of one page, where the request does not say.
const PAGE: usize = 20;

type Id = Result<Path<String>, PathRejection>;
type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// That a response is forgotten.
#[derive(Serialize, ToSchema)]
#[schema(as = ResponseDeleted)]
pub struct Deleted {
    id: String,
    object: &'static str,
    deleted: bool,
}

/// A page of a response's input.
#[derive(Serialize, ToSchema)]
#[schema(as = ResponseInputItems)]
pub struct InputItems {
    object: &'static str,
    data: Vec<Value>,
    first_id: Option<String>,
    last_id: Option<String>,
    has_more: bool,
}

/// A response that is kept
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    tag = "responses",
    params(("id" = String, Path, description = "Of a response of the same key.")),
    responses((status = 200, body = Response), (status = 404, body = Envelope))
)]
pub async fn retrieve(
    State(app): State<App>,
    owner: KeyId,
    id: Id,
    pairs: Pairs,
) -> Result<Json<Response>, ApiError> {
    for (name, value) in query(pairs)? {
        match (name.as_str(), value.as_str()) {
            ("stream" | "include_obfuscation", "false") => {}
            ("include" | "include[]", what) => includable("include", what)?,
            ("stream", _) => {
                let message = "a response cannot be streamed a second time; ask again until its \
                               `status` is final";
                return Err(ApiError::unsupported("stream", message));
            }
            ("starting_after" | "include_obfuscation", _) => {
                let message = format!("`{name}` is for streams, and this is none");
                return Err(ApiError::unsupported(&name, message));
            }
            _ => return Err(unknown(&name)),
        }
    }
    Ok(Json(find(&app, owner, id)?.response))
}

/// Forget a response
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    tag = "responses",
    params(("id" = String, Path, description = "Of a response of the same key.")),
    responses((status = 200, body = Deleted), (status = 404, body = Envelope))
)]
pub async fn delete(
    State(app): State<App>,
    owner: KeyId,
    id: Id,
) -> Result<Json<Deleted>, ApiError> {
    let id = path(id)?;
    if !app.responses().delete(owner, &id) {
        return Err(ApiError::response_not_found(&id));
    }
    Ok(Json(Deleted {
        id,
        object: "response",
        deleted: true,
    }))
}

/// End a response that is made in the background
#[utoipa::path(
    post,
    path = "/v1/responses/{id}/cancel",
    tag = "responses",
    params(("id" = String, Path, description = "Of a response of the same key.")),
    responses((status = 200, body = Response), (status = 404, body = Envelope))
)]
pub async fn cancel(
    State(app): State<App>,
    owner: KeyId,
    id: Id,
) -> Result<Json<Response>, ApiError> {
    let id = path(id)?;
    let response = app.responses().cancel(owner, &id);
    let response = response.ok_or_else(|| ApiError::response_not_found(&id))?;
    if !response.settings.background {
        let message = "only a response with `background: true` can be cancelled; for any other, close \
                       the connection";
        return Err(ApiError::invalid("id", message));
    }
    Ok(Json(response))
}

/// What a response answered, page by page
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    tag = "responses",
    params(
        ("id" = String, Path, description = "Of a response of the same key."),
        ("limit" = Option<usize>, Query, description = "1 to 100; 20 where it is left out."),
        ("order" = Option<String>, Query, description = "`asc`, or `desc`: newest first."),
        ("after" = Option<String>, Query, description = "The id of the last item of the page before."),
    ),
    responses((status = 200, body = InputItems), (status = 404, body = Envelope))
)]
pub async fn input_items(
    State(app): State<App>,
    owner: KeyId,
    id: Id,
    pairs: Pairs,
) -> Result<Json<InputItems>, ApiError> {
    let mut page = Page::default();
    for (name, value) in query(pairs)? {
        page.read(&name, &value)?;
    }
    page.of(find(&app, owner, id)?.input).map(Json)
}

/// Which items are asked for.
struct Page {
    limit: usize,
    /// Oldest first.
    ascending: bool,
    after: Option<String>,
}

impl Default for Page {
    fn default() -> Self {
        Self {
            limit: PAGE,
            ascending: false,
            after: None,
        }
    }
}

impl Page {
    fn read(&mut self, name: &str, value: &str) -> Result<(), ApiError> {
        match name {
            "limit" => {
                let limit = value.parse();
                let wrong = |_| ApiError::wrong_type("limit", "`limit` must be an integer");
                self.limit = integer("limit", limit.map_err(wrong)?, 1, 100)?;
            }
            "order" => {
                self.ascending = match value {
                    "asc" => true,
                    "desc" => false,
                    _ => return Err(ApiError::invalid("order", "`order` must be asc or desc")),
                }
            }
            "after" => self.after = Some(value.to_owned()),
            "include" | "include[]" => includable("include", value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }

    fn of(&self, mut items: Vec<Arc<Value>>) -> Result<InputItems, ApiError> {
        if !self.ascending {
            items.reverse();
        }
        if let Some(after) = &self.after {
            let last = items.iter().position(|item| item["id"] == **after);
            let Some(last) = last else {
                let message = format!("no item of the input has the id `{after}`");
                return Err(ApiError::invalid("after", message));
            };
            items.drain(..=last);
        }
        let has_more = items.len() > self.limit;
        items.truncate(self.limit);
        let id = |item: &Value| item["id"].as_str().map(str::to_owned);
        let data: Vec<Value> = items.into_iter().map(Arc::unwrap_or_clone).collect();
        Ok(InputItems {
            object: "list",
            first_id: data.first().and_then(id),
            last_id: data.last().and_then(id),
            has_more,
            data,
        })
    }
}

fn path(id: Id) -> Result<String, ApiError> {
    let wrong = |error: PathRejection| ApiError::invalid("id", error.body_text());
    id.map(|Path(id)| id).map_err(wrong)
}

fn query(pairs: Pairs) -> Result<Vec<(String, String)>, ApiError> {
    let wrong = |error: QueryRejection| ApiError::invalid("", error.body_text());
    pairs.map(|Query(pairs)| pairs).map_err(wrong)
}

fn unknown(name: &str) -> ApiError {
    ApiError::unsupported(name, format!("`{name}` is not supported here"))
}

fn find(app: &App, owner: KeyId, id: Id) -> Result<Kept, ApiError> {
    let id = path(id)?;
    let kept = app.responses().get(owner, &id);
    kept.ok_or_else(|| ApiError::response_not_found(&id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pages_follow_one_another() {
        let items: Vec<_> = (0..5)
            .map(|i| Arc::new(json!({"id": i.to_string()})))
            .collect();
        let page = |pairs: &[(&str, &str)]| {
            let mut page = Page::default();
            for (name, value) in pairs {
                page.read(name, value)?;
            }
            let told = page.of(items.clone())?;
            let ids = told.data.iter().map(|item| item["id"].as_str().unwrap());
            Ok::<_, ApiError>((ids.collect::<String>(), told.has_more))
        };
        let of = |ids: &str, more| (ids.to_owned(), more);
        assert_eq!(page(&[]).unwrap(), of("43210", false));
        let two = ("limit", "2");
        let asc = ("order", "asc");
        assert_eq!(page(&[two, asc]).unwrap(), of("01", true));
        assert_eq!(page(&[two, asc, ("after", "2")]).unwrap(), of("34", false));
        assert_eq!(page(&[two, ("after", "4")]).unwrap(), of("32", true));
        assert_eq!(page(&[("after", "0")]).unwrap(), of("", false));
        let include = ("include[]", "message.output_text.logprobs");
        assert_eq!(page(&[include]).unwrap(), of("43210", false));
        for (name, value) in [
            ("limit", "0"),
            ("limit", "x"),
            ("limit", "101"),
            ("order", "up"),
            ("after", "9"),
            ("include", "x"),
        ] {
            assert_eq!(page(&[(name, value)]).unwrap_err().param(), Some(name));
        }
    }
}
