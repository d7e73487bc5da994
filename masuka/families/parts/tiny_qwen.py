"""Random Qwen text encoders for tests, a few kB each, and their tokenizer, made on the spot."""

from __future__ import annotations

from typing import Any

WIDTH = 16
_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")  # fmt: skip
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_WORDS = 256 + len(_SPECIAL)


def tokenizer(max_tokens: int) -> Any:
    """Qwen's byte-level tokenizer with no merges: a token a byte."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2TokenizerFast

    words = [*sorted(ByteLevel.alphabet()), *_SPECIAL]
    made = Qwen2TokenizerFast(
        vocab={word: number for number, word in enumerate(words)}, merges=[], model_max_length=max_tokens,
        additional_special_tokens=list(_SPECIAL[1:]), padding_side="right",
    )  # fmt: skip
    made.chat_template = _TEMPLATE
    return made


def _text(layers: int) -> dict[str, Any]:
    return {
        "vocab_size": _WORDS, "hidden_size": WIDTH, "intermediate_size": 24, "num_hidden_layers": layers,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 2048,
        "bos_token_id": 256, "eos_token_id": 258, "pad_token_id": 256, "tie_word_embeddings": True,
    }  # fmt: skip


def qwen3(layers: int) -> Any:
    """A Qwen3 language model, 16 wide."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**_text(layers)))


def qwen25_vl(layers: int) -> Any:
    """A Qwen2.5-VL with one vision block, 16 wide."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    text = {**_text(layers), "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]}}
    text.pop("head_dim")
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": WIDTH,
        "patch_size": 14, "fullatt_block_indexes": [0],
    }  # fmt: skip
    config = Qwen2_5_VLConfig(text_config=text, vision_config=vision, **_tokens())
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl(layers: int) -> Any:
    """A Qwen3-VL with one vision block, 16 wide."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10_000.0}
    vision = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 24, "num_heads": 2, "out_hidden_size": WIDTH,
        "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    config = Qwen3VLConfig(text_config={**_text(layers), "rope_parameters": rope}, vision_config=vision, **_tokens())
    return Qwen3VLForConditionalGeneration(config)


def _tokens() -> dict[str, Any]:
    numbers = {word: 256 + number for number, word in enumerate(_SPECIAL)}
    return {
        "vision_start_token_id": numbers["<|vision_start|>"], "vision_end_token_id": numbers["<|vision_end|>"],
        "image_token_id": numbers["<|image_pad|>"], "video_token_id": numbers["<|video_pad|>"],
        "tie_word_embeddings": True,
    }  # fmt: skip


def autoencoder() -> Any:
    """The f8 autoencoder of Qwen-Image with 4 latent channels."""
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage(
        base_dim=4, z_dim=4, dim_mult=[1, 1, 2, 2], num_res_blocks=1,
        latents_mean=[-0.3, 0.1, 0.2, 0.4], latents_std=[1.2, 0.8, 1.5, 0.9],
    )  # fmt: skip
