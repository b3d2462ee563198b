//! Stop strings in streamed text.

/// Finds the first stop string in text that comes in pieces, and holds back what may become one.
///
/// The first stop string to be complete ends the text; of several that end together the longest,
/// so that no part of it shows. Which piece a character comes in makes no difference. Time is
/// linear in the text (Knuth, Morris and Pratt, SIAM J. Comput. 6(2), 1977), times the stops.
#[derive(Debug)]
pub struct StopMatcher {
    stops: Vec<Pattern>,
    held: String,
    matched: bool,
}

/// What became certain with one more piece of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopStep {
    /// Safe to show: no stop string reaches into it.
    pub text: String,
    /// The stop string that ends the text; nothing comes after it.
    pub matched: Option<String>,
}

impl StopMatcher {
    /// Without stop strings all text passes. An empty one never matches (callers reject it).
    pub fn new(stops: Vec<String>) -> Self {
        let stops = stops
            .into_iter()
            .filter(|stop| !stop.is_empty())
            .map(Pattern::new)
            .collect();
        Self {
            stops,
            held: String::new(),
            matched: false,
        }
    }

    /// Takes the next piece of text. After a match everything further is dropped.
    pub fn push(&mut self, text: &str) -> StopStep {
        if self.matched {
            return StopStep::default();
        }
        let before = self.held.len();
        self.held.push_str(text);
        for (index, byte) in text.bytes().enumerate() {
            for stop in &mut self.stops {
                stop.advance(byte);
            }
            let complete = self.stops.iter().filter(|stop| stop.complete());
            if let Some(stop) = complete.max_by_key(|stop| stop.text.len()) {
                let matched = Some(stop.text.clone());
                let end = before + index + 1;
                let mut text = std::mem::take(&mut self.held);
                text.truncate(end - stop.text.len());
                self.matched = true;
                return StopStep { text, matched };
            }
        }
        // Both ends of what is held are character boundaries: a stop string begins with one.
        let held = self.stops.iter().map(|stop| stop.seen).max().unwrap_or(0);
        StopStep {
            text: self.held.drain(..self.held.len() - held).collect(),
            matched: None,
        }
    }

    /// The text held back when the generation ended without a match.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }
}

#[derive(Debug)]
struct Pattern {
    text: String,
    /// For each length of a prefix: the longest shorter prefix that the prefix ends with.
    fallback: Vec<usize>,
    /// Length of the longest prefix that the text so far ends with.
    seen: usize,
}

impl Pattern {
    fn new(text: String) -> Self {
        let bytes = text.as_bytes();
        let mut fallback = vec![0; bytes.len() + 1];
        let mut seen = 0;
        for length in 1..bytes.len() {
            while seen > 0 && bytes[length] != bytes[seen] {
                seen = fallback[seen];
            }
            seen += usize::from(bytes[length] == bytes[seen]);
            fallback[length + 1] = seen;
        }
        Self {
            text,
            fallback,
            seen: 0,
        }
    }

    fn advance(&mut self, byte: u8) {
        let bytes = self.text.as_bytes();
        while self.seen > 0 && bytes[self.seen] != byte {
            self.seen = self.fallback[self.seen];
        }
        self.seen += usize::from(bytes[self.seen] == byte);
    }

    fn complete(&self) -> bool {
        self.seen == self.text.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().map(|s| (*s).to_owned()).collect());
        let mut text = String::new();
        for piece in pieces {
            let step = matcher.push(piece);
            text += &step.text;
            if step.matched.is_some() {
                assert_eq!(matcher.push("more"), StopStep::default());
                assert_eq!(matcher.finish(), "");
                return (text, step.matched);
            }
        }
        (text + &matcher.finish(), None)
    }

    /// The definition, by trying every end.
    fn whole(stops: &[&str], text: &str) -> (String, Option<String>) {
        for end in 0..=text.len() {
            let ending = stops
                .iter()
                .filter(|stop| text.as_bytes()[..end].ends_with(stop.as_bytes()));
            if let Some(stop) = ending.max_by_key(|stop| stop.len()) {
                return (
                    text[..end - stop.len()].to_owned(),
                    Some((*stop).to_owned()),
                );
            }
        }
        (text.to_owned(), None)
    }

    #[test]
    fn partial_match_is_held_back_and_released() {
        let mut matcher = StopMatcher::new(vec!["\n\nUser:".to_owned()]);
        assert_eq!(matcher.push("Hi.\n").text, "Hi.");
        assert_eq!(matcher.push("\nUs").text, "");
        assert_eq!(matcher.push("ual").text, "\n\nUsual");
        assert_eq!(matcher.push("\n\n").text, "");
        assert_eq!(matcher.finish(), "\n\n");
    }

    #[test]
    fn first_complete_stop_wins() {
        assert_eq!(
            run(&["abcd", "bc"], &["xabcd"]),
            ("xa".into(), Some("bc".into()))
        );
        assert_eq!(run(&["b", "ab"], &["xab"]), ("x".into(), Some("ab".into())));
        assert_eq!(run(&["aab"], &["aaab"]), ("a".into(), Some("aab".into())));
        assert_eq!(
            run(&["é!"], &["caf", "é", "é!"]),
            ("café".into(), Some("é!".into()))
        );
        assert_eq!(run(&[], &["any", "thing"]), ("anything".into(), None));
    }

    proptest! {
        #[test]
        fn every_split_equals_the_whole(
            text in "[abé]{0,12}",
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            cuts in prop::collection::vec(any::<bool>(), 12),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut pieces = vec![String::new()];
            for (c, cut) in text.chars().zip(&cuts) {
                pieces.last_mut().unwrap().push(c);
                if *cut {
                    pieces.push(String::new());
                }
            }
            let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
            prop_assert_eq!(run(&stops, &pieces), whole(&stops, &text));
        }
    }
}
