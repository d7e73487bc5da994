"""Single-file checkpoints as other tools keep them, made of a pipeline of diffusers' classes.

Names are those of the models' first publications; diffusers reads them back.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

State = dict[str, Tensor]
_TIMES = {"linear_1": "in_layer", "linear_2": "out_layer"}
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "norm2": "out_layers.0", "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_OPEN_CLIP = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}  # fmt: skip


def flux_file(transformer: Any, to: Path, *, prefix: str = "") -> Path:
    """The file of a FLUX.1 transformer alone, as Black Forest Labs name its tensors."""
    given = dict(transformer.state_dict())
    made: State = {}
    for name, tensor in given.items():
        for embedder, short in (("timestep_embedder", "time_in"), ("text_embedder", "vector_in"), ("guidance_embedder", "guidance_in")):
            start = f"time_text_embed.{embedder}."
            if name.startswith(start):
                layer, kind = name.removeprefix(start).rsplit(".", 1)
                made[f"{short}.{_TIMES[layer]}.{kind}"] = tensor
    for kind in ("weight", "bias"):
        made[f"txt_in.{kind}"], made[f"img_in.{kind}"] = given[f"context_embedder.{kind}"], given[f"x_embedder.{kind}"]
        made[f"final_layer.linear.{kind}"] = given[f"proj_out.{kind}"]
        scale, shift = given[f"norm_out.linear.{kind}"].chunk(2)
        made[f"final_layer.adaLN_modulation.1.{kind}"] = torch.cat([shift, scale])
        for i in range(transformer.config.num_layers):
            _double(given, made, i, kind)
        for i in range(transformer.config.num_single_layers):
            block, to_block = f"single_transformer_blocks.{i}.", f"single_blocks.{i}."
            made[f"{to_block}modulation.lin.{kind}"] = given[f"{block}norm.linear.{kind}"]
            fused = [given[f"{block}{part}.{kind}"] for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp")]
            made[f"{to_block}linear1.{kind}"] = torch.cat(fused)
            made[f"{to_block}linear2.{kind}"] = given[f"{block}proj_out.{kind}"]
    for i in range(transformer.config.num_layers):
        for norm, place in (("norm_q", "img_attn.norm.query_norm"), ("norm_k", "img_attn.norm.key_norm"),
                            ("norm_added_q", "txt_attn.norm.query_norm"), ("norm_added_k", "txt_attn.norm.key_norm")):  # fmt: skip
            made[f"double_blocks.{i}.{place}.scale"] = given[f"transformer_blocks.{i}.attn.{norm}.weight"]
    for i in range(transformer.config.num_single_layers):
        for norm, place in (("norm_q", "query_norm"), ("norm_k", "key_norm")):
            made[f"single_blocks.{i}.norm.{place}.scale"] = given[f"single_transformer_blocks.{i}.attn.{norm}.weight"]
    return _saved({f"{prefix}{name}": tensor for name, tensor in made.items()}, to)


def _double(given: State, made: State, i: int, kind: str) -> None:
    block, to_block = f"transformer_blocks.{i}.", f"double_blocks.{i}."
    for norm, place in (("norm1", "img_mod"), ("norm1_context", "txt_mod")):
        made[f"{to_block}{place}.lin.{kind}"] = given[f"{block}{norm}.linear.{kind}"]
    for names, place in ((("to_q", "to_k", "to_v"), "img_attn"), (("add_q_proj", "add_k_proj", "add_v_proj"), "txt_attn")):
        made[f"{to_block}{place}.qkv.{kind}"] = torch.cat([given[f"{block}attn.{name}.{kind}"] for name in names])
    for name, place in (("ff.net.0.proj", "img_mlp.0"), ("ff.net.2", "img_mlp.2"), ("ff_context.net.0.proj", "txt_mlp.0"),
                        ("ff_context.net.2", "txt_mlp.2"), ("attn.to_out.0", "img_attn.proj"), ("attn.to_add_out", "txt_attn.proj")):  # fmt: skip
        made[f"{to_block}{place}.{kind}"] = given[f"{block}{name}.{kind}"]


def sdxl_file(pipeline: Any, to: Path, *, whole: bool = True) -> Path:
    """The file of an SDXL pipeline; without `whole` of its UNet alone."""
    each = pipeline.unet.config.layers_per_block + 1
    made = {f"model.diffusion_model.{_unet_name(name, each, pipeline.unet)}": t for name, t in pipeline.unet.state_dict().items()}
    if whole:
        blocks = len(pipeline.vae.config.up_block_types)
        made |= {f"first_stage_model.{_vae_name(name, blocks)}": t for name, t in pipeline.vae.state_dict().items()}
        for name, tensor in pipeline.text_encoder.state_dict().items():
            made[f"conditioner.embedders.0.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
        made |= _open_clip(dict(pipeline.text_encoder_2.state_dict()))
    return _saved(made, to)


def _unet_name(name: str, each: int, unet: Any) -> str:
    for known, short in _UNET.items():
        if name.startswith(f"{known}."):
            return name.replace(known, short, 1)
    found = re.match(r"(down|mid|up)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name)
    assert found is not None, name
    where, block, what, layer, rest = found[1], int(found[2] or 0), found[3], int(found[4]), found[5]
    if what == "resnets":
        inner, kind = rest.rsplit(".", 1)
        rest = f"{_RESNET[inner]}.{kind}"
    if where == "mid":
        return f"middle_block.{1 if what == 'attentions' else 2 * layer}.{rest}"
    if what == "downsamplers":
        return f"input_blocks.{1 + block * each + each - 1}.0.{rest.replace('conv', 'op', 1)}"
    if what == "upsamplers":
        attends = hasattr(unet.up_blocks[block], "attentions")
        return f"output_blocks.{block * each + each - 1}.{2 if attends else 1}.{rest}"
    place = f"input_blocks.{1 + block * each + layer}" if where == "down" else f"output_blocks.{block * each + layer}"
    return f"{place}.{1 if what == 'attentions' else 0}.{rest}"


def _vae_name(name: str, blocks: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", name)
    name = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", name)
    name = re.sub(r"up_blocks\.(\d+)\.resnets\.(\d+)", lambda m: f"up.{blocks - 1 - int(m[1])}.block.{m[2]}", name)
    name = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{blocks - 1 - int(m[1])}.upsample", name)
    return re.sub(r"mid_block\.resnets\.(\d+)", lambda m: f"mid.block_{int(m[1]) + 1}", name)


def _open_clip(given: State) -> State:
    start = "conditioner.embedders.1.model."
    made: State = {}
    for name, tensor in given.items():
        bare = name.removeprefix("text_model.")
        if bare == "text_projection.weight":
            made[f"{start}text_projection"] = tensor.T.contiguous()
        elif bare == "embeddings.position_embedding.weight":
            made[f"{start}positional_embedding"] = tensor
        elif bare == "embeddings.token_embedding.weight":
            made[f"{start}token_embedding.weight"] = tensor
        elif bare.startswith("final_layer_norm"):
            made[start + bare.replace("final_layer_norm", "ln_final")] = tensor
        elif found := re.match(r"encoder\.layers\.(\d+)\.(.*)\.(weight|bias)$", bare):
            layer, inner, kind = found.groups()
            block = f"{start}transformer.resblocks.{layer}."
            if inner in _OPEN_CLIP:
                made[f"{block}{_OPEN_CLIP[inner]}.{kind}"] = tensor
            elif inner == "self_attn.q_proj":
                parts = [given[name.replace("q_proj", part)] for part in ("q_proj", "k_proj", "v_proj")]
                made[f"{block}attn.in_proj_{kind}"] = torch.cat(parts)
    return made


def _saved(made: State, to: Path) -> Path:
    to.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in made.items()}, to)
    return to
