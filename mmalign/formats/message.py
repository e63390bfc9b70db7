"""One turn of a conversation: a role and parts, each a text or a placeholder for a medium."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mmalign.errors import RowError

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPart:
    """Plain text."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaPart:
    """A placeholder: the medium at `index` of the row's media list stands here."""

    index: int


Part = TextPart | MediaPart


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A role and the parts it says, in order."""

    role: Role
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise RowError("role is unknown", field="role", value=self.role, hint=f"use one of {', '.join(ROLES)}")

    @classmethod
    def of(cls, role: Role, *parts: str | int) -> Message:
        """Build a message from texts (str) and media indices (int): `Message.of("user", 0, "What is this?")`."""
        made = tuple(TextPart(text=part) if isinstance(part, str) else MediaPart(index=part) for part in parts)
        return cls(role=role, parts=made)

    @property
    def text(self) -> str:
        """The texts of this message, joined; placeholders leave no trace."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def media_indices(self) -> tuple[int, ...]:
        """Indices of the media that stand in this message, in order."""
        return tuple(part.index for part in self.parts if isinstance(part, MediaPart))
