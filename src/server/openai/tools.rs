//! `tools` and `tool_choice`: not honoured yet, so refused by name.

use crate::server::body::Body;
use crate::server::error::ApiError;

/// Refuses a request that lets the model call tools. With `tool_choice: "none"`, or an empty list,
/// there is nothing to call.
pub fn refuse(body: &mut Body) -> Result<(), ApiError> {
    body.know(["tools", "tool_choice"]);
    let none = body
        .get("tool_choice")
        .is_some_and(|choice| choice == "none");
    let tools = body
        .get("tools")
        .is_some_and(|tools| tools.as_array().is_none_or(|t| !t.is_empty()));
    if tools && !none {
        let message = "tools are not supported yet; describe them in a system message, or send \
                       `tool_choice: \"none\"`";
        return Err(ApiError::unsupported("tools", message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_could_call_a_tool_is_refused() {
        for (json, accepted) in [
            (r#"{}"#, true),
            (r#"{"tools": []}"#, true),
            (r#"{"tools": null, "tool_choice": "auto"}"#, true),
            (r#"{"tools": [{}], "tool_choice": "none"}"#, true),
            (r#"{"tools": [{}]}"#, false),
            (r#"{"tools": [{}], "tool_choice": "required"}"#, false),
        ] {
            let mut body = Body::parse(json.as_bytes()).unwrap();
            assert_eq!(refuse(&mut body).is_ok(), accepted, "{json}");
        }
    }
}
