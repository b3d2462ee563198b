//! Which layers see a window of the last positions only, and how wide it is.

use super::config::dimension;
use super::error::LoadError;
use super::variant::Common;

/// The window of each layer; `None` where it sees everything before it.
#[derive(Debug, PartialEq, Eq)]
pub struct Windows(Vec<Option<i32>>);

impl Windows {
    /// That of the layer at `index`.
    pub fn of(&self, index: usize) -> Option<i32> {
        self.0.get(index).copied().flatten()
    }
}

/// By `layer_types`: `"sliding_attention"` and `"full_attention"`.
pub fn by_types(
    types: &[String],
    layers: usize,
    sliding_window: Option<u64>,
    context: usize,
) -> Result<Windows, LoadError> {
    if types.len() != layers {
        let message = format!("{} types for {layers} layers", types.len());
        return Err(LoadError::config("layer_types", message));
    }
    let window = |kind: &String| match kind.as_str() {
        "full_attention" => Ok(None),
        "sliding_attention" => match sliding_window {
            Some(window) => width(window, context),
            None => Err(LoadError::config("sliding_window", "is missing")),
        },
        other => Err(LoadError::config(
            "layer_types",
            format!(
                "\"{other}\" is not supported; supported are \"full_attention\" and \
                 \"sliding_attention\""
            ),
        )),
    };
    types
        .iter()
        .map(window)
        .collect::<Result<_, _>>()
        .map(Windows)
}

/// `sliding_window` where `slides` says so of the layer's index.
pub fn by_index(
    layers: usize,
    sliding_window: u64,
    context: usize,
    slides: impl Fn(usize) -> bool,
) -> Result<Windows, LoadError> {
    let window = width(sliding_window, context)?;
    let of = |index| window.filter(|_| slides(index));
    Ok(Windows((0..layers).map(of).collect()))
}

/// Qwen's rule: by `layer_types`, else those from `max_window_layers` on. `sliding_window` is `None`
/// where it is switched off.
pub fn qwen(
    common: &Common,
    types: Option<&[String]>,
    sliding_window: Option<u64>,
    max_window_layers: Option<usize>,
) -> Result<Windows, LoadError> {
    let layers = common.num_hidden_layers;
    if sliding_window.is_none() {
        return Ok(none(layers));
    }
    let first = max_window_layers.unwrap_or(layers);
    common.windows(types, sliding_window, |index| index >= first)
}

/// All layers see everything.
pub fn none(layers: usize) -> Windows {
    Windows(vec![None; layers])
}

/// A window as wide as the context hides nothing.
fn width(window: u64, context: usize) -> Result<Option<i32>, LoadError> {
    if window >= context as u64 {
        return Ok(None);
    }
    dimension("sliding_window", window).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_say_which_layers_slide() {
        let types = |kinds: &[&str]| kinds.iter().map(ToString::to_string).collect::<Vec<_>>();
        let both = types(&["sliding_attention", "full_attention"]);
        assert_eq!(
            by_types(&both, 2, Some(16), 64).unwrap().0,
            [Some(16), None]
        );
        assert_eq!(by_types(&both, 2, Some(64), 64).unwrap().0, [None, None]);
        assert!(by_types(&both, 3, Some(16), 64).is_err());
        assert!(by_types(&both, 2, None, 64).is_err());
        let error = by_types(&types(&["linear_attention"]), 1, Some(16), 64);
        assert!(error.unwrap_err().to_string().contains("linear_attention"));
    }

    #[test]
    fn an_index_may_say_so_too() {
        let windows = by_index(4, 8, 64, |index| index % 2 == 0).unwrap();
        assert_eq!(windows.0, [Some(8), None, Some(8), None]);
        assert!(by_index(1, 0, 64, |_| true).is_err());
    }
}
