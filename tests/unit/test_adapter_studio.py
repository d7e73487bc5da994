"""LoRAs in the studio: brought, inspected, worked on by jobs, kept in versions, pushed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from masuka import Settings, Studio
from masuka.config import Workspace
from masuka.errors import AccessDenied, Conflict, InvalidInput, NotAllowed, NotFound
from masuka.families.lora import adapters
from masuka.jobs.reporter import EventFile
from masuka.models import pushing
from masuka.pocket import FOLDER
from masuka.requests import Actor
from masuka.requests.adapters import BakeAdapter, MergeAdapters, PushAdapter
from masuka.store.jobs import Job
from masuka.store.models import Model
from tests.fake_hub import Hub, hub

TOKEN = "hf_" + "a" * 30
LAYERS = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.proj_out")


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    with Studio.open(Settings(workspace=Workspace(tmp_path / "home"), device="cpu")) as opened:
        yield opened


def pocket_lora(file: Path, *, rank: int = 3, seed: int = 1, trigger: str = "flmlk style") -> Path:
    """A small LoRA that fits Pocket."""
    generator = torch.Generator().manual_seed(seed)
    base = {k: s for f in (FOLDER / "transformer").glob("*.safetensors") for k, s in adapters.read_header(f)[0].items()}
    tensors = {}
    for module in LAYERS:
        outputs, inputs = base[f"{module}.weight"]
        tensors[f"transformer.{module}.lora_A.weight"] = torch.randn(rank, inputs, generator=generator) * 0.1
        tensors[f"transformer.{module}.lora_B.weight"] = torch.randn(outputs, rank, generator=generator) * 0.1
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file, {"modelspec.trigger_phrase": trigger})
    return file


def done(studio: Studio, job: Job) -> Job:
    ended = studio.jobs.wait(job)
    assert ended.state == "done", ended.error
    return ended


def brought(studio: Studio, folder: Path, name: str = "Film look", **values: Any) -> Model:
    file = pocket_lora(folder / f"{name}.safetensors", seed=len(name))
    job = done(studio, studio.adapters.bring(path=str(file), base="pocket", name=name, **values))
    found = [a for a in studio.models.adapters() if a.path.endswith(Path(str((job.result or {})["file"])).name)]
    return found[0]


def test_a_file_from_elsewhere_becomes_a_lora_of_its_base(studio: Studio, tmp_path: Path) -> None:
    adapter = brought(studio, tmp_path)
    assert (adapter.base, adapter.family, adapter.trigger_word, adapter.class_word) == ("pocket", "flux", "flmlk", "style")
    found = studio.adapters.inspect(adapter.id, measure=True)
    assert (found.kind, found.layers, found.ranks) == ("lora", 2, (3,))
    assert set(found.norms) == {"transformer_blocks.0", "single_transformer_blocks.0"}
    assert all(value > 0 for value in found.norms.values())
    assert {r.tool: r.whole for r in found.readers}["diffusers"]


def test_what_does_not_fit_the_base_is_not_taken_in(studio: Studio, tmp_path: Path) -> None:
    file = tmp_path / "wide.safetensors"
    stem = f"transformer.{LAYERS[0]}"
    save_file({f"{stem}.lora_A.weight": torch.ones(2, 3072), f"{stem}.lora_B.weight": torch.ones(3072, 2)}, file)
    with pytest.raises(InvalidInput, match=r"None of the 1 layers of wide\.safetensors fits Pocket"):
        studio.adapters.bring(path=str(file), base="pocket")
    with pytest.raises(InvalidInput, match="There is no file"):
        studio.adapters.bring(path=str(tmp_path / "gone.safetensors"))
    assert studio.models.adapters() == []


def test_only_the_owner_names_files_of_the_machine(studio: Studio, tmp_path: Path) -> None:
    file = pocket_lora(tmp_path / "x.safetensors")
    other = studio.acting_as(Actor(user_id=1, role="editor"))
    with pytest.raises(NotAllowed):
        other.adapters.bring(path=str(file), base="pocket")
    sent = pocket_lora(studio.workspace.uploads / "1-abc" / "x.safetensors")
    assert done(studio, other.adapters.bring(path=str(sent), base="pocket")).state == "done"
    with pytest.raises(NotAllowed):
        studio.acting_as(Actor(user_id=1, role="viewer")).adapters.bring(path=str(sent), base="pocket")


def test_other_forms_of_a_lora_lie_beside_it(studio: Studio, tmp_path: Path) -> None:
    adapter = brought(studio, tmp_path)
    job = done(studio, studio.adapters.convert(adapter_id=adapter.id, convention="kohya", dtype="fp16"))
    files = studio.adapters.files(adapter.id)
    assert list(files) == ["own", "kohya"]
    assert files["kohya"] == Path(str((job.result or {})["file"]))
    assert (job.result or {})["readers"]["A1111 and Forge"] == "A1111 and Forge read it."
    assert {t.dtype for t in load_file(files["kohya"]).values()} == {torch.float16}
    assert [a.id for a in studio.models.adapters()] == [adapter.id]
    with pytest.raises(InvalidInput, match="one of diffusers, native, kohya"):
        studio.adapters.convert(adapter_id=adapter.id, convention="xlabs")


def test_resized_and_merged_ones_are_loras_of_their_own(studio: Studio, tmp_path: Path) -> None:
    first, second = brought(studio, tmp_path), brought(studio, tmp_path, "Another look")
    small = done(studio, studio.adapters.resize(adapter_id=first.id, rank=1))
    assert 0 < (small.result or {})["kept"] < 1
    merged = done(studio, studio.adapters.merge(adapter_ids=[first.id, second.id], weights=[0.5, 1], name="Both"))
    assert (merged.result or {})["ranks"] == [6]
    names = [a.name for a in studio.models.adapters()]
    assert names[:2] == ["Both", "Film look rank 1"]
    assert all(a.base == "pocket" and a.trigger_word == "flmlk" for a in studio.models.adapters())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"adapter_ids": [1, 1]}, "One LoRA is named twice"),
        ({"adapter_ids": [1, 2], "weights": [1]}, "There are 2 LoRAs and 1 weights"),
        ({"adapter_ids": [1, 2], "weights": [1, 9]}, "A weight is out of range"),
    ],
)
def test_merges_that_make_no_sense_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        MergeAdapters.parse(values)


def test_a_baked_lora_is_a_base_that_draws(studio: Studio, tmp_path: Path) -> None:
    adapter = brought(studio, tmp_path)
    job = done(studio, studio.adapters.bake(BakeAdapter(adapter_id=adapter.id, weight=0.5, name="Film base")))
    assert job.request["base"] == "pocket+film-base"
    base = studio.models.base("pocket+film-base")
    assert base.folder is not None and base.title == "Film base" and base.licence == "Apache-2.0"
    before, after = (
        {name: tensor for file in (folder / "transformer").glob("*.safetensors") for name, tensor in load_file(file).items()}
        for folder in (FOLDER, base.folder)
    )
    lora = load_file(studio.workspace.resolve(adapter.path))
    for name, tensor in before.items():
        stem = f"transformer.{name.removesuffix('.weight')}"
        change = torch.zeros(())
        if f"{stem}.lora_A.weight" in lora:
            change = 0.5 * (lora[f"{stem}.lora_B.weight"] @ lora[f"{stem}.lora_A.weight"])
        wanted = (tensor.float() + change).to(tensor.dtype)
        assert torch.equal(after[name], wanted), name
    drawn = studio.jobs.wait(studio.images.draw(base="pocket+film-base", prompt="a red robot", num_inference_steps=1))
    assert drawn.state == "done"
    with pytest.raises(NotAllowed):
        studio.acting_as(Actor(user_id=1, role="editor")).adapters.bake(adapter_id=adapter.id)
    # What was baked in comes out again, to within the base's own number format.
    back = done(studio, studio.adapters.extract(base="pocket", tuned="pocket+film-base", rank=3, name="Back")).result or {}
    assert back["layers"] == len(LAYERS) and back["kept"] > 0.9
    got = load_file(back["file"])
    for module in LAYERS:
        stem = f"transformer.{module}"
        wanted = 0.5 * (lora[f"{stem}.lora_B.weight"] @ lora[f"{stem}.lora_A.weight"])
        found = got[f"{stem}.lora_B.weight"].float() @ got[f"{stem}.lora_A.weight"].float()
        assert float((found - wanted).norm()) < 0.3 * float(wanted.norm())
    with pytest.raises(InvalidInput, match="is not a further training"):
        studio.adapters.extract(base="pocket", tuned="pocket")


def test_versions_are_used_hidden_and_deleted(studio: Studio, tmp_path: Path) -> None:
    old, new = brought(studio, tmp_path), brought(studio, tmp_path, "Another look")
    assert [(v.adapter.id, v.used) for v in studio.adapters.versions()] == [(new.id, True), (old.id, False)]
    studio.adapters.use(old.id)
    assert [a.id for a in studio.models.adapters()] == [old.id, new.id]
    studio.adapters.hide(old.id)
    assert [a.id for a in studio.models.adapters()] == [new.id]
    versions = {v.adapter.id: v for v in studio.adapters.versions()}
    assert versions[old.id].hidden and not versions[old.id].used and versions[new.id].used
    with pytest.raises(NotFound):
        studio.adapters.inspect(old.id)
    studio.adapters.show(old.id)
    assert {a.id for a in studio.models.adapters()} == {old.id, new.id}
    studio.adapters.hide(old.id)
    file = studio.workspace.resolve(old.path)
    studio.adapters.delete(old.id)
    assert not file.parent.exists() and [v.adapter.id for v in studio.adapters.versions()] == [new.id]
    studio.workspace.resolve(new.path).unlink()
    with pytest.raises(Conflict, match="is gone"):
        studio.adapters.inspect(new.id)


# To the Hub


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub() as running:
        running.token = TOKEN
        yield running


# The hub's client (2.4) sends large files in a way that its own HTTP library advises against.
sends = pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")


def sent(root: Path, server: Hub, **values: Any) -> dict[str, Any]:
    file = pocket_lora(root / "Mira 1.safetensors")
    (root / "sample.png").write_bytes(b"\x89PNG")
    base = {"id": "flux1-dev", "title": "FLUX.1 [dev]", "repo": "black-forest-labs/FLUX.1-dev", "licence": "FLUX.1 [dev] NC"}
    params = {
        "file": str(file), "repo": "mira/look", "private": True, "name": "Mira \"1\"", "base": base,
        "trigger_word": "mira7x", "class_word": "robot", "weight": 0.8, "picture": str(root / "sample.png"),
        "recipe": {"steps": 800, "rank": 16, "name": "secret folder"}, "endpoint": server.address, **values,
    }  # fmt: skip
    reporter = EventFile(root / "events.jsonl", root / "scratch", lambda: None)
    try:
        return pushing.run(params, reporter)
    finally:
        reporter.close()


@sends
def test_a_lora_is_put_there_private_with_its_card(server: Hub, tmp_path: Path) -> None:
    result = sent(tmp_path, server)
    assert result["url"] == f"{server.address}/mira/look" and server.private["mira/look"] is True
    files = server.models["mira/look"]
    assert set(files) == {"Mira 1.safetensors", "sample.png", "masuka.json", "README.md"} == set(result["files"])
    assert files["Mira 1.safetensors"] == (tmp_path / "Mira 1.safetensors").read_bytes()
    card = files["README.md"].decode()
    assert card.startswith('---\nbase_model: "black-forest-labs/FLUX.1-dev"\nlicense: "other"\nlicense_name: "flux.1-dev-nc"\n')
    assert "Write `mira7x robot` in the prompt; a strength of 0.8 suits it." in card
    assert "| steps | 800 |" in card and "secret" not in card and "![Sample](sample.png)" in card
    assert json.loads(files["masuka.json"])["trigger_word"] == "mira7x"
    # Once more is a new version of the same.
    again = sent(tmp_path, server, recipe={}, picture=None)
    assert "How it was trained" not in server.models["mira/look"]["README.md"].decode()
    assert again["files"] == ["Mira 1.safetensors", "masuka.json", "README.md"]


@sends
def test_what_is_there_already_is_not_overwritten(server: Hub, tmp_path: Path) -> None:
    server.models["mira/look"] = {"README.md": b"something else", ".gitattributes": b""}
    server.private["mira/look"] = True
    with pytest.raises(Conflict, match="mira/look holds something else, with 1 files"):
        sent(tmp_path, server)
    server.private["mira/look"] = False
    with pytest.raises(Conflict, match="everybody can see it"):
        sent(tmp_path, server)
    assert server.commits == []


@sends
def test_a_token_that_may_not_write_is_said(server: Hub, tmp_path: Path) -> None:
    server.token = "another"
    with pytest.raises(AccessDenied, match="does not let you write to mira/look"):
        sent(tmp_path, server)


def test_without_a_token_nothing_is_asked(studio: Studio, tmp_path: Path) -> None:
    adapter = brought(studio, tmp_path)
    with pytest.raises(AccessDenied, match="There is no Hugging Face token"):
        studio.adapters.push(PushAdapter(adapter_id=adapter.id, repo="mira/look"))
    with pytest.raises(InvalidInput, match="no name of a Hugging Face model"):
        studio.adapters.push(adapter_id=adapter.id, repo="nothing")
