"""Home: what to do next, what runs, what this machine has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from masuka.store.characters import Character
from masuka.store.datasets import Dataset
from masuka.store.jobs import Job
from masuka.studio import Studio
from masuka.ui.cards import (
    UNFINISHED,
    StepState,
    grid,
    item_tile,
    job_card,
    way,
)
from masuka.ui.estimates import training_sentence
from masuka.ui.kit import Outcome, Payload, Region, Tab, id_of, key_of
from masuka.ui.markup import button, card, empty, esc, facts, go
from masuka.ui.pictures import tile
from masuka.ui.shell import character_of
from masuka.ui.storage import saved_words
from masuka.ui.view import View
from masuka.ui.words import gib, plural

SAMPLE_NAME = "Sample robot"
SAMPLE_TRIGGER = "zorbi7"
FIRST_PROMPT = "{trigger} {class} wearing a crown on a beach"
FIRST_PICTURES = 4
POCKET_DRAWS = ("robot", "bot")
_FILLS = ("import_pictures", "import_links", "import_hub", "sample_pictures")


@dataclass(frozen=True)
class Journey:
    """How far a character is on the way from pictures to pictures."""

    character: Character
    dataset: Dataset | None
    jobs: Sequence[Job]
    adapter_id: int | None
    has_items: bool

    def job(self, *kinds: str) -> Job | None:
        """The newest job of these kinds that still matters: unfinished, or failed last."""
        newest = next((j for j in self.jobs if j.kind in kinds), None)
        return newest if newest and newest.state in (*UNFINISHED, "failed") else None


def journey(studio: Studio, view: View) -> Journey | None:
    """The chosen or the busiest character's; None when there is no character."""
    known = studio.characters.list()
    character = character_of(studio, view) or _busiest(studio, known)
    if character is None:
        return None
    sets = [d for d in studio.datasets.list() if d.character_id == character.id]
    adapters = studio.models.adapters(character_id=character.id)
    return Journey(
        character=character,
        dataset=sets[0] if sets else None,
        jobs=studio.jobs.list(character_id=character.id, limit=50),
        adapter_id=adapters[0].id if adapters else None,
        has_items=bool(studio.library.items(character_id=character.id, limit=1)),
    )


def _busiest(studio: Studio, known: Sequence[Character]) -> Character | None:
    """The character of the newest job, else the newest one."""
    by_id = {c.id: c for c in known}
    latest = (j.character_id for j in studio.jobs.list(limit=20) if j.character_id in by_id)
    chosen = next(latest, None)
    return by_id[chosen] if chosen is not None else known[0] if known else None


def draw_next(studio: Studio, view: View) -> str:
    """The way: four steps, each done, now or next."""
    found = journey(studio, view)
    if found is None:
        return _welcome()
    title = f"{found.character.name}, step by step" if not found.has_items else found.character.name
    about = "" if not found.has_items else "Trained and drawing. Everything here is kept in the library."
    steps = [_first(found), _pictures(studio, found), _training(studio, found), _drawing(studio, found)]
    head = f'<div class="title"><div><h1>{esc(title)}</h1><p class="hint">{about}</p></div></div>'
    return head + card(way(steps))


def draw_running(studio: Studio, view: View) -> str:
    """Unfinished jobs that the way does not show; nothing when there are none."""
    found = journey(studio, view)
    shown = {j.id for k in (_FILLS, ("train_image",), ("draw_images",)) if found and (j := found.job(*k))}
    jobs = [j for j in studio.jobs.list(states=UNFINISHED, limit=20) if j.id not in shown]
    if not jobs:
        return ""
    return "<h2>Also running</h2>" + "".join(job_card(studio, job) for job in jobs)


def draw_recent(studio: Studio, view: View) -> str:
    """The last pictures drawn."""
    items = studio.library.items(character_id=view.character, limit=8)
    if not items:
        return ""
    more = go("All pictures", tab="library", section="pictures")
    return card(grid([item_tile(i) for i in items], name="home-recent"), title="Lately drawn", aside=more)


def draw_machine(studio: Studio, view: View) -> str:
    """GPU, memory, disk, and what the start had to say."""
    machine = studio.machine()
    gpu = machine.gpu or "none; the built-in model needs none"
    rows = [
        ("Computes on", {"cuda": "the GPU", "mps": "the Apple GPU"}.get(machine.device, "the processor")),
        ("GPU", esc(gpu)),
        (
            "Free VRAM",
            f"{gib(machine.vram_free_gib)} of {gib(machine.vram_total_gib)}" if machine.gpu else "",
        ),
        ("Free memory", gib(machine.ram_free_gib)),
        ("Free disk", gib(machine.disk_free_gib)),
        ("Vault", saved_words(studio)),
        ("Cores", str(machine.cpu_count)),
    ]
    # They name folders of the machine, and only its owner can do something about them.
    told = studio.notices if studio.actor.role == "owner" else []
    notices = "".join(f'<div class="notice warn"><p>{esc(n)}</p></div>' for n in told)
    return card(facts(rows) + notices, title="This machine")


def on_sample(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A character, its data set, and the job that draws twenty sample pictures."""
    taken = {c.name for c in studio.characters.list()}
    name = next(
        n for i in range(1, 1000) if (n := SAMPLE_NAME if i == 1 else f"{SAMPLE_NAME} {i}") not in taken
    )
    character = studio.characters.create(name=name, trigger_word=SAMPLE_TRIGGER, class_word="robot")
    dataset = studio.datasets.create(
        name=name, trigger_word=SAMPLE_TRIGGER, class_word="robot", character_id=character.id
    )
    studio.datasets.add_samples(dataset.id, key=key_of(payload))
    return Outcome(
        "Drawing twenty pictures of a robot that the model has never seen.", go={"character": character.id}
    )


def on_refill(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The sample pictures, drawn again for an empty data set."""
    studio.datasets.add_samples(id_of(payload), key=key_of(payload))
    return Outcome("Drawing sample pictures.")


def on_train(studio: Studio, payload: Payload, view: View) -> Outcome:
    """A training with the base's defaults."""
    studio.training.start(dataset_id=id_of(payload), base="pocket", key=key_of(payload))
    return Outcome("Training is on its way. You can close this page; it goes on.")


def on_draw(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The first pictures with the new LoRA."""
    studio.images.draw(
        prompt=FIRST_PROMPT, adapter_id=id_of(payload), num_images=FIRST_PICTURES, key=key_of(payload)
    )
    return Outcome(f"Drawing {plural(FIRST_PICTURES, 'picture')}.")


def _welcome() -> str:
    body = (
        '<div class="title"><div><h1>Teach a model your character</h1><p class="hint">Twenty pictures in, '
        "new pictures out. The built-in model learns on any machine: no GPU, no account, no download.</p>"
        "</div></div>"
    )
    start = button("Try it with a sample robot", "home-sample", look="primary", name="home-sample")
    own = go("Start with your own pictures", look="plain", tab="datasets")
    steps: list[tuple[StepState, str, str, str]] = [
        ("now", "A character and its data set", "A name, and a rare word that will call it.", ""),
        ("next", "Twenty pictures", "Drawn for the sample robot, or yours.", ""),
        ("next", "Training", "About three minutes on two cores.", ""),
        ("next", "New pictures", "Of that character, doing what you say.", ""),
    ]
    actions = f'<div class="actions sticky">{start}{own}</div>'
    return body + card(empty("home", "It takes a few clicks and a few minutes.", actions) + way(steps))


def _first(found: Journey) -> tuple[StepState, str, str, str]:
    if found.dataset is None:
        create = go("Create a data set", look="primary", tab="datasets")
        return "now", "A data set", f"{found.character.name} has no data set yet.", create
    word = found.dataset.trigger_word
    return "done", "A character and its data set", f"The word that calls it is {word}.", ""


def _pictures(studio: Studio, found: Journey) -> tuple[StepState, str, str, str]:
    job, dataset = found.job(*_FILLS), found.dataset
    if job is not None and job.state != "failed":
        return "now", "Pictures", "They arrive one by one.", job_card(studio, job)
    if dataset is None:
        return "next", "Pictures", "Ten to thirty are enough.", ""
    if not dataset.picture_count:
        add = go("Add pictures", look="primary", tab="datasets", dataset=dataset.id)
        samples = button("Draw 20 sample pictures", "home-refill", id=dataset.id)
        failed = job_card(studio, job) if job else ""
        return (
            "now",
            "Pictures",
            "Ten to thirty are enough.",
            f'{failed}<div class="actions">{add}{samples}</div>',
        )
    shown = [tile(p, selectable=False) for p in studio.datasets.pictures(dataset.id, limit=6)]
    link = go("See and edit them", tab="datasets", dataset=dataset.id)
    strip = f'<div class="strip">{"".join(shown)}</div><p class="hint">{link}</p>'
    return "done", plural(dataset.picture_count, "picture"), "Each with a caption.", strip


def _training(studio: Studio, found: Journey) -> tuple[StepState, str, str, str]:
    job = found.job("train_image")
    ready = found.dataset is not None and found.dataset.picture_count and not found.job(*_FILLS)
    if job is not None and (job.state != "failed" or not found.adapter_id):
        look = go("Watch it learn", look="quiet", tab="training", run=job.run_id)
        return "now", "Training", "It learns what stays the same.", job_card(studio, job, extra=look)
    if found.adapter_id:
        again = go("Train again", tab="training", dataset=found.dataset.id if found.dataset else None)
        return "done", "Training", "The character is learned.", f'<p class="hint">{again}</p>'
    if not ready or found.dataset is None:
        return "next", "Training", "It learns what stays the same.", ""
    if found.dataset.class_word not in POCKET_DRAWS:
        choose = go("Choose a model", look="primary", tab="training", dataset=found.dataset.id)
        text = f"The built-in model draws robots only; for a {found.dataset.class_word} choose a larger one."
        return "now", "Training", text, f'<div class="actions sticky">{choose}</div>'
    start = button("Start training", "home-train", look="primary", name="home-train", id=found.dataset.id)
    other = go("Choose settings", look="plain", tab="training", dataset=found.dataset.id)
    estimate = f'<p class="hint">{esc(training_sentence(studio, "pocket", found.dataset.id))}</p>'
    return (
        "now",
        "Training",
        "It learns what stays the same.",
        f'<div class="actions sticky">{start}{other}</div>{estimate}',
    )


def _drawing(studio: Studio, found: Journey) -> tuple[StepState, str, str, str]:
    job = found.job("draw_images")
    if job is not None and (job.state != "failed" or not found.has_items):
        return "now", "New pictures", "The first ones.", job_card(studio, job)
    if found.adapter_id is None or found.job("train_image"):
        return "next", "New pictures", "Of that character, doing what you say.", ""
    if found.has_items:
        more = go("Draw more", look="primary", tab="images", adapter=found.adapter_id)
        return (
            "done",
            "New pictures",
            "Say what should happen next.",
            f'<div class="actions sticky">{more}</div>',
        )
    label = f"Draw {plural(FIRST_PICTURES, 'picture')}"
    start = button(label, "home-draw", look="primary", name="home-draw", id=found.adapter_id)
    return "now", "New pictures", "Wearing a crown, on a beach.", f'<div class="actions sticky">{start}</div>'


TAB = Tab(
    "home",
    "Home",
    columns=(
        (Region("next", draw_next, waiting='<div class="skeleton"></div>'), Region("lately", draw_recent)),
        (Region("running", draw_running), Region("machine", draw_machine, always=True)),
    ),
    actions={"sample": on_sample, "refill": on_refill, "train": on_train, "draw": on_draw},
    layout="aside",
)
