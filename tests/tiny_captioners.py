"""Tiny random checkpoints of the real captioners' own classes, as their repositories are laid out."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    BartConfig,
    Blip2Config,
    Blip2ForConditionalGeneration,
    Florence2Config,
    Florence2ForConditionalGeneration,
    GPT2TokenizerFast,
    OPTConfig,
    Qwen2TokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    SiglipForImageClassification,
)
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from masuka.datasets.captions import tagger

_ENDS = ("<s>", "<pad>", "</s>", "<unk>")
TAGS = ("general", "1girl", "red_dress", "long_hair", "^_^", "mira_(series)", "outdoors")
CATEGORIES = (tagger.RATING, "0", "0", "0", "0", "4", "0")


def florence(folder: Path) -> Path:
    """Florence-2: a DaViT of four small stages and a BART of one layer."""
    words = _words(
        GPT2TokenizerFast, *_ENDS, "<image>", bos="<s>", eos="</s>", pad="<pad>", unk="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    vision = {
        "depths": [1, 1, 1, 1], "embed_dim": [8, 8, 8, 8], "num_heads": [1, 1, 1, 1],
        "num_groups": [1, 1, 1, 1], "window_size": 2, "projection_dim": 16,
    }  # fmt: skip
    text = BartConfig(
        vocab_size=len(words), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=200,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    config = Florence2Config(vision_config=vision, text_config=text, image_token_id=words.image_token_id)
    size = {"height": 64, "width": 64}
    eyes = CLIPImageProcessorPil(size=size, crop_size=size, image_seq_length=5)
    model = Florence2ForConditionalGeneration(config)
    model.generation_config.min_new_tokens = 5
    return _saved(folder, model, words, eyes)


def blip2(folder: Path) -> Path:
    """BLIP-2: a vision transformer, a Q-Former and an OPT, one layer each."""
    words = _words(GPT2TokenizerFast, *_ENDS, bos="</s>", eos="</s>", pad="<pad>", unk="</s>")
    words.add_tokens(["<image>"], special_tokens=True)
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28}  # fmt: skip
    former = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
              "encoder_hidden_size": 16, "vocab_size": 30}  # fmt: skip
    text = OPTConfig(
        vocab_size=len(words), hidden_size=16, word_embed_proj_dim=16, num_hidden_layers=1, ffn_dim=16,
        num_attention_heads=2, max_position_embeddings=200, bos_token_id=2, eos_token_id=2, pad_token_id=1,
    )  # fmt: skip
    config = Blip2Config(
        vision_config=vision, qformer_config=former, text_config=text, num_query_tokens=4,
        image_token_index=words.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    eyes = BlipImageProcessorPil(size={"height": 28, "width": 28})
    return _saved(folder, Blip2ForConditionalGeneration(config), words, eyes)


def qwen(folder: Path) -> Path:
    """Qwen3-VL: two layers of each tower."""
    marks = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
             "<|video_pad|>")  # fmt: skip
    words = _words(Qwen2TokenizerFast, *marks, eos="<|im_end|>", pad="<|endoftext|>", unk="<|endoftext|>")
    words.add_special_tokens({"additional_special_tokens": list(marks[1:])})
    number = words.convert_tokens_to_ids
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 16,
        "out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0],
    }  # fmt: skip
    text = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2],
                            "mrope_interleaved": True},
        "pad_token_id": number("<|endoftext|>"), "eos_token_id": number("<|im_end|>"),
        "bos_token_id": number("<|endoftext|>"),
    }  # fmt: skip
    config = Qwen3VLConfig(
        vision_config=vision, text_config=text, image_token_id=number("<|image_pad|>"),
        video_token_id=number("<|video_pad|>"), vision_start_token_id=number("<|vision_start|>"),
        vision_end_token_id=number("<|vision_end|>"),
    )  # fmt: skip
    eyes = Qwen2VLImageProcessorPil(patch_size=16, temporal_patch_size=2, merge_size=2)
    return _saved(folder, Qwen3VLForConditionalGeneration(config), words, eyes)


def wd_tagger(folder: Path) -> Path:
    """WD tagger: timm's names of weights, its config and its table of tags."""
    folder.mkdir(parents=True)
    args = {"img_size": 32, "class_token": False, "global_pool": "avg", "fc_norm": False, "act_layer": "gelu_tanh"}
    about = {"architecture": "vit_tiny_patch16_224", "num_classes": len(TAGS), "model_args": args}
    (folder / "config.json").write_text(json.dumps(about))
    state = SiglipForImageClassification(tagger.config_of(about)).state_dict()
    save_file(as_timm(state), folder / "model.safetensors")
    with (folder / "selected_tags.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["tag_id", "name", "category", "count"])
        writer.writerows([i, name, kind, 10] for i, (name, kind) in enumerate(zip(TAGS, CATEGORIES, strict=True)))
    return folder


def as_timm(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights as timm names and joins them."""
    names = {"layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj", "mlp.fc1": "mlp.fc1",
             "mlp.fc2": "mlp.fc2"}  # fmt: skip
    found: dict[str, torch.Tensor] = {
        "pos_embed": state["vision_model.embeddings.position_embedding.weight"][None].clone()
    }
    for kind in ("weight", "bias"):
        found[f"patch_embed.proj.{kind}"] = state[f"vision_model.embeddings.patch_embedding.{kind}"]
        found[f"norm.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        found[f"head.{kind}"] = state[f"classifier.{kind}"]
        for number in range(12):
            layer = f"vision_model.encoder.layers.{number}"
            parts = [state[f"{layer}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
            found[f"blocks.{number}.attn.qkv.{kind}"] = torch.cat(parts)
            for ours, theirs in names.items():
                found[f"blocks.{number}.{theirs}.{kind}"] = state[f"{layer}.{ours}.{kind}"]
    return found


def _words(
    kind: Any, *first: str, bos: str | None = None, eos: str, pad: str, unk: str, **more: Any
) -> Any:
    """A byte-level tokenizer without merges: every letter is a token."""
    vocab = {token: number for number, token in enumerate([*dict.fromkeys(first), *sorted(ByteLevel.alphabet())])}
    given = {"bos_token": bos, **more} if bos else more
    return kind(vocab=vocab, merges=[], eos_token=eos, pad_token=pad, unk_token=unk, **given)


def _saved(folder: Path, model: Any, words: Any, eyes: Any) -> Path:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    eyes.save_pretrained(folder)
    return folder
