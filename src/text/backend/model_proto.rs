//! SentencePiece's `ModelProto` (`sentencepiece_model.proto`): names, numbers and defaults are its own.

use super::protobuf::{Fields, Wire, WireError};

/// What a `tokenizer.model` says.
#[derive(Debug)]
pub(super) struct ModelProto {
    pub pieces: Vec<Piece>,
    pub trainer: TrainerSpec,
    pub normalizer: NormalizerSpec,
    /// Whether decoding is to change the text in a way of its own.
    pub denormalizes: bool,
}

#[derive(Debug)]
pub(super) struct Piece {
    pub text: String,
    pub score: f32,
    pub kind: PieceKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
    Word,
    Char,
}

#[derive(Debug)]
pub(super) struct TrainerSpec {
    pub algorithm: Algorithm,
    pub treat_whitespace_as_suffix: bool,
    pub byte_fallback: bool,
    /// Index of the unknown piece.
    pub unk_id: i64,
    /// Below 0 where the model has no such token.
    pub bos_id: i64,
    pub eos_id: i64,
}

#[derive(Debug)]
pub(super) struct NormalizerSpec {
    /// Rules of normalization as a double array, empty for none.
    pub precompiled_charsmap: Vec<u8>,
    pub add_dummy_prefix: bool,
    pub remove_extra_whitespaces: bool,
    pub escape_whitespaces: bool,
}

/// Why a file is no `ModelProto`.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProtoError {
    #[error("not a SentencePiece model: {0}")]
    Wire(#[from] WireError),
    #[error("not a SentencePiece model: {0}")]
    Shape(&'static str),
}

impl ModelProto {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, ProtoError> {
        let mut model = Self {
            pieces: Vec::new(),
            trainer: TrainerSpec::parse(&[])?,
            normalizer: NormalizerSpec::parse(&[])?,
            denormalizes: false,
        };
        for field in Fields(bytes) {
            match field? {
                (1, value) => model.pieces.push(Piece::parse(message(value)?)?),
                (2, value) => model.trainer = TrainerSpec::parse(message(value)?)?,
                (3, value) => model.normalizer = NormalizerSpec::parse(message(value)?)?,
                (5, value) => {
                    let denormalizer = NormalizerSpec::parse(message(value)?)?;
                    model.denormalizes = !denormalizer.precompiled_charsmap.is_empty();
                }
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(ProtoError::Shape("it has no pieces"));
        }
        Ok(model)
    }

    /// The piece of an id as the trainer's specification gives it.
    pub(super) fn named(&self, id: i64) -> Option<&str> {
        let piece = self.pieces.get(usize::try_from(id).ok()?)?;
        Some(&piece.text)
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, ProtoError> {
        let mut piece = Self {
            text: String::new(),
            score: 0.0,
            kind: PieceKind::Normal,
        };
        for field in Fields(bytes) {
            match field? {
                (1, value) => {
                    piece.text = str::from_utf8(message(value)?)
                        .map_err(|_| ProtoError::Shape("a piece is not UTF-8"))?
                        .to_owned();
                }
                (2, Wire::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Wire::Varint(kind)) => piece.kind = PieceKind::parse(kind)?,
                _ => {}
            }
        }
        if !piece.score.is_finite() {
            return Err(ProtoError::Shape("a piece's score is no number"));
        }
        Ok(piece)
    }
}

impl PieceKind {
    fn parse(number: u64) -> Result<Self, ProtoError> {
        Ok(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return Err(ProtoError::Shape("a piece is of an unknown type")),
        })
    }
}

impl TrainerSpec {
    fn parse(bytes: &[u8]) -> Result<Self, ProtoError> {
        let mut spec = Self {
            algorithm: Algorithm::Unigram,
            treat_whitespace_as_suffix: false,
            byte_fallback: false,
            unk_id: 0,
            bos_id: 1,
            eos_id: 2,
        };
        for field in Fields(bytes) {
            match field? {
                (3, Wire::Varint(number)) => {
                    spec.algorithm = match number {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => Algorithm::Word,
                        4 => Algorithm::Char,
                        _ => return Err(ProtoError::Shape("its model_type is unknown")),
                    }
                }
                (24, Wire::Varint(flag)) => spec.treat_whitespace_as_suffix = flag != 0,
                (35, Wire::Varint(flag)) => spec.byte_fallback = flag != 0,
                (40, Wire::Varint(id)) => spec.unk_id = id.cast_signed(),
                (41, Wire::Varint(id)) => spec.bos_id = id.cast_signed(),
                (42, Wire::Varint(id)) => spec.eos_id = id.cast_signed(),
                _ => {}
            }
        }
        Ok(spec)
    }
}

impl NormalizerSpec {
    fn parse(bytes: &[u8]) -> Result<Self, ProtoError> {
        let mut spec = Self {
            precompiled_charsmap: Vec::new(),
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
        };
        for field in Fields(bytes) {
            match field? {
                (2, value) => spec.precompiled_charsmap = message(value)?.to_vec(),
                (3, Wire::Varint(flag)) => spec.add_dummy_prefix = flag != 0,
                (4, Wire::Varint(flag)) => spec.remove_extra_whitespaces = flag != 0,
                (5, Wire::Varint(flag)) => spec.escape_whitespaces = flag != 0,
                _ => {}
            }
        }
        Ok(spec)
    }
}

fn message(value: Wire<'_>) -> Result<&[u8], ProtoError> {
    match value {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(ProtoError::Shape("a field is of another wire type")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_leaves_out_has_the_formats_defaults() {
        // One piece "a" with no score and no type.
        let model = ModelProto::parse(&[0x0a, 3, 0x0a, 1, b'a']).unwrap();
        assert_eq!(model.pieces[0].kind, PieceKind::Normal);
        assert_eq!(model.trainer.algorithm, Algorithm::Unigram);
        assert_eq!((model.trainer.unk_id, model.trainer.bos_id), (0, 1));
        assert!(model.normalizer.add_dummy_prefix && model.normalizer.remove_extra_whitespaces);
        assert_eq!(
            (model.named(0), model.named(1), model.named(-1)),
            (Some("a"), None, None)
        );
    }

    #[test]
    fn negative_ids_are_read() {
        // trainer_spec { bos_id: -1 }, written as ten bytes.
        let mut bytes = vec![0x0a, 3, 0x0a, 1, b'a', 0x12, 12, 0xc8, 0x02];
        bytes.extend([0xff; 9]);
        bytes.push(1);
        assert_eq!(ModelProto::parse(&bytes).unwrap().trainer.bos_id, -1);
    }

    #[test]
    fn other_files_are_refused() {
        let error = |bytes: &[u8]| ModelProto::parse(bytes).unwrap_err().to_string();
        assert!(error(b"").contains("no pieces"));
        assert!(error(b"IQ== 0\nIg== 1\n").contains("not a SentencePiece model"));
        assert!(error(&[0x0a, 3, 0x0a, 1, 0xff]).contains("UTF-8"));
        assert!(error(&[0x0a, 2, 0x18, 9]).contains("unknown type"));
        assert!(error(&[0x08, 1]).contains("wire type"));
    }
}
