"""The llama.cpp side of cpu_vs_peers.py: runs in an environment that has llama-cpp-python and gguf.

Makes a random model of the shape that its arguments give, then answers each line of stdin,
`decode N`, `prefill N` or `streams N` (sixteen sequences, N tokens each), with tokens a second.

    python llama_peer.py HIDDEN LAYERS HEADS KV_HEADS MLP VOCAB q4_0|q8_0|f32 THREADS
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np

import llama_cpp

CONTEXT = 4096
STREAMS = 16
TYPES = {
    "q4_0": gguf.GGMLQuantizationType.Q4_0,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "f32": gguf.GGMLQuantizationType.F32,
}


def write(path: Path, shape: list[int], kind: str) -> None:
    """A Llama of random weights, without a tokenizer."""
    hidden, layers, heads, kv_heads, mlp, vocab = shape
    generator = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(mlp)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("no_vocab")
    writer.add_vocab_size(vocab)

    def matrix(name: str, rows: int, columns: int) -> None:
        values = generator.standard_normal((rows, columns), dtype=np.float32) * 0.05
        packed = gguf.quants.quantize(values, TYPES[kind])
        writer.add_tensor(name, packed, raw_dtype=TYPES[kind])

    def ones(name: str) -> None:
        writer.add_tensor(name, np.ones(hidden, dtype=np.float32))

    kv = hidden // heads * kv_heads
    matrix("token_embd.weight", vocab, hidden)
    for layer in range(layers):
        block = f"blk.{layer}"
        ones(f"{block}.attn_norm.weight")
        matrix(f"{block}.attn_q.weight", hidden, hidden)
        matrix(f"{block}.attn_k.weight", kv, hidden)
        matrix(f"{block}.attn_v.weight", kv, hidden)
        matrix(f"{block}.attn_output.weight", hidden, hidden)
        ones(f"{block}.ffn_norm.weight")
        matrix(f"{block}.ffn_gate.weight", mlp, hidden)
        matrix(f"{block}.ffn_up.weight", mlp, hidden)
        matrix(f"{block}.ffn_down.weight", hidden, mlp)
    ones("output_norm.weight")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def measure(model: llama_cpp.Llama, what: str, count: int, vocab: int) -> float:
    """Tokens a second: of `count` one after the other behind a short prompt, or of a prompt of `count`."""
    tokens = [random.randrange(vocab) for _ in range(count + 16)]
    model.reset()
    if what == "decode":
        model.eval(tokens[:16])
    start = time.perf_counter()
    if what == "decode":
        for token in tokens[16:]:
            model.eval([token])
    else:
        model.eval(tokens[:count])
    return count / (time.perf_counter() - start)


def streams(model: llama_cpp.Llama, count: int, vocab: int, threads: int) -> float:
    """Tokens a second of as many sequences together, `count` one after the other in each."""
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = CONTEXT
    params.n_batch = params.n_ubatch = params.n_seq_max = STREAMS
    params.n_threads = params.n_threads_batch = threads
    context = llama_cpp.llama_init_from_model(model.model, params)
    if not context:
        raise SystemExit("llama.cpp gave no context")
    batch = llama_cpp.llama_batch_init(STREAMS, 0, 1)
    batch.n_tokens = STREAMS
    try:
        start = time.perf_counter()
        for position in range(count):
            for stream in range(STREAMS):
                batch.token[stream] = random.randrange(vocab)
                batch.pos[stream] = position
                batch.n_seq_id[stream] = 1
                batch.seq_id[stream][0] = stream
                batch.logits[stream] = 1
            if llama_cpp.llama_decode(context, batch) != 0:
                raise SystemExit("llama.cpp did not decode")
            llama_cpp.llama_synchronize(context)
        return STREAMS * count / (time.perf_counter() - start)
    finally:
        llama_cpp.llama_batch_free(batch)
        llama_cpp.llama_free(context)


def main() -> None:
    shape, kind, threads = [int(word) for word in sys.argv[1:7]], sys.argv[7], int(sys.argv[8])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.gguf"
        write(path, shape, kind)
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
            model = llama_cpp.Llama(
                str(path),
                n_ctx=CONTEXT,
                n_batch=512,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
            )
        print("ready", flush=True)
        for line in sys.stdin:
            what, count = line.split()
            if what == "streams":
                speed = streams(model, int(count), shape[-1], threads)
            else:
                speed = measure(model, what, int(count), shape[-1])
            print(speed, flush=True)


if __name__ == "__main__":
    main()
