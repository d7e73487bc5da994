"""The two pages that a stranger may see: the login page and a plain refusal."""

from __future__ import annotations

from html import escape

_STYLE = """
:root{color-scheme:light dark;--page:#faf9f7;--surface:#fff;--line:#e7e3de;--ink:#1c1917;--quiet:#6b645d;
--accent:#c2410c;--on:#fff;--bad:#b91c1c;--field:#857c73}
@media (prefers-color-scheme:dark){:root{--page:#161412;--surface:#1f1c19;--line:#35302b;--ink:#ede9e4;
--quiet:#a8a099;--accent:#fb923c;--on:#1c1917;--bad:#fca5a5;--field:#8b8178}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);min-height:100vh;display:grid;
place-items:center;padding:16px;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{background:var(--surface);border:1px solid var(--line);border-radius:10px;padding:24px;width:100%;
max-width:420px}h1{font-size:20px;margin:0 0 12px}p{margin:0 0 16px;color:var(--quiet)}
p.bad{color:var(--bad)}label{display:block;font-weight:600;margin:0 0 4px}
input{width:100%;font:inherit;color:inherit;background:var(--page);border:1px solid var(--field);
border-radius:6px;padding:10px 12px;margin:0 0 16px}button{width:100%;font:inherit;font-weight:600;border:0;
border-radius:6px;padding:12px;background:var(--accent);color:var(--on);cursor:pointer}
code{background:var(--page);border:1px solid var(--line);border-radius:4px;padding:1px 5px;color:var(--ink)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
"""


def login_page(message: str = "") -> str:
    """The page that asks for a link's token; `message` says why the last one failed."""
    said = f'<p class="bad" role="alert">{escape(message)}</p>' if message else ""
    return _page(
        "Open masuka",
        f"""{said}<p>Open the link that was printed when the app started. It works once.
For a new one, run <code>masuka link</code> on the machine that runs the app.</p>
<form method="post" action="login"><label for="token">Link or token</label>
<input id="token" name="token" type="password" autocomplete="off" autocapitalize="off" spellcheck="false"
required maxlength="2000"><button type="submit">Open the studio</button></form>""",
    )


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
