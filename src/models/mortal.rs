//! A Llama whose engine thread dies: for the test of what becomes of the process then.

use std::cell::Cell;

use crate::mlx::{Array, MlxError};

use super::builder::Builder;
use super::config::{ConfigFile, FromConfig};
use super::error::LoadError;
use super::llama::Llama;
use super::registry::Architecture;
use super::variant::VariantConfig;
use super::weights::Weights;
use super::{Model, ModelInfo, Row, SequenceState};

/// Llama's configuration and the hour of death.
pub struct MortalConfig {
    /// How many times a state may be asked for; the next one panics, outside of any step.
    states: usize,
    llama: VariantConfig<Llama>,
}

impl FromConfig for MortalConfig {
    fn from_config(file: &ConfigFile) -> Result<Self, LoadError> {
        let states = file.get("states").and_then(|states| states.as_u64());
        let missing = || LoadError::config("states", "is missing");
        Ok(Self {
            states: states.ok_or_else(missing)? as usize,
            llama: FromConfig::from_config(file)?,
        })
    }
}

/// The model.
pub struct Mortal {
    llama: <Llama as Architecture>::Model,
    states: Cell<usize>,
}

impl Architecture for Mortal {
    type Config = MortalConfig;
    type Model = Self;

    fn sanitize(config: &MortalConfig, weights: &mut Weights<'_>) -> Result<(), LoadError> {
        <Llama as Architecture>::sanitize(&config.llama, weights)
    }

    fn build(config: &MortalConfig, builder: &mut Builder<'_, '_>) -> Result<Self, LoadError> {
        Ok(Self {
            llama: <Llama as Architecture>::build(&config.llama, builder)?,
            states: Cell::new(config.states),
        })
    }
}

impl Model for Mortal {
    fn info(&self) -> &ModelInfo {
        self.llama.info()
    }

    fn new_state(&self) -> SequenceState {
        let left = self.states.get().checked_sub(1);
        self.states
            .set(left.unwrap_or_else(|| panic!("a forced death")));
        self.llama.new_state()
    }

    fn forward(&self, tokens: &Array, rows: &mut [Row<'_>]) -> Result<Option<Array>, MlxError> {
        self.llama.forward(tokens, rows)
    }
}
