"""The pages that a stranger may see: sign in, register, accept an invite."""

from __future__ import annotations

from html import escape

from masuka.access.password import LONGEST, SHORTEST

_STYLE = """
:root{color-scheme:light dark;--page:#faf9f7;--surface:#fff;--line:#e7e3de;--ink:#1c1917;--quiet:#6b645d;
--accent:#c2410c;--on:#fff;--bad:#b91c1c;--field:#857c73}
@media (prefers-color-scheme:dark){:root{--page:#161412;--surface:#1f1c19;--line:#35302b;--ink:#ede9e4;
--quiet:#a8a099;--accent:#fb923c;--on:#1c1917;--bad:#fca5a5;--field:#8b8178}}
*{box-sizing:border-box}body{margin:0;background:var(--page);color:var(--ink);min-height:100vh;display:grid;
place-items:center;padding:16px;font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{background:var(--surface);border:1px solid var(--line);border-radius:10px;padding:24px;width:100%;
max-width:420px}h1{font-size:20px;margin:0 0 12px}p{margin:0 0 16px;color:var(--quiet)}
p.bad{color:var(--bad)}a{color:var(--accent)}hr{border:0;border-top:1px solid var(--line);margin:20px 0}
small{display:block;margin:-12px 0 16px;color:var(--quiet);font-size:13px}label{display:block;font-weight:600;margin:0 0 4px}
input{width:100%;font:inherit;color:inherit;background:var(--page);border:1px solid var(--field);
border-radius:6px;padding:10px 12px;margin:0 0 16px}button{width:100%;font:inherit;font-weight:600;border:0;
border-radius:6px;padding:12px;background:var(--accent);color:var(--on);cursor:pointer}
code{background:var(--page);border:1px solid var(--line);border-radius:4px;padding:1px 5px;color:var(--ink)}
button.second{background:var(--page);color:var(--ink);border:1px solid var(--field)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
"""


def login_page(message: str = "", *, passwords: bool = False, register: bool = False, name: str = "") -> str:
    """The page that lets people in; `message` says why the last try failed.

    A name and password are asked for where somebody has one (`passwords`).
    """
    by_link = f"""<p>{"Or open" if passwords else "Open"} the link that was printed when the app started. It works once.
For a new one, run <code>masuka link</code> on the machine that runs the app.</p>
<form method="post" action="login"><label for="token">Link or token</label>
<input id="token" name="token" type="password" autocomplete="off" autocapitalize="off" spellcheck="false"
required maxlength="2000"><button type="submit"{_look(second=passwords)}>Open the studio</button></form>"""
    by_name = f"""<form method="post" action="login">{_name_and_password(name)}
<button type="submit">Sign in</button></form><hr>"""
    offer = '<hr><p>No account yet? <a href="register">Register</a></p>' if register else ""
    return _page("Open masuka", f"{_said(message)}{by_name if passwords else ''}{by_link}{offer}")


def register_page(message: str = "", *, name: str = "") -> str:
    """The page on which a stranger makes an account, where the owner allows that."""
    return _page(
        "Register",
        f"""{_said(message)}<p>You get a place of your own here. What the others make stays theirs.</p>
<form method="post" action="register">{_name_and_password(name, new=True)}
<button type="submit">Register</button></form><hr><p><a href="login">Sign in instead</a></p>""",
    )


def invite_page(role: str, token: str, message: str = "", *, name: str = "") -> str:
    """The page on which somebody accepts an invite."""
    may = "look at, make and change pictures" if role == "editor" else "look at pictures and trainings"
    return _page(
        "You are invited",
        f"""{_said(message)}<p>You come in as {escape(role)}: you can {may}. Choose a name and a password.
Both are for this studio only.</p><form method="post" action="invite">
<input type="hidden" name="token" value="{escape(token, quote=True)}">{_name_and_password(name, new=True)}
<button type="submit">Come in</button></form>""",
    )


def closed_page(message: str) -> str:
    """A sentence, and the way to the login page."""
    return _page("masuka", f'{_said(message)}<p><a href="login">To the login page</a></p>')


def _name_and_password(name: str, *, new: bool = False) -> str:
    kind = "new-password" if new else "current-password"
    help_text = f"<small>{SHORTEST} to {LONGEST} characters; several words are good.</small>" if new else ""
    shortest = f' minlength="{SHORTEST}"' if new else ""
    return f"""<label for="username">Name</label><input id="username" name="username" autocomplete="username"
autocapitalize="off" spellcheck="false" required maxlength="100" value="{escape(name, quote=True)}">
<label for="password">Password</label><input id="password" name="password" type="password"
autocomplete="{kind}" required maxlength="{LONGEST}"{shortest}>{help_text}"""


def _said(message: str) -> str:
    return f'<p class="bad" role="alert">{escape(message)}</p>' if message else ""


def _look(*, second: bool) -> str:
    return ' class="second"' if second else ""


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{_STYLE}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{body}</main></body></html>"
    )
