"""The job that puts a LoRA on Hugging Face, with a card that says how to use it.

The token is the hub client's own affair; a stand-in of the hub is named by `endpoint`.
Captions, folders and pictures of the data set never leave this machine.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from masuka.errors import AccessDenied, Conflict, DownloadFailed, MasukaError, NotFound
from masuka.jobs.reporter import Reporter
from masuka.models.fetch import as_masuka_error

OWN = "masuka.json"
"""What a repository has that was put there from here; another one is not written into."""
TOLD = (
    "steps", "learning_rate", "rank", "alpha", "method", "resolution_px", "batch_size", "optimizer",
    "lr_scheduler", "layers", "caption_dropout", "ema_decay", "seed",
)  # fmt: skip


def run(params: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    """Sends the LoRA in one commit; returns {repo, url, files}.

    Raises Conflict where the place holds something else or would be public without being
    asked to, AccessDenied, RemoteUnavailable, NotFound.
    """
    file = Path(params["file"])
    if not file.is_file():
        raise NotFound(f"The file of {params['name']} is gone.", "Train it again or delete it.")
    reporter.stage("Preparing the place on Hugging Face")
    reporter.check()
    try:
        return _push(params, file, reporter)
    except MasukaError:
        raise
    except Exception as error:  # the client's own errors, which differ by version
        raise _refusal(error, params["repo"]) from error


def _push(params: Mapping[str, Any], file: Path, reporter: Reporter) -> dict[str, Any]:
    from huggingface_hub import CommitOperationAdd, HfApi

    repo: str = params["repo"]
    api = HfApi(endpoint=params.get("endpoint"))
    url = str(api.create_repo(repo, private=params["private"], exist_ok=True))
    about = api.model_info(repo)
    if params["private"] and not about.private:
        raise Conflict(
            f"The model {repo} is there already, and everybody can see it.",
            "Take another name, or make it private on Hugging Face first.",
        )
    there = {entry.rfilename for entry in about.siblings or []} - {".gitattributes"}
    if there and OWN not in there:
        raise Conflict(
            f"{repo} holds something else, with {len(there)} files.",
            "Take a name that is not used yet; nothing there was changed.",
        )
    reporter.stage("Sending")
    files: list[tuple[str, bytes | Path]] = [(file.name, file)]
    picture = Path(params["picture"]) if params.get("picture") else None
    if picture is not None and picture.is_file():
        files.append(("sample.png", picture))
    files.append((OWN, json.dumps(_about(params, file), indent=2, ensure_ascii=False).encode()))
    files.append(("README.md", card(params, file.name, with_picture=picture is not None).encode()))
    made = []
    for number, (name, data) in enumerate(files, start=1):
        reporter.check()
        # As streams they go over plain HTTP; other data takes native code that nothing here can stop.
        stream = io.BytesIO(data if isinstance(data, bytes) else data.read_bytes())
        operation = CommitOperationAdd(name, stream)
        api.preupload_lfs_files(repo, [operation], num_threads=1)
        made.append(operation)
        reporter.progress(number, len(files))
    reporter.check()
    api.create_commit(repo, made, commit_message=f"Put {params['name']} here")
    return {"repo": repo, "url": url, "files": [name for name, _ in files]}


def card(params: Mapping[str, Any], file: str, *, with_picture: bool) -> str:
    """The README that the hub shows: base, licence, trigger, picture, use, recipe."""
    base, trigger = params["base"], params["trigger_word"]
    call = f"{trigger} {params['class_word']}".strip()
    head: dict[str, Any] = {
        "base_model": base.get("repo") or None,
        "license": "other",
        "license_name": _slug(base.get("licence") or "unknown"),
        "tags": ["lora", "text-to-image", "diffusers", "masuka"],
        "pipeline_tag": "text-to-image",
        "library_name": "diffusers",
        "instance_prompt": call or None,
        "widget": [{"text": call, "output": {"url": "sample.png"}}] if with_picture and call else None,
    }
    lines = [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in head.items() if value]
    use = f"Write `{call}` in the prompt" if call else "It needs no word in the prompt"
    text = [
        "---", *lines, "---", "", f"# {params['name']}", "",
        *(["![Sample](sample.png)", ""] if with_picture else []),
        f"A LoRA for {base['title']}. {use}; a strength of {params['weight']:g} suits it.", "",
        f"The licence of the base holds for it too: {base.get('licence') or 'look at the base'}.", "",
        "```python",
        f'pipeline.load_lora_weights("{params["repo"]}", weight_name={json.dumps(file)})',
        "```", "",
    ]  # fmt: skip
    recipe = {name: params["recipe"][name] for name in TOLD if params["recipe"].get(name) is not None}
    if recipe:
        text += ["## How it was trained", "", "| Setting | Value |", "| --- | --- |"]
        text += [f"| {name.replace('_', ' ')} | {value} |" for name, value in recipe.items()]
        text.append("")
    return "\n".join(text)


def _about(params: Mapping[str, Any], file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    base = {name: params["base"].get(name) for name in ("id", "title", "repo", "revision", "licence")}
    return {
        "name": params["name"], "file": file.name, "sha256": digest, "base": base,
        "trigger_word": params["trigger_word"], "class_word": params["class_word"], "weight": params["weight"],
    }  # fmt: skip


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() or c in ".-" else " " for c in text.lower()).split())


def _refusal(error: Exception, repo: str) -> MasukaError:
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403):
        return AccessDenied(
            f"Hugging Face does not let you write to {repo}.",
            "Enter a token with write access in Settings, and look whose name is before the slash.",
        )
    told = as_masuka_error(error, repo, "model")
    if isinstance(told, DownloadFailed):
        return DownloadFailed(f"{repo} was not sent: {type(error).__name__}.", "Try again.")
    return told
