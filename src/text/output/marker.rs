//! Finds one of several markers in text that comes character by character.

/// Holds back what may still become a marker.
///
/// No marker may be the beginning of another.
#[derive(Debug, Clone)]
pub(super) struct Markers {
    markers: Vec<String>,
    held: String,
}

/// What one more character made certain.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// This much (it may be nothing) is no marker.
    Text(String),
    /// After this text: the marker of that number.
    Marker(String, usize),
}

impl Markers {
    pub fn new(markers: &[&str]) -> Self {
        Self {
            markers: markers.iter().map(|&marker| marker.to_owned()).collect(),
            held: String::new(),
        }
    }

    pub fn step(&mut self, character: char) -> Found {
        self.held.push(character);
        // The longest end of what is held that begins a marker stays.
        let start = self
            .held
            .char_indices()
            .map(|(start, _)| start)
            .find(|&start| self.begins_one(&self.held[start..]))
            .unwrap_or(self.held.len());
        let text: String = self.held.drain(..start).collect();
        match self.markers.iter().position(|marker| *marker == self.held) {
            Some(marker) => {
                self.held.clear();
                Found::Marker(text, marker)
            }
            None => Found::Text(text),
        }
    }

    /// The end came: what was held back was no marker.
    pub fn end(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    fn begins_one(&self, text: &str) -> bool {
        self.markers.iter().any(|marker| marker.starts_with(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(markers: &[&str], text: &str) -> (Vec<String>, String) {
        let mut markers = Markers::new(markers);
        let (mut parts, mut current) = (Vec::new(), String::new());
        for character in text.chars() {
            match markers.step(character) {
                Found::Text(text) => current.push_str(&text),
                Found::Marker(text, marker) => {
                    current.push_str(&text);
                    parts.push(std::mem::take(&mut current));
                    parts.push(format!("#{marker}"));
                }
            }
        }
        (parts, current + &markers.end())
    }

    #[test]
    fn markers_are_found_and_near_misses_are_text() {
        let (parts, rest) = run(&["<a>", "<ab"], "x<<a>y<ac<ab<a");
        assert_eq!(parts, ["x<", "#0", "y<ac", "#1"]);
        assert_eq!(rest, "<a");
    }

    #[test]
    fn a_marker_that_repeats_itself_is_found_behind_its_own_beginning() {
        assert_eq!(run(&["aab"], "aaab").0, ["a", "#0"]);
    }
}
