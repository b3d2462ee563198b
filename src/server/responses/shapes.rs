//! What is read of the objects that are taken out of a body as they are.

use crate::server::body::Body;
use crate::server::body::Shape::{self, Any, Each, Fields};

/// Of text; an output's comes with what clients send back as they got it.
const PARTS: Shape = Each(&Fields(&[
    ("type", Any),
    ("text", Any),
    ("refusal", Any),
    ("annotations", Any),
    ("logprobs", Any),
]));

const ITEMS: Shape = Each(&Fields(&[
    ("type", Any),
    ("id", Any),
    ("status", Any),
    ("role", Any),
    ("content", PARTS),
    ("summary", PARTS),
    ("encrypted_content", Any),
    ("call_id", Any),
    ("name", Any),
    ("arguments", Any),
    ("output", PARTS),
]));

const TOOLS: Shape = Each(&Fields(&[
    ("type", Any),
    ("name", Any),
    ("description", Any),
    ("parameters", Any),
    ("strict", Any),
    ("async", Any),
    ("defer_loading", Any),
    ("allowed_callers", Any),
]));

const FORMAT: Shape = Fields(&[
    ("type", Any),
    ("name", Any),
    ("description", Any),
    ("strict", Any),
    ("schema", Any),
]);

/// Looks for what nothing reads.
pub fn look(body: &mut Body) {
    let choice = Fields(&[("type", Any), ("name", Any), ("mode", Any), ("tools", Any)]);
    let text = Fields(&[("format", FORMAT), ("verbosity", Any)]);
    for (name, shape) in [
        ("input", ITEMS),
        ("tools", TOOLS),
        ("tool_choice", choice),
        ("text", text),
    ] {
        body.look_through(name, shape);
    }
}
