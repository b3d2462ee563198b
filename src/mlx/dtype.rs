//! Element types.

/// The type of an array's elements. The order is that of `DTYPES` in `bridge/values.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Dtype {
    /// IEEE single precision.
    Float32,
    /// The upper half of a float32.
    Bfloat16,
    /// IEEE half precision.
    Float16,
    /// Unsigned byte.
    Uint8,
    /// Unsigned 32-bit integer; packed quantized weights and token ids.
    Uint32,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// One byte a truth value.
    Bool,
    /// Unsigned 16-bit integer.
    Uint16,
}

impl Dtype {
    pub(crate) const ALL: [Self; 9] = [
        Self::Float32,
        Self::Bfloat16,
        Self::Float16,
        Self::Uint8,
        Self::Uint32,
        Self::Int32,
        Self::Int64,
        Self::Bool,
        Self::Uint16,
    ];

    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::Uint8 | Self::Bool => 1,
            Self::Bfloat16 | Self::Float16 | Self::Uint16 => 2,
            Self::Float32 | Self::Uint32 | Self::Int32 => 4,
            Self::Int64 => 8,
        }
    }

    /// Whether activations may have this type.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Float32 | Self::Bfloat16 | Self::Float16)
    }

    /// MLX's own name, for instance `float32`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float32 => "float32",
            Self::Bfloat16 => "bfloat16",
            Self::Float16 => "float16",
            Self::Uint8 => "uint8",
            Self::Uint32 => "uint32",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Bool => "bool",
            Self::Uint16 => "uint16",
        }
    }

    pub(super) fn index(self) -> u8 {
        self as u8
    }

    pub(super) fn from_index(index: u8) -> Option<Self> {
        Self::ALL.get(usize::from(index)).copied()
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
