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
