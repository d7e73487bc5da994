"""What the trainer sees of a set: its buckets, and of each picture the crop and the caption."""

from __future__ import annotations

from collections.abc import Sequence

from masuka.datasets.lint import is_longer, longest_for
from masuka.requests.base import Param
from masuka.studio import Studio
from masuka.studio.edits import Overview, SheetRow
from masuka.studio.sheet import CUT_FROM, cut_off
from masuka.ui.cards import grid
from masuka.ui.estimates import base_choices
from masuka.ui.kit import Region
from masuka.ui.markup import VERSION_DIGITS, address, attributes, card, chip, disclosure, esc, picture
from masuka.ui.parts import nothing_yet
from masuka.ui.view import View
from masuka.ui.words import number, plural, short

PAGE = 40
FORM = "trainer-form"
_BOX_PX = 28


def draw_sheet(studio: Studio, view: View) -> str:
    """The choice of base and resolution, the buckets, and the first page of pictures."""
    if view.dataset is None or view.part != "trainer":
        return ""
    base, resolution = _chosen(studio, view)
    resolution_px = _size(view, resolution)
    form = _form(studio, base, resolution, resolution_px)
    whole = studio.edits.overview(view.dataset, base, resolution_px)
    if not whole.pictures:
        return f'<div class="whole stack">{form}{card(nothing_yet(studio, "No pictures to learn from yet."))}</div>'
    rows = studio.edits.sheet(view.dataset, base, resolution_px, limit=PAGE)
    page = [r for r in rows if r.picture_id <= (view.until or r.picture_id)]
    more = _next(view.dataset, base, resolution_px, page) if page and whole.pictures > len(page) else ""
    tiles = grid([tile(r, base) for r in page], name="trainer-grid", more=more)
    return f'<div class="whole stack">{form}{_buckets(whole, base)}{tiles}</div>'


def more_sheet(studio: Studio, dataset_id: int, base: str, px: int | None, after: int) -> tuple[str, str]:
    """The next page of pictures, and the address of the one after it ('' at the end)."""
    view = View(dataset=dataset_id, base=base, px=px)
    base, resolution = _chosen(studio, view)
    resolution_px = _size(view, resolution)
    rows = studio.edits.sheet(dataset_id, base, resolution_px, after=after, limit=PAGE + 1)
    following = _next(dataset_id, base, resolution_px, rows[:PAGE]) if len(rows) > PAGE else ""
    return "".join(tile(r, base) for r in rows[:PAGE]), following


def tile(row: SheetRow, base: str) -> str:
    """The picture with its bucket's crop drawn over it, and the caption as read."""
    left, top, right, bottom = row.window
    wide, high = row.width / (right - left), row.height / (bottom - top)
    src = f"media/picture/{row.picture_id}?thumb=1&v={row.version[:VERSION_DIGITS]}"
    window = {
        "class": "window",
        "style": f"left:{left:.2%};top:{top:.2%};width:{right - left:.2%};height:{bottom - top:.2%}",
    }
    cut = cut_off(row.window)
    marks = [chip(f"{row.width:,} × {row.height:,}", "quiet")]
    if row.enlarged:
        marks.append(chip(f"enlarged {short(row.scale)} ×", "warn"))
    if cut >= CUT_FROM:
        marks.append(chip(f"{cut:.0%} cut off", "warn"))
    if is_longer(row.caption, longest_for(base)):
        marks.append(chip("too long", "warn"))
    if row.masked:
        marks.append(chip("masked", "quiet"))
    given = {
        "class": "tile seen", "data-id": row.picture_id,
        "data-full": f"media/picture/{row.picture_id}", "data-side": f"fragment/picture/{row.picture_id}",
    }  # fmt: skip
    caption = f'<span dir="auto">{esc(row.caption)}</span>' if row.caption else "<em>no caption</em>"
    return (
        f'<figure{attributes(given)}><button type="button" class="open" data-open>'
        f'<span class="frame" style="aspect-ratio:{wide:.0f}/{high:.0f};--ratio:{wide / high:.4f}">'
        f"{picture(src, row.caption or 'A picture without a caption')}<i{attributes(window)}></i></span></button>"
        f'<figcaption><span class="row">{"".join(marks)}</span>{caption}</figcaption></figure>'
    )


def _form(studio: Studio, base: str, resolution: Param, resolution_px: int) -> str:
    """Base and resolution; a change of either is a change of the view."""
    options = "".join(
        f"<option{attributes({'value': value, 'selected': value == base})}>{esc(text)}</option>"
        for value, text in base_choices(studio.models.bases(), base)
    )
    size = {
        "id": f"{FORM}-px", "name": "px", "type": "number", "value": resolution_px, "min": resolution.minimum,
        "max": resolution.maximum, "step": resolution.step, "inputmode": "numeric", "data-view-key": "px",
        "data-default": resolution_px, "data-label": "Resolution", "data-range": resolution.range_sentence,
        "aria-describedby": f"{FORM}-px-help {FORM}-px-error",
    }  # fmt: skip
    help_text = f"{number(float(resolution.default))} px is usual for this model."
    return (
        f'<form id="{FORM}" class="form trainer" novalidate autocomplete="off">'
        f'<div class="field"><label for="{FORM}-base">Base model</label>'
        f'<select id="{FORM}-base" name="base" data-view-key="base" data-default="{esc(base)}">{options}</select></div>'
        f'<div class="field"><label for="{FORM}-px">Resolution</label><input{attributes(size)}>'
        f'<p class="help" id="{FORM}-px-help">{help_text}</p>'
        f'<p class="error" id="{FORM}-px-error" role="alert" hidden></p></div></form>'
    )


def _buckets(whole: Overview, base: str) -> str:
    """The table of buckets, and in a sentence each what is not as it should be."""
    largest = whole.buckets[0][1]
    body = "".join(
        f'<tr><th scope="row"><span class="bucket">{_shape(s.width, s.height)}{s.width:,} × {s.height:,}</span></th><td>{count:,}</td>'
        f'<td aria-hidden="true"><meter min="0" max="{largest}" value="{count}"></meter></td></tr>'
        for s, count in whole.buckets
    )
    table = (
        '<table class="buckets"><caption class="only-read">Buckets and how many pictures each has</caption>'
        '<thead><tr><th scope="col">Bucket</th><th scope="col">Pictures</th><td></td></tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )
    pictures, number_of = plural(whole.pictures, "picture"), len(whole.buckets)
    said = f"{pictures}, {'all in one bucket' if number_of == 1 else f'in {number_of} buckets'}."
    title = f'<p>{said} A picture is scaled until it covers its bucket, and what sticks out is cut off.</p>'
    shown = table if number_of <= 6 else disclosure("All buckets", table, name="trainer-buckets")
    return card(title + _troubles(whole, base) + shown, title="Buckets")


def _troubles(whole: Overview, base: str) -> str:
    enlarged, cut, long, longest = whole.enlarged, whole.cut, whole.too_long, longest_for(base)
    sentences = [
        f"{plural(enlarged, 'picture is', 'pictures are')} enlarged and will be soft. Take larger ones, or a lower resolution."
        if enlarged else "",
        f"{plural(cut, 'picture loses', 'pictures lose')} a third or more at the edges. Crop them yourself to choose what stays."
        if cut else "",
        f"{plural(long, 'caption is', 'captions are')} longer than about {longest:,} tokens; the rest is not read."
        if long else "",
    ]  # fmt: skip
    items = "".join(f"<li>{esc(s)}</li>" for s in sentences if s)
    return f'<div class="notice warn"><ul>{items}</ul></div>' if items else ""


def _shape(width: int, height: int) -> str:
    """A small box of the bucket's shape."""
    longest = max(width, height)
    w, h = max(1, round(_BOX_PX * width / longest)), max(1, round(_BOX_PX * height / longest))
    return f'<i class="shape" style="width:{w}px;height:{h}px" aria-hidden="true"></i>'


def _chosen(studio: Studio, view: View) -> tuple[str, Param]:
    """The base of the view, or the built-in one, and how its resolution is described."""
    base = view.base if view.base in {b.id for b in studio.models.bases()} else "pocket"
    return base, studio.training.defaults(base)["resolution_px"]


def _size(view: View, resolution: Param) -> int:
    """The resolution of the view where this base has such a one, else its usual one."""
    if not view.px:
        return int(resolution.default)
    low, high = resolution.minimum or 1, resolution.maximum or view.px
    if not low <= view.px <= high or view.px % int(resolution.step or 1):
        return int(resolution.default)  # one that another base left in the address
    return view.px


def _next(dataset_id: int, base: str, resolution_px: int, page: Sequence[SheetRow]) -> str:
    query = address(after=page[-1].picture_id, base=base, px=resolution_px)
    return f"fragment/trainer/{dataset_id}{query}"


REGIONS = (Region("trainer", draw_sheet, live=False, waiting='<div class="skeleton"></div>'),)
