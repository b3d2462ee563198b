//! What is read of the objects that are taken out of a body as they are.

use crate::server::body::Body;
use crate::server::body::Shape::{self, Any, Each, Fields, Open};

/// Of every block, and of what a result holds.
const TEXT: Shape = Fields(&[("type", Any), ("text", Any), ("cache_control", Any)]);

const BLOCKS: Shape = Each(&Fields(&[
    ("type", Any),
    ("text", Any),
    ("cache_control", Any),
    ("id", Any),
    ("name", Any),
    ("input", Any),
    ("tool_use_id", Any),
    ("content", Each(&TEXT)),
    ("is_error", Any),
    ("thinking", Any),
    ("signature", Any),
    ("data", Any),
]));

const TOOLS: Shape = Each(&Fields(&[
    ("type", Any),
    ("name", Any),
    ("description", Any),
    ("input_schema", Any),
    ("strict", Any),
    ("cache_control", Any),
    ("allowed_callers", Any),
    ("defer_loading", Any),
    ("input_examples", Any),
]));

/// Looks for what nothing reads.
pub fn look(body: &mut Body) {
    let messages = Each(&Fields(&[("role", Any), ("content", BLOCKS)]));
    let choice = Fields(&[
        ("type", Any),
        ("name", Any),
        ("disable_parallel_tool_use", Any),
    ]);
    let thinking = Fields(&[("type", Any), ("budget_tokens", Any), ("display", Any)]);
    let format = Open(&[("format", Fields(&[("type", Any), ("schema", Any)]))]);
    for (name, shape) in [
        ("system", BLOCKS),
        ("messages", messages),
        ("tools", TOOLS),
        ("tool_choice", choice),
        ("thinking", thinking),
        ("output_config", format),
    ] {
        body.look_through(name, shape);
    }
}
