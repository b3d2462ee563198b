//! Going on with the assistant's last message instead of beginning a new one: vLLM's and transformers'
//! `continue_final_message`, and what Anthropic calls a prefill.

use serde_json::Value;

use super::error::ApiError;

const FIELD: &str = "continue_final_message";

/// A conversation whose last message is marked where it goes on.
pub struct Prefill {
    /// For the template.
    pub messages: Value,
    /// Nobody can have written it.
    mark: String,
}

impl Prefill {
    /// Marks the end of the last message.
    ///
    /// # Errors
    /// 400 where that is not the assistant's, or calls something.
    pub fn new(messages: &Value) -> Result<Self, ApiError> {
        let mut messages = messages.clone();
        let mark = format!("\u{e000}{}\u{e000}", uuid::Uuid::new_v4().simple());
        let last = messages.as_array_mut().and_then(|list| list.last_mut());
        let last = last.filter(|message| {
            message["role"] == "assistant" && message.get("tool_calls").is_none()
        });
        let content = last.and_then(|message| message.get_mut("content"));
        let Some(Value::String(content)) = content else {
            let message = "`continue_final_message`: what goes on is a last message of the assistant's \
                           that calls nothing";
            return Err(ApiError::invalid(FIELD, message));
        };
        content.push_str(&mark);
        Ok(Self { messages, mark })
    }

    /// The prompt up to where the message goes on.
    ///
    /// # Errors
    /// 400 where the template does not write the message as it is.
    pub fn cut(&self, mut rendered: String) -> Result<String, ApiError> {
        let mut places = rendered.match_indices(&self.mark).map(|(at, _)| at);
        match (places.next(), places.next()) {
            (Some(at), None) => {
                rendered.truncate(at);
                Ok(rendered)
            }
            _ => {
                let message = "this model's template does not write the last message as it is, so that \
                               it cannot be gone on with";
                Err(ApiError::unsupported(FIELD, message))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_prompt_ends_where_the_message_does() {
        let messages =
            json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b "}]);
        let prefill = Prefill::new(&messages).unwrap();
        let text = |message: &Value| message["content"].as_str().unwrap().to_owned();
        let list = prefill.messages.as_array().unwrap();
        let rendered = format!("<{}><{}>\n", text(&list[0]), text(&list[1]));
        assert_eq!(prefill.cut(rendered).unwrap(), "<a><b ");
        for other in ["<a><b >".to_owned(), text(&list[1]).repeat(2)] {
            assert_eq!(prefill.cut(other).unwrap_err().param(), Some(FIELD));
        }
    }

    #[test]
    fn only_an_answer_goes_on() {
        for messages in [
            json!([{"role": "user", "content": "a"}]),
            json!([{"role": "assistant", "content": "a", "tool_calls": [{}]}]),
            json!([]),
        ] {
            assert_eq!(Prefill::new(&messages).err().unwrap().param(), Some(FIELD));
        }
    }
}
