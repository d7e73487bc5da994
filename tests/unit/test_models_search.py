"""Models elsewhere, against stand-ins: found, looked at, refused, fetched with no key to a stranger."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from masuka.config import Settings
from masuka.errors import (
    AccessDenied,
    Conflict,
    DownloadFailed,
    InvalidInput,
    NotAllowed,
    NotFound,
    RemoteUnavailable,
)
from masuka.families.flux import DEV
from masuka.models import catalogue
from masuka.models.civitai import version_in
from masuka.models.search import clean_repo
from masuka.requests import Actor
from masuka.store import jobs as job_rows
from masuka.store import models, users
from masuka.studio import Studio
from masuka.studio.sources import Sources
from tests.fake_civitai import Civitai, civitai
from tests.fake_hub import COMMIT, Hub, hub
from tests.tiny_flux import tiny_folder, tiny_pipeline
from tests.unit.test_models_importing import installed

REPO = "mira/film-look"
TOKEN = "hf_" + "a" * 30
KEY = "c" * 32


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with hub() as running:
        running.models[REPO] = files_of(tiny_folder())
        running.tags[REPO] = ["diffusers", "text-to-image", "license:apache-2.0", "diffusers:FluxPipeline"]
        yield running


@pytest.fixture
def there() -> Iterator[Civitai]:
    with civitai() as running:
        yield running


@pytest.fixture
def studio(settings: Settings, there: Civitai) -> Iterator[Studio]:
    changed = replace(settings, civitai_base_url=there.address, secrets={"HF_TOKEN": TOKEN, "CIVITAI_API_KEY": KEY})
    with Studio.open(changed) as opened:
        yield opened


@pytest.fixture
def sources(studio: Studio, server: Hub) -> Sources:
    """The studio's own, that asks the stand-in of the hub."""
    studio.sources = Sources(studio._context, endpoint=server.address)
    return studio.sources


def files_of(folder: Path) -> dict[str, bytes]:
    found = {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    return {**found, "film_look.safetensors": b"one file", "unet/pickle.bin": b"never", "pipeline.py": b"raise SystemExit"}


def test_the_hub_is_searched_for_what_is_known_here(sources: Sources, server: Hub) -> None:
    server.models["someone/film-unknown"] = {}
    server.tags["someone/film-unknown"] = ["diffusers", "text-to-image", "license:cc-by-nc-4.0", "diffusers:SomePipeline"]
    found = sources.search("film")
    assert [(o.id, o.fits, o.licence, o.commercial) for o in found] == [
        (REPO, "FLUX.1", "Apache 2.0", True), ("someone/film-unknown", "", "CC BY-NC 4.0", False),
    ]  # fmt: skip
    last = sources.last_search()
    assert last is not None and last.offers == found
    assert sources.search("nothing like it") == []


def test_a_hub_that_is_not_there_is_said(studio: Studio, server: Hub) -> None:
    with pytest.raises(RemoteUnavailable, match="cannot be reached"):
        Sources(studio._context, endpoint="http://127.0.0.1:9").search("film")


def test_a_repository_is_looked_at_and_then_taken(studio: Studio, sources: Sources, server: Hub) -> None:
    checked = sources.check(f"https://huggingface.co/{REPO}/tree/main")
    assert (checked.repo, checked.commit, checked.entry.id) == (REPO, COMMIT, "flux1-dev")
    counted = sum(t.numel() for t in tiny_pipeline().transformer.state_dict().values())
    assert checked.found.parameters == pytest.approx(counted, rel=0.05)  # the header is among the bytes
    assert checked.notes == ("2 files that could run code are left where they are.",)
    job = sources.add_repo(checked.repo, checked.commit)
    with pytest.raises(Conflict, match="on its way"):
        studio.models.download("flux1-dev+film-look")
    studio.jobs.wait(job)
    base = studio.models.base("flux1-dev+film-look")
    assert base.folder is not None and (base.licence, base.commercial) == ("Apache 2.0", True)
    there = {f.relative_to(base.folder).as_posix() for f in base.folder.rglob("*") if f.is_file()}
    assert not there & {"film_look.safetensors", "unet/pickle.bin", "pipeline.py"}
    params = studio.models.base_params(base.id)
    assert (params["repo"], params["commit"]) == (REPO, COMMIT)
    assert params["sha256"] == catalogue.digest_of(json.loads((base.folder / catalogue.FINISHED).read_text()))


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        (lambda files: {**files, "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}'}, InvalidInput, "Stable Diffusion 1 or 2"),
        (lambda files: {**files, "model_index.json": b'{"_class_name": "MyPipeline"}'}, InvalidInput, "No model family here knows it"),
        (lambda files: {k: v for k, v in files.items() if k != "model_index.json"}, DownloadFailed, "no diffusers folder"),
        (lambda files: {k: v for k, v in files.items() if not k.startswith("transformer/d")}, InvalidInput, "as pickles"),
        (lambda files: {**files, "model_index.json": b"{"}, DownloadFailed, "cannot be read"),
        (lambda files: {**files, "model_index.json": b'{"_class_name": "FluxPipeline", "x": ["own.code", "X"]}'}, InvalidInput, "code of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_a_download(sources: Sources, server: Hub, change: Any, error: Any, said: str) -> None:
    server.models[REPO] = change(server.models[REPO])
    with pytest.raises(error, match=said):
        sources.add_repo(REPO)


@pytest.mark.parametrize("repo", ["", "film-look", "../../etc", "a/..", "datasets/mira/set", "mira/film look", "https://evil.example/mira/x"])
def test_what_names_no_model_is_refused(repo: str) -> None:
    with pytest.raises(InvalidInput):
        clean_repo(repo)


def test_a_repository_that_is_not_there_and_one_behind_a_licence_are_told_apart(sources: Sources, server: Hub) -> None:
    with pytest.raises(AccessDenied, match="does not show"):
        sources.check("mira/none")
    server.gated.add(REPO)
    with pytest.raises(AccessDenied, match="accept its licence"):
        sources.check(REPO)


def test_the_hubs_token_stays_with_the_hub(studio: Studio, sources: Sources, server: Hub) -> None:
    with hub() as elsewhere:
        elsewhere.models = server.models
        # Another name of this machine is another host to whoever sends a key.
        server.elsewhere = elsewhere.address.replace("127.0.0.1", "localhost")
        studio.jobs.wait(sources.add_repo(REPO))
        assert {key for _, key in server.authorized} == {f"Bearer {TOKEN}"}
        assert len(elsewhere.authorized) > 3 and {key for _, key in elsewhere.authorized} == {""}


def test_half_precision_is_taken_under_its_plain_name(studio: Studio, sources: Sources, server: Hub) -> None:
    files = server.models[REPO]
    weights = "transformer/diffusion_pytorch_model.safetensors"
    half = save({n: t.half() for n, t in tiny_pipeline().transformer.state_dict().items()})
    files[weights.replace(".safetensors", ".fp16.safetensors")] = half
    files["vae/diffusion_pytorch_model.fp16.safetensors"] = b"rounded"
    studio.jobs.wait(sources.add_repo(REPO))
    folder = studio.models.must_be_installed("flux1-dev+film-look").folder
    assert folder is not None
    assert (folder / weights).read_bytes() == half
    assert (folder / "vae/diffusion_pytorch_model.safetensors").read_bytes() == files["vae/diffusion_pytorch_model.safetensors"]
    assert not list(folder.rglob("*.fp16.*"))


def test_a_base_is_fetched_again_on_another_machine(studio: Studio, sources: Sources, server: Hub) -> None:
    job = sources.add_repo(REPO)
    studio.jobs.cancel([job.id])
    row = studio.models.own_row("flux1-dev+film-look")
    elsewhere = {"folder": "/elsewhere/models/flux1-dev+film-look", "place": "/elsewhere/models/flux1-dev+film-look"}
    config = {**row.config, "params": {**row.config["params"], **elsewhere}}
    models.set_model(studio.store, actor=studio.actor, id=row.id, config=config)
    studio.jobs.wait(studio.models.download("flux1-dev+film-look"))
    assert studio.models.must_be_installed("flux1-dev+film-look").folder == catalogue.place_of("flux1-dev+film-look", studio.workspace)


def test_civitai_is_searched_and_what_is_not_for_all_eyes_left_out(studio: Studio, there: Civitai) -> None:
    there.add(7, "Film Look", b"x" * 2048, made_for="Flux.1 D")
    there.add(8, "Film Nude", b"x", nsfw=True, uses=[])
    there.add(9, "Film Old", b"x", made_for="SD 1.5", uses="{None}")
    there.add(10, "Film Pickle", b"x", form="PickleTensor")
    found = studio.sources.search("film", where="civitai")
    assert [(o.id, o.title, o.fits, o.commercial) for o in found] == [
        ("7", "Film Look", DEV.title, True), ("9", "Film Old", "", False),
    ]  # fmt: skip
    assert found[0].size_bytes == 2048 and found[0].page == "https://civitai.com/models/1007?modelVersionId=7"
    assert len(studio.sources.search("film", where="civitai", nsfw=True)) == 3
    assert studio.sources.search("film", where="civitai", kind="lora") == []
    there.down = True
    with pytest.raises(RemoteUnavailable, match="CivitAI answered 503"):
        studio.sources.search("film", where="civitai")


def test_a_version_of_civitai_becomes_a_base(studio: Studio, there: Civitai) -> None:
    installed(studio, DEV.id, tiny_folder())
    there.add(7, "Film Look", save(tiny_pipeline().transformer.state_dict()), made_for="Flux.1 D")
    there.key = KEY
    with civitai() as files:
        files.contents = there.contents
        there.files_at = files.address.replace("127.0.0.1", "localhost")
        job = studio.sources.add_civitai("7")
        job.params["local"].append(f"localhost:{files.server_address[1]}")
        with studio.store.write():
            job_rows.set_job(studio.store, id=job.id, params=job.params)
        files.breaks = 1
        with pytest.raises(RemoteUnavailable, match="broke off"):
            studio.jobs.wait(job)
        studio.jobs.wait(studio.jobs.retry(job.id))
        assert all(key == "" for _, key in files.asked)
    base = studio.models.must_be_installed("flux1-dev+film-look")
    assert base.folder is not None and not list(base.folder.glob("*.safetensors"))
    assert studio.models.base_params(base.id)["repo"] == "civitai:7"
    keys = [key for path, key in there.asked if path.startswith("/api/download")]
    assert keys and set(keys) == {f"Bearer {KEY}"}


def test_a_file_that_is_larger_than_listed_is_not_waited_for(studio: Studio, there: Civitai) -> None:
    installed(studio, DEV.id, tiny_folder())
    there.add(7, "Look", b"x" * 4 * 2**20, made_for="Flux.1 D")
    there.models[0]["modelVersions"][0]["files"][0]["sizeKB"] = 1
    with pytest.raises(DownloadFailed, match="larger than listed"):
        studio.jobs.wait(studio.sources.add_civitai("7"))


def test_a_file_that_is_something_else_than_was_said_is_thrown_away(studio: Studio, there: Civitai) -> None:
    installed(studio, "flux1-dev", tiny_folder())
    there.add(7, "Look", save({"label_emb.0.0.weight": tiny_pipeline().transformer.x_embedder.weight.detach()}), made_for="Flux.1 D")
    with pytest.raises(InvalidInput, match="is made for"):
        studio.jobs.wait(studio.sources.add_civitai("7"))
    assert not list(catalogue.place_of("flux1-dev+look", studio.workspace).glob("*"))


def test_what_civitai_has_and_is_no_base_is_said(studio: Studio, there: Civitai) -> None:
    there.add(7, "Style", b"x", kind="LORA")
    there.add(8, "Words", b"x", kind="TextualInversion")
    there.add(9, "Old", b"x", made_for="SD 1.5")
    there.add(10, "Pickle", b"x", form="PickleTensor")
    for version, said in (("7", "a LoRA and no base"), ("8", "no base and no LoRA"), ("9", "SD 1.5, which nothing here knows"), ("10", "no safetensors")):
        with pytest.raises(InvalidInput, match=said):
            studio.sources.add_civitai(version)
    with pytest.raises(NotFound):
        studio.sources.add_civitai("11")


def test_an_address_of_civitai_names_a_version() -> None:
    assert version_in(" 42 ") == 42
    assert version_in("https://civitai.com/models/1007/film?modelVersionId=7") == 7
    assert version_in("https://civitai.com/api/download/models/7") == 7
    for text in ("https://civitai.com/models/1007", "https://civitai.com.evil.example/models/1?modelVersionId=7", "http://127.0.0.1/?modelVersionId=7", "-1", ""):
        with pytest.raises(InvalidInput):
            version_in(text)


def test_only_an_owner_brings_a_base(studio: Studio, sources: Sources) -> None:
    made = users.add_user(studio.store, actor=studio.actor, username="an editor", role="editor")
    theirs = studio.acting_as(Actor(made.id, "editor", made.username))
    for bring in (theirs.sources.add_repo, theirs.sources.add_path, theirs.sources.add_civitai, theirs.models.download, theirs.models.delete_base):
        with pytest.raises(NotAllowed):
            bring("flux1-dev")


def test_a_lora_of_civitai_is_taken_in_for_the_base_that_it_is_for(studio: Studio, there: Civitai) -> None:
    stem = "transformer.transformer_blocks.0.attn.to_q"
    content = save({f"{stem}.lora_A.weight": torch.randn(2, 3072), f"{stem}.lora_B.weight": torch.randn(3072, 2)})
    there.add(7, "Ink style", content, made_for="Flux.1 D", kind="LORA")
    there.add(8, "Said otherwise", content, made_for="SDXL 1.0", kind="LORA")
    there.models[0]["modelVersions"][0]["trainedWords"] = ["two words", "inkstyle, ink"]
    studio.jobs.wait(studio.sources.add_civitai_lora("7"))
    made = studio.models.adapters()[0]
    assert (made.name, made.base, made.trigger_word) == ("Ink style", "flux1-dev", "inkstyle")
    assert studio.workspace.resolve(made.path).read_bytes() == content
    with pytest.raises(InvalidInput, match=r"is for FLUX\.1, not for SDXL"):
        studio.jobs.wait(studio.sources.add_civitai_lora("8"))
    assert not list(studio.workspace.uploads.rglob("*.safetensors"))
    with pytest.raises(InvalidInput, match="a LoRA and no base"):
        studio.sources.add_civitai("7")


def test_a_lora_of_the_hub_is_bound_to_the_base_that_its_layers_name(studio: Studio, sources: Sources, server: Hub) -> None:
    stem = "transformer.transformer_blocks.0.attn.to_q"
    content = save({f"{stem}.lora_A.weight": torch.randn(2, 3072), f"{stem}.lora_B.weight": torch.randn(3072, 2)})
    server.models["mira/ink-style"] = {"pytorch_lora_weights.safetensors": content, "README.md": b"words"}
    server.tags["mira/ink-style"] = ["diffusers", "lora", "base_model:adapter:black-forest-labs/FLUX.1-dev", "license:mit"]
    offer = sources.search("ink", kind="lora")[0]
    assert (offer.id, offer.fits, offer.licence) == ("mira/ink-style", "black-forest-labs/FLUX.1-dev", "MIT")
    studio.jobs.wait(sources.add_repo_lora(offer.id))
    made = studio.models.adapters()[0]
    assert (made.name, made.family) == ("ink-style", "flux") and made.base == "flux1-dev"
    server.models["mira/many"] = {"a.safetensors": content, "b.safetensors": content}
    with pytest.raises(InvalidInput, match=r"holds 2 LoRAs: a\.safetensors, b\.safetensors"):
        studio.jobs.wait(sources.add_repo_lora("mira/many"))
    server.models["mira/none"] = {"a.safetensors": save({"x": torch.ones(1)})}
    with pytest.raises(InvalidInput, match="no LoRA"):
        studio.jobs.wait(sources.add_repo_lora("mira/none"))
