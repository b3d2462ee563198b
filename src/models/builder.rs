//! Makes layers of a checkpoint's tensors.

use crate::mlx::{Affine, Array, Dtype};

use super::ModelInfo;
use super::error::LoadError;
use super::layers::{Embedding, Linear, Packed, RmsNorm};
use super::quantization::{self, Quantization};
use super::weights::Weights;

/// Takes tensors by their layers' paths, dense or quantized as the checkpoint has them.
pub struct Builder<'w, 'p> {
    architecture: &'w str,
    weights: &'w mut Weights<'p>,
    quantization: Option<&'w Quantization>,
    parameters: u64,
    bytes: u64,
    dtype: Option<Dtype>,
}

/// What only the architecture knows of its model.
#[derive(Debug, Clone, Copy)]
pub struct Dimensions {
    /// Rows of the output head.
    pub vocab_size: usize,
    /// `max_position_embeddings`.
    pub context_length: usize,
    /// Numbers of state that one more token of one sequence takes, all layers together.
    pub state_per_token: u64,
}

enum Matrix {
    Dense(Array),
    Quantized(Packed),
}

impl<'w, 'p> Builder<'w, 'p> {
    /// Over the tensors of `weights`.
    pub fn new(
        architecture: &'w str,
        weights: &'w mut Weights<'p>,
        quantization: Option<&'w Quantization>,
    ) -> Self {
        Self {
            architecture,
            weights,
            quantization,
            parameters: 0,
            bytes: 0,
            dtype: None,
        }
    }

    /// Whether the checkpoint has a tensor.
    pub fn contains(&self, name: &str) -> bool {
        self.weights.contains(name)
    }

    /// Describes the model, once all its tensors are taken.
    pub fn info(&self, dimensions: Dimensions) -> ModelInfo {
        let dtype = self.dtype.unwrap_or(Dtype::Float32);
        ModelInfo {
            architecture: self.architecture.to_owned(),
            vocab_size: dimensions.vocab_size,
            context_length: dimensions.context_length,
            parameters: self.parameters,
            weight_bytes: self.bytes,
            state_bytes_per_token: dimensions.state_per_token * dtype.size() as u64,
            quantization: self.quantization.map(Quantization::describe),
            dtype: dtype.name().to_owned(),
        }
    }

    /// `{path}.weight` `[outputs, inputs]`, with `{path}.bias` `[outputs]` where `bias` says so.
    pub fn linear(
        &mut self,
        path: &str,
        inputs: i32,
        outputs: i32,
        bias: bool,
    ) -> Result<Linear, LoadError> {
        let matrix = self.matrix(path, outputs, inputs)?;
        let bias = match bias {
            true => Some(self.vector(&format!("{path}.bias"), outputs)?),
            false => None,
        };
        Ok(match matrix {
            Matrix::Dense(weight) => Linear::dense(weight, bias)?,
            Matrix::Quantized(packed) => Linear::quantized(packed, bias),
        })
    }

    /// `{path}.weight` `[vocab, hidden]`.
    pub fn embedding(
        &mut self,
        path: &str,
        vocab: i32,
        hidden: i32,
    ) -> Result<Embedding, LoadError> {
        Ok(match self.matrix(path, vocab, hidden)? {
            Matrix::Dense(weight) => Embedding::dense(weight)?,
            Matrix::Quantized(packed) => Embedding::quantized(packed),
        })
    }

    /// `{path}.weight` `[features]`.
    pub fn rms_norm(&mut self, path: &str, features: i32, eps: f32) -> Result<RmsNorm, LoadError> {
        Ok(RmsNorm::new(
            self.vector(&format!("{path}.weight"), features)?,
            eps,
        ))
    }

    fn vector(&mut self, name: &str, features: i32) -> Result<Array, LoadError> {
        let array = self.weights.take(name, &[features])?;
        self.count(features as u64, &[&array]);
        Ok(array)
    }

    fn matrix(&mut self, path: &str, outputs: i32, inputs: i32) -> Result<Matrix, LoadError> {
        let matrix = match self.packing(path, inputs)? {
            None => {
                let weight = self
                    .weights
                    .take_matrix(&format!("{path}.weight"), [outputs, inputs])?;
                self.dtype.get_or_insert(weight.dtype()?);
                Matrix::Dense(weight)
            }
            Some(affine) => Matrix::Quantized(self.packed(path, outputs, inputs, affine)?),
        };
        let elements = outputs as u64 * inputs as u64;
        match &matrix {
            Matrix::Dense(weight) => self.count(elements, &[weight]),
            Matrix::Quantized(packed) => {
                self.count(elements, &[&packed.words, &packed.scales, &packed.biases]);
            }
        }
        Ok(matrix)
    }

    fn packed(
        &mut self,
        path: &str,
        outputs: i32,
        inputs: i32,
        affine: Affine,
    ) -> Result<Packed, LoadError> {
        if inputs % affine.group_size != 0 {
            return Err(LoadError::config(
                format!("quantization.{path}"),
                format!(
                    "{inputs} inputs are no multiple of the group size {}",
                    affine.group_size
                ),
            ));
        }
        let words = [outputs, inputs / 32 * affine.bits];
        let groups = [outputs, inputs / affine.group_size];
        let scales = self.weights.take(&format!("{path}.scales"), &groups)?;
        self.dtype.get_or_insert(scales.dtype()?);
        Ok(Packed {
            words: self
                .weights
                .take_packed(&format!("{path}.weight"), &words)?,
            biases: self.weights.take(&format!("{path}.biases"), &groups)?,
            scales,
            affine,
        })
    }

    /// How the layer at `path` is packed. As in mlx-lm, an override in `config.json` decides; else
    /// a layer with scales is quantized, and its shapes tell how.
    fn packing(&self, path: &str, inputs: i32) -> Result<Option<Affine>, LoadError> {
        let Some(quantization) = self.quantization else {
            return Ok(None);
        };
        if let Some(stated) = quantization.override_of(path) {
            return Ok(stated);
        }
        let last = |name: &str| {
            let shape = self.weights.shape(&format!("{path}.{name}"))?;
            i32::try_from(*shape.last()?).ok().filter(|&dim| dim > 0)
        };
        let (Some(groups), Some(words)) = (last("scales"), last("weight")) else {
            return Ok(None);
        };
        let inferred = Affine {
            group_size: inputs / groups,
            bits: i32::try_from(i64::from(words) * 32 / i64::from(inputs)).unwrap_or(0),
        };
        // Shapes that fit no packing are reported against the stated one.
        Ok(Some(
            quantization::check(inferred, path).unwrap_or(quantization.default),
        ))
    }

    fn count(&mut self, parameters: u64, arrays: &[&Array]) {
        self.parameters += parameters;
        self.bytes += arrays.iter().map(|array| array.nbytes()).sum::<u64>();
    }
}
