//! How the numbers of a quantized matrix are packed.

use super::array::Array;

/// What MLX makes of a number when it quantizes: an integer, or a small floating-point number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)] // as in kernels/operands.h
pub enum Mode {
    /// `value = scale · integer + bias`; for 3, 5 and 6 bits, 8 integers in `bits` bytes.
    Affine,
    /// E2M1 numbers, 32 of which share a power of two (OCP Microscaling, 2023).
    Mxfp4,
    /// E2M1 numbers, 16 of which share an E4M3 scale.
    Nvfp4,
    /// E4M3 numbers, 32 of which share a power of two.
    Mxfp8,
}

/// How the groups of a quantized matrix' rows are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packing {
    /// What a number becomes.
    pub mode: Mode,
    /// Values that share a scale.
    pub group_size: i32,
    /// Bits of one value.
    pub bits: i32,
}

/// A quantized matrix `[out, in]`, or one for each expert, `[experts, out, in]`.
pub struct Packed {
    /// `[.., out, in · bits / 32]` words.
    pub words: Array,
    /// `[.., out, in / group_size]`; bytes in all modes but the affine one.
    pub scales: Array,
    /// Like the scales, in affine mode only.
    pub biases: Option<Array>,
    /// How the words are packed.
    pub packing: Packing,
}

impl Mode {
    /// As `config.json` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::Mxfp4 => "mxfp4",
            Self::Nvfp4 => "nvfp4",
            Self::Mxfp8 => "mxfp8",
        }
    }

    /// The one of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Affine, Self::Mxfp4, Self::Nvfp4, Self::Mxfp8]
            .into_iter()
            .find(|mode| mode.name() == name)
    }

    /// The one packing that a mode of floating-point numbers has.
    pub fn packing(self) -> Option<Packing> {
        let (group_size, bits) = match self {
            Self::Affine => return None,
            Self::Mxfp4 => (32, 4),
            Self::Nvfp4 => (16, 4),
            Self::Mxfp8 => (32, 8),
        };
        Some(Packing {
            mode: self,
            group_size,
            bits,
        })
    }
}

impl Packing {
    /// Integers of `bits` bits, `group_size` of which share a scale and a bias.
    pub fn affine(bits: i32, group_size: i32) -> Self {
        Self {
            mode: Mode::Affine,
            group_size,
            bits,
        }
    }
}
