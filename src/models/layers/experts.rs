//! Mixtures of experts (Shazeer et al., Outrageously Large Neural Networks, 2017).

use crate::mlx::{
    Activation, Array, Dtype, Experts, Gate, MlxError, Routing, Scoring, gated_experts, route,
};
use crate::models::LoadError;
use crate::models::builder::Builder;
use crate::models::config::dimension;

use super::{FeedForward, Linear, Mlp};

/// Feed-forward layers of which a router chooses some for each token.
pub struct Mixture {
    /// Scores every expert: `[hidden]` to `[experts]`.
    pub router: Linear,
    /// Takes part in the choice but not in the weights: `[experts]`, float32.
    pub correction: Option<Array>,
    /// How scores become a choice and weights.
    pub routing: Routing,
    /// `[hidden]` to `[intermediate]`, goes through the activation.
    pub gate: Experts,
    /// `[hidden]` to `[intermediate]`.
    pub up: Experts,
    /// `[intermediate]` to `[hidden]`.
    pub down: Experts,
    /// The activation.
    pub opening: Gate,
    /// What every token goes through as well.
    pub shared: Option<Shared>,
}

/// A feed-forward layer beside the experts.
pub struct Shared {
    /// The layer.
    pub mlp: Mlp,
    /// What it gives is multiplied by the sigmoid of this: `[hidden]` to `[1]`.
    pub gate: Option<Linear>,
}

/// What a [`Mixture`] consists of.
#[derive(Debug, Clone, Copy)]
pub struct MixtureConfig {
    /// `hidden_size`.
    pub hidden: i32,
    /// Features between an expert's products.
    pub inner: i32,
    /// How many experts there are.
    pub experts: i32,
    /// How they are chosen.
    pub routing: Routing,
    /// Their activation.
    pub opening: Gate,
    /// Whether the router and the experts have biases.
    pub bias: bool,
}

impl MixtureConfig {
    /// Without biases, opened by SiLU.
    pub fn plain(hidden: i32, inner: i32, experts: i32, routing: Routing) -> Self {
        Self {
            hidden,
            inner,
            experts,
            routing,
            opening: Gate::Plain(Activation::Silu),
            bias: false,
        }
    }
}

impl Mixture {
    /// Takes the router, and `gate_proj`, `up_proj` and `down_proj` of all experts, under these names in
    /// `path`.
    pub fn build(
        builder: &mut Builder<'_, '_>,
        path: &str,
        [router, experts]: [&str; 2],
        config: &MixtureConfig,
    ) -> Result<Self, LoadError> {
        let MixtureConfig {
            hidden,
            inner,
            experts: count,
            bias,
            ..
        } = *config;
        let mut stack = |name: &str, inputs, outputs| {
            let path = format!("{path}.{experts}.{name}");
            builder.experts(&path, count, inputs, outputs, bias)
        };
        Ok(Self {
            gate: stack("gate_proj", hidden, inner)?,
            up: stack("up_proj", hidden, inner)?,
            down: stack("down_proj", inner, hidden)?,
            router: builder.linear(&format!("{path}.{router}"), hidden, count, bias)?,
            correction: None,
            routing: config.routing,
            opening: config.opening,
            shared: None,
        })
    }

    /// Takes the vector that takes part in the choice only.
    pub fn take_correction(
        &mut self,
        builder: &mut Builder<'_, '_>,
        name: &str,
        experts: i32,
    ) -> Result<(), LoadError> {
        let correction = builder.vector(name, experts)?.astype(Dtype::Float32)?;
        self.correction = Some(correction);
        Ok(())
    }

    fn mixed(&self, x: &Array, residual: Option<&Array>) -> Result<Array, MlxError> {
        let logits = self.router.forward(x)?;
        let (choices, weights) = route(&logits, self.correction.as_ref(), self.routing)?;
        let opened = gated_experts(x, &self.gate, &self.up, &choices, self.opening)?;
        self.down
            .weighted_sum(&opened, &choices, &weights, residual)
    }
}

impl FeedForward for Mixture {
    fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        match &self.shared {
            Some(shared) => self.mixed(x, Some(&shared.forward(x)?)),
            None => self.mixed(x, None),
        }
    }

    fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        match &self.shared {
            Some(shared) => self.mixed(x, Some(&shared.forward_add(x, residual)?)),
            None => self.mixed(x, Some(residual)),
        }
    }
}

impl FeedForward for Shared {
    fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        let given = self.mlp.forward(x)?;
        match &self.gate {
            Some(gate) => given.multiply(&gate.forward(x)?.activate(Activation::Sigmoid)?),
            None => Ok(given),
        }
    }

    fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        match &self.gate {
            Some(_) => self.forward(x)?.add(residual),
            None => self.mlp.forward_add(x, residual),
        }
    }
}

/// The feed-forward layer of a model that has experts in some of its layers only.
pub enum Sparse {
    /// Without experts.
    Dense(Mlp),
    /// With experts.
    Mixture(Box<Mixture>),
}

impl FeedForward for Sparse {
    fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Mixture(mixture) => mixture.forward(x),
        }
    }

    fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        match self {
            Self::Dense(mlp) => mlp.forward_add(x, residual),
            Self::Mixture(mixture) => mixture.forward_add(x, residual),
        }
    }
}

/// The numbers of experts, and of those that a token goes through, by their fields of `config.json`.
pub fn choices(experts: (&str, u64), choices: (&str, u64)) -> Result<(i32, i32), LoadError> {
    let all = dimension(experts.0, experts.1)?;
    let chosen = dimension(choices.0, choices.1)?;
    if chosen > all {
        let message = format!("{chosen} of {all} experts cannot be chosen");
        return Err(LoadError::config(choices.0, message));
    }
    Ok((all, chosen))
}

/// Routing without groups, scaling and normalization.
pub fn plain_routing(scoring: Scoring, choices: i32) -> Routing {
    Routing {
        scoring,
        choices,
        normalize: false,
        scale: 1.0,
        groups: 1,
        kept_groups: 1,
    }
}
