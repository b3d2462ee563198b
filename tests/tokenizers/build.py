"""Writes the small tokenizers of the tests, and what transformers makes of texts with them.

Run in the development environment: python tests/tokenizers/build.py
The families that matter for decoding: GPT-2's byte-level BPE, SentencePiece-style BPE with byte
fallback (Llama 2), Unigram with a metaspace decoder (T5), and one without any decoder; those from before
`tokenizer.json`: a `tokenizer.model` of SentencePiece, and `vocab.json` with `merges.txt`.
"""

import json
from pathlib import Path

import sentencepiece
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer

HERE = Path(__file__).parent

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    '{"name": "Ada", "age": 36, "tags": ["math", "engine"], "ok": true, "none": null}',
    "Numbers: 0 1 2 3.14 42 1000 -7 6e23; code: fn main() { let x = 1; }",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Le cœur déçu mais l'âme plutôt naïve, où êtes-vous ?",
    "日本語の文章と中文的句子。",
    "Привет, мир! Γειά σου Κόσμε!",
]

TEXTS = [
    "Hello world",
    "  two spaces  and\n\na tab\t.",
    "naïve café über 日本語 Привет",
    "emoji 👩‍👩‍👧 🇩🇪 ok",
    "<|end|> in a text <tool_call>{}",
    "",
    " ",
    "\u0000\u001f\u007f",
]


def byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|bos|>", "<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    return tokenizer


def byte_fallback() -> Tokenizer:
    """The shape that Llama 2's tokenizer.json has."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<unk>", "<s>", "<|end|>", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS[:5], trainer)
    built = json.loads(tokenizer.to_str())
    # Byte tokens are ordinary members of the vocabulary.
    built["added_tokens"] = [t for t in built["added_tokens"] if not t["content"].startswith("<0x")]
    tokenizer = Tokenizer.from_str(json.dumps(built))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    return tokenizer


def metaspace() -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=220,
        special_tokens=["<unk>", "<|end|>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def no_decoder() -> Tokenizer:
    words = sorted({word for line in CORPUS[:2] for word in line.split()})
    vocabulary = {word: index for index, word in enumerate(["<unk>", "<|end|>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(["<|end|>"])
    return tokenizer


def write_json(folder: Path, tokenizer: Tokenizer) -> None:
    """As `tokenizer.json`."""
    tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False)])
    # A leftover of training that must not cut prompts.
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
        "clean_up_tokenization_spaces": False,
    }
    for bos in ("<|bos|>", "<s>"):
        if tokenizer.token_to_id(bos) is not None:
            config["bos_token"] = bos
    write_config(folder, config)


def write_sentencepiece(folder: Path) -> None:
    """As Llama 2 was trained."""
    with (folder / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=file,
            model_type="bpe",
            vocab_size=420,
            byte_fallback=True,
            split_digits=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            character_coverage=0.98,
            control_symbols=["<|end|>"],
            user_defined_symbols=["<tool_call>"],
            minloglevel=2,
        )
    write_config(folder, {"tokenizer_class": "LlamaTokenizer", "eos_token": "<|end|>", "add_bos_token": True})


def write_vocab_merges(folder: Path) -> None:
    """As Qwen2 ships it, too."""
    tokenizer = byte_level()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    built = json.loads(tokenizer.to_str())
    vocab = built["model"]["vocab"] | {"<|endoftext|>": tokenizer.token_to_id("<|endoftext|>")}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False, indent=0) + "\n")
    merges = [" ".join(pair) for pair in built["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")
    added = {str(len(vocab)): {"content": "<tool_call>", "normalized": False, "special": False}}
    write_config(
        folder,
        {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|end|>", "added_tokens_decoder": added},
    )


def write_config(folder: Path, config: dict) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_expected(folder: Path) -> None:
    """What transformers makes of the texts."""
    reference = AutoTokenizer.from_pretrained(folder)
    cases = []
    for text in TEXTS:
        ids = reference(text, truncation=False)["input_ids"]
        bare = reference(text, truncation=False, add_special_tokens=False)["input_ids"]
        cases.append(
            {
                "text": text,
                "ids": ids,
                "bare": bare,
                "decoded": reference.decode(ids),
                "shown": reference.decode(ids, skip_special_tokens=True),
            }
        )
    path = folder / "expected.json"
    path.write_text(json.dumps(cases, ensure_ascii=False, indent=1) + "\n")


def main() -> None:
    families = {
        "byte-level": lambda folder: write_json(folder, byte_level()),
        "byte-fallback": lambda folder: write_json(folder, byte_fallback()),
        "metaspace": lambda folder: write_json(folder, metaspace()),
        "no-decoder": lambda folder: write_json(folder, no_decoder()),
        "sentencepiece": write_sentencepiece,
        "vocab-merges": write_vocab_merges,
    }
    for name, write in families.items():
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        write(folder)
        write_expected(folder)


if __name__ == "__main__":
    main()
