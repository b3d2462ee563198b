//! Experts of Gemma 4, which stand beside a feed-forward layer and see what it sees, normed by themselves.

use crate::mlx::{
    Activation, Array, Experts, Gate, MlxError, Routing, Scoring, gated_experts, route,
};
use crate::models::LoadError;
use crate::models::builder::Builder;
use crate::models::config::dimension;
use crate::models::layers::{Linear, RmsNorm, choices, plain_routing};
use crate::models::stacking::{rename, split_rows};
use crate::models::weights::Weights;

use super::Gemma4Config;

/// Experts and the feed-forward layer beside them.
pub struct Beside {
    dense_norm: RmsNorm,
    router_norm: RmsNorm,
    router: Linear,
    routing: Routing,
    /// What an expert's weight is multiplied by, `[experts]`.
    factors: Array,
    input_norm: RmsNorm,
    gate: Experts,
    up: Experts,
    down: Experts,
    norm: RmsNorm,
}

/// The numbers of experts, and of those that a token goes through.
fn counts(config: &Gemma4Config) -> Result<(i32, i32), LoadError> {
    choices(
        ("num_experts", config.num_experts.unwrap_or(0)),
        ("top_k_experts", config.top_k_experts.unwrap_or(0)),
    )
}

/// Brings transformers' layout, with the gate and the rest in one tensor, into mlx-lm's.
pub fn sanitize(config: &Gemma4Config, weights: &mut Weights<'_>) -> Result<(), LoadError> {
    for layer in 0..config.num_hidden_layers {
        let experts = format!("model.layers.{layer}.experts");
        let both = format!("{experts}.gate_up_proj");
        if weights.contains(&both) {
            let stacked = |name: &str| format!("{experts}.switch_glu.{name}.weight");
            split_rows(weights, &both, ["gate_proj", "up_proj"].map(stacked))?;
            rename(
                weights,
                &format!("{experts}.down_proj"),
                stacked("down_proj"),
            )?;
        }
    }
    Ok(())
}

impl Beside {
    /// Takes the tensors of the layer at `path`; `None` where no layer has experts.
    pub fn build(
        config: &Gemma4Config,
        builder: &mut Builder<'_, '_>,
        path: &str,
    ) -> Result<Option<Self>, LoadError> {
        if config.enable_moe_block != Some(true) {
            return Ok(None);
        }
        let hidden = dimension("hidden_size", config.hidden_size)?;
        let inner = config.moe_intermediate_size.unwrap_or(0);
        let inner = dimension("moe_intermediate_size", inner)?;
        let (experts, chosen) = counts(config)?;
        let eps = config.eps();
        let mut stack = |name: &str, inputs, outputs| {
            let path = format!("{path}.experts.switch_glu.{name}");
            builder.experts(&path, experts, inputs, outputs, false)
        };
        let (gate, up) = (
            stack("gate_proj", hidden, inner)?,
            stack("up_proj", hidden, inner)?,
        );
        let down = stack("down_proj", inner, hidden)?;
        let mut norm = |name: &str| builder.rms_norm(&format!("{path}.{name}"), hidden, eps);
        let (dense_norm, input_norm) = (
            norm("post_feedforward_layernorm_1")?,
            norm("pre_feedforward_layernorm_2")?,
        );
        let after = norm("post_feedforward_layernorm_2")?;
        let scale = builder.vector(&format!("{path}.router.scale"), hidden)?;
        let scale = scale.scale((hidden as f32).powf(-0.5))?;
        // Once, not in every step.
        Array::eval_all(&[&scale])?;
        Ok(Some(Self {
            dense_norm,
            router_norm: RmsNorm::new(scale, eps),
            router: builder.linear(&format!("{path}.router.proj"), hidden, experts, false)?,
            routing: plain_routing(Scoring::SoftmaxOfChosen, chosen),
            factors: builder.vector(&format!("{path}.router.per_expert_scale"), experts)?,
            input_norm,
            gate,
            up,
            down,
            norm: after,
        }))
    }

    /// What the experts make of `x`, and the feed-forward layer's `dense`, summed up.
    #[track_caller]
    pub fn forward(&self, x: &Array, dense: &Array) -> Result<Array, MlxError> {
        let logits = self.router.forward(&self.router_norm.forward(x)?)?;
        let (choices, weights) = route(&logits, None, self.routing)?;
        let weights = weights.multiply(&self.factors.take(&choices, 0)?)?;
        let seen = self.input_norm.forward(x)?;
        let opening = Gate::Plain(Activation::GeluTanh);
        let opened = gated_experts(&seen, &self.gate, &self.up, &choices, opening)?;
        let given = self.down.weighted_sum(&opened, &choices, &weights, None)?;
        self.dense_norm
            .forward(dense)?
            .add(&self.norm.forward(&given)?)
    }
}
