//! The `cxx` bridge: the names of `bridge/bridge.h`, each a thin call of the MLX function it is named for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// Keeps foreign memory alive for as long as an array looks at it.
pub(crate) struct Mapping(#[expect(dead_code, reason = "only dropped")] pub Arc<memmap2::Mmap>);

type RowFunction = dyn FnMut(&[f32], &mut [u32]) + Send;

/// What [`super::Array::per_row`] computes.
pub(crate) struct RowOp(pub Box<RowFunction>);

impl RowOp {
    /// Called on the stream's thread. A panic must not reach C++, where it would end the process.
    fn run(&mut self, values: &[f32], out: &mut [u32]) {
        let ran = catch_unwind(AssertUnwindSafe(|| (self.0)(values, out)));
        if ran.is_err() {
            out.fill(0);
        }
    }
}

#[cfg_attr(not(test), allow(dead_code, reason = "`inverse` is for the tests"))]
#[cxx::bridge(namespace = "mlxcel")]
pub(crate) mod ffi {
    extern "Rust" {
        type Mapping;
        type RowOp;
        fn run(self: &mut RowOp, values: &[f32], out: &mut [u32]);
    }

    /// A sequence in `attend_and_keep`: positions of its cache that are filled, those that come behind them, and
    /// whether nobody else writes there.
    struct KeptRow {
        filled: i32,
        added: i32,
        own: bool,
    }

    unsafe extern "C++" {
        include!("bridge/bridge.h");

        type Array;
        type ArrayList;
        type Weight;
        type ShortConv;
        type Recurrent;
        type GatedNorm;

        fn new_list() -> UniquePtr<ArrayList>;
        fn list_push(list: Pin<&mut ArrayList>, array: &Array);
        fn list_get(list: &ArrayList, index: usize) -> Result<UniquePtr<Array>>;

        fn library_version() -> String;
        fn header_version() -> String;
        fn gpu_available() -> bool;
        fn use_gpu(gpu: bool) -> Result<()>;
        fn gpu_memory() -> Result<u64>;
        fn active_memory() -> u64;
        fn peak_memory() -> u64;
        fn cache_memory() -> u64;
        fn set_cache_limit(bytes: u64) -> Result<()>;
        fn clear_cache() -> Result<()>;

        fn clone_array(array: &Array) -> UniquePtr<Array>;
        fn from_bytes(bytes: &[u8], shape: &[i32], dtype: u8) -> Result<UniquePtr<Array>>;
        /// The bytes must live as long as `owner`.
        unsafe fn from_mapping(
            bytes: &[u8],
            shape: &[i32],
            dtype: u8,
            owner: Box<Mapping>,
        ) -> Result<UniquePtr<Array>>;
        fn zeros(shape: &[i32], dtype: u8) -> Result<UniquePtr<Array>>;
        fn shape(array: &Array) -> &[i32];
        fn dtype(array: &Array) -> Result<u8>;
        fn nbytes(array: &Array) -> usize;
        fn eval(list: &ArrayList) -> Result<()>;
        fn async_eval(list: &ArrayList) -> Result<()>;
        fn graph_dot(list: &ArrayList) -> Result<String>;
        fn copy_f32(array: &Array, out: &mut [f32]) -> Result<()>;

        fn astype(a: &Array, dtype: u8) -> Result<UniquePtr<Array>>;
        fn reshape(a: &Array, shape: &[i32]) -> Result<UniquePtr<Array>>;
        fn transpose(a: &Array, axes: &[i32]) -> Result<UniquePtr<Array>>;
        fn slice(a: &Array, start: &[i32], stop: &[i32]) -> Result<UniquePtr<Array>>;
        fn slice_update(
            a: &Array,
            update: &Array,
            start: &[i32],
            stop: &[i32],
        ) -> Result<UniquePtr<Array>>;
        fn concatenate(list: &ArrayList, axis: i32, room: i32) -> Result<UniquePtr<Array>>;
        fn take(a: &Array, indices: &Array, axis: i32) -> Result<UniquePtr<Array>>;
        fn add(a: &Array, b: &Array) -> Result<UniquePtr<Array>>;
        fn multiply(a: &Array, b: &Array) -> Result<UniquePtr<Array>>;
        fn scale(a: &Array, factor: f32) -> Result<UniquePtr<Array>>;
        fn per_row(a: &Array, op: Box<RowOp>) -> Result<UniquePtr<Array>>;
        fn quantize(a: &Array, group_size: i32, bits: i32) -> Result<UniquePtr<ArrayList>>;
        fn sigmoid(a: &Array) -> Result<UniquePtr<Array>>;
        fn matmul(a: &Array, b: &Array) -> Result<UniquePtr<Array>>;
        fn quantized_matmul(
            x: &Array,
            w: &Array,
            scales: &Array,
            biases: &ArrayList,
            group_size: i32,
            bits: i32,
            mode: u8,
        ) -> Result<UniquePtr<Array>>;

        fn broadcast_to(a: &Array, shape: &[i32]) -> Result<UniquePtr<Array>>;
        fn contiguous(a: &Array) -> Result<UniquePtr<Array>>;
        fn view(a: &Array, dtype: u8) -> Result<UniquePtr<Array>>;
        fn every_other(a: &Array, axis: i32, first: i32) -> Result<UniquePtr<Array>>;

        /// Fails on the stream's own thread when `a` is singular.
        fn inverse(a: &Array) -> Result<UniquePtr<Array>>;

        fn dense_weight(values: &Array) -> Result<UniquePtr<Weight>>;
        fn quantized_weight(
            words: &Array,
            scales: &Array,
            biases: &ArrayList,
            group_size: i32,
            bits: i32,
            mode: u8,
        ) -> Result<UniquePtr<Weight>>;
        fn set_offset(weight: Pin<&mut Weight>, offset: &Array) -> Result<()>;
        fn set_factors(weight: Pin<&mut Weight>, factors: &Array) -> Result<()>;
        fn linear(x: &Array, weight: &Weight) -> Result<UniquePtr<Array>>;
        fn linear_add(x: &Array, weight: &Weight, residual: &Array) -> Result<UniquePtr<Array>>;
        fn gated_linear(
            x: &Array,
            gate: &Weight,
            up: &Weight,
            kind: u8,
        ) -> Result<UniquePtr<Array>>;
        /// `residual` may be null.
        fn gated_mlp(
            x: &Array,
            gate: &Weight,
            up: &Weight,
            down: &Weight,
            kind: u8,
            residual: &UniquePtr<Array>,
        ) -> Result<UniquePtr<Array>>;
        /// `norms` are none or two, `frequencies` may be null.
        fn project_heads(
            x: &Array,
            queries: &Weight,
            keys: &Weight,
            values: &Weight,
            head_dim: i32,
            norms: &ArrayList,
            eps: f32,
            frequencies: &UniquePtr<Array>,
            traditional: bool,
            amplitude: f32,
            positions: &Array,
        ) -> Result<UniquePtr<ArrayList>>;
        fn activate(x: &Array, kind: u8, limit: f32) -> Result<UniquePtr<Array>>;
        fn activate_times(x: &Array, up: &Array, kind: u8) -> Result<UniquePtr<Array>>;
        fn weight_rows(weight: &Weight, indices: &Array, dtype: u8) -> Result<UniquePtr<Array>>;

        fn gather_linear(x: &Array, weight: &Weight, choices: &Array) -> Result<UniquePtr<Array>>;
        #[allow(clippy::too_many_arguments, reason = "C++ takes plain numbers")]
        fn gather_gate(
            x: &Array,
            gate: &Weight,
            up: &Weight,
            choices: &Array,
            activation: u8,
            clamped: bool,
            alpha: f32,
            limit: f32,
        ) -> Result<UniquePtr<Array>>;
        fn gather_sum(
            x: &Array,
            weight: &Weight,
            choices: &Array,
            weights: &Array,
            residual: &ArrayList,
        ) -> Result<UniquePtr<Array>>;
        #[allow(clippy::too_many_arguments, reason = "C++ takes plain numbers")]
        fn route(
            logits: &Array,
            correction: &ArrayList,
            scores: u8,
            choices: i32,
            normalize: bool,
            scale: f32,
            groups: i32,
            kept_groups: i32,
        ) -> Result<UniquePtr<ArrayList>>;

        fn choose_isa(name: &str) -> bool;
        fn available_isas() -> Vec<String>;
        fn current_isa() -> String;
        fn quantize_activations(quantize: bool);
        fn set_kernel_threads(threads: usize) -> Result<()>;

        fn rms_norm(x: &Array, weight: &Array, eps: f32) -> Result<UniquePtr<Array>>;
        /// `bias` may be null.
        fn layer_norm(
            x: &Array,
            weight: &Array,
            bias: &UniquePtr<Array>,
            eps: f32,
        ) -> Result<UniquePtr<Array>>;
        fn rope(
            x: &Array,
            dims: i32,
            traditional: bool,
            base: f32,
            scale: f32,
            positions: &Array,
        ) -> Result<UniquePtr<Array>>;
        fn rope_with_freqs(
            x: &Array,
            dims: i32,
            traditional: bool,
            freqs: &Array,
            positions: &Array,
        ) -> Result<UniquePtr<Array>>;
        /// Whether our own kernels compute with `x`.
        fn computes_here(x: &Array) -> bool;
        fn rotate(
            x: &Array,
            positions: &Array,
            frequencies: &Array,
            traditional: bool,
            amplitude: f32,
        ) -> Result<UniquePtr<Array>>;
        /// `window` and `soft_cap` may be 0, `sinks` may be null.
        fn attention(
            queries: &Array,
            keys: &ArrayList,
            values: &ArrayList,
            group_size: i32,
            bits: i32,
            scale: f32,
            window: i32,
            keep: i32,
            soft_cap: f32,
            sinks: &UniquePtr<Array>,
        ) -> Result<UniquePtr<Array>>;

        /// `buffers` are those of all rows; what is found, then the buffers.
        fn attend_and_keep(
            queries: &Array,
            keys: &Array,
            values: &Array,
            buffers: &ArrayList,
            rows: &[KeptRow],
            group_size: i32,
            bits: i32,
            scale: f32,
            window: i32,
            keep: i32,
            soft_cap: f32,
            sinks: &UniquePtr<Array>,
        ) -> Result<UniquePtr<ArrayList>>;

        /// `bias` holds one array, or none.
        fn short_conv(weight: &Array, bias: &ArrayList, silu: bool)
        -> Result<UniquePtr<ShortConv>>;
        fn convolve(
            x: &Array,
            conv: &ShortConv,
            states: &ArrayList,
            lengths: &[i32],
        ) -> Result<UniquePtr<ArrayList>>;
        fn delta_rule(
            a_log: &Array,
            dt_bias: &Array,
            key_heads: i32,
            key_dim: i32,
            value_dim: i32,
        ) -> Result<UniquePtr<Recurrent>>;
        fn state_space(
            a_log: &Array,
            dt_bias: &Array,
            skip: &Array,
            key_heads: i32,
            key_dim: i32,
            value_dim: i32,
        ) -> Result<UniquePtr<Recurrent>>;
        fn set_limits(layer: Pin<&mut Recurrent>, least: f32, most: f32);
        /// `gates` are `dt`, and `beta` where the layer is a delta rule.
        fn recur(
            mixed: &Array,
            gates: &ArrayList,
            layer: &Recurrent,
            states: &ArrayList,
            lengths: &[i32],
        ) -> Result<UniquePtr<ArrayList>>;
        fn gated_norm(
            weight: &Array,
            eps: f32,
            group: i32,
            gate_first: bool,
        ) -> Result<UniquePtr<GatedNorm>>;
        fn normalize(x: &Array, gate: &Array, norm: &GatedNorm) -> Result<UniquePtr<Array>>;
    }
}
