"""Numbers, sizes and times as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime

CHOICES = {
    "auto": "automatic",
    "lora": "LoRA",
    "dora": "DoRA",
    "lokr": "LoKr",
    "full": "full (the whole model)",
    "attention_and_mlp": "attention and MLP",
    "adamw": "AdamW",
    "adamw8bit": "AdamW, 8 bit",
    "prodigy": "Prodigy",
    "adafactor": "Adafactor",
    "lion": "Lion",
    "came": "CAME",
    "schedulefree": "Schedule-free",
    "nf4": "NF4",
    "tensorboard": "TensorBoard",
}
"""What a request's choices are called on the page, where that is not their own name."""


def choice(value: str) -> str:
    """A choice of a request as it is shown."""
    return CHOICES.get(value, value.replace("_", " "))


def number(value: float | int) -> str:
    """1500 → '1,500'; 0.0001 → '0.0001'; never an exponent, never a tail of digits."""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.7f}".rstrip("0") if abs(value) < 1 else f"{value:,.2f}".rstrip("0")


def short(value: float) -> str:
    """A figure of a chart: three significant digits, for example '0.164'."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 else f"{value:.1e}"


def plural(count: int, noun: str, several: str = "") -> str:
    """'1 picture', '1,024 pictures'."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def duration(seconds: float) -> str:
    """'21 s', '4 min', '1 h 20 min': as exact as it is of use."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    if whole < 3600:
        return f"{round(whole / 60)} min"
    hours, minutes = divmod(round(whole / 60), 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def per_step(seconds: float) -> str:
    """'1.8 s/step' or '180 ms/step'."""
    return f"{seconds * 1000:.0f} ms/step" if seconds < 0.995 else f"{seconds:.1f} s/step"


def gib(value: float) -> str:
    """'11.2 GiB'; '16 MiB' for small ones."""
    if 0 < value < 0.1:
        return f"{max(1, round(value * 1024))} MiB"
    return f"{value:,.1f} GiB"


def moment(at: str | None) -> str:
    """An ISO time in UTC as an element that the page turns into local time."""
    if not at:
        return ""
    when = datetime.fromisoformat(at)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return f'<time datetime="{when.astimezone(UTC).isoformat()}">{when:%d %b %H:%M} UTC</time>'


def seconds_between(start: str | None, end: str | None) -> float | None:
    """Seconds from one ISO time to another; None when one is missing."""
    if not start or not end:
        return None
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()
