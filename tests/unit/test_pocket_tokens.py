"""Every text tokenises: known words whole, everything else by its letters."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizerFast, T5TokenizerFast

from masuka.pocket import tokens, world
from masuka.pocket.drawn import scenes_of

BUILT = {"t5": tokens.t5_tokenizer(), "clip": tokens.clip_tokenizer()}


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_a_known_word_is_one_token(kind: str) -> None:
    tokenizer = BUILT[kind]
    text = "a surprised orange triangle spotted robot wearing a party hat and no bow tie in a meadow"
    assert len(tokenizer(text, add_special_tokens=False).input_ids) == len(text.split())


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_different_trigger_words_have_different_tokens_and_none_is_unknown(kind: str) -> None:
    tokenizer = BUILT[kind]
    words = ["mira7x", "mira7y", "Mira7x", "xariM", "bolt", "Zoë", "sks", "ohwx"]
    sequences = [tuple(tokenizer(w, add_special_tokens=False).input_ids) for w in words]
    if kind == "clip":  # reads without regard to capitals, as OpenAI's does
        assert sequences.pop(2) == sequences[0]
    assert len(set(sequences)) == len(sequences)
    unknown = BUILT["t5"].unk_token_id if kind == "t5" else tokenizer.eos_token_id
    assert all(sequence and unknown not in sequence for sequence in sequences)


def test_a_sign_of_another_script_is_unknown_to_t5_and_bytes_to_clip() -> None:
    assert BUILT["t5"].unk_token_id in BUILT["t5"]("日本").input_ids
    assert BUILT["clip"]("日").input_ids != BUILT["clip"]("本").input_ids


@pytest.mark.parametrize("kind", ["t5", "clip"])
def test_captions_fit_the_text_length(kind: str) -> None:
    rng = random.Random(6)
    texts = [world.canonical_prompt(scene) for scene in scenes_of("held out", 200)]
    texts += [caption.format(trigger="mira7x") for _, caption in world.character_set(3, 5)]
    texts += [world.caption(scene, rng) for scene in scenes_of("known", 300)]
    lengths = sorted(len(BUILT[kind](text).input_ids) for text in texts)
    assert lengths[int(len(lengths) * 0.97)] <= tokens.TEXT_TOKENS


@pytest.mark.parametrize(("kind", "loader"), [("t5", T5TokenizerFast), ("clip", CLIPTokenizerFast)])
def test_a_saved_tokenizer_reads_as_before(tmp_path: Path, kind: str, loader: type) -> None:
    BUILT[kind].save_pretrained(tmp_path)
    again = loader.from_pretrained(tmp_path, local_files_only=True)
    text = "Mira7x, an angry robot. With a top hat!"
    assert again(text).input_ids == BUILT[kind](text).input_ids
    assert again.model_max_length == tokens.TEXT_TOKENS
