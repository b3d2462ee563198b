//! Makes layers of a checkpoint's tensors.

use crate::mlx::{self, Array, Dtype, Experts, MlxError, Mode, Packed, Packing};

use super::adapter::{Adapter, LowRank};
use super::error::LoadError;
use super::layers::{Embedding, HeadNorm, LayerNorm, Linear, Norm, NormConfig, NormKind, RmsNorm};
use super::quantization::{self, Quantization};
use super::weights::Weights;
use super::{ModelInfo, StateSize};

/// Takes tensors by their layers' paths, dense or quantized as the checkpoint has them.
pub struct Builder<'w, 'p> {
    architecture: &'w str,
    weights: &'w mut Weights<'p>,
    quantization: Option<&'w Quantization>,
    parameters: u64,
    bytes: u64,
    dtype: Option<Dtype>,
    adapter: Option<Adapter>,
}

/// What only the architecture knows of its model.
#[derive(Debug, Clone)]
pub struct Dimensions {
    /// Rows of the output head.
    pub vocab_size: usize,
    /// `max_position_embeddings`.
    pub context_length: usize,
    /// What a sequence's state takes, in numbers.
    pub state: StateSize,
}

enum Matrix {
    Dense(Array),
    Quantized(Packed),
}

impl Matrix {
    #[track_caller]
    fn linear(
        &self,
        bias: Option<&Array>,
        update: Option<(&LowRank, Dtype)>,
    ) -> Result<Linear, MlxError> {
        if let Some((update, dtype)) = update {
            let matrix = match self {
                Self::Dense(weight) => mlx::Matrix::dense(weight)?,
                Self::Quantized(packed) => mlx::Matrix::quantized(packed)?,
            };
            return Linear::updated(matrix, bias, update, dtype);
        }
        match self {
            Self::Dense(weight) => Linear::dense(weight, bias),
            Self::Quantized(packed) => Linear::quantized(packed, bias),
        }
    }

    /// Rows `start..stop`.
    #[track_caller]
    fn rows(&self, start: i32, stop: i32) -> Result<Self, MlxError> {
        let rows = |array: &Array| {
            let rows = array.slice(&[start, 0], &[stop, array.dim(1)])?;
            // Now, so that it is known to lie without gaps in the same memory: else it would be copied.
            Array::eval_all(&[&rows])?;
            Ok::<_, MlxError>(rows)
        };
        Ok(match self {
            Self::Dense(weight) => Self::Dense(rows(weight)?),
            Self::Quantized(packed) => Self::Quantized(Packed {
                words: rows(&packed.words)?,
                scales: rows(&packed.scales)?,
                biases: match &packed.biases {
                    Some(biases) => Some(rows(biases)?),
                    None => None,
                },
                packing: packed.packing,
            }),
        })
    }
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
            adapter: None,
        }
    }

    /// The same, for a checkpoint with an adapter.
    pub fn with_adapter(self, adapter: Option<Adapter>) -> Self {
        Self { adapter, ..self }
    }

    /// Fails where the adapter is for layers that were not taken.
    pub fn finish(self) -> Result<(), LoadError> {
        self.adapter.map_or(Ok(()), Adapter::finish)
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
            state: dimensions.state.times(dtype.size() as u64),
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
        let matrix = self.matrix(path, &[outputs, inputs])?;
        let bias = match bias {
            true => Some(self.vector(&format!("{path}.bias"), outputs)?),
            false => None,
        };
        let update = self.update(path, inputs, outputs)?;
        let update = update.as_ref().map(|(update, dtype)| (update, *dtype));
        Ok(matrix.linear(bias.as_ref(), update)?)
    }

    /// What the adapter adds to the layer at `path`, and the type that it computes in.
    fn update(
        &mut self,
        path: &str,
        inputs: i32,
        outputs: i32,
    ) -> Result<Option<(LowRank, Dtype)>, LoadError> {
        let dtype = self.dtype.unwrap_or(Dtype::Float32);
        let Some(adapter) = &mut self.adapter else {
            return Ok(None);
        };
        let update = adapter.take(path, inputs, outputs)?;
        Ok(update.map(|update| (update, dtype)))
    }

    /// The linear layers whose matrices (and biases) lie behind one another in `{path}`, with the given
    /// numbers of outputs.
    pub fn fused_linear<const N: usize>(
        &mut self,
        path: &str,
        inputs: i32,
        outputs: [i32; N],
        bias: bool,
    ) -> Result<[Linear; N], LoadError> {
        let total = outputs.iter().sum();
        let matrix = self.matrix(path, &[total, inputs])?;
        let bias = match bias {
            true => Some(self.vector(&format!("{path}.bias"), total)?),
            false => None,
        };
        let update = self.update(path, inputs, total)?;
        let mut start = 0;
        let mut layers = Vec::with_capacity(N);
        for count in outputs {
            let stop = start + count;
            let bias = match &bias {
                Some(bias) => Some(bias.slice(&[start], &[stop])?),
                None => None,
            };
            let update = match &update {
                Some((update, dtype)) => Some((update.outputs(start, stop)?, *dtype)),
                None => None,
            };
            let update = update.as_ref().map(|(update, dtype)| (update, *dtype));
            layers.push(matrix.rows(start, stop)?.linear(bias.as_ref(), update)?);
            start = stop;
        }
        let unequal = |_| LoadError::config(path, "is not divided as it should be");
        layers.try_into().map_err(unequal)
    }

    /// `{path}.weight` `[experts, outputs, inputs]`, with `{path}.bias` `[experts, outputs]` where `bias`
    /// says so.
    pub fn experts(
        &mut self,
        path: &str,
        experts: i32,
        inputs: i32,
        outputs: i32,
        bias: bool,
    ) -> Result<Experts, LoadError> {
        let mut stack = match self.matrix(path, &[experts, outputs, inputs])? {
            Matrix::Dense(weight) => Experts::dense(&weight)?,
            Matrix::Quantized(packed) => Experts::quantized(&packed)?,
        };
        let scale = format!("{path}.global_scale");
        if self.contains(&scale) {
            // mlx-lm keeps the largest number of a matrix, that is the largest scale times the largest
            // number of nvfp4.
            let largest = self
                .weights
                .take(&scale, &[experts])?
                .astype(Dtype::Float32)?;
            let factor = Array::from_f32(&[1.0 / (448.0 * 6.0)], &[1])?;
            stack = stack.with_factors(&largest.multiply(&factor)?)?;
        }
        if bias {
            let bias = self
                .weights
                .take(&format!("{path}.bias"), &[experts, outputs])?;
            self.count(experts as u64 * outputs as u64, &[&bias]);
            stack = stack.with_bias(&bias)?;
        }
        Ok(stack)
    }

    /// `{path}.weight` `[vocab, hidden]`.
    pub fn embedding(
        &mut self,
        path: &str,
        vocab: i32,
        hidden: i32,
    ) -> Result<Embedding, LoadError> {
        let matrix = self.matrix(path, &[vocab, hidden])?;
        let dtype = self.dtype.unwrap_or(Dtype::Float32);
        Ok(match matrix {
            Matrix::Dense(weight) => Embedding::dense(&weight, dtype)?,
            Matrix::Quantized(packed) => Embedding::quantized(&packed, dtype)?,
        })
    }

    /// `{path}.weight` `[features]`.
    pub fn rms_norm(&mut self, path: &str, features: i32, eps: f32) -> Result<RmsNorm, LoadError> {
        Ok(RmsNorm::new(
            self.vector(&format!("{path}.weight"), features)?,
            eps,
        ))
    }

    /// A norm without weights.
    pub fn plain_rms_norm(&self, features: i32, eps: f32) -> Result<RmsNorm, LoadError> {
        let ones = vec![1.0; features.max(0) as usize];
        let ones = Array::from_f32(&ones, &[features])?;
        let dtype = self.dtype.unwrap_or(Dtype::Float32);
        Ok(RmsNorm::new(ones.astype(dtype)?, eps))
    }

    /// The same for norms that multiply by `1 + weight`.
    pub fn offset_rms_norm(
        &mut self,
        path: &str,
        features: i32,
        eps: f32,
    ) -> Result<RmsNorm, LoadError> {
        let weight = self.vector(&format!("{path}.weight"), features)?;
        let one = Array::from_f32(&[1.0], &[1])?.astype(weight.dtype()?)?;
        let weight = weight.add(&one)?;
        // Once, not in every step.
        Array::eval_all(&[&weight])?;
        Ok(RmsNorm::new(weight, eps))
    }

    /// `{path}.weight` `[features]`, with `{path}.bias` `[features]` where `bias` says so.
    fn layer_norm(
        &mut self,
        path: &str,
        features: i32,
        eps: f32,
        bias: bool,
    ) -> Result<LayerNorm, LoadError> {
        let weight = self.vector(&format!("{path}.weight"), features)?;
        let bias = match bias {
            true => Some(self.vector(&format!("{path}.bias"), features)?),
            false => None,
        };
        Ok(LayerNorm::new(weight, bias, eps))
    }

    /// Any of these.
    pub fn norm(
        &mut self,
        path: &str,
        features: i32,
        config: NormConfig,
    ) -> Result<Norm, LoadError> {
        let eps = config.eps;
        Ok(match config.kind {
            NormKind::Rms => self.rms_norm(path, features, eps)?.into(),
            NormKind::OffsetRms => self.offset_rms_norm(path, features, eps)?.into(),
            NormKind::Layer { bias } => self.layer_norm(path, features, eps, bias)?.into(),
        })
    }

    /// `{path}.weight` `[heads, head_dim]`.
    pub fn head_norm(
        &mut self,
        path: &str,
        heads: i32,
        head_dim: i32,
        eps: f32,
    ) -> Result<HeadNorm, LoadError> {
        let name = format!("{path}.weight");
        let weight = self.weights.take(&name, &[heads, head_dim])?;
        self.count(heads as u64 * head_dim as u64, &[&weight]);
        Ok(HeadNorm::new(&weight, eps)?)
    }

    /// `{path}.weight` of a depthwise convolution over `taps` tokens, with `{path}.bias` `[features]`
    /// where `bias` says so: `[features, taps]` and its bias. mlx-lm has the taps in the middle,
    /// transformers at the end of three dimensions.
    pub fn depthwise(
        &mut self,
        path: &str,
        features: i32,
        taps: i32,
        bias: bool,
    ) -> Result<(Array, Option<Array>), LoadError> {
        let name = format!("{path}.weight");
        let shape = match self.weights.shape(&name) {
            Some([_, 1, _]) => [features, 1, taps],
            _ => [features, taps, 1],
        };
        let weight = self.weights.take(&name, &shape)?;
        self.count(features as u64 * taps as u64, &[&weight]);
        let weight = weight.reshape(&[features, taps])?;
        let bias = match bias {
            true => Some(self.vector(&format!("{path}.bias"), features)?),
            false => None,
        };
        Ok((weight, bias))
    }

    /// `name`, `[features]`.
    pub fn vector(&mut self, name: &str, features: i32) -> Result<Array, LoadError> {
        let array = self.weights.take(name, &[features])?;
        self.count(features as u64, &[&array]);
        Ok(array)
    }

    /// `[outputs, inputs]`, or a stack of such matrices.
    fn matrix(&mut self, path: &str, shape: &[i32]) -> Result<Matrix, LoadError> {
        let inputs = shape.last().copied().unwrap_or(0);
        let matrix = match self.packing(path, inputs)? {
            None => {
                let weight = self.weights.take_as_is(&format!("{path}.weight"), shape)?;
                self.computes_in(&weight)?;
                Matrix::Dense(weight)
            }
            Some(packing) => Matrix::Quantized(self.packed(path, shape, packing)?),
        };
        let elements = shape.iter().map(|&dim| dim as u64).product();
        match &matrix {
            Matrix::Dense(weight) => self.count(elements, &[weight]),
            Matrix::Quantized(packed) => {
                let mut arrays = vec![&packed.words, &packed.scales];
                arrays.extend(&packed.biases);
                self.count(elements, &arrays);
            }
        }
        Ok(matrix)
    }

    /// Learns the type of activations: the one that everything is computed in, else the matrix' own.
    fn computes_in(&mut self, matrix: &Array) -> Result<(), LoadError> {
        let dtype = match self.weights.compute() {
            Some(compute) => compute,
            None => matrix.dtype()?,
        };
        self.dtype.get_or_insert(dtype);
        Ok(())
    }

    fn packed(&mut self, path: &str, shape: &[i32], packing: Packing) -> Result<Packed, LoadError> {
        let (outer, inputs) = match shape {
            [outer @ .., inputs] => (outer, *inputs),
            [] => return Err(LoadError::config(path, "has no dimension")),
        };
        if inputs % packing.group_size != 0 {
            return Err(LoadError::config(
                format!("quantization.{path}"),
                format!(
                    "{inputs} inputs are no multiple of the group size {}",
                    packing.group_size
                ),
            ));
        }
        let with = |last: i32| [outer, &[last]].concat();
        let words = with(inputs / 16 * packing.bits / 2);
        let groups = with(inputs / packing.group_size);
        let name = |part: &str| format!("{path}.{part}");
        let (scales, biases) = if packing.mode == Mode::Affine {
            let scales = self.weights.take_as_is(&name("scales"), &groups)?;
            self.computes_in(&scales)?;
            let biases = self.weights.take_as_is(&name("biases"), &groups)?;
            (scales, Some(biases))
        } else {
            (self.weights.take_bytes(&name("scales"), &groups)?, None)
        };
        Ok(Packed {
            words: self.weights.take_packed(&name("weight"), &words)?,
            scales,
            biases,
            packing,
        })
    }

    /// How the layer at `path` is packed. As in mlx-lm, an override in `config.json` decides; else
    /// a layer with scales is quantized, and its shapes tell how.
    fn packing(&self, path: &str, inputs: i32) -> Result<Option<Packing>, LoadError> {
        let Some(quantization) = self.quantization else {
            return Ok(None);
        };
        // The overrides go by the checkpoint's own names.
        let weight = format!("{path}.weight");
        let stored = self.weights.stored_name(&weight);
        let stored = stored.strip_suffix(".weight").unwrap_or(path);
        if let Some(stated) = quantization.override_of(stored) {
            return Ok(stated);
        }
        let scales = format!("{path}.scales");
        let last = |name: &str| {
            let shape = self.weights.shape(name)?;
            i32::try_from(*shape.last()?).ok().filter(|&dim| dim > 0)
        };
        let (Some(groups), Some(words)) = (last(&scales), last(&format!("{path}.weight"))) else {
            return Ok(None);
        };
        let group_size = inputs / groups;
        let bits = i32::try_from(i64::from(words) * 32 / i64::from(inputs)).unwrap_or(0);
        // Only affine quantization keeps its scales in the type of the weights.
        let inferred = if self.weights.dtype(&scales) == Some(safetensors::Dtype::U8) {
            quantization::of_floats(bits, group_size)
        } else {
            quantization::check(Packing::affine(bits, group_size), path).ok()
        };
        // Shapes that fit no packing are reported against the stated one.
        Ok(Some(inferred.unwrap_or(quantization.default)))
    }

    fn count(&mut self, parameters: u64, arrays: &[&Array]) {
        self.parameters += parameters;
        self.bytes += arrays.iter().map(|array| array.nbytes()).sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::config::tests::config;
    use super::super::testing::{Tensor, floats, write_tensors};
    use super::*;

    /// A layer `[4, 64]`, packed in `bits` with groups of 32.
    fn packed(path: &str, bits: usize) -> Vec<Tensor> {
        let words = 64 / 32 * bits;
        let zeros = vec![0; 4 * words * 4];
        vec![
            (
                format!("{path}.weight"),
                safetensors::Dtype::U32,
                vec![4, words],
                zeros,
            ),
            floats(&format!("{path}.scales"), &[4, 2]),
            floats(&format!("{path}.biases"), &[4, 2]),
        ]
    }

    /// Takes the layer "layer" `[4, inputs]` of a checkpoint, and tells how it was packed.
    fn take(tensors: &[Tensor], section: Value, inputs: i32) -> Result<ModelInfo, LoadError> {
        let dir = tempfile::tempdir().unwrap();
        write_tensors(&dir.path().join("model.safetensors"), tensors);
        let quantization = Quantization::read(&config(json!({"quantization": section})))?;
        let mut ignore = |_| {};
        let mut weights = Weights::open(dir.path(), Some(Dtype::Float32), &mut ignore)?;
        let mut builder = Builder::new("llama", &mut weights, quantization.as_ref());
        let layer = builder.linear("layer", inputs, 4, false)?;
        let x = Array::zeros(&[3, inputs], Dtype::Float32)?;
        assert_eq!(layer.forward(&x)?.to_vec_f32()?.len(), 12);
        let info = builder.info(Dimensions {
            vocab_size: 0,
            context_length: 0,
            state: StateSize::default(),
        });
        weights.finish("llama")?;
        Ok(info)
    }

    #[test]
    fn a_layers_shapes_tell_its_packing_unless_an_override_does() {
        let four = json!({"group_size": 32, "bits": 4});
        let stated = json!({"group_size": 64, "bits": 4, "layer": {"group_size": 32, "bits": 8}});
        for (tensors, section, bytes) in [
            (packed("layer", 4), four.clone(), 4 * (8 * 4 + 2 * 8)),
            (packed("layer", 3), four.clone(), 4 * (6 * 4 + 2 * 8)),
            (packed("layer", 8), stated, 4 * (16 * 4 + 2 * 8)),
            (vec![floats("layer.weight", &[4, 64])], four, 4 * 64 * 4),
        ] {
            let info = take(&tensors, section, 64).unwrap();
            assert_eq!((info.parameters, info.weight_bytes), (256, bytes));
        }
    }

    #[test]
    fn a_packing_that_the_tensors_contradict_is_an_error() {
        let error = |tensors: &[Tensor], section, inputs| match take(tensors, section, inputs) {
            Ok(_) => panic!("the layer was taken"),
            Err(error) => error.to_string(),
        };
        let override_ = json!({"group_size": 32, "bits": 4, "layer": {"bits": 8}});
        let text = error(&packed("layer", 4), override_, 64);
        assert!(
            text.contains("layer.weight") && text.contains("[4, 16]"),
            "{text}"
        );
        let dense = json!({"group_size": 32, "bits": 4, "layer": false});
        let text = error(&packed("layer", 4), dense, 64);
        assert!(
            text.contains("layer.weight") && text.contains("U32"),
            "{text}"
        );
        let text = error(
            &packed("layer", 4),
            json!({"group_size": 128, "bits": 2}),
            192,
        );
        assert!(
            text.contains("multiple") || text.contains("layer.scales"),
            "{text}"
        );
        let text = error(&packed("layer", 4), Value::Null, 64);
        assert!(text.contains("U32"), "{text}");
    }
}
