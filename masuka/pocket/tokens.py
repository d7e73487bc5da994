"""Builds Pocket's two tokenizers from its own word list, with a fallback to letters.

Any text tokenises: known words are one token each, everything else (a trigger
word, a name) becomes its letters, so that no two spellings share a sequence.
"""

from __future__ import annotations

import string
from typing import Any

from tokenizers import Tokenizer, models, trainers
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizerFast, T5TokenizerFast

from masuka.pocket.words import vocabulary

TEXT_TOKENS = 32
_CLIP_WORDS = 800
_LETTERS = (
    string.ascii_letters
    + string.digits
    + string.punctuation
    + "".join(chr(c) for c in range(0xC0, 0x180))  # Latin with accents
    + "".join(chr(c) for c in range(0x391, 0x3CA))  # Greek
    + "".join(chr(c) for c in range(0x410, 0x452))  # Cyrillic
    + "’‘“”–—…"
)


def t5_tokenizer() -> Any:
    """A T5TokenizerFast whose pieces are Pocketworld's words and single letters."""
    words = [w for w in vocabulary() if w[0].isalpha()]
    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -4.0)]
    pieces += [(f"▁{word}", -2.0) for word in words]
    pieces += [(f"▁{word.capitalize()}", -2.0) for word in words]
    pieces += [(letter, -8.0) for letter in dict.fromkeys(_LETTERS)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0, model_max_length=TEXT_TOKENS)


def clip_tokenizer() -> Any:
    """A CLIPTokenizerFast with byte-level pairs learnt from the same words."""
    specials = ["<|startoftext|>", "<|endoftext|>"]
    learner = Tokenizer(models.BPE(unk_token=specials[1], end_of_word_suffix="</w>"))
    learner.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=_CLIP_WORDS + 512,
        special_tokens=specials,
        initial_alphabet=ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator([w for w in vocabulary() for _ in range(2)], trainer)
    vocab = dict(learner.get_vocab())
    for letter in sorted(ByteLevel.alphabet()):
        vocab.setdefault(letter, len(vocab))
        vocab.setdefault(f"{letter}</w>", len(vocab))
    merges = [tuple(pair) for pair in _merges_of(learner)]
    return CLIPTokenizerFast(vocab=vocab, merges=merges, model_max_length=TEXT_TOKENS)


def _merges_of(learner: Tokenizer) -> list[Any]:
    import json

    merges: list[Any] = json.loads(learner.to_str())["model"]["merges"]
    return merges
