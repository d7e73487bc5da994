"""Accounts, data sets, characters and pictures of MASUKA 2."""

from __future__ import annotations

import hashlib
from functools import partial

from masuka.requests.actor import Actor
from masuka.store import characters, datasets, pictures, users
from masuka.store.legacy.importing import Import
from masuka.store.legacy.old import OldDatabase, OldRow
from masuka.store.rows import now_at
from masuka.store.users import OWNER_ID

OWNER = Actor(OWNER_ID, "owner")
OLD_TEMPLATE = "a photo of {trigger} person"
OLD_OPTIONS = {"auto_caption": True, "resize_images": True, "crop_images": True, "flip_images": False}
DATASET_STATUS = {"created": "created", "ready": "ready", "failed": "failed", "processing": "created"}
CHARACTER_STATUS = ("created", "training", "completed", "failed")


def import_users(job: Import) -> None:
    """The first account becomes the owner, the others editors; hashes stay."""
    rows = job.each("users")
    first = min((row.id for row in rows), default=0)
    for row in rows:
        become = _become_owner if row.id == first else _add_editor
        job.once(row, ("username",), partial(become, job, row))


def _become_owner(job: Import, row: OldRow) -> int:
    """The owner takes over name and password of the first account, unless they have their own."""
    owner = users.get_user(job.store, actor=OWNER, id=OWNER_ID)
    username, email = job.name(row, "username", "owner"), row.text("email") or None
    if owner.password_hash or owner.email:
        row.odd(f"the owner keeps their own password; that of {username!r} was not taken over")
        return OWNER_ID
    taken = {
        user.username.lower() for user in users.list_users(job.store, actor=OWNER) if user.id != OWNER_ID
    }
    users.set_user(
        job.store,
        actor=OWNER,
        id=OWNER_ID,
        username=owner.username if username.lower() in taken else username,
        email=email,
        password_hash=row.text("hashed_password") or None,
    )
    return OWNER_ID


def _add_editor(job: Import, row: OldRow) -> int:
    people = users.list_users(job.store, actor=OWNER)
    wanted = job.name(row, "username", f"user {row.id}")
    username = _free(wanted, {user.username.lower() for user in people})
    if username != wanted:
        row.odd(f"the name {wanted!r} is taken; it is {username!r} now")
    email = row.text("email") or None
    if email and email.lower() in {(user.email or "").lower() for user in people}:
        row.odd(f"the address {email} belongs to another account and was left out")
        email = None
    return users.add_user(
        job.store,
        actor=OWNER,
        username=username,
        role="editor",
        email=email,
        password_hash=row.text("hashed_password") or None,
        active=row.flag("is_active", True),
        created_at=row.time("created_at"),
    ).id


def import_datasets(job: Import) -> None:
    """Data sets, and one for each that is gone but still has pictures."""
    for row in job.each("datasets"):
        job.once(row, ("name",), partial(_add_dataset, job, row))


def _add_dataset(job: Import, row: OldRow) -> int:
    status = row.text("status", "created")
    if status not in DATASET_STATUS:
        row.odd(f"its status was {status!r}")
    options = {name: row.flag(name, default) for name, default in OLD_OPTIONS.items()}
    created_at = row.time("created_at")
    return datasets.add_dataset(
        job.store,
        actor=job.owner_of(row),
        name=job.name(row, "name", f"Data set {row.id}"),
        trigger_word=row.text("trigger_word"),
        caption_template=row.text("caption_template") or OLD_TEMPLATE,
        options={
            **options,
            "quality_filter": row.text("quality_filter", "basic"),
            "imported_from": "MASUKA 2",
        },
        status=DATASET_STATUS.get(status, "created"),
        created_at=created_at,
        updated_at=row.time("updated_at") or created_at,
    ).id


def import_characters(job: Import) -> None:
    """Characters; one that was being trained goes back to what it was before."""
    trained = {
        row.reference("character_id")
        for row in job.old.rows["training_sessions"]
        if row.text("status").lower() == "completed"
    }
    for row in job.each("characters"):
        job.once(row, ("name",), partial(_add_character, job, row, row.id in trained))


def _add_character(job: Import, row: OldRow, trained: bool) -> int:
    actor = job.owner_of(row)
    mine = [c for c in characters.list_characters(job.store, actor=actor) if c.user_id == actor.user_id]
    wanted = job.name(row, "name", f"Character {row.id}")
    name = _free(wanted, {character.name.lower() for character in mine})
    if name != wanted:
        row.odd(f"there is another {wanted!r}; it is {name!r} now")
    dataset_id = job.ours("datasets", old_dataset := row.reference("dataset_id"))
    if old_dataset is not None and dataset_id is None:
        row.odd(f"its data set {old_dataset} is gone")
    dataset = datasets.get_dataset(job.store, actor=actor, id=dataset_id) if dataset_id else None
    picture = row.text("input_image_path")
    found = job.files.picture(picture, row.reference("user_id"))
    if picture and not found:
        row.odd(f"its picture {picture} is not there any more")
    character = characters.add_character(
        job.store,
        actor=actor,
        name=name,
        trigger_word=row.text("trigger_word") or (dataset.trigger_word if dataset else ""),
        dataset_id=dataset_id,
        picture=found.path if found else picture or None,
        status=_character_status(row, trained),
        created_at=row.time("created_at"),
        completed_at=row.time("completed_at"),
    )
    if dataset and dataset.character_id is None:
        datasets.set_dataset(job.store, actor=actor, id=dataset.id, character_id=character.id)
    return character.id


def _character_status(row: OldRow, trained: bool) -> str:
    status = row.text("status", "created").lower()
    before = "completed" if trained or row.values.get("completed_at") else "created"
    if status == "training":
        row.odd(f"its training had stopped without saying so; it is {before} again")
        return before
    if status not in CHARACTER_STATUS:
        row.odd(f"its status was {status!r}")
        return before
    return status


def import_pictures(job: Import) -> None:
    """Pictures of data sets; a missing file is looked for at the next import."""
    for row in job.each("dataset_images"):
        if not job.once(row, ("filename",), partial(_add_picture, job, row)):
            _find_again(job, row)
    with job.store.write() as conn:
        for dataset in datasets.list_datasets(job.store, actor=OWNER):
            if dataset.picture_count and dataset.status == "created" and "imported_from" in dataset.options:
                conn.table("datasets").update(dataset.id, {"status": "ready"})


def _add_picture(job: Import, row: OldRow) -> int | None:
    dataset_id = job.ours("datasets", row.reference("dataset_id")) or _recovered(job, row)
    dataset = datasets.get_dataset(job.store, actor=OWNER, id=dataset_id)
    filename = row.text("filename")
    found = job.files.picture(filename, old_user(job.old, row))
    if not found:
        row.odd(f"the file {filename or '(no name)'} is not there any more; its caption is kept")
    added = pictures.add_picture(
        job.store,
        actor=Actor(dataset.user_id, "owner"),
        dataset_id=dataset_id,
        file=found.path if found else filename,
        original_name=row.text("original_filename") or filename,
        sha256=found.sha256 if found else _no_file(row),
        width=found.width if found else 0,
        height=found.height if found else 0,
        bytes=found.bytes if found else 0,
        caption=" ".join(row.text("caption").split()),
        created_at=row.time("created_at"),
    )
    if added is None:
        row.odd(f"{filename} is the same picture as another one of {dataset.name}; it is kept once")
        return None
    return added.id


def _find_again(job: Import, row: OldRow) -> None:
    id = job.ours("dataset_images", row.id)
    if id is None:
        return
    picture = pictures.get_picture(job.store, actor=OWNER, id=id)
    found = job.files.picture(row.text("filename"), old_user(job.old, row)) if not picture.bytes else None
    others = {} if found is None else {"dataset_id": picture.dataset_id, "sha256": found.sha256}
    with job.store.write() as conn:
        table = conn.table("pictures")
        if found and not table.count_where("dataset_id = :dataset_id AND sha256 = :sha256", others):
            table.update(id, {
                "file": found.path, "sha256": found.sha256, "bytes": found.bytes,
                "width": found.width, "height": found.height, "updated_at": now_at(),
            })  # fmt: skip


def _recovered(job: Import, row: OldRow) -> int:
    """A data set for pictures whose own is gone."""
    old_id = row.reference("dataset_id") or 0
    name = f"Recovered pictures {old_id}"
    for dataset in datasets.list_datasets(job.store, actor=OWNER):
        if dataset.name == name and "imported_from" in dataset.options:
            return dataset.id
    row.odd(f"its data set {old_id} is gone; its pictures are in '{name}'")
    return datasets.add_dataset(
        job.store,
        actor=OWNER,
        name=name,
        trigger_word="",
        caption_template=OLD_TEMPLATE,
        options={"imported_from": "MASUKA 2"},
    ).id


def old_user(old: OldDatabase, row: OldRow) -> int | None:
    """The old account whose media folder a picture lies in."""
    old_id = row.reference("dataset_id")
    return next((d.reference("user_id") for d in old.rows["datasets"] if d.id == old_id), None)


def _no_file(row: OldRow) -> str:
    """In place of the hash of a file that is not there; no file has it."""
    return hashlib.sha256(f"missing {row.fingerprint('filename')}".encode()).hexdigest()


def _free(name: str, taken: set[str]) -> str:
    """The name, with a number when it is taken; `taken` is in lower case."""
    free, number = name, 1
    while free.lower() in taken:
        number += 1
        free = f"{name} ({number})"
    return free
