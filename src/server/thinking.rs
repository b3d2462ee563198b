//! Whether a model thinks before it answers, and how hard: what requests say of it, and the variables
//! that templates read.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::ApiError;
use crate::text::{ChatTemplate, TemplateInput};

/// OpenAI's words for how hard to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// Not at all.
    None,
    /// Next to nothing.
    Minimal,
    /// Little.
    Low,
    /// As models usually do.
    Medium,
    /// Much.
    High,
    /// More than that.
    XHigh,
    /// As much as there is.
    Max,
}

impl fmt::Display for Effort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What a request says about thoughts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Thinking {
    /// `reasoning_effort`.
    pub effort: Option<Effort>,
    /// `enable_thinking`: whether to think at all.
    pub enabled: Option<bool>,
}

/// What a model's template lets a request say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Switches {
    /// The variable that switches thoughts on and off.
    toggle: Option<&'static str>,
    /// Whether it reads `reasoning_effort`.
    effort: bool,
}

/// The variables that switch thoughts: Qwen's and most others', then DeepSeek's and Granite's.
const TOGGLES: [&str; 2] = ["enable_thinking", "thinking"];
const EFFORT: &str = "reasoning_effort";

impl Switches {
    /// A template reads a variable if the prompt depends on it.
    pub fn of(template: &ChatTemplate) -> Self {
        let reads = |name: &str, one: Value, other: Value| {
            let prompts = (probe(template, name, one), probe(template, name, other));
            matches!(prompts, (Some(one), Some(other)) if one != other)
        };
        let toggles = |name: &&&str| reads(name, true.into(), false.into());
        Self {
            toggle: TOGGLES.iter().find(toggles).copied(),
            effort: reads(EFFORT, "low".into(), "high".into()),
        }
    }
}

/// The beginning of an answer with a variable; `None` where the template refuses it.
fn probe(template: &ChatTemplate, name: &str, value: Value) -> Option<String> {
    let messages = json!([{"role": "user", "content": "a"}]);
    let kwargs = Map::from_iter([(name.to_owned(), value)]);
    let input = TemplateInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: true,
        kwargs: &kwargs,
    };
    template.render(&input).ok()
}

/// How a model thinks.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// What its template reads.
    pub switches: Switches,
    /// Whether its outputs can hold thoughts.
    pub thinks: bool,
    /// The efforts it was trained with, where those are not the template's to say.
    pub efforts: Option<&'static [Effort]>,
}

impl Thinking {
    /// With thoughts where nothing was said of them, and they can be switched on.
    pub fn where_possible(self, habits: &Habits) -> Self {
        let on = Self {
            enabled: Some(true),
            ..self
        };
        match self.enabled.is_none() && on.variables(habits).is_ok() {
            true => on,
            false => self,
        }
    }

    /// The template's variables that do what the request says.
    ///
    /// # Errors
    /// 400 where nothing does. A model whose thoughts can only be switched takes `medium` (as it
    /// usually does) and everything above (as much as there is), but cannot be told to think less.
    pub fn variables(self, habits: &Habits) -> Result<Map<String, Value>, ApiError> {
        let Habits {
            switches,
            thinks,
            efforts,
        } = *habits;
        let param = if self.effort.is_some() {
            EFFORT
        } else {
            "enable_thinking"
        };
        let refused = |message: String| Err(ApiError::unsupported(param, message));
        let by_effort = self.effort.map(|effort| effort != Effort::None);
        if let (Some(a), Some(b)) = (by_effort, self.enabled)
            && a != b
        {
            let message = "`enable_thinking` and `reasoning_effort` contradict each other";
            return Err(ApiError::invalid("enable_thinking", message));
        }
        let mut variables = Map::new();
        let Some(on) = by_effort.or(self.enabled) else {
            return Ok(variables);
        };
        if let Some(name) = switches.toggle {
            variables.insert(name.to_owned(), on.into());
        }
        let graded = switches.effort && efforts.is_none_or(|known| known_to(known, self.effort));
        match self.effort {
            Some(effort) if graded => {
                variables.insert(EFFORT.to_owned(), json!(effort));
            }
            Some(effort) if switches.effort => {
                let known = efforts.unwrap_or_default().iter();
                let known: Vec<String> = known.map(Effort::to_string).collect();
                return refused(format!(
                    "the effort `{effort}` is none that this model knows; it knows {}",
                    known.join(", ")
                ));
            }
            Some(effort @ (Effort::Minimal | Effort::Low)) => {
                return refused(format!(
                    "this model cannot be told to think with effort `{effort}`; send `none`, or \
                     `medium` to let it think as it does"
                ));
            }
            Some(_) | None if switches.toggle.is_some() || on == thinks => {}
            Some(_) | None if on => return refused("this model does not think".to_owned()),
            Some(_) | None => {
                let message = "this model always thinks: its template has no switch for it";
                return refused(message.to_owned());
            }
        }
        Ok(variables)
    }
}

fn known_to(known: &[Effort], effort: Option<Effort>) -> bool {
    effort.is_some_and(|effort| known.contains(&effort))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn template(source: &str) -> ChatTemplate {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("chat_template.jinja"), source).unwrap();
        ChatTemplate::load(dir.path()).unwrap().unwrap()
    }

    #[test]
    fn what_a_template_reads_is_what_its_prompt_depends_on() {
        let of = |source: &str| {
            let switches = Switches::of(&template(source));
            (switches.toggle, switches.effort)
        };
        assert_eq!(
            of("thinking enable_thinking reasoning_effort"),
            (None, false)
        );
        assert_eq!(
            of("{% set thinking = thinking | default(false) %}{{ '<think>' if thinking }}"),
            (Some("thinking"), false)
        );
        assert_eq!(of("{{ reasoning_effort }}"), (None, true));
        assert_eq!(
            of("{% if enable_thinking %}{{ raise_exception('no') }}{% endif %}"),
            (None, false)
        );
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tiny-model/mlxcel-tiny");
        let tiny = ChatTemplate::load(&dir).unwrap().unwrap();
        assert_eq!(Switches::of(&tiny).toggle, Some("enable_thinking"));
    }

    fn ask(
        effort: Option<Effort>,
        enabled: Option<bool>,
        habits: &Habits,
    ) -> Result<String, String> {
        let variables = Thinking { effort, enabled }.variables(habits);
        let told = variables.map(|variables| Value::Object(variables).to_string());
        told.map_err(|error| error.param().unwrap_or_default().to_owned())
    }

    #[test]
    fn each_kind_of_model_is_told_in_its_own_way() {
        let habits = |toggle, effort, thinks, efforts| Habits {
            switches: Switches { toggle, effort },
            thinks,
            efforts,
        };
        let plain = habits(None, false, false, None);
        let always = habits(None, false, true, None);
        let switched = habits(Some("thinking"), false, true, None);
        let levels: &[Effort] = &[Effort::Low, Effort::High];
        let harmony = habits(None, true, true, Some(levels));
        let both = habits(Some("enable_thinking"), true, true, None);
        let refused = || Err(EFFORT.to_owned());
        let told = |text: &str| Ok(text.to_owned());
        for (habits, effort, want) in [
            (&plain, Effort::None, told("{}")),
            (&plain, Effort::Medium, refused()),
            (&plain, Effort::Low, refused()),
            (&always, Effort::None, refused()),
            (&always, Effort::High, told("{}")),
            (&always, Effort::Low, refused()),
            (&switched, Effort::None, told(r#"{"thinking":false}"#)),
            (&switched, Effort::Medium, told(r#"{"thinking":true}"#)),
            (&switched, Effort::Minimal, refused()),
            (&harmony, Effort::Low, told(r#"{"reasoning_effort":"low"}"#)),
            (&harmony, Effort::None, refused()),
            (&harmony, Effort::XHigh, refused()),
            (
                &both,
                Effort::None,
                told(r#"{"enable_thinking":false,"reasoning_effort":"none"}"#),
            ),
        ] {
            assert_eq!(ask(Some(effort), None, habits), want, "{effort} {habits:?}");
        }
        for (habits, on, want) in [
            (&plain, true, Err("enable_thinking".to_owned())),
            (&plain, false, told("{}")),
            (&always, true, told("{}")),
            (&always, false, Err("enable_thinking".to_owned())),
            (&harmony, false, Err("enable_thinking".to_owned())),
            (&switched, false, told(r#"{"thinking":false}"#)),
        ] {
            assert_eq!(ask(None, Some(on), habits), want, "{on} {habits:?}");
        }
        assert_eq!(ask(None, None, &always), told("{}"));
        let contradiction = ask(Some(Effort::High), Some(false), &switched);
        assert_eq!(contradiction, Err("enable_thinking".to_owned()));
    }
}
