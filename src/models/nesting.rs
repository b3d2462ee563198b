//! Checkpoints that hold a language model beside other parts.

use super::weights::Weights;

/// How the tensors of parts begin that are no language model: what sees and hears, and what joins that
/// to the text.
const OTHERS: &[&str] = &[
    "audio_tower.",
    "embed_audio.",
    "embed_vision.",
    "multi_modal_projector.",
    "vision_embedder.",
    "vision_encoder.",
    "vision_model.",
    "vision_tower.",
    "visual.",
];

/// Leaves the language model's tensors, under the names that they have where it is alone.
pub fn language_model_only(weights: &mut Weights<'_>) {
    let of_others = |name: &str| {
        let name = name.strip_prefix("model.").unwrap_or(name);
        OTHERS.iter().any(|part| name.starts_with(part))
    };
    let before = weights.names().count();
    weights.discard(of_others);
    let skipped = before - weights.names().count();
    if skipped > 0 {
        tracing::info!(
            tensors = skipped,
            "the parts for images and sound are left out: only text is computed"
        );
    }
    weights.rename(inner_name);
}

/// The name that a tensor or layer of the language model has where that is alone, if it is another.
pub fn inner_name(name: &str) -> Option<String> {
    // As mlx-lm has it, and as transformers does.
    let inner = name.strip_prefix("language_model.");
    let nested = name.strip_prefix("model.language_model.");
    match (inner, nested) {
        (Some(name), _) => Some(name.to_owned()),
        (_, Some(name)) => Some(format!("model.{name}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{floats, write_tensors};
    use super::*;

    /// The names that are left of these.
    fn left(names: &[&str]) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let tensors: Vec<_> = names.iter().map(|name| floats(name, &[2])).collect();
        write_tensors(&dir.path().join("model.safetensors"), &tensors);
        let mut ignore = |_| {};
        let mut weights = Weights::open(dir.path(), None, &mut ignore).unwrap();
        language_model_only(&mut weights);
        let mut left: Vec<String> = weights.names().map(str::to_owned).collect();
        left.sort();
        left
    }

    #[test]
    fn the_language_model_is_left_as_if_alone() {
        let alone = ["lm_head.weight", "model.norm.weight"];
        for prefixes in [
            ["", "model.", "visual."],
            ["language_model.", "language_model.model.", "vision_tower."],
            ["", "model.language_model.", "model.visual."],
        ] {
            let [head, model, vision] = prefixes;
            let names = [
                format!("{head}lm_head.weight"),
                format!("{model}norm.weight"),
                format!("{vision}blocks.0.norm.weight"),
            ];
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert_eq!(left(&names), alone, "{names:?}");
        }
    }
}
