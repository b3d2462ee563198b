"""Other configurations of an architecture than the one that its family states: other shapes, other values,
other packings, all of them such as published checkpoints could have, drawn by a seed.

What a family does not state is not varied, apart from `MORE`.
"""

from __future__ import annotations

import copy
import importlib
import random
from typing import TYPE_CHECKING, Any

from checkpoints import Family, saved_by_transformers
from packings import drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from checkpoints import Config, Recipe

    Vary = Callable[[random.Random, Config], None]

EPS = (1e-6, 1e-5, 1e-3)
FACTORS = (0.3, 1.0, 1.7)
WINDOWS = (5, 33, 96, 128, 256, 257, 600)
# Wherever a family states them.
CHOICES: dict[str, Sequence[Any]] = {
    "attention_bias": (False, True),
    "attention_multiplier": (0.0625, 0.2),
    "bias": (False, True),
    "attn_logit_softcapping": (8.0, 50.0),
    "conv_L_cache": (2, 3, 4),
    "conv_bias": (False, True),
    "conv_kernel": (2, 3, 4),
    "embedding_multiplier": (0.5, 2.0),
    "final_logit_softcapping": (5.0, 30.0),
    "intermediate_size": (32, 64, 96, 160, 192, 256, 320),
    "layer_norm_bias": (False, True),
    "layer_norm_eps": EPS,
    "layer_norm_epsilon": EPS,
    "linear_conv_kernel_dim": (2, 4),
    "logit_scale": (0.0625, 1.0),
    "logits_scaling": (0.5, 1.0, 3.0),
    "mamba_conv_bias": (False, True),
    "mamba_d_conv": (2, 4),
    "mamba_d_state": (16, 24, 40),
    "mlp_bias": (False, True),
    "moe_intermediate_size": (32, 48, 64, 128),
    "norm_eps": EPS,
    "norm_epsilon": EPS,
    "norm_topk_prob": (False, True),
    "num_hidden_layers": (1, 2, 3, 5),
    "qk_layernorm": (False, True),
    "qkv_bias": (False, True),
    "query_pre_attn_scalar": (16, 100.0),
    "residual_multiplier": (0.22, 1.0),
    "rms_norm_eps": EPS,
    "rope_local_base_freq": (500, 10000.0),
    "rope_theta": (500.0, 10000, 500000.0, 1e7),
    "routed_scaling_factor": FACTORS,
    "shared_expert_intermediate_size": (32, 96, 128),
    "shared_intermediate_size": (32, 96, 128),
    "sliding_window": WINDOWS,
    "ssm_state_size": (16, 24, 40),
    "state_size": (16, 24, 40),
    "tie_word_embeddings": (False, True),
    "use_bias": (False, True),
    "use_conv_bias": (False, True),
    "use_expert_bias": (False, True),
    "use_parallel_residual": (False, True),
    "use_qk_norm": (False, True),
    "use_qkv_bias": (False, True),
    "v_head_dim": (16, 24, 64),
    "vocab_size": (101, 257, 512, 1003),
}
# Which mlx-lm leaves out: where `config.json` states it, the server does as transformers does.
TIED = ("tie_word_embeddings",)
FIXED: dict[str, tuple[str, ...]] = {
    "deepseek_v2": ("norm_topk_prob", *TIED),
    "deepseek_v3": TIED,
    "gemma2": ("sliding_window",),
    "glm4": TIED,
    "glm4_moe": TIED,
    "glm4_moe_lite": ("rms_norm_eps", *TIED),
    "gpt_oss": TIED,
    "mamba2": ("layer_norm_epsilon",),
    "minicpm": TIED,
    "minimax_m2": ("shared_intermediate_size",),
    "nemotron_h": TIED,
    "qwen2_moe": TIED,
    "qwen3_vl_moe": TIED,
    "seed_oss": TIED,
}
# What a family may state but does not.
MORE: dict[str, dict[str, Sequence[Any]]] = {
    "cohere": {
        "use_qk_norm": (False, True),
        "attention_bias": (False, True),
        "layer_norm_bias": (False, True),
    },
    "cohere2": {"attention_bias": (False, True), "layer_norm_bias": (False, True)},
    "exaone4": {"sliding_window_pattern": ("LG", "LLG", "LLLG", "LGL")},
    "granitemoehybrid": {"position_embedding_type": ("rope", "nope")},
    "internlm3": {"bias": (False, True), "rope_traditional": (False, True)},
    "llama": {
        "attention_bias": (False, True),
        "mlp_bias": (False, True),
        "rope_traditional": (False, True),
        "model_type": ("llama", "mistral"),
    },
    "olmo2": {"attention_bias": (False, True), "mlp_bias": (False, True)},
    "olmo3": {"attention_bias": (False, True)},
    "seed_oss": {"attention_out_bias": (False, True), "mlp_bias": (False, True)},
    "smollm3": {
        "no_rope_layer_interval": (1, 2, 4),
        "attention_bias": (False, True),
        "mlp_bias": (False, True),
    },
    "stablelm": {"qk_layernorm": (False, True), "use_parallel_residual": (False, True)},
    "starcoder2": {"hidden_act": ("gelu",)},
}
# Of which mlx-lm stretches positions as it is told.
SCALED = (
    *("exaone4", "gpt_oss", "granite", "granitemoe", "llama", "mimo", "minicpm"),
    *("olmo2", "olmo3", "olmoe", "qwen2", "qwen3", "seed_oss", "smollm3"),
)
KINDS = ("linear", "llama3", "yarn", "longrope", "default")


def variation(family: str, seed: int) -> tuple[Recipe, Config]:
    """A checkpoint of `family`, and the configuration of its language model."""
    module = importlib.import_module(f"families.{family}")
    draw = random.Random(f"{family}-{seed}")
    original: Family = module.FAMILY
    config = copy.deepcopy(original.config)
    text = config.get("text_config", config)
    name = text.get("model_type", family).removesuffix("_text") if text is not config else family
    name = {"gemma3": "gemma3_text", "gemma4": "gemma4_text"}.get(name, name)
    _vary(draw, text, name)
    if "vocab_size" in config:
        config["vocab_size"] = text["vocab_size"]
    varied = Family(config, original.draws, seed=seed + 1)
    return drawn(draw, varied, getattr(module, "layout", saved_by_transformers), text), text


def _vary(draw: random.Random, config: Config, family: str) -> None:
    for key, values in CHOICES.items():
        if config.get(key) is not None and key not in FIXED.get(family, ()) and draw.random() < 0.7:
            config[key] = draw.choice(values)
    for key, values in MORE.get(family, {}).items():
        if draw.random() < 0.5:
            config[key] = draw.choice(values)
    config.setdefault("vocab_size", 512)
    if "vocab_size_per_layer_input" in config:
        config["vocab_size_per_layer_input"] = config["vocab_size"]
    for vary in (_heads, _experts, _layers, _latent, _mamba, _delta):
        vary(draw, config)
    if family in SCALED and draw.random() < 0.6:
        _scaling(draw, config)
    if family == "phi3" and draw.random() < 0.6:
        config["partial_rotary_factor"] = 0.5 if _head_dim(config) % 4 == 0 else 1.0
        config["rope_scaling"] = _longrope(config) | {"type": "longrope"}


def _head_dim(config: Config) -> int:
    size: int = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return size


def _heads(draw: random.Random, config: Config) -> None:
    if "num_attention_heads" not in config:
        return
    heads = draw.choice((1, 2, 3, 4, 6, 8))
    config["num_attention_heads"] = heads
    if "num_key_value_heads" in config:
        every = [count for count in range(1, heads + 1) if heads % count == 0]
        config["num_key_value_heads"] = heads if "kv_lora_rank" in config else draw.choice(every)
    config["hidden_size"] = heads * draw.choice((16, 32, 48, 64, 80))
    if "block_dim" in config:
        config["block_dim"] = config["hidden_size"]
    if "head_dim" in config:
        config["head_dim"] = draw.choice((16, 32, 48, 64, 80, 96, 128))
    if "global_head_dim" in config:
        config["global_head_dim"] = draw.choice((32, 64, 96))
    if "rotary_dim" in config:
        config["rotary_dim"] = draw.choice((8, 16, config["head_dim"]))
    if config["model_type"] in ("cohere2", "helium"):
        # mlx-lm takes no other size.
        config["head_dim"] = config["hidden_size"] // heads
    parts = [part for part in (0.25, 0.5, 0.75, 1.0) if _head_dim(config) * part % 2 == 0]
    if "partial_rotary_factor" in config and "kv_lora_rank" not in config:
        config["partial_rotary_factor"] = draw.choice(parts)


def _experts(draw: random.Random, config: Config) -> None:
    for key in ("num_experts", "num_local_experts", "n_routed_experts"):
        if not config.get(key):
            continue
        count = draw.choice((2, 5, 8, 16))
        config[key] = count
        grouped = config.get("n_group") is not None
        groups = draw.choice([n for n in (1, 2, 4) if count % n == 0 and (n == 1 or count // n >= 2)])
        kept = draw.randint(1, groups)
        if grouped:
            config |= {"n_group": groups, "topk_group": kept}
        most = count // groups * kept if grouped else count
        config["num_experts_per_tok"] = draw.randint(1, min(most, 6))
    if config.get("n_shared_experts"):
        config["n_shared_experts"] = draw.choice((1, 2))


def _layers(draw: random.Random, config: Config) -> None:
    layers = config.get("num_hidden_layers", 0)
    if types := config.get("layer_types"):
        shared = config.get("num_kv_shared_layers")
        kinds = sorted(set(types))
        if shared is not None:
            layers = config["num_hidden_layers"] = max(layers, 3)
            shared = config["num_kv_shared_layers"] = draw.randint(0, layers - 2)
            own = [*kinds, *(draw.choice(kinds) for _ in range(layers))][: layers - shared]
            config["layer_types"] = own + [draw.choice(kinds) for _ in range(shared)]
        else:
            layers = config["num_hidden_layers"] = max(layers, len(kinds))
            every = [*kinds, *(draw.choice(kinds) for _ in range(layers))][:layers]
            config["layer_types"] = draw.sample(every, layers)
    if config["model_type"] == "olmo3":
        layers = config["num_hidden_layers"] = max(layers, 4)
    if "full_attn_idxs" in config:
        layers = config["num_hidden_layers"] = max(layers, 2)
        config["full_attn_idxs"] = sorted(draw.sample(range(layers), draw.randint(1, layers - 1)))
    if "hybrid_override_pattern" in config:
        pattern = "M" + "".join(draw.choice("M*-E") for _ in range(layers)) + "*"
        config |= {"hybrid_override_pattern": pattern, "num_hidden_layers": len(pattern)}
    if "mlp_only_layers" in config:
        config["mlp_only_layers"] = draw.sample(range(layers), draw.randint(0, layers - 1))
        config["decoder_sparse_step"] = draw.choice((1, 1, 2))
    for key in ("first_k_dense_replace", "num_dense_layers"):
        if key in config:
            config[key] = draw.randint(0, layers)
    if isinstance(word := config.get("sliding_window_pattern"), str):
        config["num_hidden_layers"] = max(layers, len(word))
    if "linear_num_key_heads" in config:
        config.setdefault("full_attention_interval", 4)
    for key in ("sliding_window_pattern", "full_attention_interval"):
        if isinstance(config.get(key), int):
            # mlx-lm wants a layer of both kinds.
            config[key] = draw.choice((2, 3, 4, 6))
            config["num_hidden_layers"] = max(layers, config[key])


def _latent(draw: random.Random, config: Config) -> None:
    if "kv_lora_rank" not in config:
        return
    config |= {
        "q_lora_rank": draw.choice((None, 32, 64, 96)),
        "kv_lora_rank": draw.choice((32, 64, 128)),
        "qk_nope_head_dim": draw.choice((16, 32, 64)),
        "qk_rope_head_dim": draw.choice((8, 16, 32)),
    }


def _mamba(draw: random.Random, config: Config) -> None:
    heads, groups = draw.choice(((2, 1), (4, 2), (6, 3), (8, 1), (8, 8)))
    size = draw.choice((16, 32, 64))
    if "mamba_n_heads" in config:
        config |= {"mamba_n_heads": heads, "mamba_d_head": size, "mamba_n_groups": groups}
    elif "mamba_num_heads" in config:
        config |= {"mamba_num_heads": heads, "mamba_head_dim": size, "n_groups": groups}
    elif config["model_type"] == "mamba2":
        config |= {"num_heads": heads, "head_dim": size, "n_groups": groups}
        config["intermediate_size"] = heads * size


def _delta(draw: random.Random, config: Config) -> None:
    if "linear_num_key_heads" in config:
        keys = draw.choice((1, 2, 4))
        config |= {
            "linear_num_key_heads": keys,
            "linear_num_value_heads": keys * draw.choice((1, 2, 4)),
            "linear_key_head_dim": draw.choice((16, 32, 64)),
            "linear_value_head_dim": draw.choice((16, 32, 64)),
        }


def _longrope(config: Config) -> Config:
    pairs = int(_head_dim(config) * config.get("partial_rotary_factor", 1.0)) // 2
    short, long = [1.0 + 0.01 * pair for pair in range(pairs)], [1.0 + 0.3 * pair for pair in range(pairs)]
    return {"short_factor": short, "long_factor": long}


def _scaling(draw: random.Random, config: Config) -> None:
    kind = draw.choice(KINDS)
    if kind == "longrope" and config["model_type"] == "gpt_oss":
        kind = "yarn"
    name = draw.choice(("type", "rope_type"))
    before = draw.choice((128, 512))
    config["rope_scaling"] = {
        name: kind,
        **{
            "default": {},
            "linear": {"factor": draw.choice((2, 8.0))},
            "llama3": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": draw.choice((2.0, 4.0))},
            "yarn": {"factor": 4.0, "beta_fast": draw.choice((16, 32.0)), "beta_slow": 1},
            "longrope": _longrope(config),
        }[kind],
    }
    if kind in ("llama3", "yarn", "longrope"):
        config["rope_scaling"]["original_max_position_embeddings"] = before
