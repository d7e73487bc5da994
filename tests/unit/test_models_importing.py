"""Bases that a person brings: recognised, taken in, refused; real classes at tiny size."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from masuka.config import Settings
from masuka.errors import Conflict, InvalidInput, MasukaError
from masuka.families import FAMILIES, family_of
from masuka.families.flux import DEV, SCHNELL
from masuka.models import catalogue, recognising
from masuka.models.loading import quiet_libraries
from masuka.studio import Studio
from masuka.ui import finding, models
from masuka.ui.view import View
from tests.single_files import flux_file, sdxl_file
from tests.tiny_flux import tiny_folder, tiny_pipeline


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    with Studio.open(settings) as opened:
        yield opened


def installed(studio: Studio, base_id: str, tiny: Path) -> Path:
    """A catalogue's base that is on this machine."""
    folder = catalogue.place_of(base_id, studio.workspace)
    shutil.copytree(tiny, folder)
    (folder / catalogue.FINISHED).write_text(json.dumps({"repo": "a/b", "commit": "c" * 40, "files": {"x": "1"}, "bytes": 9}))
    return folder


@pytest.mark.parametrize("name", list(FAMILIES))
def test_each_familys_folder_is_recognised(name: str, tmp_path: Path) -> None:
    quiet_libraries()
    family = FAMILIES[name]
    found = recognising.of_folder(family.tiny(tmp_path / "tiny"))
    assert found.family.name.partition("-")[0] == name.partition("-")[0]
    assert found.entry.id in {entry.id for entry in found.family.entries}
    assert found.parameters > 0


def test_sizes_and_predictions_of_one_family_are_told_apart() -> None:
    for family in FAMILIES.values():
        for entry in family.entries:
            if entry.folder is not None or entry.size is None or not hasattr(family, "denoiser_part"):
                continue
            scheduler = {"v": {"prediction_type": "v_prediction"}, "edm": {"sigma_data": 0.5}}.get(entry.prediction, {})
            names = [pipeline for pipeline, known in recognising.PIPELINES.items() if family.name.partition("-")[0] == known]
            assert names, f"{family.name} is in no row of PIPELINES"
            configs = {"scheduler": scheduler, family.denoiser_part: {}}
            if family.name == "flux":
                configs[family.denoiser_part] = {"guidance_embeds": entry.guidance == "embedded"}
            found = recognising.of_configs({"_class_name": names[0]}, configs, parameters=entry.size.denoiser)
            assert found.family.name == family.name
            assert found.entry.size == entry.size and found.entry.prediction == entry.prediction


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_a_flux_file_in_its_makers_names_is_recognised(tmp_path: Path, prefix: str) -> None:
    transformer = tiny_pipeline().transformer
    found = recognising.of_file(flux_file(transformer, tmp_path / "flux.safetensors", prefix=prefix))
    assert (found.entry.id, found.parts) == ("flux1-dev", frozenset())
    assert found.parameters == sum(t.numel() for t in transformer.state_dict().values())
    state = {n: t.clone() for n, t in load_file(tmp_path / "flux.safetensors").items() if "guidance_in" not in n}
    save_file(state, tmp_path / "schnell.safetensors")
    assert recognising.of_file(tmp_path / "schnell.safetensors").entry.id == "flux1-schnell"


def test_a_flux_file_becomes_a_base_that_draws_and_learns(studio: Studio, tmp_path: Path) -> None:
    donor = installed(studio, DEV.id, tiny_folder())
    transformer = tiny_pipeline().transformer
    # Other weights than the donor's, in the format that is kept.
    wanted = {name: torch.randn_like(t).to(torch.bfloat16) for name, t in transformer.state_dict().items()}
    # In diffusers' names: the converter of the makers' names knows the real width alone.
    file = tmp_path / "My Film Look.safetensors"
    save_file(wanted, file)
    job = studio.jobs.wait(studio.sources.add_path(file))
    assert job.state == "done"
    base = studio.models.base("flux1-dev+my-film-look")
    assert base.folder is not None and base.own and base.title == "My Film Look"
    read = load_file(base.folder / "transformer" / "diffusion_pytorch_model.safetensors")
    assert read.keys() == wanted.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in wanted.items())
    weights = "vae/diffusion_pytorch_model.safetensors"
    assert (base.folder / weights).stat().st_ino == (donor / weights).stat().st_ino  # the same bytes, once
    family, _ = family_of(base.id)
    assert family.pipeline(base.folder, dtype=torch.float32, device="cpu").transformer is not None
    params = studio.models.base_params(base.id)
    assert params["folder"] == str(base.folder) and len(params["sha256"]) == 64
    assert studio.models.bases()[2].id == base.id  # what is here comes first


def test_an_sdxl_file_brings_its_own_text_encoders(studio: Studio, tmp_path: Path) -> None:
    pipeline = wide_sdxl()
    pipeline.save_pretrained(tmp_path / "donor")
    installed(studio, "sdxl", tmp_path / "donor")
    with torch.no_grad():
        for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2):
            for tensor in part.parameters():
                tensor.add_(0.125)
    file = sdxl_file(pipeline.to(torch.float16), tmp_path / "look.safetensors")
    studio.jobs.wait(studio.sources.add_path(file, name="Look"))
    base = studio.models.base("sdxl+look")
    assert base.folder is not None
    for part, weights in (("unet", "diffusion_pytorch_model"), ("text_encoder", "model"), ("text_encoder_2", "model")):
        read = load_file(base.folder / part / f"{weights}.safetensors")
        wanted = getattr(pipeline, part).state_dict()
        assert {n: t for n, t in read.items() if not n.endswith("position_ids")}.keys() == wanted.keys()
        assert all(torch.equal(read[name], tensor) for name, tensor in wanted.items()), part


def test_a_unet_alone_is_completed(studio: Studio, tmp_path: Path) -> None:
    pipeline = wide_sdxl()
    pipeline.save_pretrained(tmp_path / "donor")
    installed(studio, "illustrious-xl", tmp_path / "donor")  # one of its kind is enough
    file = sdxl_file(pipeline, tmp_path / "unet.safetensors", whole=False)
    studio.jobs.wait(studio.sources.add_path(file))
    folder = studio.models.base("sdxl+unet").folder
    assert folder is not None
    assert (folder / "text_encoder_2" / "model.safetensors").is_file()


def test_an_uploaded_file_goes_once_it_is_taken_in(studio: Studio) -> None:
    installed(studio, DEV.id, tiny_folder())
    folder = studio.workspace.uploads / f"1-{'a' * 24}" / "sent-1"
    folder.mkdir(parents=True)
    save_file({n: t.clone() for n, t in tiny_pipeline().transformer.state_dict().items()}, folder / "Night.safetensors")
    outcome = finding.on_sent(studio, {"batch": "a" * 24}, View(tab="models"))
    assert outcome.go == {"section": None}
    studio.jobs.wait(studio.jobs.list(kind="import_base")[0])
    assert studio.models.must_be_installed("flux1-dev+night")
    assert not list(folder.iterdir())
    with pytest.raises(InvalidInput, match="Nothing arrived"):
        finding.on_sent(studio, {"batch": "b" * 24}, View(tab="models"))


def test_without_a_base_of_its_kind_a_file_waits(studio: Studio, tmp_path: Path) -> None:
    file = flux_file(tiny_pipeline().transformer, tmp_path / "look.safetensors")
    with pytest.raises(Conflict, match=r"FLUX\.1 dev, which is not on this machine") as caught:
        studio.sources.add_path(file)
    assert caught.value.hint == "Download FLUX.1 dev first."
    assert len(studio.models.bases()) == sum(len(family.entries) for family in FAMILIES.values())


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"lora_unet_x.lora_down.weight": torch.zeros(1)}, "is a LoRA and no base"),
        ({"cond_stage_model.transformer.text_model.embeddings.position_embedding.weight": torch.zeros(1)}, "Stable Diffusion 1"),
        ({"conditioner.embedders.0.model.text_projection": torch.zeros(1)}, "refiner"),
        ({"encoder.conv_in.weight": torch.zeros(1)}, "a VAE alone"),
        ({"something": torch.zeros(1)}, "not recognised"),
    ],
)
def test_what_is_no_base_is_said(studio: Studio, tmp_path: Path, tensors: dict[str, Any], said: str) -> None:
    save_file(tensors, tmp_path / "file.safetensors")
    with pytest.raises(InvalidInput, match=said):
        studio.sources.add_path(tmp_path / "file.safetensors")


@pytest.mark.parametrize("content", [b"", b"\x80\x04}", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"[]"])
def test_what_is_no_safetensors_is_not_opened(studio: Studio, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.ckpt"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="no safetensors file"):
        studio.sources.add_path(file)


def test_a_folder_is_copied_with_what_is_needed_of_it(studio: Studio, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    shutil.copytree(tiny_folder(), source)
    (source / "run_me.py").write_text("raise SystemExit")
    (source / "transformer" / "pickle.bin").write_bytes(b"never")
    (source / "flux_whole.safetensors").write_bytes(b"no")
    studio.jobs.wait(studio.sources.add_path(source, name="Mine"))
    base = studio.models.base("flux1-dev+mine")
    assert base.folder == studio.workspace.models / "flux1-dev+mine"
    there = {f.name for f in base.folder.rglob("*")}
    assert not there & {"run_me.py", "pickle.bin", "flux_whole.safetensors"}
    assert studio.models.delete_base(base.id) > 0
    assert not base.folder.exists() and source.exists()
    assert base.id not in {b.id for b in studio.models.bases()}


def test_a_linked_folder_stays_where_it_is(studio: Studio, tmp_path: Path) -> None:
    source = tmp_path / "mine"
    shutil.copytree(tiny_folder(), source)
    studio.jobs.wait(studio.sources.add_path(source, link=True))
    base = studio.models.base("flux1-dev+mine")
    assert base.folder == source
    assert studio.models.base_params(base.id)["folder"] == str(source)
    studio.models.delete_base(base.id)
    assert (source / "model_index.json").is_file()


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda f: (f / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}'), "Stable Diffusion 1 or 2"),
        (lambda f: (f / "model_index.json").write_text('{"_class_name": ["my_code", "P"]}'), "code of its own"),
        (lambda f: (f / "model_index.json").unlink(), "no model_index.json"),
        (lambda f: [w.rename(w.with_suffix(".bin")) for w in (f / "transformer").glob("*.safetensors")], "no safetensors"),
        (lambda f: (f / "model_index.json").write_text(
            json.dumps({**json.loads((f / "model_index.json").read_text()), "extra": ["my_code", "Thing"]})), "code of its own"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_used_is_refused(studio: Studio, tmp_path: Path, break_it: Any, said: str) -> None:
    source = tmp_path / "mine"
    shutil.copytree(tiny_folder(), source)
    break_it(source)
    with pytest.raises(MasukaError, match=said):
        studio.sources.add_path(source)


def test_two_of_one_name_lie_apart_and_the_parents_adapter_is_asked_for(studio: Studio, tmp_path: Path) -> None:
    for number in (1, 2):
        shutil.copytree(tiny_folder(), tmp_path / str(number) / "Look")
        index = tmp_path / str(number) / "Look" / "transformer" / "config.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "guidance_embeds": False}))
        studio.jobs.wait(studio.sources.add_path(tmp_path / str(number) / "Look"))
    known = [base.id for base in studio.models.bases() if base.own]
    assert sorted(known) == ["flux1-schnell+look", "flux1-schnell+look-2"]
    assert studio.models.must_be_installed(known[0])
    with pytest.raises(Conflict, match="learns with an adapter"):
        studio.models.must_be_trainable(known[0])
    assert "Download what it learns with" in models.draw_catalogue(studio, View(tab="models"))
    job = studio.models.download(known[0])
    assert (job.params["repo"], job.params["training_repo"]) == ("", SCHNELL.training_adapter)


def wide_sdxl() -> Any:
    """A tiny SDXL whose two text encoders differ in width, as the real ones do."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    from masuka.families.parts import tiny

    family = FAMILIES["sdxl"]
    with tiny.seeded(3):
        unet = UNet2DConditionModel(
            sample_size=8, block_out_channels=(8, 16), layers_per_block=2, norm_num_groups=4,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=(1, 2), use_linear_projection=True, cross_attention_dim=80,
            addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=6 * 8 + 32,
        )  # fmt: skip
        first = tiny.clip()
        narrow = first["text_encoder"].config
        config = CLIPTextConfig(
            vocab_size=narrow.vocab_size, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
            max_position_embeddings=narrow.max_position_embeddings, projection_dim=32, bos_token_id=0, eos_token_id=1,
            pad_token_id=1,
        )  # fmt: skip
        second = {"tokenizer_2": first["tokenizer"], "text_encoder_2": CLIPTextModelWithProjection(config)}
        vae = tiny.autoencoder(shift_factor=None)
    return StableDiffusionXLPipeline(
        unet=unet, vae=vae, scheduler=family.scheduler(), add_watermarker=False, **first, **second  # type: ignore[attr-defined]
    )
