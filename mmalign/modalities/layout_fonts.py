"""Typefaces for layouts: freely shipped ones of the system, and Pillow's own where there are none.

Designs name typefaces that cannot be shipped. Of their names only the kind is taken: serif, monospaced or neither, bold
or not. Liberation and DejaVu are looked for (packages `fonts-liberation` and `fonts-dejavu` of Debian), by file name
in the system's font folders; without them texts are set in the face that Pillow brings along, which knows Latin
letters alone.
"""

from __future__ import annotations

import functools
import re

from PIL import ImageFont

OWN_FACE = "Pillow's own"
_FILES: dict[tuple[str, bool], tuple[str, ...]] = {
    ("sans", False): ("LiberationSans-Regular.ttf", "DejaVuSans.ttf"),
    ("sans", True): ("LiberationSans-Bold.ttf", "DejaVuSans-Bold.ttf"),
    ("serif", False): ("LiberationSerif-Regular.ttf", "DejaVuSerif.ttf"),
    ("serif", True): ("LiberationSerif-Bold.ttf", "DejaVuSerif-Bold.ttf"),
    ("mono", False): ("LiberationMono-Regular.ttf", "DejaVuSansMono.ttf"),
    ("mono", True): ("LiberationMono-Bold.ttf", "DejaVuSansMono-Bold.ttf"),
}
_BOLD = re.compile("bold|black|heavy|[6-9]00", flags=re.IGNORECASE)
_MONO = re.compile("mono|courier|consol|typewriter|code", flags=re.IGNORECASE)
_SERIF = re.compile(
    "(?<!sans)(?<!sans[ _-])serif|times|roman|garamond|playfair|georgia|merriweather|baskerville|bodoni|didot|slab",
    flags=re.IGNORECASE,
)


def typeface(name: str | None) -> str:
    """Return the file in which a text is set whose design names this typeface, or `OWN_FACE`."""
    wanted = name or ""
    kind = "mono" if _MONO.search(wanted) else "serif" if _SERIF.search(wanted) else "sans"
    return _installed(kind, bool(_BOLD.search(wanted)))


@functools.cache
def _installed(kind: str, bold: bool) -> str:
    for file in _FILES[kind, bold]:
        try:
            ImageFont.truetype(file, 12)
        except OSError:
            continue
        return file
    return OWN_FACE


@functools.lru_cache(maxsize=256)
def font(face: str, size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return a face at a size; `face` as `typeface` returns it."""
    return ImageFont.load_default(size_px) if face == OWN_FACE else ImageFont.truetype(face, size_px)
