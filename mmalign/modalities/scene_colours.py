"""A colour to draw an object in: the one that its description names."""

from __future__ import annotations

import hashlib
import re

from mmalign.formats.scene_words import short_phrase

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "white": (240, 238, 233),
    "cream": (238, 228, 205),
    "ivory": (238, 230, 212),
    "beige": (220, 202, 172),
    "taupe": (168, 150, 132),
    "gray": (150, 153, 158),
    "grey": (150, 153, 158),
    "silver": (186, 190, 196),
    "charcoal": (86, 90, 96),
    "black": (64, 66, 72),
    "brown": (140, 100, 68),
    "walnut": (122, 84, 58),
    "oak": (200, 162, 112),
    "wooden": (184, 140, 94),
    "wood": (184, 140, 94),
    "leather": (150, 96, 62),
    "gold": (206, 172, 98),
    "golden": (206, 172, 98),
    "brass": (190, 158, 92),
    "metal": (160, 166, 174),
    "glass": (178, 208, 216),
    "red": (190, 76, 66),
    "pink": (222, 160, 168),
    "orange": (220, 136, 70),
    "yellow": (226, 192, 92),
    "green": (116, 150, 108),
    "teal": (74, 140, 140),
    "blue": (92, 126, 174),
    "navy": (64, 84, 124),
    "purple": (136, 110, 158),
}
"""Word -> red, green and blue; the first of a description's words that is here is taken."""
_OTHERS: tuple[Colour, ...] = (
    (198, 148, 116),
    (140, 164, 140),
    (128, 150, 178),
    (188, 160, 186),
    (208, 184, 128),
    (150, 178, 178),
)


def colour_of(desc: str) -> Colour:
    """Return the colour that a description names first, another that is always the same where it names none."""
    for word in re.findall(r"[a-z]+", desc.lower()):
        if word in COLOURS:
            return COLOURS[word]
    digest = hashlib.blake2b(short_phrase(desc).encode(), digest_size=2).digest()
    return _OTHERS[int.from_bytes(digest, "big") % len(_OTHERS)]
