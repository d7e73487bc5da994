"""What a step is learnt from: its pictures, pictures of the class, and the class word alone.

Says which micro-steps a step has and how much each counts; the learner computes them. The
same pictures may be had in smaller micro-steps: what is learnt stays the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from masuka.training.batches import Batches, Micro
from masuka.training.caches import Latents, Texts
from masuka.training.objective import Objective
from masuka.training.order import Batch, Order, divided, step_seed
from masuka.training.plan import Plan

Kind = Literal["picture", "prior", "class"]


@dataclass(frozen=True)
class Lesson:
    """One micro-step: the sum over its pictures' errors counts `scale` times.

    Of kind 'class' the micro-step says the class word alone, and what is to be predicted is
    what the model without its adapter predicts.
    """

    kind: Kind
    micro: Micro
    scale: float
    seed: int
    """For what the model itself draws, such as dropout."""


@dataclass(frozen=True)
class Material:
    """Pictures to learn from, ready; `sizes` are how many each bucket has."""

    batches: Batches
    sizes: Sequence[int]


class Lessons:
    """The lessons of each step, in the order in which they are to be taken."""

    def __init__(self, plan: Plan, pictures: Material, prior: Material | None = None) -> None:
        request = plan.request
        self._plan, self._pictures, self._prior = plan, pictures, prior
        self._count = plan.pictures_per_step
        self._order = Order(pictures.sizes, pictures=self._count, seed=request.seed)
        self._prior_order = None
        if prior is not None:
            self._prior_order = Order(prior.sizes, pictures=self._count, seed=f"{request.seed}/prior")
        self._step = -1
        self._batches: list[Batch] = []
        self._prior_batches: list[Batch] = []

    @property
    def epoch(self) -> int:
        """How many times every picture has been learnt from at least."""
        return self._order.epoch

    def skip(self, steps: int) -> None:
        """Moves on by that many steps."""
        self._order.skip(steps)
        if self._prior_order is not None:
            self._prior_order.skip(steps)

    def next(self, step: int) -> None:
        """Moves on to that step, whose lessons `taken` gives as often as it is asked."""
        self._step, self._batches = step, self._order.next()
        self._prior_batches = [] if self._prior_order is None else self._prior_order.next()

    def taken(self, at_once: int) -> Iterator[Lesson]:
        """This process's share of the step's lessons, of at most so many pictures each."""
        request, step, share = self._plan.request, self._step, 1 / self._count
        for batch in self._shared(self._batches, at_once):
            micro = self._pictures.batches.at(step, batch)
            yield Lesson("picture", micro, share, step_seed(request.seed, step, -1 - batch.first))
            if request.class_preservation:
                word = self._plan.class_word
                count = len(batch.rows)
                alone = replace(
                    micro, text=self._pictures.batches.said(word, count), captions=(word,) * count
                )
                seed = step_seed(f"{request.seed}/class", step, -1 - batch.first)
                yield Lesson("class", alone, share * request.class_preservation, seed)
        for batch in self._shared(self._prior_batches, at_once):
            assert self._prior is not None
            micro = self._prior.batches.at(step, batch)
            seed = step_seed(f"{request.seed}/prior", step, -1 - batch.first)
            yield Lesson("prior", micro, share * request.prior_weight, seed)

    def _shared(self, batches: list[Batch], at_once: int) -> list[Batch]:
        """What of the step this process computes; all do the same number where they can."""
        request = self._plan.request
        mine = divided(batches, request.batch_size)[self._plan.rank :: request.processes]
        return divided(mine, at_once)


def texts_beside(plan: Plan) -> list[str]:
    """Every text that is learnt from besides the captions of the pictures."""
    word = [plan.class_word] if plan.request.class_preservation else []
    others = [text for picture in (*plan.pictures, *plan.prior) for text in picture.others]
    return [*word, *(picture.caption for picture in plan.prior), *others]


def lessons_of(
    plan: Plan, texts: Texts, latents: Latents, captions: Sequence[str], prior: Latents | None = None
) -> Lessons:
    """The lessons of a training from its caches; `captions` are the pictures'."""
    own = [(caption, *p.others) for caption, p in zip(captions, plan.pictures, strict=True)]
    told = [(p.caption, *p.others) for p in plan.prior]
    beside = None if prior is None else _material(plan, texts, prior, told, f"{plan.request.seed}/prior")
    return Lessons(plan, _material(plan, texts, latents, own, plan.request.seed), beside)


def _material(
    plan: Plan, texts: Texts, latents: Latents, captions: Sequence[Sequence[str]], seed: int | str
) -> Material:
    batches = Batches(
        plan.family,
        latents,
        texts,
        captions,
        dropout=plan.request.caption_dropout,
        seed=seed,
        device=plan.device,
        dtype=plan.dtype,
        objective=Objective.of(plan.family, plan.request),
    )
    return Material(batches, [len(bucket.pictures) for bucket in latents.buckets])
