"""Preferences for tests of tokenising: one picture, several, in any turn, none, an answer to go on with."""

from pictures import encoded, noise

from mmalign.formats.media import MediaRef
from mmalign.formats.message import Message
from mmalign.formats.preference import Preference, Response

WORDS = "Zwölf Boxkämpfer 👩‍👩‍👧 jagen 猫。"


def png(width: int, height: int, seed: int = 0) -> MediaRef:
    return MediaRef(kind="image", content=encoded(noise(width, height, seed)))


def row(*turns: Message, media=(), responses=("A cat.", "A dog, perhaps."), **facts) -> Preference:
    made = tuple(r if isinstance(r, Response) else Response.of(r) for r in responses)
    return Preference(id="row 1", prompt=turns, media=tuple(media), responses=made, **facts)


ONE_IMAGE = row(Message.of("user", 0, "What is this?"), media=[png(64, 48)])
TWO_IMAGES = row(Message.of("user", 0, "and", 1, "differ how?"), media=[png(64, 48), png(30, 90, 1)])
MANY_TURNS = row(
    Message.of("system", "Be brief."),
    Message.of("user", "Look at", 1, "."),
    Message.of("assistant", "I see " + WORDS),
    Message.of("user", 0, 2, "Now these."),
    media=[png(70, 50), png(40, 40, 1), png(112, 57, 2)],
    responses=(WORDS, "no"),
)
NO_IMAGE = row(Message.of("user", "Who are you?"))
GOES_ON = row(Message.of("user", 0, "Count."), Message.of("assistant", "One, two"), media=[png(56, 56)])
ROWS = {"one": ONE_IMAGE, "two": TWO_IMAGES, "turns": MANY_TURNS, "none": NO_IMAGE, "goes on": GOES_ON}
