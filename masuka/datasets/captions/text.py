"""What captions say: templates filled, trigger words ensured and changed, many edited.

Pure text. A trigger word counts where it stands as a whole word, in its own case.
"""

from __future__ import annotations

import re
from functools import lru_cache

from masuka.errors import InvalidInput
from masuka.requests.datasets import CLASS_SLOT, TRIGGER_SLOT, EditCaptions, clean_caption

_SLOTS = re.compile(f"{re.escape(TRIGGER_SLOT)}|{re.escape(CLASS_SLOT)}")


def fill_template(template: str, trigger_word: str, class_word: str) -> str:
    """The template with {trigger} and {class} filled in, on one line.

    Other braces stay; what is filled in is not looked at again.
    """
    words = {TRIGGER_SLOT: trigger_word, CLASS_SLOT: class_word}
    return clean_caption(_SLOTS.sub(lambda slot: words[slot.group()], template))


def has_trigger(caption: str, trigger_word: str) -> bool:
    """True where the trigger stands in the caption as a word of its own."""
    return bool(_word(trigger_word).search(caption))


def count_trigger(caption: str, trigger_word: str) -> int:
    """How often the trigger stands in the caption as a word of its own."""
    return len(_word(trigger_word).findall(caption))


def ensure_trigger(caption: str, trigger_word: str) -> str:
    """The caption, with the trigger word in front if it was nowhere in it."""
    if has_trigger(caption, trigger_word):
        return caption
    return f"{trigger_word}, {caption}" if caption else trigger_word


def change_trigger(caption: str, old: str, new: str) -> str:
    """The caption with every whole word `old` replaced by `new`."""
    return _word(old).sub(lambda _: new, caption)


def written_caption(text: str, trigger_word: str, class_word: str) -> str:
    """A caption that came with a picture, slots filled and the trigger word ensured.

    Raises InvalidInput when it is longer than a caption may be.
    """
    return clean_caption(ensure_trigger(fill_template(text, trigger_word, class_word), trigger_word))


def edit(caption: str, request: EditCaptions, *, template: str, trigger_word: str, class_word: str) -> str:
    """The caption after the edit, with {trigger} and {class} filled in.

    'template' fills the request's text, or the set's template when the text is empty.
    A person may write a caption without the trigger word; `check` points it out.
    Raises InvalidInput for an empty search text and for a caption that gets too long.
    """
    if request.action == "replace" and not request.find:
        raise InvalidInput("There is no text to look for.", "Type the text to replace.", field="find")
    return fill_template(_edited(caption, request, template), trigger_word, class_word)


def _edited(caption: str, request: EditCaptions, template: str) -> str:
    match request.action:
        case "set":
            return request.text
        case "replace":
            return caption.replace(request.find, request.text)
        case "prefix":
            return _joined(request.text, caption)
        case "suffix":
            return _joined(caption, request.text)
        case "template":
            return request.text or template


def _joined(first: str, second: str) -> str:
    """Both texts; a space between them where two words would grow together."""
    glued = first and second and not first[-1].isspace() and (second[0].isalnum() or second[0] in "{([")
    return f"{first} {second}" if glued else first + second


@lru_cache(maxsize=32)
def _word(trigger_word: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w-]){re.escape(trigger_word)}(?![\w-])")
