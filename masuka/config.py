"""Where MASUKA keeps its files and how it was started: the only reader of the environment.

`Workspace` names every folder and file on the fast local disk; `Settings` holds what
the person or the host decided before the start. Both are values: nothing here opens,
creates or probes anything unless it is called for. Importing it takes the standard
library alone, so that a notebook's kernel can before anything is installed.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from masuka.errors import InvalidInput

SECRET_NAMES = (
    "HF_TOKEN", "CIVITAI_API_KEY", "GOOGLE_API_KEY", "FAL_KEY", "COMET_API_KEY",
    "TOGETHER_API_KEY", "RUNWAYML_API_SECRET", "REPLICATE_API_TOKEN", "OPENAI_API_KEY",
    "NGROK_AUTHTOKEN", "CLOUDFLARED_TOKEN", "SECRET_KEY",
)  # fmt: skip
OWNER_PASSWORD = "MASUKA_OWNER_PASSWORD"  # noqa: S105 - a name
SHARE_WAYS = ("auto", "off", "ngrok", "gradio", "cloudflared")
BARE_NAMES = (
    "PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SSL_CERT_FILE", "SSL_CERT_DIR", "SYSTEMROOT",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip
TRUE_WORDS = frozenset({"1", "true", "yes", "on"})
FALSE_WORDS = frozenset({"0", "false", "no", "off", ""})
_SECRET_ENDINGS = ("TOKEN", "SECRET", "PASSWORD", "PASSWD", "PASSPHRASE", "CREDENTIALS", "_KEY", "_KEY_ID", "APIKEY", "_PAT")
HOST_PREFIXES = ("COLAB_", "KAGGLE_", "RUNPOD_", "SPACE_", "SPACES_", "MASUKA_PLATFORM")
HOST_FACTS = frozenset({"MASUKA_PLATFORM", "SPACE_HOST", "SPACE_AUTHOR_NAME", "RUNPOD_POD_ID"})
"""Of those the ones whose values are asked for; a host's other variables may be secrets."""


@dataclass(frozen=True)
class Workspace:
    """Every path under one root; relative paths a person types resolve from here."""

    root: Path
    database_file: Path | None = None
    media_dir: Path | None = None

    @property
    def database(self) -> Path:
        return self.database_file or self.root / "masuka.db"

    @property
    def media(self) -> Path:
        """Pictures of data sets and finished items, with their thumbnails."""
        return self.media_dir or self.root / "media"

    @property
    def datasets(self) -> Path:
        return self.media / "datasets"

    @property
    def items(self) -> Path:
        return self.media / "items"

    @property
    def models(self) -> Path:
        """Downloaded base models, one folder each."""
        return self.root / "models"

    @property
    def adapters(self) -> Path:
        """Trained LoRAs, one folder each, with a side-car that explains it."""
        return self.root / "adapters"

    @property
    def runs(self) -> Path:
        """Caches, checkpoints and samples of trainings, one folder each."""
        return self.root / "runs"

    @property
    def caches(self) -> Path:
        """Texts and latents that trainings share; all of it can be made again."""
        return self.root / "caches"

    @property
    def jobs(self) -> Path:
        """Event files, logs and scratch folders of jobs."""
        return self.root / "jobs"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def backups(self) -> Path:
        return self.root / "backups"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def secrets(self) -> Path:
        """Keys this installation made for itself; readable by its owner only."""
        return self.root / "secrets"

    @property
    def address(self) -> Path:
        """What the running app says about its addresses."""
        return self.secrets / "address.json"

    @property
    def temp(self) -> Path:
        return self.root / "temp"

    @property
    def empty(self) -> Path:
        """The app's working directory: Gradio serves files from it, so it stays empty."""
        return self.root / "empty"

    def create(self) -> Workspace:
        """The same workspace, with its folders made; `secrets` is for the owner only."""
        for folder in (
            self.root, self.media, self.datasets, self.items, self.models, self.adapters,
            self.runs, self.jobs, self.uploads, self.backups, self.logs, self.temp, self.empty,
        ):  # fmt: skip
            folder.mkdir(parents=True, exist_ok=True)
        self.secrets.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self

    def resolve(self, path: str | Path) -> Path:
        """The absolute path; a relative one is taken from the workspace's root."""
        path = Path(path).expanduser()
        return (path if path.is_absolute() else self.root / path).resolve()

    def owns(self, path: Path) -> bool:
        """True for files that MASUKA made and may delete: those under its root or media.

        What an import left where it was, on a Drive for example, is not owned.
        """
        path = path.resolve()
        return any(path.is_relative_to(home.resolve()) for home in (self.root, self.media))

    def relative(self, path: Path) -> str:
        """The path as it is stored: from the root where it lies inside, else absolute."""
        path = path.resolve()
        root = self.root.resolve()
        return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


@dataclass(frozen=True)
class Settings:
    """What was decided before the start; made from the environment or by hand."""

    workspace: Workspace
    vault: Path | None = None
    """The folder elsewhere in which everything is kept; None keeps nothing elsewhere."""
    host: str = "127.0.0.1"
    port: int = 7860
    allowed_hosts: tuple[str, ...] = ()
    log_level: str = "INFO"
    device: str = "auto"
    open_browser: bool = False
    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks whose X-Forwarded-For is believed."""
    allow_registration: bool = False
    owner_password: str = field(default="", repr=False)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    share: str = "auto"
    """One of SHARE_WAYS: how a link for collaborators is opened, 'auto' only with a token."""
    ngrok_domain: str = ""
    ngrok_program: Path | None = None
    cloudflared_host: str = ""
    openai_base_url: str = ""
    civitai_base_url: str = ""
    """Another address of CivitAI's; its key is sent there alone."""
    local_addresses: tuple[str, ...] = ()
    """Hosts, with a port or any, that a person's address may lead to though they are not outside."""

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str] | None = None, *, more: Mapping[str, str] | None = None
    ) -> Settings:
        """Settings of this process; `.env` in the working directory fills the gaps.

        `more` is taken as if it were in the environment: what a notebook has found out.

        Names of MASUKA 2 are still read: DATABASE_URL (sqlite only), MEDIA_DIR and the
        keys in SECRET_NAMES and ALLOW_REGISTRATION. ENABLE_AUTH is accepted and has no
        effect: the page is never open to strangers.
        Raises InvalidInput, naming the variable, for a value that cannot be understood.
        """
        from platformdirs import user_data_path

        if environment is None:
            from dotenv import dotenv_values

            from_file = {k: v for k, v in dotenv_values(".env").items() if v is not None}
            environment = {**from_file, **os.environ, **(more or {})}
        workspace = Workspace(
            root=_path(environment, "MASUKA_HOME") or user_data_path("masuka", appauthor=False),
            database_file=_database(environment),
            media_dir=_path(environment, "MEDIA_DIR"),
        )
        return cls(
            workspace=workspace,
            vault=_path(environment, "MASUKA_VAULT"),
            host=environment.get("MASUKA_HOST", "127.0.0.1"),
            port=_port(environment.get("MASUKA_PORT", "7860")),
            allowed_hosts=_names(environment.get("MASUKA_ALLOWED_HOSTS", "")),
            log_level=environment.get("MASUKA_LOG_LEVEL", "INFO").upper(),
            device=environment.get("MASUKA_DEVICE", "auto"),
            open_browser=_flag(environment, "MASUKA_OPEN_BROWSER"),
            trusted_proxies=_networks(environment.get("MASUKA_TRUSTED_PROXIES", "")),
            allow_registration=_flag(environment, "ALLOW_REGISTRATION"),
            owner_password=environment.get(OWNER_PASSWORD, "").strip(),
            secrets={name: environment[name] for name in SECRET_NAMES if environment.get(name)},
            share=_share(environment.get("MASUKA_SHARE", "auto")),
            ngrok_domain=_host_name(environment, "NGROK_DOMAIN"),
            ngrok_program=_path(environment, "PYNGROK_NGROK_PATH"),
            cloudflared_host=_host_name(environment, "CLOUDFLARED_HOST"),
            openai_base_url=environment.get("OPENAI_BASE_URL", "").strip(),
            civitai_base_url=environment.get("CIVITAI_BASE_URL", "").strip().rstrip("/"),
            local_addresses=_hosts(environment.get("MASUKA_LOCAL_ADDRESSES", "")),
        )


def quiet_environment(workspace: Workspace) -> dict[str, str]:
    """Variables that keep libraries from phoning home and inside the workspace."""
    return {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_ANALYTICS_CACHE_FREQUENCY": "100",
        "GRADIO_TEMP_DIR": str(workspace.temp),
        "GRADIO_RUN_HISTORY": "False",
        # uvicorn (0.51) believes X-Forwarded-For of everything that comes from loopback, and
        # so does every tunnel's visitor; the gate judges it instead.
        "FORWARDED_ALLOW_IPS": "",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DIFFUSERS_DISABLE_REMOTE_CODE": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        # transformers asks for torchvision, which nothing here uses, each time it is imported.
        "TRANSFORMERS_VERBOSITY": "error",
    }


def apply_quiet_environment(workspace: Workspace) -> None:
    """Sets `quiet_environment` for this process; call it before importing gradio."""
    os.environ.update(quiet_environment(workspace))


def keep_trackio_here(folder: Path) -> None:
    """Makes trackio write into that folder alone; call it before importing it."""
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "TRACKIO_BUCKET_ID", "TRACKIO_DATASET_ID"):
        os.environ.pop(name, None)
    os.environ["TRACKIO_DIR"] = str(folder)


def worker_environment(settings: Settings) -> dict[str, str]:
    """The environment of a worker: this one, quiet, without what may be a secret.

    A worker gets the keys that its job needs with the job.
    """
    kept = {name: value for name, value in os.environ.items() if not is_secret(name)}
    return {**kept, **quiet_environment(settings.workspace)}


def is_secret(name: str) -> bool:
    """Whether the variable of that name is a secret, ours or by its looks anybody's."""
    return name in SECRET_NAMES or name == OWNER_PASSWORD or name.upper().endswith(_SECRET_ENDINGS)


def host_marks(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables that tell hosts apart; with values of HOST_FACTS alone, else ''."""
    given = os.environ if environment is None else environment
    return {n: given[n] if n in HOST_FACTS else "" for n in given if n.startswith(HOST_PREFIXES)}


def child_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a program started here: this one's, with `more` in it.

    A notebook's kernel points matplotlib at itself; no other process can follow it there.
    """
    return {**{n: v for n, v in os.environ.items() if n != "MPLBACKEND"}, **more}


def bare_environment(more: Mapping[str, str]) -> dict[str, str]:
    """The environment of somebody else's program: enough to run, no key of ours."""
    return {**{n: os.environ[n] for n in BARE_NAMES if n in os.environ}, **more}


@contextmanager
def secrets_in_environment(secrets: Mapping[str, str]) -> Iterator[None]:
    """Lends a person's keys to libraries that read the environment, for one job."""
    before = {name: os.environ.get(name) for name in secrets}
    os.environ.update(secrets)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _path(environment: Mapping[str, str], name: str) -> Path | None:
    value = environment.get(name, "").strip()
    return Path(value).expanduser().resolve() if value else None


def _database(environment: Mapping[str, str]) -> Path | None:
    url = environment.get("DATABASE_URL", "").strip()
    if not url:
        return None
    if not url.startswith("sqlite:///"):
        raise InvalidInput(
            "DATABASE_URL names a database that is not SQLite.",
            "Use sqlite:/// and a path, or remove the variable.",
            field="DATABASE_URL",
        )
    return Path(url.removeprefix("sqlite:///")).expanduser().resolve()


def _port(value: str) -> int:
    if not value.isdigit() or not 0 <= int(value) <= 65535:
        raise InvalidInput(
            f"MASUKA_PORT is {value!r}, which is no port.",
            "Use a number from 0 to 65535; 0 picks a free one.",
            field="MASUKA_PORT",
        )
    return int(value)


def _share(value: str) -> str:
    way = value.strip().lower() or "auto"
    if way not in SHARE_WAYS:
        raise InvalidInput(
            f"MASUKA_SHARE is {value!r}, which is no way to open a link.",
            f"Use one of {', '.join(SHARE_WAYS)}.",
            field="MASUKA_SHARE",
        )
    return way


def _host_name(environment: Mapping[str, str], name: str) -> str:
    """The host name, also out of a whole address; '' where the variable is not set."""
    value = environment.get(name, "").strip().lower().removeprefix("https://").rstrip("/")
    if not all(part.replace("-", "").isalnum() for part in value.split(".")) and value:
        raise InvalidInput(
            f"{name} is {value!r}, which is no host name.", "Use a name such as studio.example.org.", field=name
        )
    return value


def _names(value: str) -> tuple[str, ...]:
    return tuple(part.strip().lower() for part in value.split(",") if part.strip())


def _hosts(value: str) -> tuple[str, ...]:
    for text in _names(value):
        if not re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", text):
            raise InvalidInput(
                f"MASUKA_LOCAL_ADDRESSES names {text!r}, which is no host.",
                "Use hosts with commas between, for example localhost:11434.",
                field="MASUKA_LOCAL_ADDRESSES",
            )
    return _names(value)


def _networks(value: str) -> tuple[str, ...]:
    for text in _names(value):
        try:
            ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise InvalidInput(
                f"MASUKA_TRUSTED_PROXIES names {text!r}, which is no address.",
                "Use addresses or networks with commas between, for example 10.0.0.0/8.",
                field="MASUKA_TRUSTED_PROXIES",
            ) from error
    return _names(value)


def _flag(environment: Mapping[str, str], name: str) -> bool:
    value = environment.get(name, "").strip().lower()
    if value not in TRUE_WORDS | FALSE_WORDS:
        raise InvalidInput(f"{name} is {value!r}, which is neither yes nor no.", "Use 1 or 0.", field=name)
    return value in TRUE_WORDS
