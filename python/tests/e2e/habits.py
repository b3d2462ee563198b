"""Models that write what they were shown, token by token: calls in any format, and the wrong ones too.

Each is a checkpoint of a real architecture whose layers add nothing: a token's embedding alone decides
what may follow it, which is what followed it in the texts it was shown. Hot enough, it strays.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx.utils import tree_map_with_path
from mlx_lm.utils import _get_classes, save_config, save_model
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

TINY = Path(__file__).parents[3] / "tiny-model" / "mlxcel-tiny"
WIDTH = 256
# The logit of what followed; of what never did it is about 0.
SURE = 9.0
SILENT = ("o_proj.weight", "o_proj.bias", "down_proj.weight", "down_proj.bias")

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "num_hidden_layers": 1,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
GPT_OSS: dict[str, Any] = {
    "model_type": "gpt_oss",
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 64,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_theta": 150000,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}


def write(
    folder: Path,
    architecture: dict[str, Any],
    special: Sequence[str],
    pieces: Sequence[str],
    template: str,
    texts: Sequence[str],
    stops: Sequence[str],
) -> Path:
    """A model that continues a prompt as `texts` do, each of which begins with the prompt's end.

    `special` and `pieces` are tokens beside those of the built-in model's tokenizer. A piece that is found
    in one place only leads to what follows it there.
    """
    tokenizer = Tokenizer.from_file(str(TINY / "tokenizer.json"))
    tokenizer.add_special_tokens(list(special))
    tokenizer.add_tokens(list(pieces))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "chat_template.jinja").write_text(template)
    ends = [tokenizer.token_to_id(stop) for stop in stops]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    size = tokenizer.get_vocab_size()
    follows = {pair for text in texts for pair in pairwise(tokenizer.encode(text).ids)}
    config = architecture | {"vocab_size": size}
    mx.random.seed(1)
    signs = mx.where(mx.random.uniform(shape=(size, WIDTH)) < 0.5, -1.0, 1.0)
    rows = [
        sum((signs[before] for before, after in follows if after == token), mx.zeros(WIDTH))
        for token in range(size)
    ]
    head = mx.stack(rows) * (SURE / WIDTH)
    model_class, args_class = _get_classes(config)
    model: Any = model_class(args_class.from_dict(json.loads(json.dumps(config))))

    def weight(name: str, value: mx.array) -> mx.array:
        if name.endswith(SILENT):
            return mx.zeros_like(value)
        return {"model.embed_tokens.weight": signs, "lm_head.weight": head}.get(name, value)

    model.update(tree_map_with_path(weight, model.parameters()))
    save_model(folder, model)
    save_config(config, folder / "config.json")
    return folder
