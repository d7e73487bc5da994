"""The page's own routes, all behind the gate: media, older tiles, uploads, downloads.

Reading ones are GET and change nothing. Files are found by id through the studio, which
checks whose they are; content types are fixed; nothing here takes a path from outside.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from masuka.datasets.edits import version_of
from masuka.datasets.masks import LARGEST_BYTES as LARGEST_MASK_BYTES
from masuka.errors import InvalidInput, MasukaError, NotAllowed, NotFound
from masuka.hosting import diagnostics
from masuka.requests import Actor
from masuka.requests.recipes import Form
from masuka.requests.text import clean_filename, id_in
from masuka.studio import Studio
from masuka.ui import captioning, captions, roles, sheet, uploads
from masuka.ui.forecast import plan_piece
from masuka.ui.images import more_items, side_of_item
from masuka.ui.kit import note
from masuka.ui.library import MOST_EXPORTED
from masuka.ui.markup import THIS_RUN, VERSION_DIGITS, address
from masuka.ui.picture import side_of_picture
from masuka.ui.pictures import more_pictures

log = logging.getLogger(__name__)
STATIC = Path(__file__).parent / "static"
DRAWINGS = frozenset({"home", "datasets", "training", "images", "library"})
OWN = ("media", "drawing", "fragment", "upload", "download", "caption", "mask")
_LONGEST_BODY = 64_000
_A_DAY = "private, max-age=86400, immutable"
_ASK_FIRST = "private, no-cache"
"""Ids come again in another workspace or after a restore, so a picture is never good for ever."""
TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
Handler = Callable[[Studio, Request], Awaitable[Response]]


class _Id(Convertor[int]):
    """As many digits as every id of the database has; a longer number is no address of ours."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("id", _Id())


def routes(studio: Studio) -> list[Route]:
    """Every route of ours, bound to the open studio."""
    table: list[tuple[str, Handler, list[str]]] = [
        ("/media/{kind}/{id:id}", media, ["GET"]),
        ("/drawing/{name}", drawing, ["GET"]),
        ("/fragment/item/{id:id}", fragment_item, ["GET"]),
        ("/fragment/picture/{id:id}", fragment_picture, ["GET"]),
        ("/fragment/items", fragment_items, ["GET"]),
        ("/fragment/pictures/{id:id}", fragment_pictures, ["GET"]),
        ("/fragment/captions/{id:id}", fragment_captions, ["GET"]),
        ("/fragment/found/{id:id}", fragment_found, ["GET"]),
        ("/fragment/trainer/{id:id}", fragment_trainer, ["GET"]),
        ("/fragment/tags/{id:id}", fragment_tags, ["GET"]),
        ("/fragment/captioners/{id:id}", fragment_captioners, ["GET"]),
        ("/fragment/plan", fragment_plan, ["GET"]),
        ("/caption/{id:id}", caption, ["PUT"]),
        ("/mask/{id:id}", mask, ["GET"]),
        ("/mask/{id:id}", set_mask, ["PUT"]),
        ("/upload/{batch}/{index:id}", upload, ["PUT"]),
        ("/download/item/{id:id}", download_item, ["GET"]),
        ("/download/items", download_items, ["GET"]),
        ("/download/dataset/{id:id}", download_dataset, ["GET"]),
        ("/download/export/{id:id}", download_export, ["GET"]),
        ("/download/adapter/{id:id}", download_adapter, ["GET"]),
        ("/download/recipe/{id:id}", download_recipe, ["GET"]),
        ("/download/diagnostics", download_diagnostics, ["GET"]),
    ]
    table += [(f"/{name}/{{rest:path}}", nothing, ["GET", "PUT"]) for name in OWN]
    return [Route(path, _bound(studio, handler), methods=methods) for path, handler, methods in table]


async def media(studio: Studio, request: Request) -> Response:
    """A picture as edited, item, sample or preview, or a part of it."""
    kind = request.path_params["kind"]
    small, original = (request.query_params.get(name) == "1" for name in ("thumb", "original"))
    id = request.path_params["id"]
    file = await run_in_threadpool(studio.media, kind, id, thumbnail=small, original=original)
    keeps = small and await run_in_threadpool(_is_version, studio, request)
    return _file(request, file, _A_DAY if keeps else _ASK_FIRST)


async def drawing(studio: Studio, request: Request) -> Response:
    """A drawing of the empty states."""
    name = request.path_params["name"]
    if name not in DRAWINGS:
        raise NotFound("There is no such drawing.")
    return _file(request, STATIC / "drawings" / f"{name}.png", "private, max-age=86400")


async def nothing(studio: Studio, request: Request) -> Response:
    """404: Gradio would answer an unknown address below ours with the page itself."""
    raise NotFound("There is nothing at this address.")


async def fragment_item(studio: Studio, request: Request) -> Response:
    """The viewer's side for an item."""
    return _piece(studio, await run_in_threadpool(side_of_item, studio, request.path_params["id"]))


async def fragment_picture(studio: Studio, request: Request) -> Response:
    """The viewer's side for a picture of a data set."""
    return _piece(studio, await run_in_threadpool(side_of_picture, studio, request.path_params["id"]))


async def fragment_items(studio: Studio, request: Request) -> Response:
    """The next page of items; the address of the one after it is in `x-next`."""
    query = request.query_params
    character, starred, text, pick = (
        id_in(query.get("character")),
        query.get("star"),
        query.get("q"),
        query.get("pick"),
    )
    tiles, following = await run_in_threadpool(
        more_items, studio, before_id=id_in(query.get("before")) or 0, character_id=character,
        starred=True if starred == "1" else None, query=(text or "")[:200], selectable=pick == "1",
    )  # fmt: skip
    known = {"character": character or "", "star": starred or "", "q": text or "", "pick": pick or ""}
    after = "" if following is None else "fragment/items" + address(before=following, **known)
    return _piece(studio, tiles, after)


async def fragment_pictures(studio: Studio, request: Request) -> Response:
    """The next page of a set's pictures; `x-next` is the address of the one after."""
    query = request.query_params
    tiles, following = await run_in_threadpool(
        more_pictures, studio, request.path_params["id"], id_in(query.get("after")) or 0,
        query.get("only", ""), query.get("sort", ""),
    )  # fmt: skip
    return _piece(studio, tiles, following)


async def fragment_captions(studio: Studio, request: Request) -> Response:
    """A page of a set's captions; `x-next` is the next one's address, `x-total` all."""
    shown, query = _captions_of(request), request.query_params
    rows, following, total = await run_in_threadpool(
        captions.more_rows, studio, shown, id_in(query.get("after")) or 0
    )
    known = {"q": shown.query, "only": query.get("only", "")}
    path = f"fragment/captions/{shown.dataset_id}"
    answer = _piece(studio, rows, "" if following is None else path + address(after=following, **known))
    answer.headers["x-total"] = str(total)
    return answer


async def fragment_found(studio: Studio, request: Request) -> Response:
    """How many of a set's captions hold a text."""
    find = request.query_params.get("find", "")[:2000]
    return _piece(studio, str(await run_in_threadpool(captions.found_in, studio, _captions_of(request), find)))


async def fragment_trainer(studio: Studio, request: Request) -> Response:
    """The next page of what the trainer sees; `x-next` is the one's after it."""
    query = request.query_params
    tiles, following = await run_in_threadpool(
        sheet.more_sheet, studio, request.path_params["id"], query.get("base", "")[:100],
        id_in(query.get("px")), id_in(query.get("after")) or 0,
    )  # fmt: skip
    return _piece(studio, tiles, following)


async def fragment_plan(studio: Studio, request: Request) -> Response:
    """What a training with the form's values takes."""
    return _piece(studio, await run_in_threadpool(plan_piece, studio, request.query_params.get("v", "")))


async def fragment_tags(studio: Studio, request: Request) -> Response:
    """What a set's captions say, and how often."""
    return _piece(studio, await run_in_threadpool(captions.tags, studio, request.path_params["id"]))


async def fragment_captioners(studio: Studio, request: Request) -> Response:
    """The form that has captions written."""
    return _piece(studio, await run_in_threadpool(captioning.panel, studio, request.path_params["id"]))


async def caption(studio: Studio, request: Request) -> Response:
    """One caption, saved while it is typed."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _LONGEST_BODY:
            raise InvalidInput("The caption is far too long.", "Keep it under 2,000 characters.")
    try:
        given = json.loads(body)
    except ValueError as error:
        raise InvalidInput("The caption did not arrive.", "Reload the page.") from error
    return JSONResponse(
        await run_in_threadpool(captions.save, studio, request.path_params["id"], given), headers=_FRESH
    )


async def mask(studio: Studio, request: Request) -> Response:
    """The mask painted over a picture, white where it counts."""
    file = await run_in_threadpool(studio.edits.mask, request.path_params["id"])
    if file is None:
        raise NotFound("This picture has no mask.")
    return _file(request, file, _ASK_FIRST)


async def set_mask(studio: Studio, request: Request) -> Response:
    """The mask, as the page painted it."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_MASK_BYTES:
            raise InvalidInput("The mask is far too large.", "Paint it on a smaller picture.")
    await run_in_threadpool(studio.edits.set_mask, request.path_params["id"], body)
    return JSONResponse({}, headers=_FRESH)


def _captions_of(request: Request) -> captions.Shown:
    query = request.query_params
    return captions.Shown(
        request.path_params["id"], query.get("q", "")[:200], only_problems=query.get("only") == "problems"
    )


async def upload(studio: Studio, request: Request) -> Response:
    """One file of an upload, stored until a job takes it in."""
    name, folder = request.query_params.get("name", ""), request.query_params.get("folder", "")
    file = await uploads.receive(
        studio, request.path_params["batch"], request.path_params["index"], name, request.stream(), folder=folder
    )
    return JSONResponse({"name": file.name}, 201)


async def download_item(studio: Studio, request: Request) -> Response:
    """One picture with its settings embedded, to save."""
    file = await run_in_threadpool(studio.media, "item", request.path_params["id"])
    return FileResponse(file, filename=f"masuka-{request.path_params['id']}{file.suffix}")


async def download_items(studio: Studio, request: Request) -> Response:
    """A zip of the chosen pictures."""
    given = request.query_params.get("ids", "").split(",")
    ids = list(dict.fromkeys(id for part in given if (id := id_in(part)) is not None))
    if not 0 < len(ids) <= MOST_EXPORTED:
        raise InvalidInput("Nothing is selected.", f"Choose 1 to {MOST_EXPORTED:,} pictures.")
    make = partial(studio.library.export, ids, left_bytes=uploads.ROOM_LEFT_BYTES)
    return await _passing(studio, make, "masuka-pictures.zip")


async def download_dataset(studio: Studio, request: Request) -> Response:
    """A zip of the data set: pictures, captions and a side-car."""
    dataset = await run_in_threadpool(studio.datasets.get, request.path_params["id"])
    make = partial(studio.datasets.export, dataset.id, left_bytes=uploads.ROOM_LEFT_BYTES)
    return await _passing(studio, make, clean_filename(f"{dataset.name}.zip"))


async def download_export(studio: Studio, request: Request) -> Response:
    """The zip that a job has packed."""
    file = await run_in_threadpool(studio.datasets.exported, request.path_params["id"])
    return FileResponse(file, filename=file.name, headers=_FRESH)


async def download_adapter(studio: Studio, request: Request) -> Response:
    """The LoRA's file; with `as=` one that it was converted to."""
    adapter = await run_in_threadpool(studio.models.adapter, request.path_params["id"])
    file, form = Path(studio.workspace.resolve(adapter.path)), request.query_params.get("as", "")
    if not file.exists():
        raise NotFound(f"The file of {adapter.name} is gone.", "Train it again or delete it.")
    if form:
        files = await run_in_threadpool(studio.adapters.files, adapter.id)
        if form not in files:
            raise NotFound(f"{adapter.name} has no such file.", "Convert it first.")
        file = files[form]
    name = f"{adapter.name} {form}".strip() if form != "own" else adapter.name
    return FileResponse(file, filename=clean_filename(f"{name}{file.suffix}"))


async def download_recipe(studio: Studio, request: Request) -> Response:
    """A training's settings, as YAML or with `form=json` as JSON."""
    id = request.path_params["id"]
    form: Form = "json" if request.query_params.get("form") == "json" else "yaml"
    text = await run_in_threadpool(studio.reports.recipe, id, form)
    name = clean_filename(f"{(await run_in_threadpool(studio.training.run, id)).name} recipe.{form}")
    headers = {**_FRESH, "content-disposition": f"attachment; filename*=utf-8''{quote(name)}"}
    return Response(text, media_type="text/plain; charset=utf-8", headers=headers)


async def download_diagnostics(studio: Studio, request: Request) -> Response:
    """The diagnostics bundle, without keys, pictures and prompts."""
    studio.actor.must_own()
    make = partial(diagnostics.bundle, studio.settings, jobs=studio.jobs.list(limit=50))
    return await _passing(studio, make, "masuka-diagnostics.zip")


_FRESH = {"cache-control": "no-store"}
_SANDBOX = {"content-security-policy": "sandbox; default-src 'none'; img-src 'self'; style-src 'unsafe-inline'"}
"""Opened as a page of its own, a file can run and fetch nothing."""


def _piece(studio: Studio, body: str, following: str = "") -> HTMLResponse:
    """A piece of the page for this person; `following` is the address of the next one."""
    return HTMLResponse(roles.without_forbidden(body, studio.actor), 200, {**_FRESH, "x-next": following})


def _bound(studio: Studio, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """The handler for whoever the gate let in; known errors become JSON of one shape."""

    async def respond(request: Request) -> Response:
        try:
            actor = request.scope.get("actor")
            if not isinstance(actor, Actor):
                raise NotAllowed("Not signed in.", "Open the app's link.")
            theirs = studio.acting_as(actor)
            answer = await handler(theirs, request)
            if request.url.path.startswith("/download/"):
                await run_in_threadpool(note, theirs, "took out", request.url.path.removeprefix("/download/"))
            return answer
        except MasukaError as error:
            status = 404 if isinstance(error, NotFound) else 403 if isinstance(error, NotAllowed) else 400
            return JSONResponse(error.as_dict(), status, _FRESH)
        except Exception:  # a bug: the person gets a reference, the log the rest
            reference = secrets.token_hex(3)
            log.exception("error %s in %s", reference, request.url.path)
            body = {
                "type": "Bug",
                "message": "Something went wrong inside masuka.",
                "hint": f"Reference {reference}.",
            }
            return JSONResponse(body, 500, _FRESH)

    return respond


def _file(request: Request, file: Path, cache: str) -> Response:
    stat = file.stat()
    tag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    headers = {"cache-control": cache, "etag": tag, "x-content-type-options": "nosniff", **_SANDBOX}
    if request.headers.get("if-none-match") == tag:
        return Response(None, 304, headers)
    kind = TYPES.get(file.suffix.lower())
    if kind is None:
        raise NotFound("This kind of file is not shown.", "Download it instead.")
    return FileResponse(file, media_type=kind, headers=headers, stat_result=stat)


def _is_version(studio: Studio, request: Request) -> bool:
    """Whether the address names what is there now, and another address what comes later."""
    kind, version = request.path_params["kind"], request.query_params.get("v", "")
    if kind == "picture" and len(version) == VERSION_DIGITS:
        picture = studio.datasets.picture(request.path_params["id"])
        edits = {} if request.query_params.get("original") == "1" else picture.edits
        return version_of(picture.sha256, edits).startswith(version)
    return bool(kind == "item" and version == THIS_RUN)


class _Passing(FileResponse):
    """A file that is sent once and then deleted, however that ended.

    A background task is passed over where a part is asked for that is not there.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


async def _passing(studio: Studio, make: Callable[[Path], Path], name: str) -> _Passing:
    """The zip that `make` writes to the path it is given."""
    folder = studio.workspace.uploads / uploads.OUTGOING
    folder.mkdir(parents=True, exist_ok=True)
    to = folder / f"{secrets.token_hex(16)}.zip"
    try:
        return _Passing(await run_in_threadpool(make, to), filename=name, headers=_FRESH)
    except BaseException:
        to.unlink(missing_ok=True)
        raise
