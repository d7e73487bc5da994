"""A link through ngrok, by pyngrok: the person's own account, and its stable address.

The authtoken is in a file for its owner only, never in a command line. Written for
pyngrok 9 and agents of version 3 (`/api/endpoints`).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyngrok import conf, ngrok
from pyngrok.exception import PyngrokError

from masuka import logs
from masuka.errors import AccessDenied, ExternalError, RemoteUnavailable
from masuka.hosting.tunnels import Link, agents, marks
from masuka.hosting.tunnels.ngrok_program import must_be_usable, program_at

if TYPE_CHECKING:
    from pyngrok.conf import PyngrokConfig

DEADLINE_S = 40.0
_CODE = re.compile(r"ERR_NGROK_(\d+)")
_COPY = "Copy it again from dashboard.ngrok.com, Your Authtoken, and save it in Settings → Keys."
_EARLIER = (
    "End it at dashboard.ngrok.com (Agents, Endpoints), or wait a few minutes until it is forgotten; then try again."
)
_NEXT_MONTH = "Open a gradio.live link instead, or wait for the first of the month."
_OLD = "Delete the program; the next try fetches a new one."
WORDS: dict[int, tuple[type[ExternalError], str, str]] = {
    105: (AccessDenied, "ngrok says that this is no authtoken.", _COPY),
    107: (AccessDenied, "ngrok accepts this authtoken no longer.", _COPY),
    108: (RemoteUnavailable, "ngrok counts too many open sessions; an earlier runtime of yours is likely one.", _EARLIER),
    120: (RemoteUnavailable, "The ngrok program on this machine is too old.", _OLD),
    121: (RemoteUnavailable, "The ngrok program on this machine is too old.", _OLD),
    324: (RemoteUnavailable, "Your ngrok account allows no further address in this session.", _EARLIER),
    334: (RemoteUnavailable, "Your ngrok address is open already, likely in an earlier runtime.", _EARLIER),
    725: (RemoteUnavailable, "This month's traffic of your ngrok account is used up.", _NEXT_MONTH),
    727: (RemoteUnavailable, "This month's requests of your ngrok account are used up.", _NEXT_MONTH),
    3200: (RemoteUnavailable, "ngrok says that the address is not open.", "Try again."),
    4018: (AccessDenied, "ngrok wants an authtoken of a confirmed account.", f"Confirm your e-mail there. {_COPY}"),
    8012: (RemoteUnavailable, "ngrok does not reach the app on this machine.", "Start the app again."),
}
"""What ngrok's error numbers mean, from its documentation of errors (August 2026)."""

log = logging.getLogger(__name__)


class Ngrok:
    """The tunnel of one authtoken; `folder` is the workspace's secrets folder.

    Without a `program`, the one that pyngrok would use is fetched when it is not there.
    Without a `domain`, ngrok gives the account's own.
    """

    provider = "ngrok"

    def __init__(
        self,
        *,
        token: str,
        folder: Path,
        domain: str = "",
        program: Path | None = None,
        deadline_s: float = DEADLINE_S,
        config_name: str = marks.NGROK_FILE,
    ) -> None:
        self._token = token
        self._config_file = folder / config_name
        self._domain = domain
        self._program = program
        self._deadline_s = deadline_s
        self._config: PyngrokConfig | None = None
        self._marks = marks.of_ngrok(self._config_file)
        logs.redact.learn([token])

    def open(self, host: str, port: int) -> Link:
        """The link; raises AccessDenied or RemoteUnavailable with what ngrok meant."""
        config = self._prepared()
        options: dict[str, Any] = {"upstream": {"url": f"http://{host}:{port}"}}
        if self._domain:
            options["url"] = f"https://{self._domain}"
        tunnel = self._answer(lambda: ngrok.connect(name="masuka", pyngrok_config=config, **options))
        url = str(tunnel.public_url)
        if not url.startswith("https://"):
            self.close()
            raise RemoteUnavailable("ngrok gave an address without encryption.", "Try again, or another way.")
        return Link(url.rstrip("/"), self.provider)

    def prove(self) -> None:
        """Returns when ngrok accepts the authtoken; raises as `open` does. Opens nothing."""
        config = self._prepared()
        self._answer(lambda: ngrok.get_ngrok_process(config))
        self.close()

    def close(self) -> None:
        """Ends the agent and forgets the file with the authtoken."""
        if self._config is not None:
            agents.end(self._marks)
            ngrok.kill(self._config)
            self._config = None
        self._config_file.unlink(missing_ok=True)

    def alive(self) -> bool:
        """Whether the agent runs; it reconnects by itself after a lost network."""
        return self._config is not None and bool(agents.find(self._marks))

    def _prepared(self) -> PyngrokConfig:
        """What pyngrok starts the agent by; an earlier agent of this workspace is ended."""
        self.close()
        agents.end(self._marks)
        program = program_at(self._program)
        must_be_usable(program)
        self._write_config()
        self._config = config = conf.PyngrokConfig(
            ngrok_path=str(program), config_path=str(self._config_file), config_version="3",
            start_new_session=True, startup_timeout=int(self._deadline_s), request_timeout=self._deadline_s,
        )  # fmt: skip
        # From the environment pyngrok would take it into the agent's command line.
        config.auth_token = config.api_key = None
        return config

    def _answer(self, ask: Callable[[], Any]) -> Any:
        """What pyngrok answers within the deadline; closes and raises in words otherwise."""
        try:
            return agents.within(self._deadline_s, ask, lambda: agents.end(self._marks), title="ngrok")
        except (PyngrokError, OSError, ValueError, AttributeError, TypeError) as error:
            # pyngrok passes on whatever it could not read of an agent's answer.
            self.close()
            raise in_words(error) from error
        except ExternalError:
            self.close()
            raise

    def _write_config(self) -> None:
        """The agent's settings (version 3); JSON is YAML too.

        Its local page would show every request, cookies too, to all on this machine; it
        keeps none. Nobody else manages or updates it.
        """
        agent = {
            "authtoken": self._token, "inspect_db_size": -1, "remote_management": False, "update_check": False,
        }  # fmt: skip
        agents.write_secret(self._config_file, json.dumps({"version": "3", "agent": agent}))


def in_words(error: BaseException) -> ExternalError:
    """What an error of pyngrok or of the agent means, without the agent's own words.

    Those may repeat the authtoken.
    """
    told = [str(error), str(getattr(error, "ngrok_error", "")), str(getattr(error, "body", ""))]
    told += [str(entry.err) for entry in getattr(error, "ngrok_logs", ())]
    found = _CODE.search("\n".join(told))
    if found is None:
        log.warning("ngrok could not be used: %s", type(error).__name__)
        if getattr(error, "status_code", 0) == 404:
            return RemoteUnavailable("The ngrok program on this machine is too old.", _OLD)
        return RemoteUnavailable("ngrok did not open a link.", "Look at the log in Settings → Diagnostics.")
    code = int(found.group(1))
    log.warning("ngrok answered %s", found.group(0))
    if code in WORDS:
        kind, message, hint = WORDS[code]
        return kind(message, f"{hint} (ERR_NGROK_{code})")
    return RemoteUnavailable(
        f"ngrok refused with ERR_NGROK_{code}.", f"It is explained at ngrok.com/docs/errors/err_ngrok_{code}."
    )
