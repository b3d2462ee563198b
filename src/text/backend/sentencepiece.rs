//! A `tokenizer.model` of SentencePiece as a tokenizer of the library.
//!
//! The parts are those of transformers' `LlamaTokenizer` for BPE and of its `SpmConverter` for unigram
//! models, chosen by what the model itself says about spaces and normalization. Where transformers takes
//! a guess by the class (a model type that it maps to `TokenizersBackend` loses its leading space), the
//! file decides.

use std::collections::HashSet;

use serde_json::json;
use tokenizers::models::ModelWrapper;
use tokenizers::models::bpe::{BPE, Merges};
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{NormalizerWrapper, Precompiled, Sequence};

use super::model_proto::{Algorithm, ModelProto, Piece, PieceKind};
use super::{TokenizerConfig, llama, part};

/// The names that the model's own tokens go by.
pub(super) fn named_tokens(model: &ModelProto) -> Vec<(&'static str, String)> {
    let trainer = &model.trainer;
    [
        ("unk_token", trainer.unk_id),
        ("bos_token", trainer.bos_id),
        ("eos_token", trainer.eos_id),
    ]
    .into_iter()
    .filter_map(|(name, id)| Some((name, model.named(id)?.to_owned())))
    .collect()
}

/// Builds the tokenizer.
///
/// # Errors
/// What of the model cannot be done, in words.
pub(super) fn build(
    mut model: ModelProto,
    config: &TokenizerConfig,
) -> Result<tokenizers::Tokenizer, String> {
    check(&model)?;
    rename_placeholders(&mut model.pieces, config);
    let prefix = llama::prefix(config, model.normalizer.add_dummy_prefix);
    let algorithm = match model.trainer.algorithm {
        Algorithm::Bpe => ModelWrapper::from(bpe(&model)?),
        _ => ModelWrapper::from(unigram(&model)?),
    };
    let mut tokenizer = tokenizers::Tokenizer::new(algorithm);
    llama::surround(&mut tokenizer, normalizer(&model, prefix)?, config, prefix)?;
    let added = model.pieces.iter().filter_map(|piece| {
        let special = match piece.kind {
            PieceKind::Control => true,
            PieceKind::UserDefined => false,
            _ => return None,
        };
        Some(tokenizers::AddedToken::from(piece.text.clone(), special).normalized(false))
    });
    tokenizer
        .add_tokens(added)
        .map_err(|error| error.to_string())?;
    Ok(tokenizer)
}

fn check(model: &ModelProto) -> Result<(), String> {
    let unsupported = match model.trainer.algorithm {
        Algorithm::Word => Some("a model of words"),
        Algorithm::Char => Some("a model of characters"),
        Algorithm::Bpe | Algorithm::Unigram => None,
    }
    .or_else(|| {
        [
            (
                model.trainer.treat_whitespace_as_suffix,
                "treat_whitespace_as_suffix",
            ),
            (
                !model.normalizer.escape_whitespaces,
                "escape_whitespaces = false",
            ),
            (model.denormalizes, "a denormalizer"),
        ]
        .into_iter()
        .find_map(|(found, what)| found.then_some(what))
    });
    match unsupported {
        Some(what) => Err(format!("{what} is not supported")),
        None => Ok(()),
    }
}

/// `added_tokens_decoder` may say what a reserved piece has become since the model was trained.
fn rename_placeholders(pieces: &mut [Piece], config: &TokenizerConfig) {
    let mut known: HashSet<String> = pieces.iter().map(|piece| piece.text.clone()).collect();
    for listed in config.added_tokens() {
        let content = &listed.token.content;
        if let Some(piece) = pieces.get_mut(listed.id as usize)
            && known.insert(content.clone())
        {
            piece.text.clone_from(content);
        }
    }
}

fn bpe(model: &ModelProto) -> Result<BPE, String> {
    let vocab: tokenizers::models::bpe::Vocab = (0..)
        .zip(&model.pieces)
        .map(|(id, piece)| (piece.text.clone(), id))
        .collect();
    let mut builder = BPE::builder()
        .vocab_and_merges(vocab, merges(&model.pieces))
        .fuse_unk(true)
        .byte_fallback(model.trainer.byte_fallback);
    if let Some(unknown) = model.named(model.trainer.unk_id) {
        builder = builder.unk_token(unknown.to_owned());
    }
    builder.build().map_err(|error| error.to_string())
}

/// The pairs that make up each piece, the best-scored first: SentencePiece merges what gives the piece
/// of the highest score, the library what comes first in a list.
fn merges(pieces: &[Piece]) -> Merges {
    let mergeable =
        |piece: &Piece| matches!(piece.kind, PieceKind::Normal | PieceKind::UserDefined);
    let mut ranked: Vec<&Piece> = pieces.iter().filter(|piece| mergeable(piece)).collect();
    let known: HashSet<&str> = ranked.iter().map(|piece| piece.text.as_str()).collect();
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score));
    let pairs = |piece: &'_ Piece| {
        piece
            .text
            .char_indices()
            .skip(1)
            .map(|(at, _)| piece.text.split_at(at))
            .filter(|(left, right)| known.contains(left) && known.contains(right))
            .map(|(left, right)| (left.to_owned(), right.to_owned()))
            .collect::<Vec<_>>()
    };
    ranked.into_iter().flat_map(pairs).collect()
}

/// Scores are what SentencePiece takes them for: a user's symbol is always taken, and what is no piece
/// of text (control tokens, bytes) never is.
fn unigram(model: &ModelProto) -> Result<Unigram, String> {
    let normal = || {
        let pieces = model.pieces.iter();
        pieces
            .filter(|piece| piece.kind == PieceKind::Normal)
            .map(|piece| f64::from(piece.score))
    };
    let best = normal().fold(f64::NEG_INFINITY, f64::max);
    let worst = normal().fold(f64::INFINITY, f64::min);
    let score = |piece: &Piece| match piece.kind {
        PieceKind::Normal => f64::from(piece.score),
        PieceKind::UserDefined if best.is_finite() => piece.text.len() as f64 * best - 0.1,
        PieceKind::UserDefined => 0.0,
        _ => f64::NEG_INFINITY,
    };
    let vocab = model
        .pieces
        .iter()
        .map(|piece| (piece.text.clone(), score(piece)))
        .collect();
    let unknown = usize::try_from(model.trainer.unk_id).map_err(|_| "it has no unknown token")?;
    let mut unigram = Unigram::from(vocab, Some(unknown), model.trainer.byte_fallback)
        .map_err(|error| error.to_string())?;
    // An unknown character costs so much more than the worst piece.
    unigram.min_score = if worst.is_finite() { worst } else { 0.0 };
    Ok(unigram)
}

fn normalizer(model: &ModelProto, prefix: bool) -> Result<Option<NormalizerWrapper>, String> {
    let spec = &model.normalizer;
    let mut steps = Vec::new();
    if !spec.precompiled_charsmap.is_empty() {
        let rules = Precompiled::from(&spec.precompiled_charsmap)
            .map_err(|error| format!("precompiled_charsmap: {error:?}"))?;
        steps.push(NormalizerWrapper::from(rules));
    }
    if spec.remove_extra_whitespaces {
        let replace = |pattern: &str, content: &str| {
            part(json!({"type": "Replace", "pattern": {"Regex": pattern}, "content": content}))
        };
        steps.push(replace(" +\\z", "")?);
        // Where there is a prefix, it is what leading spaces come to.
        steps.push(replace("\\A +", if prefix { " " } else { "" })?);
        steps.push(replace(" {2,}", " ")?);
    }
    Ok((!steps.is_empty()).then(|| Sequence::new(steps).into()))
}
