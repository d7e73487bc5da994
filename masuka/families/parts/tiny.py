"""What random-weights checkpoints for tests are made of: seeds, encoders, a VAE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_PRINTABLE = [chr(code) for code in range(33, 127)]


def clip(max_tokens: int = 32) -> dict[str, Any]:
    """A CLIP text encoder, 32 wide, and its tokenizer: ASCII, a token a character."""
    from transformers import CLIPTextModel

    return _clip(CLIPTextModel, max_tokens)


def projecting_clip(max_tokens: int = 32) -> dict[str, Any]:
    """The same with a projection of what is pooled, which it gives first."""
    from transformers import CLIPTextModelWithProjection

    return _clip(CLIPTextModelWithProjection, max_tokens)


def _clip(kind: Any, max_tokens: int) -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *_PRINTABLE, *(f"{c}</w>" for c in _PRINTABLE)]
    vocabulary = {word: number for number, word in enumerate(words)}
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=max_tokens, projection_dim=32,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=max_tokens)
    return {"tokenizer": tokenizer, "text_encoder": kind(config)}


def t5(max_tokens: int = 24, width: int = 32) -> dict[str, Any]:
    """A T5 encoder and its tokenizer: printable ASCII, a token a character."""
    from transformers import T5Config, T5EncoderModel, T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(character, -3.0) for character in _PRINTABLE]
    config = T5Config(vocab_size=len(pieces), d_model=width, d_kv=16, d_ff=64, num_layers=2, num_heads=2)
    tokenizer = T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=max_tokens)
    return {"tokenizer_2": tokenizer, "text_encoder_2": T5EncoderModel(config)}


def autoencoder(**changes: Any) -> Any:
    """An f8 AutoencoderKL with 4 latent channels; `changes` are to its configuration."""
    from diffusers import AutoencoderKL

    config: dict[str, Any] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (8, 8, 16, 16), "layers_per_block": 1, "latent_channels": 4,
        "norm_num_groups": 4, "scaling_factor": 0.9, "shift_factor": 0.1, "sample_size": 64,
        "use_quant_conv": False, "use_post_quant_conv": False, "mid_block_add_attention": False,
    }  # fmt: skip
    return AutoencoderKL(**config | changes)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within it torch draws from this seed; afterwards as if nothing had been."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
