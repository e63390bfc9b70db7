"""How large a miniature is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """Widths and depths of a miniature; every family reads what it needs.

    Args:
        vocabulary: least number of rows of the embedding; grows to the tokenizer's size.
        image_px: side of one tile, for families that see square tiles.
        rope_theta: base of the rotary positions where a family turns them by rows and columns. Large ones tell the few
            rows and columns of a small picture apart only after long training.
        untrained: move 1-D parameters (norms, biases) off their usual ones and zeros, so that a test that compares
            gradients cannot pass because a bias happens to be zero. Off for models that are going to be trained.
    """

    hidden: int = 32
    intermediate: int = 64
    layers: int = 2
    heads: int = 4
    key_value_heads: int = 2
    vocabulary: int = 0
    vision_hidden: int = 32
    vision_intermediate: int = 64
    vision_layers: int = 2
    vision_heads: int = 4
    image_px: int = 56
    initializer_range: float = 0.1
    rope_theta: float = 1e6
    default_system_turn: bool = True
    untrained: bool = True

    @property
    def head_dim(self) -> int:
        """Width of one attention head of the language model."""
        return self.hidden // self.heads

    @property
    def mrope_section(self) -> list[int]:
        """Rotary pairs for time, height and width: a quarter, and two equal parts of the rest."""
        pairs = self.head_dim // 2
        side = (pairs * 3) // 8
        return [pairs - 2 * side, side, side]


SIZES: dict[str, Size] = {
    # As small as every family allows: for tests.
    "tiny": Size(),
    # Learns the world of corner shapes in a minute or two on a CPU: for the quickstart.
    "shapes": Size(
        hidden=128,
        intermediate=384,
        layers=3,
        heads=4,
        key_value_heads=4,
        vision_hidden=128,
        vision_intermediate=256,
        vision_layers=1,
        vision_heads=4,
        image_px=84,
        initializer_range=0.06,
        rope_theta=4.0,
        default_system_turn=False,
        untrained=False,
    ),
    # Large enough for its matrix products to dominate: for timing.
    "bench": Size(
        hidden=512,
        intermediate=1536,
        layers=8,
        heads=8,
        key_value_heads=4,
        vocabulary=32_768,
        vision_hidden=256,
        vision_intermediate=640,
        vision_layers=6,
        vision_heads=4,
        image_px=224,
        initializer_range=0.02,
    ),
}
