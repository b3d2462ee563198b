//! Feed-forward layers.

use crate::mlx::{Activation, Array, Matrix, MlxError, gated_mlp, gated_product};
use crate::models::LoadError;
use crate::models::builder::Builder;

use super::Linear;

/// A layer that looks at single tokens: [`Mlp`], or experts.
pub trait FeedForward {
    /// `[tokens, hidden]` to the same.
    fn forward(&self, x: &Array) -> Result<Array, MlxError>;

    /// The same, plus `residual`.
    fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError>;
}

/// Two products with an activation between them.
pub struct Mlp {
    /// `[hidden]` to `[intermediate]`: `activation(gate(x)) · up(x)` (Shazeer, GLU Variants Improve
    /// Transformer, 2020). `None`: `activation(up(x))`.
    pub gate: Option<Linear>,
    /// `[hidden]` to `[intermediate]`.
    pub up: Linear,
    /// `[intermediate]` to `[hidden]`.
    pub down: Linear,
    /// What goes between.
    pub activation: Activation,
}

impl Mlp {
    /// Takes `gate_proj`, `up_proj` and `down_proj` under `path`.
    pub fn gated(
        builder: &mut Builder<'_, '_>,
        path: &str,
        hidden: i32,
        inner: i32,
        activation: Activation,
        bias: bool,
    ) -> Result<Self, LoadError> {
        Ok(Self {
            gate: Some(builder.linear(&format!("{path}.gate_proj"), hidden, inner, bias)?),
            up: builder.linear(&format!("{path}.up_proj"), hidden, inner, bias)?,
            down: builder.linear(&format!("{path}.down_proj"), inner, hidden, bias)?,
            activation,
        })
    }

    /// Takes `gate_up_proj`, which is both behind one another, and `down_proj` under `path`.
    pub fn fused(
        builder: &mut Builder<'_, '_>,
        path: &str,
        hidden: i32,
        inner: i32,
        activation: Activation,
    ) -> Result<Self, LoadError> {
        let [gate, up] = builder.fused_linear(
            &format!("{path}.gate_up_proj"),
            hidden,
            [inner, inner],
            false,
        )?;
        Ok(Self {
            gate: Some(gate),
            up,
            down: builder.linear(&format!("{path}.down_proj"), inner, hidden, false)?,
            activation,
        })
    }

    fn opened(&self, x: &Array) -> Result<Array, MlxError> {
        let Some(gate) = &self.gate else {
            return self.up.forward(x)?.activate(self.activation);
        };
        match (gate.matrix(), self.up.matrix()) {
            (Some(gate), Some(up)) => gated_product(x, gate, up, self.activation),
            _ => gate
                .forward(x)?
                .activate_times(self.activation, &self.up.forward(x)?),
        }
    }
}

impl Mlp {
    /// The matrices of gate, up and down, where there are no others.
    fn matrices(&self) -> Option<[&Matrix; 3]> {
        Some([
            self.gate.as_ref()?.matrix()?,
            self.up.matrix()?,
            self.down.matrix()?,
        ])
    }
}

impl FeedForward for Mlp {
    fn forward(&self, x: &Array) -> Result<Array, MlxError> {
        match self.matrices() {
            Some(matrices) => gated_mlp(x, matrices, self.activation, None),
            None => self.down.forward(&self.opened(x)?),
        }
    }

    fn forward_add(&self, x: &Array, residual: &Array) -> Result<Array, MlxError> {
        match self.matrices() {
            Some(matrices) => gated_mlp(x, matrices, self.activation, Some(residual)),
            None => self.down.forward_add(&self.opened(x)?, residual),
        }
    }
}

/// The activation that `config.json` names in the field `key`.
pub fn activation(key: &str, name: &str) -> Result<Activation, LoadError> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu2" => Ok(Activation::ReluSquared),
        _ => Err(LoadError::config(
            key,
            format!(
                "\"{name}\" is not supported; supported are \"silu\", \"gelu\", \"gelu_pytorch_tanh\" and \"relu2\""
            ),
        )),
    }
}

/// Fails where `config.json` names another activation than the architecture has.
pub fn only_activation(
    key: &str,
    name: Option<&str>,
    expected: Activation,
) -> Result<(), LoadError> {
    match name {
        Some(name) if activation(key, name)? != expected => Err(LoadError::config(
            key,
            format!("\"{name}\" is not supported in this architecture"),
        )),
        _ => Ok(()),
    }
}
