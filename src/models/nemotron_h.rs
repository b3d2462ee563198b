//! Nemotron-H (NVIDIA, 2025): layers of a single half each, Mamba-2, attention without positions, or a
//! feed-forward layer. The reference is mlx-lm's `models/nemotron_h.py`.

use serde::Deserialize;

use crate::mlx::{Activation, Array, Experts, MlxError, Routing, Scoring, route};

use super::builder::Builder;
use super::config::{Number, dimension};
use super::error::LoadError;
use super::layers::{
    Attention, AttentionConfig, AttentionShape, Decoder, DecoderConfig, FeedForward, Linear, Mamba,
    MambaConfig, Mixer, Mlp, NormConfig, Residual, RopeConfig, Stateless, choices, only_activation,
    plain_routing,
};
use super::mamba2::{backbone_as_model, limits};
use super::registry::Architecture;
use super::stacking::stack_experts;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct NemotronHConfig {
    vocab_size: u64,
    hidden_size: u64,
    intermediate_size: u64,
    max_position_embeddings: usize,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    head_dim: Option<u64>,
    #[serde(default)]
    attention_bias: bool,
    mamba_num_heads: u64,
    mamba_head_dim: u64,
    #[serde(default)]
    mamba_proj_bias: bool,
    mamba_hidden_act: Option<String>,
    ssm_state_size: u64,
    conv_kernel: u64,
    n_groups: u64,
    #[serde(default)]
    mlp_bias: bool,
    mlp_hidden_act: Option<String>,
    layer_norm_epsilon: f32,
    #[serde(default)]
    use_conv_bias: bool,
    hybrid_override_pattern: Option<Pattern>,
    layers_block_type: Option<Vec<String>>,
    layer_types: Option<Vec<String>>,
    time_step_limit: Option<(Number, Number)>,
    moe_intermediate_size: Option<u64>,
    moe_shared_expert_intermediate_size: Option<u64>,
    moe_latent_size: Option<u64>,
    n_group: Option<u64>,
    topk_group: Option<u64>,
    n_routed_experts: Option<u64>,
    n_shared_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    norm_topk_prob: Option<bool>,
    routed_scaling_factor: Option<f32>,
    /// Written by transformers; no layer encodes positions.
    #[serde(rename = "rope_parameters")]
    _rope_parameters: Option<serde::de::IgnoredAny>,
    #[serde(rename = "partial_rotary_factor")]
    _partial_rotary_factor: Option<serde::de::IgnoredAny>,
}

/// A letter a layer, in one string or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Pattern {
    Whole(String),
    Letters(Vec<String>),
}

/// What a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mamba,
    Attention,
    Mlp,
    Experts,
}

impl NemotronHConfig {
    fn kinds(&self) -> Result<Vec<Kind>, LoadError> {
        let letters: Vec<String> = match &self.hybrid_override_pattern {
            Some(Pattern::Whole(pattern)) => pattern.chars().map(String::from).collect(),
            Some(Pattern::Letters(letters)) => letters.clone(),
            None => {
                let types = self
                    .layers_block_type
                    .as_ref()
                    .or(self.layer_types.as_ref());
                let missing = || LoadError::config("hybrid_override_pattern", "is missing");
                types.ok_or_else(missing)?.clone()
            }
        };
        let kind = |letter: &String| match letter.as_str() {
            "M" | "linear_attention" | "mamba" | "conv" => Ok(Kind::Mamba),
            "*" | "full_attention" | "attention" => Ok(Kind::Attention),
            "-" | "mlp" => Ok(Kind::Mlp),
            "E" | "moe" => Ok(Kind::Experts),
            other => {
                let message = format!("there is no layer \"{other}\"");
                Err(LoadError::config("hybrid_override_pattern", message))
            }
        };
        letters.iter().map(kind).collect()
    }

    fn attention(&self) -> Result<AttentionConfig, LoadError> {
        let shape = AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            self.head_dim,
        )?;
        Ok(AttentionConfig {
            qkv_bias: self.attention_bias,
            out_bias: self.attention_bias,
            rope: None,
            ..AttentionConfig::plain(shape, RopeConfig::default())
        })
    }

    fn mamba(&self, hidden: i32) -> MambaConfig {
        MambaConfig {
            hidden,
            heads: self.mamba_num_heads,
            head_dim: self.mamba_head_dim,
            groups: self.n_groups,
            state: self.ssm_state_size,
            taps: self.conv_kernel,
            conv_bias: self.use_conv_bias,
            proj_bias: self.mamba_proj_bias,
            limits: limits(self.time_step_limit, (0.0, f32::INFINITY)),
            eps: self.layer_norm_epsilon,
            norm_by_group: true,
        }
    }

    /// The numbers of experts, and of those that a token goes through.
    fn experts(&self) -> Result<(i32, i32), LoadError> {
        choices(
            ("n_routed_experts", self.n_routed_experts.unwrap_or(0)),
            ("num_experts_per_tok", self.num_experts_per_tok.unwrap_or(0)),
        )
    }

    fn routing(&self) -> Result<Routing, LoadError> {
        let (experts, choices) = self.experts()?;
        let groups = dimension("n_group", self.n_group.unwrap_or(1))?;
        let kept_groups = dimension("topk_group", self.topk_group.unwrap_or(1))?;
        if experts % groups != 0 || kept_groups > groups || (groups > 1 && experts / groups < 2) {
            let message = format!("{kept_groups} of {groups} groups of {experts} experts");
            return Err(LoadError::config("n_group", message + " cannot be kept"));
        }
        Ok(Routing {
            // As in mlx-lm, a single expert keeps its weight.
            normalize: choices > 1 && self.norm_topk_prob.unwrap_or(false),
            scale: self.routed_scaling_factor.unwrap_or(1.0),
            groups,
            kept_groups,
            ..plain_routing(Scoring::Sigmoid, choices)
        })
    }
}

/// Nemotron-H.
pub struct NemotronH;

impl Architecture for NemotronH {
    type Config = NemotronHConfig;
    type Model = Decoder<Residual>;

    fn sanitize(config: &NemotronHConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        let act = config.mamba_hidden_act.as_deref();
        only_activation("mamba_hidden_act", act, Activation::Silu)?;
        let act = config.mlp_hidden_act.as_deref();
        only_activation("mlp_hidden_act", act, Activation::ReluSquared)?;
        weights.discard(|name| name.starts_with("mtp."));
        backbone_as_model(weights);
        for (layer, kind) in config.kinds()?.into_iter().enumerate() {
            if kind == Kind::Experts {
                let (experts, _) = config.experts()?;
                let path = format!("model.layers.{layer}.mixer");
                let names = [("up_proj", "fc1"), ("down_proj", "fc2")];
                stack_experts(weights, &path, experts, &names)?;
            }
        }
        Ok(())
    }

    fn build(
        config: &NemotronHConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Decoder<Residual>, LoadError> {
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let eps = config.layer_norm_epsilon;
        let (kinds, attention, mamba) =
            (config.kinds()?, config.attention()?, config.mamba(hidden));
        Decoder::build(
            builder,
            &DecoderConfig {
                hidden_size: config.hidden_size,
                vocab_size: config.vocab_size,
                layers: kinds.len(),
                context_length: config.max_position_embeddings,
                tied: Some(false),
                ..DecoderConfig::default()
            },
            NormConfig::rms(eps),
            |builder, index, path| {
                let norm = builder.rms_norm(&format!("{path}.norm"), hidden, eps)?;
                let path = format!("{path}.mixer");
                let mixer: Box<dyn Mixer> = match kinds.get(index) {
                    Some(Kind::Mamba) => Box::new(Mamba::build(builder, &path, &mamba)?),
                    Some(Kind::Attention) => {
                        Box::new(Attention::build(builder, &path, hidden, &attention)?)
                    }
                    Some(Kind::Experts) => {
                        Box::new(Stateless(LatentExperts::build(builder, &path, config)?))
                    }
                    Some(Kind::Mlp) | None => {
                        let inner = dimension("intermediate_size", config.intermediate_size)?;
                        Box::new(Stateless(mlp(builder, &path, config, inner)?))
                    }
                };
                Ok(Residual { norm, mixer })
            },
        )
    }
}

/// Takes `up_proj` and `down_proj`.
fn mlp(
    builder: &mut Builder<'_, '_>,
    path: &str,
    config: &NemotronHConfig,
    inner: i32,
) -> Result<Mlp, LoadError> {
    let hidden = dimension("hidden_size", config.hidden_size)?;
    let bias = config.mlp_bias;
    Ok(Mlp {
        gate: None,
        up: builder.linear(&format!("{path}.up_proj"), hidden, inner, bias)?,
        down: builder.linear(&format!("{path}.down_proj"), inner, hidden, bias)?,
        activation: Activation::ReluSquared,
    })
}

/// Experts without a gate, which may see fewer features than a token has, beside one for every token.
struct LatentExperts {
    router: Linear,
    correction: Array,
    routing: Routing,
    /// To the experts' features and back.
    latent: Option<(Linear, Linear)>,
    up: Experts,
    down: Experts,
    shared: Option<Mlp>,
}

impl LatentExperts {
    fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        config: &NemotronHConfig,
    ) -> Result<Self, LoadError> {
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let (experts, _) = config.experts()?;
        let inner = dimension(
            "moe_intermediate_size",
            config.moe_intermediate_size.unwrap_or(0),
        )?;
        let (features, latent) = match config.moe_latent_size {
            Some(size) => {
                let size = dimension("moe_latent_size", size)?;
                let mut linear = |name: &str, inputs, outputs| {
                    builder.linear(&format!("{path}.{name}"), inputs, outputs, config.mlp_bias)
                };
                let down = linear("fc1_latent_proj", hidden, size)?;
                (size, Some((down, linear("fc2_latent_proj", size, hidden)?)))
            }
            None => (hidden, None),
        };
        let shared = match config.n_shared_experts {
            Some(_) => {
                let inner = config.moe_shared_expert_intermediate_size.unwrap_or(0);
                let inner = dimension("moe_shared_expert_intermediate_size", inner)?;
                Some(mlp(
                    builder,
                    &format!("{path}.shared_experts"),
                    config,
                    inner,
                )?)
            }
            None => None,
        };
        let gate = format!("{path}.gate");
        let correction = format!("{gate}.e_score_correction_bias");
        let mut stack = |name: &str, inputs, outputs| {
            let path = format!("{path}.switch_mlp.{name}");
            builder.experts(&path, experts, inputs, outputs, false)
        };
        Ok(Self {
            up: stack("fc1", features, inner)?,
            down: stack("fc2", inner, features)?,
            router: builder.linear(&gate, hidden, experts, false)?,
            correction: builder.vector(&correction, experts)?,
            routing: config.routing()?,
            latent,
            shared,
        })
    }
}

impl FeedForward for LatentExperts {
    fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        let logits = self.router.forward(x)?;
        let (choices, weights) = route(&logits, Some(&self.correction), self.routing)?;
        let seen = match &self.latent {
            Some((down, _)) => down.forward(x)?,
            None => x.clone(),
        };
        let opened = self.up.product(&seen, &choices)?;
        let opened = opened.activate(Activation::ReluSquared)?;
        let mut mixed = self.down.weighted_sum(&opened, &choices, &weights, None)?;
        if let Some((_, up)) = &self.latent {
            mixed = up.forward(&mixed)?;
        }
        match &self.shared {
            Some(shared) => shared.forward_add(x, &mixed),
            None => Ok(mixed),
        }
    }

    fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        self.forward(x)?.add(residual)
    }
}
