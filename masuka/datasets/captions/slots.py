"""Where a phrase belongs in CharForge's fixed order, told by its words.

Order: what the character is, features, clothing, pose, expression, background, lighting, camera.
"""

from __future__ import annotations

import re

SLOTS = ("features", "clothing", "pose", "expression", "background", "lighting", "camera")
SINGLE = frozenset({"pose", "expression", "lighting", "camera"})
"""Of these one thing is true at a time: what a person wrote stands for what a model says."""

_PHRASES = {
    "camera": (
        "close up", "full body", "half body", "upper body", "head shot", "from above", "from below", "from behind",
        "from the side", "side view", "front view", "back view", "wide shot", "medium shot", "long shot", "cowboy shot",
        "low angle", "high angle", "eye level", "looking at viewer", "looking at the viewer", "looking at the camera",
        "depth of field", "blurry background",
    ),
    "lighting": ("golden hour", "rim light", "studio light", "soft light"),
    "expression": ("open mouth", "closed mouth", "closed eyes", "eyes closed", "tongue out"),
    "pose": (
        "arms crossed", "crossed arms", "hand on hip", "hands on hips", "hand in pocket", "hands in pockets", "arm up",
        "arms up", "legs crossed", "crossed legs", "on one knee", "looking",
    ),
    "clothing": ("bow tie", "top hat", "party hat"),
}  # fmt: skip
"""Asked first and in this order: 'looking at viewer' is the camera's, 'looking' alone a pose."""

_WORDS = {
    slot: frozenset(text.split())
    for slot, text in {
        "clothing": (
            "wearing wears dressed shirt t-shirt blouse sweater jumper pullover hoodie jacket coat suit dress skirt "
            "trousers pants jeans shorts uniform robe kimono armor armour shoes boots sneakers sandals socks gloves "
            "hat cap crown helmet beanie scarf tie necktie bowtie glasses sunglasses eyeglasses goggles necklace "
            "earrings earring bracelet ring jewelry jewellery belt bag backpack apron vest swimsuit bikini underwear "
            "mask clothes clothing outfit costume ribbon sleeves sleeveless collar cape cloak stockings leggings "
            "thighhighs pantyhose headband headphones veil"
        ),
        "expression": (
            "happy smiling smile smiles grin grinning laughing laugh cheerful sad crying tears angry cross grumpy "
            "frowning surprised amazed astonished sleepy tired dozing serious neutral expression calm blush pout "
            "wink winking expressionless annoyed scared thoughtful"
        ),
        "pose": (
            "standing sitting seated lying kneeling walking running jumping dancing leaning crouching squatting "
            "riding holding waving pointing posing reading eating drinking playing turned facing resting sleeping pose"
        ),
        "lighting": (
            "light lighting lit sunlight sunlit daylight backlit backlight backlighting shadow shadows candlelight "
            "neon glow glowing lamp moonlight dim overcast sunny"
        ),
        "background": (
            "background indoors outdoors inside outside street city town park beach sea ocean lake river forest woods "
            "trees tree mountain mountains meadow grass field garden flowers sky clouds snow winter night stars "
            "sunset evening sundown sunrise room kitchen bedroom office bathroom cafe bar restaurant shop store "
            "school stage wall window curtain couch sofa bed desk table building buildings house car road bridge "
            "desert rain water"
        ),
        "camera": "close-up closeup portrait headshot full-body profile bokeh selfie camera lens",
    }.items()
}
_PLACING = frozenset(["in", "on", "at", "by", "under", "near", "against", "beside", "behind"])


def slot_of(phrase: str) -> str:
    """The slot of a phrase; 'features' for what nothing else claims."""
    text = phrase.lower().replace("_", " ")
    spaced = text.replace("-", " ")
    for slot, wholes in _PHRASES.items():
        if any(re.search(rf"(?<!\w){whole}(?!\w)", spaced) for whole in wholes):
            return slot
    words = re.findall(r"[\w-]+", text)
    if words and words[0] in _PLACING:
        # 'in a red dress' is worn, 'in soft light' is lit; any other place is the background.
        if words[0] == "in" and _WORDS["clothing"] & set(words):
            return "clothing"
        return "lighting" if {"light", "lighting", "sunlight"} & set(words) else "background"
    return next((slot for slot, known in _WORDS.items() if known & set(words)), "features")
