"""Prompts with a character in them: slots filled, the trigger word added where it is missing."""

from __future__ import annotations

import re

from masuka.requests.datasets import CLASS_SLOT, TRIGGER_SLOT

SEVERAL = "||"
"""Between captions of one picture that are as true."""


def alternatives(caption: str) -> list[str]:
    """The captions that one text holds, at least one; `||` stands between them."""
    return [part.strip() for part in caption.split(SEVERAL) if part.strip()] or [""]


def fill(text: str, *, trigger_word: str, class_word: str) -> str:
    """The text with {trigger} and {class} filled in; an empty word leaves no gap."""
    for slot, word in ((TRIGGER_SLOT, trigger_word), (CLASS_SLOT, class_word)):
        text = text.replace(slot, word) if word else re.sub(rf"{re.escape(slot)}[ \t]?", "", text)
    return text.strip()


def with_trigger(prompt: str, *, trigger_word: str, class_word: str) -> str:
    """The filled prompt with the trigger word: in front where it did not occur."""
    filled = fill(prompt, trigger_word=trigger_word, class_word=class_word)
    if not trigger_word or names_word(filled, trigger_word):
        return filled
    subject = f"{trigger_word} {class_word}".strip()
    return f"{subject}, {filled}" if filled else subject


def names_word(text: str, word: str) -> bool:
    """True where the word stands alone in the text, in any case."""
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text, re.IGNORECASE) is not None
