"""What the page relies on in Gradio, each with its reason, asked of a page that answers."""

from __future__ import annotations

import inspect
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from gradio.analytics import analytics_enabled
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from masuka.config import Workspace, quiet_environment
from masuka.ui.build import in_a_loop, launch_settings
from masuka.ui.kit import html_piece

TEMPLATE_LIKE = "${1+1} {{value}} <b>bold</b>"


@dataclass
class Seen:
    """What the page's own code was asked."""

    paths: list[str] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    handled: list[Any] = field(default_factory=list)


@dataclass
class Open:
    """An open page with Gradio's own checks only: its middleware lets everybody through."""

    client: httpx.Client
    seen: Seen
    page: Any
    folder: Path
    fn_index: dict[str, int]

    def call(self, name: str, *data: Any, **headers: str) -> httpx.Response:
        """What the page's script sends for an event that is not queued."""
        body = {"data": list(data), "fn_index": self.fn_index[name], "session_hash": "abc"}
        return self.client.post(f"/gradio_api/run/{name}", json=body, headers=headers)


class Watch:
    """Notes each request, and who it says it is from, as the gate does."""

    def __init__(self, app: ASGIApp, seen: Seen) -> None:
        self.app, self.seen = app, seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.seen.paths.append(scope["path"])
            scope["actor"] = dict(scope["headers"]).get(b"x-who", b"").decode()
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Open]:
    folder = tmp_path_factory.mktemp("gradio")
    for name in ("open", "blocked"):
        (folder / name).mkdir()
        (folder / name / "file.txt").write_text("text")
    with pytest.MonkeyPatch.context() as environment:
        for name, value in quiet_environment(Workspace(folder / "workspace").create()).items():
            environment.setenv(name, value)
        seen = Seen()
        page = in_a_loop(lambda: built(seen))
        _, address, _ = in_a_loop(lambda: launched(page, seen, folder))
        indices = {f.name: index for index, f in page.fns.items() if f.name}
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            yield Open(client, seen, page, folder, indices)
        page.close(verbose=False)


def built(seen: Seen) -> gr.Blocks:
    """A page with one event of each kind that ours has."""

    def on_look(text: str, request: gr.Request) -> list[Any]:
        assert request.request is not None
        seen.handled.append((text, request.request.scope["actor"]))
        return [gr.Timer(30.0), gr.skip(), f"<i>{text}</i>"]

    def on_perform(text: str) -> str:
        return text

    with gr.Blocks(analytics_enabled=False) as page:
        view = gr.Textbox(visible="hidden", elem_id="hidden-view")
        kept = html_piece("kept", TEMPLATE_LIKE)
        told = html_piece("told", "")
        button = gr.Button("look", visible="hidden")
        timer = gr.Timer(1.0)
        timer.tick(None, js="() => {}", queue=False, api_visibility="private")
        button.click(
            on_look, inputs=[view], outputs=[timer, kept, told], js="() => ['x']", queue=False,
            trigger_mode="multiple", show_progress="hidden", api_visibility="private",
        )  # fmt: skip
        button.click(on_perform, inputs=[view], outputs=[told], api_visibility="private")
    page.queue(api_open=False, max_size=200, default_concurrency_limit=4)
    return page


def launched(page: gr.Blocks, seen: Seen, folder: Path) -> Any:
    """Opened as `ui.serve` opens it; `folder` is allowed here, so that blocking is put to the test."""

    def asked(request: Any) -> str | None:
        seen.asked.append(request.url.path)
        return request.scope["actor"] or None

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return page.launch(
        server_name="127.0.0.1",
        server_port=port,
        prevent_thread_lock=True,
        inbrowser=False,
        auth_dependency=asked,
        blocked_paths=[str(folder / "blocked")],
        app_kwargs={
            "middleware": [Middleware(Watch, seen=seen)],
            "routes": [Route("/media/{name}", lambda _: PlainTextResponse("ours"))],
            "docs_url": None,
            "redoc_url": None,
            "openapi_url": None,
        },
        **{**launch_settings(), "allowed_paths": [str(folder)]},
    )


def test_the_dependency_is_asked_with_the_scope_that_the_middleware_filled(opened: Open) -> None:
    """The gate knows who it is; `auth_dependency` only passes the name on."""
    assert opened.client.get("/config").status_code == 401
    assert opened.client.get("/config", headers={"x-who": "Ann"}).status_code == 200
    assert "/config" in opened.seen.asked


def test_not_every_route_asks_it(opened: Open) -> None:
    """Why the gate stands before every route and does not leave it to `auth_dependency`."""
    before = len(opened.seen.asked)
    assert opened.client.get("/theme.css").status_code == 200
    assert opened.client.get("/media/1").text == "ours"
    assert len(opened.seen.asked) == before


@pytest.mark.parametrize(
    "path", ["/", "/config", "/theme.css", "/gradio_api/info", "/gradio_api/startup-events", "/media/1", "/no"]
)
def test_every_request_passes_the_middleware(opened: Open, path: str) -> None:
    """The gate is given to `app_kwargs`; a route that passed it by would be open."""
    before = len(opened.seen.paths)
    opened.client.get(path)
    assert opened.seen.paths[before:] == [path]


def test_the_documentation_of_the_routes_is_off(opened: Open) -> None:
    """`docs_url` and the others reach FastAPI through `app_kwargs`."""
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert opened.client.get(path, headers={"x-who": "Ann"}).status_code == 404


def test_what_is_blocked_is_not_served_even_where_its_folder_is(opened: Open) -> None:
    """Database, keys and job files lie in the workspace; `blocked_paths` wins over all else."""
    for name, status in (("open", 200), ("blocked", 403)):
        path = opened.folder / name / "file.txt"
        answer = opened.client.get(f"/gradio_api/file={path}", headers={"x-who": "Ann"})
        assert answer.status_code == status, name


def test_an_event_that_is_not_queued_is_one_request_with_its_scope(opened: Open) -> None:
    """The page looks every second: no queue; and the handler learns from the gate who looks."""
    answer = opened.call("on_look", "seen", **{"x-who": "Ann"})
    assert answer.status_code == 200, answer.text
    assert opened.seen.handled[-1] == ("seen", "Ann")
    timer, kept, told = answer.json()["data"]
    assert timer["value"] == 30.0  # a look sets when the next one is
    assert kept["__type__"] == "update" and "value" not in str(kept)  # what did not change is not sent
    assert told == "<i>seen</i>"


def test_nobody_calls_an_event_without_a_name(opened: Open) -> None:
    before = len(opened.seen.handled)
    assert opened.call("on_look", "seen").status_code == 401
    assert len(opened.seen.handled) == before


def test_a_queued_event_cannot_be_called_past_the_queue(opened: Open) -> None:
    """`api_open=False`: else a direct call would skip the queue and its limits."""
    assert opened.call("on_perform", "x", **{"x-who": "Ann"}).status_code == 404


def test_private_events_are_nobodys_interface(opened: Open) -> None:
    answer = opened.client.get("/gradio_api/info", headers={"x-who": "Ann"})
    assert answer.json()["named_endpoints"] == {}


def component(opened: Open, elem_id: str) -> dict[str, Any]:
    config = opened.client.get("/config", headers={"x-who": "Ann"}).json()
    [props] = [c["props"] for c in config["components"] if c["props"].get("elem_id") == elem_id]
    return dict(props)


def test_html_is_shown_as_it_is(opened: Open) -> None:
    """`html_piece` passes what a person wrote, escaped by us; no template may read it."""
    props = component(opened, "kept")
    assert props["value"] == TEMPLATE_LIKE
    assert not props.get("js_on_load")  # a script of Gradio's own would run by default
    assert props["html_template"] == "${value}"


def test_a_hidden_component_is_there(opened: Open) -> None:
    """`visible='hidden'` keeps it in the page, where the script presses it; False would not."""
    assert component(opened, "hidden-view")["visible"] == "hidden"


def test_the_script_and_the_style_come_with_the_head(opened: Open) -> None:
    """As they are: Gradio would rewrite the selectors of `css`, and apply it after the first paint."""
    head = opened.client.get("/config", headers={"x-who": "Ann"}).json()["head"]
    assert head == launch_settings()["head"]


def test_nothing_is_counted_or_kept(opened: Open) -> None:
    """No telemetry, no history in the visitor's browser, no interface for agents."""
    config = opened.client.get("/config", headers={"x-who": "Ann"}).json()
    assert not analytics_enabled()
    assert config["analytics_enabled"] is False
    assert opened.client.get("/gradio_api/mcp/schema", headers={"x-who": "Ann"}).status_code == 404


def test_launch_takes_every_setting_by_name() -> None:
    """A renamed setting would raise at the start of every app; here it says which."""
    known = inspect.signature(gr.Blocks.launch).parameters
    asked = {*launch_settings(), "auth_dependency", "app_kwargs", "blocked_paths", "prevent_thread_lock"}
    assert asked <= set(known)
    assert {"js_on_load", "apply_default_css", "padding", "container"} <= set(
        inspect.signature(gr.HTML.__init__).parameters
    )
