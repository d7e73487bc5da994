"""A browser is sent to the link without the link standing in its command line."""

from __future__ import annotations

import html
import stat
import webbrowser
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from masuka.ui.serve import Served, show


def test_the_token_is_in_a_file_of_the_owner_and_not_in_an_argument(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    for _ in range(2):
        show(served, replace(served.studio.settings, open_browser=True))
    show(served, replace(served.studio.settings, open_browser=False))
    token = served.link.split("token=")[1]
    assert len(opened) == 2 and all(token not in address for address in opened)
    assert urlsplit(opened[0]).scheme == "file"
    file = Path(url2pathname(urlsplit(opened[0]).path))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert served.link in html.unescape(file.read_text(encoding="utf-8"))
