"""The report of a training: how good it is, its checkpoints, itself beside others, its recipe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from masuka.requests.text import id_in
from masuka.store.runs import Run
from masuka.store.scores import Score
from masuka.studio import Studio
from masuka.studio.reports import MOST_COMPARED, Kept, exports
from masuka.ui.cards import sample_tile
from masuka.ui.charts import MOST_POINTS, Point
from masuka.ui.kit import Outcome, Payload, id_of, key_of, values_of
from masuka.ui.lines import Line, lines_chart, names_of
from masuka.ui.markup import address, button, card, chip, disclosure, download, esc, facts, go, media, picture
from masuka.ui.view import View
from masuka.ui.words import duration, gib, number, per_step, plural, short

RECIPE_FORM = "training-recipe"
NAMES: Mapping[str, tuple[str, str]] = {
    "likeness": ("Likeness", "Higher is more like the pictures."),
    "validation": ("Validation", "Lower is better; the same noise every time."),
    "prompt": ("Following the prompt", "Higher shows more of what was asked for."),
    "variety": ("Variety", "Lower means that the samples look alike."),
}
BANDS = ("low", "mid", "high")
_MEASURED = (("peak_gpu_bytes", "GPU memory"), ("peak_ram_bytes", "Main memory"), ("disk_bytes", "Disk"))
_SAMPLES_BESIDE = 4


def draw_report(studio: Studio, view: View) -> str:
    """What was found out about the shown training; nothing before its first score."""
    run = shown_run(studio, view)
    if run is None:
        return ""
    scores = studio.reports.scores(run.id)
    if not scores and not run.report:
        return ""
    cards = [_verdict(studio, run, scores), _charts(run, scores), _checkpoints(studio, run), _took(run)]
    return f'<div class="stack report">{"".join(cards)}{_recipe(studio, run)}</div>'


def draw_compare(studio: Studio, view: View) -> str:
    """The shown training beside the ones chosen, and the list to choose from."""
    run = shown_run(studio, view)
    others = [] if run is None else [r for r in studio.training.runs(limit=24) if r.id != run.id]
    if run is None or not others:
        return ""
    chosen = [r for r in others if r.id in _ids(view.only)][: MOST_COMPARED - 1]
    links = "".join(_choice(r, [c.id for c in chosen]) for r in others)
    choose = disclosure(
        "Compare with others", f'<div class="choices">{links}</div>', name="report-compare", opened=bool(chosen)
    )
    return card(choose + (_beside(studio, [run, *chosen]) if chosen else ""), title="Beside others", classes="report")


def shown_run(studio: Studio, view: View) -> Run | None:
    """The training that the Training tab shows."""
    from masuka.ui.training import _run

    return _run(studio, view)


def on_export(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The job that makes a LoRA of a checkpoint."""
    studio.reports.export(id_of(payload), id_of(payload, "step"), key=key_of(payload))
    return Outcome("The LoRA of that checkpoint is being made.")


def on_recipe(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The queued training by a recipe."""
    values = values_of(payload)
    recipe, dataset_id = str(values.get("recipe", "")), id_in(values.get("recipe_dataset")) or 0
    job = studio.reports.train_by(recipe, dataset_id=dataset_id, key=key_of(payload))
    return Outcome("Training is on its way, by that recipe.", go={"run": job.run_id}, clear=RECIPE_FORM)


def on_judges(studio: Studio, payload: Payload, view: View) -> Outcome:
    """The jobs that fetch what tells more of a training."""
    jobs = studio.reports.download_judges()
    return Outcome(f"{plural(len(jobs), 'download')} on the way.")


def _verdict(studio: Studio, run: Run, scores: Sequence[Score]) -> str:
    report = run.report
    overfit = f'<div class="notice warn"><p>{esc(report["overfit"])}</p></div>' if report.get("overfit") else ""
    said = "".join(f"<li>{esc(sentence)}</li>" for sentence in report.get("sentences", []))
    body = f"<ul>{said}</ul>" if said else f'<p class="hint">{esc(_so_far(scores))}The best checkpoint is chosen at the end.</p>'
    rule = ""
    if report.get("rule"):
        rule = disclosure("How it is chosen", f'<p class="hint">{esc(report["rule"])}</p>', name="report-rule")
    missing = studio.reports.missing_judges() if run.base.partition("+")[0] != "pocket" else {}
    fetch = ""
    if missing:
        names = " and ".join(title for title, _ in missing.values())
        size = sum(size for _, size in missing.values())
        more = button(f"Download {names} ({gib(size)})", "training-judges", name="training-judges")
        fetch = f'<div class="row"><p class="hint">Likeness and prompts are told by small models.</p>{more}</div>'
    return card(overfit + body + _weights(run, scores) + rule + fetch, title="How good is it?")


def _so_far(scores: Sequence[Score]) -> str:
    """Where a running training stands, by the figure that tells most."""
    for name, better, words in (("likeness", max, "Most like the pictures"), ("validation", min, "Lowest validation")):
        known = [(score.value, score.step) for score in scores if score.name == name and score.weight == 1]
        if known:
            value, step = better(known)
            return f"{words} so far: step {number(step)}, at {short(value)}. "
    return ""


def _weights(run: Run, scores: Sequence[Score]) -> str:
    """The grid of weights of the best checkpoint."""
    best, weight = run.report.get("best_step"), run.report.get("best_weight")
    rows: dict[float, dict[str, float]] = {}
    for score in scores:
        if score.name in ("likeness", "prompt", "variety") and score.step in (best, 0):
            rows.setdefault(score.weight, {})[score.name] = score.value
    if weight is None or len(rows) < 2:
        return ""
    names = [name for name in ("likeness", "prompt", "variety") if any(name in row for row in rows.values())]
    head = "".join(f"<th scope=col>{esc(NAMES[name][0])}</th>" for name in names)
    body = "".join(
        f"<tr{' class=best' if at == weight else ''}><th scope=row>{'without' if at == 0 else f'{at:g}'}"
        f"{' ' + chip('best', 'good') if at == weight else ''}</th>"
        + "".join(f"<td>{f'{row[name]:.2f}' if name in row else ''}</td>" for name in names)
        + "</tr>"
        for at, row in sorted(rows.items())
    )
    return f'<div class="wide-table" tabindex="0"><table><thead><tr><th scope=col>Weight</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _charts(run: Run, scores: Sequence[Score]) -> str:
    total, best = _last_step(run), run.report.get("best_step")
    figures = []
    for name, (title, hint) in NAMES.items():
        points = _points(scores, name)
        level = next((s.value for s in scores if s.name == name and s.weight == 0), None)
        lines = [Line(title, points)]
        if name == "validation":
            lines += [Line(f"{band} noise", _points(scores, f"validation_{band}")) for band in BANDS]
        chart = lines_chart(lines, label=title, last_step=total, best_step=best, level=level)
        if chart:
            named = names_of(lines if len(lines) > 1 else [], level="without the LoRA" if level is not None else "")
            figures.append(
                f'<figure><figcaption><h3>{esc(title)} {short(points[-1].value)}</h3><p class="hint">{esc(hint)}</p></figcaption>'
                f"{chart}{named}</figure>"
            )
    return card(f'<div class="figures">{"".join(figures)}</div>', title="Scores") if figures else ""


def _checkpoints(studio: Studio, run: Run) -> str:
    kept = studio.reports.checkpoints(run.id)
    if not kept:
        return ""
    running = any(j.state in ("queued", "running") for j in studio.jobs.list(run_id=run.id, kind="train_image", limit=1))
    tiles = "".join(_checkpoint(run, one, running=running) for one in kept)
    return card(f'<div class="checkpoints">{tiles}</div>', title="Checkpoints")


def _checkpoint(run: Run, kept: Kept, *, running: bool) -> str:
    shown = (
        picture(media("sample", kept.sample_id), f"Sample of step {kept.step}")
        if kept.sample_id is not None
        else '<div class="no-sample" aria-hidden="true"></div>'
    )
    said = " · ".join(
        f"{name} {kept.scores[name]:.3f}" for name in ("likeness", "validation") if name in kept.scores
    )
    if kept.adapter is not None:
        act = go("Draw with it", look="plain", tab="images", adapter=kept.adapter.id)
    elif running or not exports(run):
        act = ""
    else:
        act = button("Make a LoRA of it", "training-export", id=run.id, step=kept.step)
    best = chip("best", "good") if kept.best else ""
    return (
        f'<article{" class=best" if kept.best else ""}>{shown}<div class="row between"><h3>Step {number(kept.step)}</h3>{best}</div>'
        f'<p class="hint">{esc(said)}</p>{act}</article>'
    )


def _took(run: Run) -> str:
    """What it was expected to take, beside what it took."""
    rows = [
        (title, _bytes(run.estimate.get(name)), _bytes(run.measured.get(name))) for name, title in _MEASURED
    ]
    pace = run.measured.get("seconds_per_step")
    rows.append(("A step", _pace(run.estimate.get("seconds_per_step")), _pace(pace)))
    if run.report.get("scoring_s"):
        rows.append(("Scoring", "", duration(float(run.report["scoring_s"]))))
    rows = [row for row in rows if row[1] or row[2]]
    if not rows:
        return ""
    body = "".join(
        f"<tr><th scope=row>{esc(title)}</th><td>{expected or '—'}</td><td>{took or '—'}</td></tr>"
        for title, expected, took in rows
    )
    head = "<thead><tr><th scope=col></th><th scope=col>Estimated</th><th scope=col>Measured</th></tr></thead>"
    return card(f'<div class="wide-table" tabindex="0"><table>{head}<tbody>{body}</tbody></table></div>', title="What it took")


def _recipe(studio: Studio, run: Run) -> str:
    sets = [d for d in studio.datasets.list() if d.picture_count]
    options = "".join(f'<option value="{d.id}"{" selected" if d.id == run.dataset_id else ""}>{esc(d.name)}</option>' for d in sets)
    again = ""
    if sets and studio.actor.role != "viewer":
        train = button("Train by this recipe", "training-recipe", form=RECIPE_FORM, name="training-recipe-go")
        again = disclosure(
            "Train by a recipe",
            f'<form id="{RECIPE_FORM}" class="form" novalidate autocomplete="off">'
            f'<div class="field wide"><label for="{RECIPE_FORM}-recipe">Recipe</label>'
            f'<textarea id="{RECIPE_FORM}-recipe" name="recipe" rows="6" placeholder="The text of a recipe file, YAML or JSON" '
            f'aria-describedby="{RECIPE_FORM}-recipe-help {RECIPE_FORM}-recipe-error"></textarea>'
            f'<p class="help" id="{RECIPE_FORM}-recipe-help"><label class="file">Choose a file'
            f'<input type="file" accept=".yaml,.yml,.json" data-into="{RECIPE_FORM}-recipe"></label> or paste its text.</p>'
            f'<p class="error" id="{RECIPE_FORM}-recipe-error" role="alert" hidden></p></div>'
            f'<div class="field wide"><label for="{RECIPE_FORM}-set">Data set</label>'
            f'<select id="{RECIPE_FORM}-set" name="recipe_dataset">{options}</select></div>'
            f'<div class="actions full">{train}</div></form>',
            name="report-by-recipe",
        )
    save = download("Recipe (YAML)", f"download/recipe/{run.id}") + download("Recipe (JSON)", f"download/recipe/{run.id}?form=json")
    about = [(name, esc(value)) for name, value in studio.reports.environment(run.id).items()]
    made = disclosure("Made with", facts(about), name="report-environment") if about else ""
    return card(f'<p class="hint">All settings as a file, to keep, pass on and run again.</p><div class="actions">{save}</div>{again}{made}', title="Recipe")


def _beside(studio: Studio, runs: Sequence[Run]) -> str:
    parts = [names_of([Line(run.name, ()) for run in runs])]
    losses = [Line(run.name, _loss(studio, run)) for run in runs]
    last = max(_last_step(run) for run in runs)
    figures = [("Loss", lines_chart(losses, label="Loss", last_step=last))]
    all_scores = {run.id: studio.reports.scores(run.id) for run in runs}
    for name, (title, _) in NAMES.items():
        lines = [Line(run.name, _points(all_scores[run.id], name)) for run in runs]
        figures.append((title, lines_chart(lines, label=title, last_step=last)))
    drawn = "".join(f"<figure><figcaption><h3>{esc(title)}</h3></figcaption>{chart}</figure>" for title, chart in figures if chart)
    parts.append(f'<div class="figures">{drawn}</div>')
    parts.append(_differences(studio, runs))
    parts += [_samples(studio, run) for run in runs]
    return f'<div class="stack">{"".join(parts)}</div>'


def _differences(studio: Studio, runs: Sequence[Run]) -> str:
    rows = studio.reports.differences([run.id for run in runs])
    best: list[tuple[str, list[Any]]] = [
        (title, [run.report.get(name, "") for run in runs])
        for name, title in (("best_step", "Best step"), ("best_weight", "Best weight"))
        if any(name in run.report for run in runs)
    ]
    named = [(row.name.replace("_", " "), list(row.values)) for row in rows]
    if not named and not best:
        return '<p class="hint">Their settings are the same.</p>'
    head = "".join(f"<th scope=col>{esc(run.name)}</th>" for run in runs)
    body = "".join(
        f"<tr><th scope=row>{esc(title)}</th>{''.join(f'<td>{esc(_value(v))}</td>' for v in values)}</tr>"
        for title, values in [*named, *best]
    )
    said = "" if named else '<p class="hint">Their settings are the same.</p>'
    return f'{said}<div class="wide-table" tabindex="0"><table><thead><tr><th scope=col>What differs</th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _samples(studio: Studio, run: Run) -> str:
    """The last steps' first samples of one training, as a row."""
    by_step = {sample.step: sample for sample in reversed(studio.training.samples(run.id))}
    last = [by_step[step] for step in sorted(by_step)][-_SAMPLES_BESIDE:]
    if not last:
        return ""
    tiles = "".join(sample_tile(s.id, s.prompt, s.step) for s in last)
    return f'<div><h3>{esc(run.name)}</h3><div class="strip">{tiles}</div></div>'


def _choice(run: Run, chosen: Sequence[int]) -> str:
    is_chosen = run.id in chosen
    ids = [id for id in chosen if id != run.id] if is_chosen else [*chosen, run.id][-(MOST_COMPARED - 1) :]
    mark = ' aria-current="true"' if is_chosen else ""
    return f'<a class="button{"" if is_chosen else " quiet"}" href="{address(only=",".join(map(str, ids)))}" data-go{mark}>{esc(run.name)}</a>'


def _ids(text: str) -> list[int]:
    return [id for part in text.split(",") if (id := id_in(part)) is not None]


def _points(scores: Iterable[Score], name: str) -> list[Point]:
    """Of the LoRA as it was learnt; the base's own score is a level, no point."""
    return [Point(s.step, s.value) for s in scores if s.name == name and s.weight == 1]


def _loss(studio: Studio, run: Run) -> list[Point]:
    """The running mean of the loss."""
    mean, points = None, []
    for metric in studio.training.metrics(run.id, max_points=MOST_POINTS):
        if metric.loss is not None:
            mean = metric.loss if mean is None else mean + 0.1 * (metric.loss - mean)
            points.append(Point(metric.step, mean))
    return points


def _last_step(run: Run) -> int:
    return int(run.config.get("steps", 0) or 0)


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (int, float)):
        return number(value)
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value if value is not None else "")


def _bytes(value: Any) -> str:
    return gib(float(value) / 2**30) if isinstance(value, (int, float)) and value > 0 else ""


def _pace(value: Any) -> str:
    return per_step(float(value)) if isinstance(value, (int, float)) and value > 0 else ""
