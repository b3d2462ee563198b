//! What is left of schemas that cannot be enforced, for functions that do not insist on theirs.

use serde_json::{Map, Value, json};

use super::GrammarError;
use super::message::{Call, Calls, Part};
use super::schema;

/// Keywords that are left out of one schema before nothing of it is kept.
const MOST: usize = 16;

/// The same calls, with schemas that can be enforced, and what was left out for it:
/// `function.keyword`, or `function.parameters` where nothing is kept.
///
/// `compile` says why calls cannot be enforced.
///
/// # Errors
/// Those of `compile` that may be others another time.
pub(super) fn relaxed(
    mut calls: Calls,
    compile: &dyn Fn(Calls) -> Result<(), GrammarError>,
) -> Result<(Calls, Vec<String>), GrammarError> {
    let mut left = Vec::new();
    let surroundings = Calls {
        each: Vec::new(),
        ..calls.clone()
    };
    let compile_one = |call: &Call| {
        compile(Calls {
            each: vec![call.clone()],
            ..surroundings.clone()
        })
    };
    for call in calls.each.iter_mut().filter(|call| !call.strict) {
        left.extend(relax(call, &compile_one)?);
    }
    Ok((calls, left))
}

fn relax(
    call: &mut Call,
    compile: &dyn Fn(&Call) -> Result<(), GrammarError>,
) -> Result<Vec<String>, GrammarError> {
    let mut left = Vec::new();
    for _ in 0..MOST {
        let keyword = match compile(call) {
            Ok(()) => return Ok(left),
            Err(GrammarError::Unsupported { keyword, .. }) => keyword,
            Err(error) if error.is_passing() => return Err(error),
            Err(_) => break,
        };
        // Without these no argument could be written.
        let kept = keyword == "properties" || keyword == "$ref";
        let name = format!("{}.{keyword}", call.function);
        if kept || !leave_out(&mut call.parts, &keyword) {
            break;
        }
        left.push(name);
    }
    for part in &mut call.parts {
        match part {
            Part::Json(schema) => *schema = json!({"type": "object"}),
            Part::Keywords(_) => *part = Part::AnyKeywords,
            Part::Parameters(_) => *part = Part::AnyParameters,
            _ => {}
        }
    }
    Ok(vec![format!("{}.parameters", call.function)])
}

/// Leaves a keyword out of all schemas; whether it was anywhere.
fn leave_out(parts: &mut [Part], keyword: &str) -> bool {
    let mut found = false;
    for part in parts {
        if let Part::Json(schema) | Part::Keywords(schema) | Part::Parameters(schema) = part {
            schema::each_subschema(schema, &mut |keywords: &mut Map<String, Value>| {
                found |= keywords.shift_remove(keyword).is_some();
            });
        }
    }
    found
}
