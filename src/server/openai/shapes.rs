//! What chat and completions read of the objects that are taken out of a body as they are.

use crate::server::body::Body;
use crate::server::body::Shape::{Any, Each, Fields, Open};

/// Looks for what nothing reads within a completion's.
pub fn completions(body: &mut Body) {
    let format = Fields(&[
        ("type", Any),
        ("schema", Any),
        (
            "json_schema",
            Fields(&[
                ("name", Any),
                ("description", Any),
                ("strict", Any),
                ("schema", Any),
            ]),
        ),
    ]);
    body.look_through("response_format", format);
}

/// The same within a chat's. Messages and tools go to the template as they are; only the parts of a
/// content do not.
pub fn chat(body: &mut Body) {
    completions(body);
    let messages = Each(&Open(&[(
        "content",
        Each(&Fields(&[
            ("type", Any),
            ("text", Any),
            ("refusal", Any),
            // There is nothing to mark: every prompt is kept.
            ("cache_control", Any),
        ])),
    )]));
    body.look_through("messages", messages);
    let choice = Fields(&[
        ("type", Any),
        ("function", Fields(&[("name", Any)])),
        ("allowed_tools", Fields(&[("mode", Any), ("tools", Any)])),
    ]);
    body.look_through("tool_choice", choice);
}
