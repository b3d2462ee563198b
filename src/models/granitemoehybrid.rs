//! Granite 4 (IBM, 2025): Mamba-2 with some attention between, and experts in the larger ones. The
//! reference is mlx-lm's `models/granitemoehybrid.py`.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::mlx::{Activation, Scoring};

use super::builder::Builder;
use super::config::{Number, dimension};
use super::error::LoadError;
use super::granitemoe::divide_experts;
use super::layers::{
    Around, Attention, AttentionConfig, AttentionShape, Block, Decoder, DecoderConfig, Mamba,
    MambaConfig, Mixer, Mixture, MixtureConfig, Mlp, NormConfig, RopeConfig, Shared, Sparse,
    choices, only_activation, plain_routing,
};
use super::mamba2::limits;
use super::registry::Architecture;
use super::weights::Weights;

/// The fields of `config.json`.
#[derive(Debug, Deserialize)]
pub struct GraniteHybridConfig {
    hidden_size: u64,
    intermediate_size: u64,
    num_hidden_layers: usize,
    vocab_size: u64,
    max_position_embeddings: usize,
    num_attention_heads: u64,
    num_key_value_heads: Option<u64>,
    #[serde(default)]
    attention_bias: bool,
    embedding_multiplier: f32,
    attention_multiplier: f32,
    logits_scaling: f32,
    residual_multiplier: f32,
    layer_types: Vec<String>,
    rms_norm_eps: f32,
    hidden_act: Option<String>,
    num_local_experts: Option<u64>,
    num_experts_per_tok: Option<u64>,
    shared_intermediate_size: Option<u64>,
    mamba_n_heads: Option<u64>,
    mamba_d_head: Option<u64>,
    mamba_d_state: Option<u64>,
    mamba_d_conv: Option<u64>,
    mamba_n_groups: Option<u64>,
    mamba_proj_bias: Option<bool>,
    mamba_conv_bias: Option<bool>,
    #[serde(default)]
    mlp_bias: bool,
    position_embedding_type: Option<String>,
    tie_word_embeddings: Option<bool>,
    time_step_limit: Option<(Number, Number)>,
    rope_theta: Option<f64>,
    rope_parameters: Option<Map<String, Value>>,
}

impl GraniteHybridConfig {
    fn experts(&self) -> Option<u64> {
        self.num_local_experts.filter(|&experts| experts > 0)
    }

    fn tied(&self) -> bool {
        self.tie_word_embeddings.unwrap_or(true)
    }

    fn attention(&self) -> Result<AttentionConfig, LoadError> {
        let shape = AttentionShape::new(
            self.hidden_size,
            self.num_attention_heads,
            self.num_key_value_heads,
            None,
        )?;
        let rope = RopeConfig {
            theta: self.rope_theta,
            parameters: self.rope_parameters.clone(),
            context: Some(self.max_position_embeddings),
            ..RopeConfig::default()
        };
        let nope = self.position_embedding_type.as_deref() == Some("nope");
        let mut attention = AttentionConfig::plain(shape, rope.unscaled())
            .with_biases(self.attention_bias)
            .with_scale(self.attention_multiplier);
        if nope {
            attention.rope = None;
        }
        Ok(attention)
    }

    fn mamba(&self, hidden: i32) -> Result<MambaConfig, LoadError> {
        let stated = |key: &str, field: Option<u64>| {
            field.ok_or_else(|| LoadError::config(key, "is missing"))
        };
        Ok(MambaConfig {
            hidden,
            heads: stated("mamba_n_heads", self.mamba_n_heads)?,
            head_dim: stated("mamba_d_head", self.mamba_d_head)?,
            groups: stated("mamba_n_groups", self.mamba_n_groups)?,
            state: stated("mamba_d_state", self.mamba_d_state)?,
            taps: stated("mamba_d_conv", self.mamba_d_conv)?,
            conv_bias: self.mamba_conv_bias.unwrap_or(true),
            proj_bias: self.mamba_proj_bias.unwrap_or(false),
            // mlx-lm's default.
            limits: limits(self.time_step_limit, (0.001, 100.0)),
            eps: self.rms_norm_eps,
            norm_by_group: false,
        })
    }

    /// The feed-forward layer of the layer at `path`.
    fn feed_forward(
        &self,
        builder: &mut Builder<'_, '_>,
        path: &str,
        hidden: i32,
    ) -> Result<Sparse, LoadError> {
        let inner = dimension("intermediate_size", self.intermediate_size)?;
        let shared = format!("{path}.shared_mlp");
        let Some(experts) = self.experts() else {
            // transformers has it as if it stood beside experts.
            let mlp = if builder.contains(&format!("{shared}.input_linear.weight")) {
                fused(builder, &shared, hidden, inner)?
            } else {
                let mlp = format!("{path}.mlp");
                Mlp::gated(
                    builder,
                    &mlp,
                    hidden,
                    inner,
                    Activation::Silu,
                    self.mlp_bias,
                )?
            };
            return Ok(Sparse::Dense(mlp));
        };
        let (experts, choices) = choices(
            ("num_local_experts", experts),
            ("num_experts_per_tok", self.num_experts_per_tok.unwrap_or(0)),
        )?;
        let routing = plain_routing(Scoring::SoftmaxOfChosen, choices);
        let moe = format!("{path}.block_sparse_moe");
        let mut mixture = Mixture::build(
            builder,
            &moe,
            ["router.layer", "switch_mlp"],
            &MixtureConfig::plain(hidden, inner, experts, routing),
        )?;
        let inner = self.shared_intermediate_size.unwrap_or(0);
        let inner = dimension("shared_intermediate_size", inner)?;
        mixture.shared = Some(Shared {
            mlp: fused(builder, &shared, hidden, inner)?,
            gate: None,
        });
        Ok(Sparse::Mixture(Box::new(mixture)))
    }
}

/// Takes `input_linear`, which is two products behind one another, and `output_linear`.
fn fused(
    builder: &mut Builder<'_, '_>,
    path: &str,
    hidden: i32,
    inner: i32,
) -> Result<Mlp, LoadError> {
    let input = format!("{path}.input_linear");
    let [gate, up] = builder.fused_linear(&input, hidden, [inner, inner], false)?;
    Ok(Mlp {
        gate: Some(gate),
        up,
        down: builder.linear(&format!("{path}.output_linear"), inner, hidden, false)?,
        activation: Activation::Silu,
    })
}

/// Granite 4.
pub struct GraniteHybrid;

impl Architecture for GraniteHybrid {
    type Config = GraniteHybridConfig;
    type Model = Decoder<Block<Sparse, Box<dyn Mixer>>>;

    fn sanitize(config: &GraniteHybridConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        only_activation("hidden_act", config.hidden_act.as_deref(), Activation::Silu)?;
        weights.discard_tied_head(Some(config.tied()));
        divide_experts(weights, config.num_hidden_layers)
    }

    fn build(
        config: &GraniteHybridConfig,
        builder: &mut Builder<'_, '_>,
    ) -> Result<Self::Model, LoadError> {
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let (attention, eps) = (config.attention()?, config.rms_norm_eps);
        Decoder::build(
            builder,
            &DecoderConfig {
                hidden_size: config.hidden_size,
                vocab_size: config.vocab_size,
                layers: config.layer_types.len(),
                context_length: config.max_position_embeddings,
                embedding_scale: Some(config.embedding_multiplier),
                tied: Some(config.tied()),
                logit_scale: Some(1.0 / config.logits_scaling),
                ..DecoderConfig::default()
            },
            NormConfig::rms(eps),
            |builder, index, path| {
                let mixer: Box<dyn Mixer> = match config.layer_types.get(index).map(String::as_str)
                {
                    Some("mamba" | "linear_attention") => {
                        let mamba = config.mamba(hidden)?;
                        Box::new(Mamba::build(builder, &format!("{path}.mamba"), &mamba)?)
                    }
                    Some("attention" | "full_attention") => {
                        let path = format!("{path}.self_attn");
                        Box::new(Attention::build(builder, &path, hidden, &attention)?)
                    }
                    other => {
                        let other = other.unwrap_or_default();
                        let message = format!("\"{other}\" is neither \"mamba\" nor \"attention\"");
                        return Err(LoadError::config("layer_types", message));
                    }
                };
                let mut norm =
                    |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
                let attention_norms = Around::before(norm("input_layernorm")?);
                let mlp_norms = Around::before(norm("post_attention_layernorm")?);
                Ok(Block {
                    attention_norms,
                    attention: mixer,
                    mlp_norms,
                    mlp: config.feed_forward(builder, path, hidden)?,
                    branch_scale: Some(config.residual_multiplier),
                })
            },
        )
    }
}
