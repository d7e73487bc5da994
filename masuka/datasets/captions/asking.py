"""The words with which a captioner that follows instructions is asked. Light."""

from __future__ import annotations

from masuka.datasets.captions.captioners import Wish

_STYLES = {
    "sentence": "Describe it in one plain sentence of at most 40 words.",
    "tags": "Describe it as 8 to 20 short tags, separated by commas.",
    "fixed": (
        "Describe it as short tags, separated by commas, in this order: notable features, clothing, pose, "
        "expression, background, lighting, camera angle. Leave out what cannot be seen."
    ),
}


def instruction(wish: Wish) -> str:
    """What is asked about one picture."""
    parts = [f"This picture shows a {wish.class_word}.", _STYLES[wish.style]]
    if wish.constant:
        parts.append(f"Never mention: {', '.join(wish.constant)}.")
    parts.append(
        f"Call the character {wish.class_word!r} and give it no name. Say only what is certain. "
        "Answer with the description alone."
    )
    return " ".join(parts)
