//! gpt-oss's messages, after OpenAI's harmony response format:
//!
//! ```text
//! <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>commentary to=functions.f
//! <|constrain|>json<|message|>{…}<|call|>
//! ```
//!
//! `analysis` is reasoning; a message to a recipient is a call of it; all else is content.

use super::Format;
use super::marker::{Found, Markers};
use super::pieces::Pieces;

const START: usize = 0;
const CHANNEL: usize = 1;
const MESSAGE: usize = 2;
const CONSTRAIN: usize = 6;
pub(super) const MARKERS: [&str; 7] = [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|constrain|>",
];
const RECIPIENT: &str = "to=";
const FUNCTIONS: &str = "functions.";

#[derive(Debug, Clone)]
pub(super) struct Harmony {
    place: Place,
    markers: Markers,
    calls: usize,
}

#[derive(Debug, Clone)]
enum Place {
    /// Before `<|message|>`.
    Header(String),
    Content,
    Reasoning,
    Arguments,
}

impl Default for Harmony {
    fn default() -> Self {
        Self {
            place: Place::Header(String::new()),
            markers: Markers::new(&MARKERS),
            calls: 0,
        }
    }
}

impl Harmony {
    /// Whether the name of a call's recipient is next.
    pub fn has_begun(&self) -> bool {
        matches!(&self.place, Place::Header(header) if header.ends_with(RECIPIENT))
    }

    /// Whether a few characters may begin a call.
    pub fn may_begin(&self) -> bool {
        matches!(self.place, Place::Header(_))
    }

    fn text(&mut self, text: &str, out: &mut Pieces) {
        match &mut self.place {
            Place::Header(header) => header.push_str(text),
            Place::Content => out.content(text),
            Place::Reasoning => out.reasoning(text),
            Place::Arguments => {
                if let Some(call) = self.calls.checked_sub(1) {
                    out.arguments(call, text);
                }
            }
        }
    }

    fn marker(&mut self, marker: usize, out: &mut Pieces) {
        match (&mut self.place, marker) {
            (Place::Header(header), MESSAGE) => {
                let header = std::mem::take(header);
                self.begin(&header, out);
            }
            (Place::Header(header), START | CHANNEL | CONSTRAIN) => {
                header.push_str(MARKERS[marker])
            }
            // A message that ended before it began.
            (Place::Header(header), _) => header.clear(),
            (_, CHANNEL | MESSAGE | CONSTRAIN) => self.text(MARKERS[marker], out),
            (_, _) => self.place = Place::Header(String::new()),
        }
    }

    fn begin(&mut self, header: &str, out: &mut Pieces) {
        let word = |rest: &str| {
            let end = rest
                .find(|c: char| c.is_whitespace() || c == '<')
                .unwrap_or(rest.len());
            rest[..end].to_owned()
        };
        let recipient = header.split_once(RECIPIENT).map(|(_, rest)| word(rest));
        let channel = header
            .split_once(MARKERS[CHANNEL])
            .map(|(_, rest)| word(rest.trim_start()))
            .unwrap_or_default();
        self.place = match recipient.filter(|name| !name.is_empty()) {
            Some(name) => {
                out.call(self.calls, name.strip_prefix(FUNCTIONS).unwrap_or(&name));
                self.calls += 1;
                Place::Arguments
            }
            None if channel == "analysis" => Place::Reasoning,
            None => Place::Content,
        };
    }
}

impl Format for Harmony {
    fn step(&mut self, character: char, out: &mut Pieces) {
        match self.markers.step(character) {
            Found::Text(text) => self.text(&text, out),
            Found::Marker(text, marker) => {
                self.text(&text, out);
                self.marker(marker, out);
            }
        }
    }

    fn end(&mut self, out: &mut Pieces) {
        let rest = self.markers.end();
        self.text(&rest, out);
        // Text that never became a message is what the model had to say.
        if let Place::Header(header) = &mut self.place
            && !header.starts_with("<|")
        {
            out.content(&std::mem::take(header));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ToolFormat::Harmony;
    use super::super::testing::{call, parse};

    #[test]
    fn channels_are_told_apart() {
        let text = "<|channel|>analysis<|message|>I must <add>.<|end|><|start|>assistant<|channel|>commentary\
                    <|message|>One moment.<|end|><|start|>assistant<|channel|>final<|message|>It is 42.<|return|>";
        let whole = parse(Harmony, text);
        assert_eq!(whole.reasoning, "I must <add>.");
        assert_eq!(whole.content, "One moment.It is 42.");
        assert!(whole.calls.is_empty());
    }

    #[test]
    fn a_recipient_makes_a_call_wherever_it_stands() {
        let text = r#"<|channel|>commentary to=functions.add <|constrain|>json<|message|>{"a": 1}<|call|>"#;
        assert_eq!(parse(Harmony, text).calls, [call("add", r#"{"a": 1}"#)]);
        let text =
            r#"<|start|>assistant to=functions.add<|channel|>commentary<|message|>{oops<|call|>"#;
        assert_eq!(parse(Harmony, text).calls, [call("add", "{oops")]);
    }

    #[test]
    fn text_without_channels_is_content() {
        assert_eq!(parse(Harmony, "plain text").content, "plain text");
    }
}
