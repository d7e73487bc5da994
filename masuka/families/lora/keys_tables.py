"""The layers of each family by their publishers' names: data for `keys`, nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from masuka.families.lora.keys import Names, Rule


def _block(native: str, ours: str, layers: Mapping[str, str | tuple[str, ...]]) -> list[Rule]:
    """The rules of one kind of block; `layers` is the publisher's name → diffusers'."""
    rules = []
    for theirs, names in layers.items():
        named = (names,) if isinstance(names, str) else names
        rules.append(Rule(f"{native}.{theirs}", tuple(f"{ours}.{name}" for name in named)))
    return rules


_QKV, _ADDED = ("attn.to_q", "attn.to_k", "attn.to_v"), ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj")

_FLUX = (
    *_block("double_blocks.{}", "transformer_blocks.{}", {
        "img_attn.qkv": _QKV, "img_attn.proj": "attn.to_out.0", "img_mlp.0": "ff.net.0.proj",
        "img_mlp.2": "ff.net.2", "img_mod.lin": "norm1.linear", "txt_attn.qkv": _ADDED,
        "txt_attn.proj": "attn.to_add_out", "txt_mlp.0": "ff_context.net.0.proj",
        "txt_mlp.2": "ff_context.net.2", "txt_mod.lin": "norm1_context.linear",
    }),
    *_block("single_blocks.{}", "single_transformer_blocks.{}", {
        "linear1": (*_QKV, "proj_mlp"), "linear2": "proj_out", "modulation.lin": "norm.linear",
    }),
    Rule("img_in", ("x_embedder",)), Rule("txt_in", ("context_embedder",)), Rule("final_layer.linear", ("proj_out",)),
)  # fmt: skip

_FLUX2 = (
    *_block("double_blocks.{}", "transformer_blocks.{}", {
        "img_attn.qkv": _QKV, "img_attn.proj": "attn.to_out.0", "img_mlp.0": "ff.linear_in",
        "img_mlp.2": "ff.linear_out", "txt_attn.qkv": _ADDED, "txt_attn.proj": "attn.to_add_out",
        "txt_mlp.0": "ff_context.linear_in", "txt_mlp.2": "ff_context.linear_out",
    }),
    *_block("single_blocks.{}", "single_transformer_blocks.{}", {
        "linear1": "attn.to_qkv_mlp_proj", "linear2": "attn.to_out",
    }),
    Rule("img_in", ("x_embedder",)), Rule("txt_in", ("context_embedder",)), Rule("final_layer.linear", ("proj_out",)),
)  # fmt: skip

_FLUX3_LAYERS = {
    "q_proj": "attn.to_q", "k_proj": "attn.to_k", "v_proj": "attn.to_v", "attn_out": "attn.to_out.0",
    "mlp_in": "ff.linear_in", "mlp_out": "ff.linear_out",
}  # fmt: skip
_FLUX3 = (
    *_block("content_mode_blocks.image.{}", "mode_blocks.image.{}", _FLUX3_LAYERS),
    *_block("content_mode_blocks.image_cond.{}", "mode_blocks.image_cond.{}", _FLUX3_LAYERS),
    *_block("txt_mode_blocks.{}", "txt_mode_blocks.{}", _FLUX3_LAYERS),
    *_block("single_blocks.{}", "single_transformer_blocks.{}", _FLUX3_LAYERS),
)

_SD3 = _block("joint_blocks.{}", "transformer_blocks.{}", {
    "x_block.attn.qkv": _QKV, "x_block.attn.proj": "attn.to_out.0", "x_block.attn2.qkv": tuple(n.replace("attn", "attn2", 1) for n in _QKV),
    "x_block.attn2.proj": "attn2.to_out.0", "x_block.mlp.fc1": "ff.net.0.proj", "x_block.mlp.fc2": "ff.net.2",
    "context_block.attn.qkv": _ADDED, "context_block.attn.proj": "attn.to_add_out",
    "context_block.mlp.fc1": "ff_context.net.0.proj", "context_block.mlp.fc2": "ff_context.net.2",
})  # fmt: skip

_KREA_LAYERS = {
    "attn.wq": "attn.to_q", "attn.wk": "attn.to_k", "attn.wv": "attn.to_v", "attn.wo": "attn.to_out.0",
    "attn.gate": "attn.to_gate", "mlp.gate": "ff.gate", "mlp.up": "ff.up", "mlp.down": "ff.down",
}  # fmt: skip
_KREA2 = (
    *_block("blocks.{}", "transformer_blocks.{}", _KREA_LAYERS),
    *_block("txtfusion.layerwise_blocks.{}", "text_fusion.layerwise_blocks.{}", _KREA_LAYERS),
    *_block("txtfusion.refiner_blocks.{}", "text_fusion.refiner_blocks.{}", _KREA_LAYERS),
    Rule("first", ("img_in",)), Rule("last.linear", ("final_layer.linear",)),
    Rule("txtmlp.1", ("txt_in.linear_1",)), Rule("txtmlp.3", ("txt_in.linear_2",)),
)  # fmt: skip


def _unet() -> list[Rule]:
    """SDXL's UNet as Stability published it: three floors down, a middle, three floors up."""
    attention = [
        "proj_in", "proj_out",
        *(f"transformer_blocks.{{}}.{a}.{n}" for a in ("attn1", "attn2") for n in ("to_q", "to_k", "to_v", "to_out.0")),
        "transformer_blocks.{}.ff.net.0.proj", "transformer_blocks.{}.ff.net.2",
    ]  # fmt: skip
    residual = {
        "in_layers.2": "conv1", "out_layers.3": "conv2", "emb_layers.1": "time_emb_proj",
        "skip_connection": "conv_shortcut",
    }  # fmt: skip
    blocks = [("middle_block", number, kind, f"mid_block.{kind}.{place}") for number, kind, place in (
        (0, "resnets", 0), (1, "attentions", 0), (2, "resnets", 1))]  # fmt: skip
    rules: list[Rule] = []
    for floor in range(3):
        for layer in range(2):
            for number, kind in ((0, "resnets"), (1, "attentions")):
                blocks.append((f"input_blocks.{3 * floor + layer + 1}", number, kind, f"down_blocks.{floor}.{kind}.{layer}"))
        rules.append(Rule(f"input_blocks.{3 * floor + 3}.0.op", (f"down_blocks.{floor}.downsamplers.0.conv",)))
        for layer in range(3):
            for number, kind in ((0, "resnets"), (1, "attentions")):
                blocks.append((f"output_blocks.{3 * floor + layer}", number, kind, f"up_blocks.{floor}.{kind}.{layer}"))
        rules.append(Rule(f"output_blocks.{3 * floor + 2}.2.conv", (f"up_blocks.{floor}.upsamplers.0.conv",)))
    for block, number, kind, ours in blocks:
        layers = residual if kind == "resnets" else {name: name for name in attention}
        rules += _block(f"{block}.{number}", ours, layers)
    return [
        *rules,
        Rule("input_blocks.0.0", ("conv_in",)), Rule("out.2", ("conv_out",)),
        Rule("time_embed.0", ("time_embedding.linear_1",)), Rule("time_embed.2", ("time_embedding.linear_2",)),
        Rule("label_emb.0.0", ("add_embedding.linear_1",)), Rule("label_emb.0.2", ("add_embedding.linear_2",)),
    ]  # fmt: skip


SDXL = Names(
    part="unet",
    rules=tuple(_unet()),
    primary="kohya",
    offered=("kohya", "diffusers"),
    text_kohya={"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_"},
)
FLUX = Names(
    rules=_FLUX,
    offered=("diffusers", "kohya", "native"),
    text_kohya={"text_encoder": "lora_te1_"},
    text_comfy={"text_encoder": "text_encoders.clip_l.transformer."},
)
CHROMA = Names(rules=_FLUX, offered=("diffusers", "native"))
SD3 = Names(rules=tuple(_SD3), offered=("diffusers", "native"))
FLUX2 = Names(rules=_FLUX2, primary="native", offered=("native", "diffusers", "kohya"))
FLUX3 = Names(rules=_FLUX3, primary="native", offered=("native", "diffusers"))
KREA2 = Names(rules=_KREA2)
PLAIN = Names()
"""A family whose publisher and diffusers use the same names: Z-Image, Qwen-Image."""

PLAIN_OF = {"transformer": PLAIN, "unet": Names(part="unet")}
"""Diffusers' own names alone, by the denoiser's part."""

BY_FAMILY: Mapping[str, Names] = {
    "flux": FLUX, "sdxl": SDXL, "sdxlv": SDXL, "sdxledm": SDXL, "sd3": SD3, "chroma": CHROMA, "flux2": FLUX2, "flux3": FLUX3,
    "krea2": KREA2, "zimage": PLAIN, "qwenimage": PLAIN,
}  # fmt: skip


def names_of(family: str) -> Names:
    """The family's names; diffusers' own where nothing else is known of it."""
    return BY_FAMILY.get(family.replace("-", "").replace("_", ""), PLAIN)
