"""Photographs that come inside scikit-image, with a true and a false description of each.

They show the way for one's own data and prove nothing about learning: there are a dozen of them.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from pathlib import Path

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response

QUESTION = "What is in the photograph?"

# file, what it shows, a description that adds what is not there
PHOTOGRAPHS: tuple[tuple[str, str, str], ...] = (
    ("astronaut.png", "An astronaut in an orange space suit.", "An astronaut in an orange space suit with a dog."),
    ("chelsea.png", "The face of a tabby cat.", "The face of a tabby cat beside a bowl of milk."),
    ("coffee.png", "A cup of coffee on a saucer with a spoon.", "A cup of coffee and a slice of cake on a plate."),
    ("rocket.jpg", "A rocket on its launch pad at dusk.", "Two airplanes stand on a runway."),
    ("camera.png", "A man in a coat with a camera on a tripod.", "A man in a coat with a camera and two children."),
    ("motorcycle_left.png", "A motorcycle in a workshop.", "A motorcycle and a red car in a workshop."),
    ("coins.png", "Old coins in rows.", "Old coins in rows and a pair of glasses."),
    ("hubble_deep_field.jpg", "Many galaxies in a dark sky.", "Fireworks over a harbour."),
    ("moon.png", "Craters on the moon.", "Craters on the moon and the flag of a landing party."),
    ("grass.png", "A lawn seen from above.", "A lawn with a football on it."),
    ("brick.png", "Bricks laid in rows.", "Bricks laid in rows around an open window."),
    ("gravel.png", "Small stones.", "Small stones and a few autumn leaves."),
)


def folder() -> Path | None:
    """Return where scikit-image keeps its pictures, None when it is not installed."""
    package = importlib.util.find_spec("skimage")
    return Path(package.origin).parent / "data" if package and package.origin else None


def rows(root: Path) -> Iterator[Preference]:
    """Copy every photograph to `<root>/images/photographs/` and yield its preference row, missing files left out."""
    source = folder()
    for name, true, false in PHOTOGRAPHS:
        if source is None or not (source / name).is_file():
            continue
        copy = root / "images" / "photographs" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy)
        yield Preference(
            id=name,
            prompt=(Message.of("user", 0, QUESTION),),
            media=(MediaRef(kind="image", uri=copy.relative_to(root).as_posix()),),
            responses=(Response.of(true), Response.of(false)),
        )
