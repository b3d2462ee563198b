//! Which architectures there are: one line each.

use super::builder::Builder;
use super::cohere::Cohere;
use super::cohere2::Cohere2;
use super::config::FromConfig;
use super::deepseek_v2::DeepseekV2;
use super::deepseek_v3::DeepseekV3;
use super::ernie4_5::Ernie45;
use super::error::LoadError;
use super::exaone4::Exaone4;
use super::gemma::Gemma;
use super::gemma2::Gemma2;
use super::gemma3_text::Gemma3;
use super::gemma4_text::Gemma4;
use super::glm4::Glm4;
use super::glm4_moe::Glm4Moe;
use super::gpt_oss::GptOss;
use super::granite::Granite;
use super::granitemoe::GraniteMoe;
use super::granitemoehybrid::GraniteHybrid;
use super::helium::Helium;
use super::internlm3::InternLm3;
use super::lfm2::Lfm2;
use super::lfm2_moe::Lfm2Moe;
use super::llama::Llama;
use super::load::{LoadFn, load_as};
use super::mamba2::Mamba2;
use super::mimo::Mimo;
use super::minicpm::MiniCpm;
use super::minimax_m2::MiniMaxM2;
use super::ministral3::Ministral3;
use super::mixtral::Mixtral;
use super::nemotron_h::NemotronH;
use super::olmo2::Olmo2;
use super::olmo3::Olmo3;
use super::olmoe::Olmoe;
use super::phi::Phi;
use super::phi3::Phi3;
use super::qwen2::Qwen2;
use super::qwen3::Qwen3;
use super::qwen3_5::Qwen35;
use super::qwen3_moe::{Qwen2Moe, Qwen3Moe};
use super::qwen3_next::Qwen3Next;
use super::seed_oss::SeedOss;
use super::smollm3::SmolLm3;
use super::stablelm::StableLm;
use super::starcoder2::Starcoder2;
use super::weights::Weights;
use super::{Model, text_config};

/// By `model_type`.
const ARCHITECTURES: &[(&str, LoadFn)] = &[
    ("cohere", load_as::<Cohere>),
    ("cohere2", load_as::<Cohere2>),
    ("deepseek_v2", load_as::<DeepseekV2>),
    ("deepseek_v3", load_as::<DeepseekV3>),
    ("ernie4_5", load_as::<Ernie45>),
    ("exaone4", load_as::<Exaone4>),
    ("gemma", load_as::<Gemma>),
    ("gemma2", load_as::<Gemma2>),
    ("gemma3_text", load_as::<Gemma3>),
    ("gemma4_text", load_as::<Gemma4>),
    ("glm4", load_as::<Glm4>),
    ("glm4_moe", load_as::<Glm4Moe>),
    ("gpt_oss", load_as::<GptOss>),
    ("granite", load_as::<Granite>),
    ("granitemoe", load_as::<GraniteMoe>),
    ("granitemoehybrid", load_as::<GraniteHybrid>),
    ("helium", load_as::<Helium>),
    ("internlm3", load_as::<InternLm3>),
    ("lfm2", load_as::<Lfm2>),
    ("lfm2_moe", load_as::<Lfm2Moe>),
    ("llama", load_as::<Llama>),
    ("mamba2", load_as::<Mamba2>),
    ("mimo", load_as::<Mimo>),
    ("minicpm", load_as::<MiniCpm>),
    ("minimax_m2", load_as::<MiniMaxM2>),
    ("ministral3", load_as::<Ministral3>),
    ("mixtral", load_as::<Mixtral>),
    ("nemotron_h", load_as::<NemotronH>),
    ("olmo2", load_as::<Olmo2>),
    ("olmo3", load_as::<Olmo3>),
    ("olmoe", load_as::<Olmoe>),
    ("phi", load_as::<Phi>),
    ("phi3", load_as::<Phi3>),
    ("qwen2", load_as::<Qwen2>),
    ("qwen2_moe", load_as::<Qwen2Moe>),
    ("qwen3", load_as::<Qwen3>),
    ("qwen3_5", load_as::<Qwen35>),
    ("qwen3_5_moe", load_as::<Qwen35>),
    ("qwen3_moe", load_as::<Qwen3Moe>),
    ("qwen3_next", load_as::<Qwen3Next>),
    ("seed_oss", load_as::<SeedOss>),
    ("smollm3", load_as::<SmolLm3>),
    ("stablelm", load_as::<StableLm>),
    ("starcoder2", load_as::<Starcoder2>),
    #[cfg(test)]
    ("mortal", load_as::<super::mortal::Mortal>),
];

/// Types that are another one under their own name, as in mlx-lm.
const REMAPPED: &[(&str, &str)] = &[
    ("glm4_moe_lite", "deepseek_v3"),
    ("iquestcoder", "llama"),
    ("joyai_llm_flash", "deepseek_v3"),
    ("kimi_k2", "deepseek_v3"),
    ("minimax", "minimax_m2"),
    ("mistral", "llama"),
    ("xverse", "llama"),
];

/// An architecture: its part of `config.json`, and how its model is built.
pub trait Architecture {
    /// The fields of `config.json` that it reads.
    type Config: FromConfig;

    /// What becomes of a checkpoint.
    type Model: Model + 'static;

    /// Checks the configuration, and discards the tensors that the architecture does not use
    /// (mlx-lm's `sanitize`).
    fn sanitize(config: &Self::Config, weights: &mut Weights<'_>) -> Result<(), LoadError>;

    /// Takes the tensors, and makes the model of them.
    fn build(
        config: &Self::Config,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError>;
}

/// The architecture for a `model_type`, and its own name.
pub fn find(model_type: &str) -> Result<(&'static str, LoadFn), LoadError> {
    let name = REMAPPED
        .iter()
        .find(|(from, _)| *from == model_type)
        .map_or(model_type, |(_, to)| to);
    ARCHITECTURES
        .iter()
        .find(|(known, _)| *known == name)
        .copied()
        .ok_or_else(|| LoadError::UnknownArchitecture {
            model_type: model_type.to_owned(),
            supported: supported().join(", "),
        })
}

/// Every `model_type` that can be loaded, in alphabetical order.
pub fn supported() -> Vec<&'static str> {
    let own = ARCHITECTURES.iter().map(|(name, _)| *name);
    let remapped = REMAPPED.iter().map(|(from, _)| *from);
    let mut names: Vec<_> = own
        .chain(remapped)
        .chain(text_config::supported())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remapped_types_are_found_under_their_own_architecture() {
        assert_eq!(find("mistral").unwrap().0, "llama");
        for (_, to) in REMAPPED {
            assert!(find(to).is_ok(), "{to}");
        }
    }

    #[test]
    fn an_unknown_type_lists_the_known_ones() {
        let error = find("rwkv7").unwrap_err().to_string();
        assert!(
            error.contains("rwkv7")
                && error.contains("gemma3, gemma3_text")
                && error.contains("mistral"),
            "{error}"
        );
    }
}
