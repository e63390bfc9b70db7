"""PosterLayout's eight metrics of layouts on a picture (Hsu et al. 2023, arXiv:2303.15937).

Elements are texts, logos and underlays (shapes behind other elements). Definitions are those of the authors' `eval.py`
(github.com/PKU-ICST-MIPL/PosterLayout-CVPR2023 at bd236f2). `compat`:

    official    what that program computes: `ali` takes the nearest pair of the whole layout for every element; `und_s`
                never looks at the right edge; a box that lies beyond the canvas both ways has a positive area;
                negative pixel numbers count from the other end; `rea` loses gradients to darker pixels and takes
                squares modulo 256.
    corrected   `ali` looks for the nearest element of each; `und_s` looks at all four edges; boxes are cut at the
                canvas; `rea` takes signed gradients in floating point.

Layouts without elements are counted as 0 in `ove`, where that program divides by zero. The pictures' metrics need the
picture and its saliency at the size of the canvas: the larger of PFPN's and BASNet's maps there, any map here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mmalign.errors import DataError
from mmalign.formats import boxes as geometry
from mmalign.formats.compat import Compat, require_compat

PosterClass = Literal["empty", "text", "logo", "underlay"]
EMPTY, TEXT, LOGO, UNDERLAY = range(4)
WIDTH_PX, HEIGHT_PX = 513, 750
SMALLEST_SHARE = 0.001

METRICS = {
    "val": "share of elements that cover a thousandth of the canvas; all others are left out of what follows; higher",
    "ove": "IoU of pairs of elements that are no underlays, summed, by their number; lower is better",
    "ali": "sum over elements of -log10(1 - distance to the nearest line of another); lower is better",
    "und_l": "largest share of an element that lies on the underlay, mean over underlays; higher is better",
    "und_s": "share of underlays that hold an element whole; higher is better",
    "uti": "share of what is not salient that elements use; higher is better",
    "occ": "mean saliency beneath the elements; lower is better",
    "rea": "mean gradient beneath texts that have no underlay; lower is better",
}


@dataclass(frozen=True, kw_only=True)
class Poster:
    """A layout on a picture.

    Args:
        edges: float [N, 4], left, top, right and bottom in pixels of the canvas.
        classes: [N]: 0 empty, 1 text, 2 logo, 3 underlay.
        width_px, height_px: of the canvas.
        picture: uint8 [height, width, 3], for `rea`.
        saliency: float [height, width] between 0 and 1, for `uti` and `occ`.
    """

    edges: np.ndarray
    classes: np.ndarray
    width_px: int = WIDTH_PX
    height_px: int = HEIGHT_PX
    picture: np.ndarray | None = None
    saliency: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.edges.shape != (len(self.classes), 4):
            raise DataError(f"poster has {len(self.classes)} classes and boxes of shape {self.edges.shape}")
        if not np.isfinite(self.edges).all():
            raise DataError("poster has a box that is not finite; leave it out or mend it")
        for name in ("picture", "saliency"):
            array, wanted = getattr(self, name), (self.height_px, self.width_px)
            if array is not None and array.shape[:2] != wanted:
                raise DataError(f"{name} of a poster must be of the canvas's size {wanted}, got {array.shape[:2]}")


def score(posters: Sequence[Poster], *, compat: Compat = "corrected") -> dict[str, float]:
    """Return the metrics of a set of posters; those that need pictures only where every poster has them.

    Besides, `elements` and `underlays`: how many elements, and posters with an underlay, the figures are about.

    Raises:
        DataError: there is no poster, or none has an element.
    """
    require_compat(compat)
    elements = sum(int((poster.classes != EMPTY).sum()) for poster in posters)
    if not elements:
        raise DataError("there is no element to score; give posters with elements that are not empty")
    seen = [_visible(poster, compat) for poster in posters]
    kept = [(poster.edges[mask], poster.classes[mask]) for poster, mask in zip(posters, seen, strict=True)]
    with_underlay = [pair for pair in kept if (pair[1] == UNDERLAY).any()]
    sizes = [np.array([poster.width_px, poster.height_px] * 2) for poster in posters]
    shares = [edges / size for (edges, _), size in zip(kept, sizes, strict=True)]
    made = {
        "val": sum(int(mask.sum()) for mask in seen) / elements,
        "ove": float(np.mean([_overlap(*pair) for pair in kept])),
        "ali": float(np.mean([_misalignment(edges, compat) for edges in shares])),
        "und_l": float(np.mean([_underlay_share(*pair) for pair in with_underlay])) if with_underlay else 0.0,
        "und_s": float(np.mean([_underlay_holds(*pair, compat) for pair in with_underlay])) if with_underlay else 0.0,
    }
    cases = list(zip(posters, kept, strict=True))
    if all(poster.saliency is not None for poster in posters):
        made["uti"] = float(np.mean([_utility(poster, edges, compat) for poster, (edges, _) in cases]))
        made["occ"] = float(np.mean([_occlusion(poster, edges, compat) for poster, (edges, _) in cases]))
    if all(poster.picture is not None for poster in posters):
        made["rea"] = float(np.mean([_unreadability(poster, *pair, compat) for poster, pair in cases]))
    return {**made, "elements": float(elements), "underlays": float(len(with_underlay))}


def _visible(poster: Poster, compat: Compat) -> np.ndarray:
    """Return which elements cover a thousandth of the canvas, bool [N]."""
    low = np.maximum(poster.edges[:, :2], 0)
    high = np.minimum(poster.edges[:, 2:], [poster.width_px, poster.height_px])
    sides = high - low if compat == "official" else np.clip(high - low, 0, None)
    smallest = SMALLEST_SHARE * poster.width_px * poster.height_px
    return (np.abs(sides.prod(axis=1)) >= smallest) & (poster.classes != EMPTY)


def _overlap(edges: np.ndarray, classes: np.ndarray) -> float:
    others = edges[classes != UNDERLAY]
    if not len(others):
        return 0.0
    return float(geometry.ious(others, others)[np.triu_indices(len(others), 1)].sum() / len(others))


def _misalignment(edges: np.ndarray, compat: Compat) -> float:
    if len(edges) < 2:
        return 0.0
    if compat == "official":
        lines = np.sort(geometry.alignment_lines(edges), axis=0)
        nearest = np.full(len(edges), np.diff(lines, axis=0).min())
    else:
        nearest = geometry.nearest_line(edges)
    return float(np.abs(np.log10(1 - np.minimum(nearest, 1 - 1e-6))).sum())


def _underlay_share(edges: np.ndarray, classes: np.ndarray) -> float:
    underlays, others = edges[classes == UNDERLAY], edges[classes != UNDERLAY]
    if not len(others):
        return 0.0
    shares = geometry.intersections(underlays, others) / geometry.areas(others)[None]
    return float(shares.max(axis=1).mean())


def _underlay_holds(edges: np.ndarray, classes: np.ndarray, compat: Compat) -> float:
    underlays, others = edges[classes == UNDERLAY][:, None], edges[classes != UNDERLAY][None]
    begins = (underlays[..., :2] <= others[..., :2]).all(axis=-1)
    ends = underlays[..., 2:] >= others[..., 2:]
    holds = begins & (ends[..., 1] if compat == "official" else ends.all(axis=-1))
    return float(holds.any(axis=1).mean())


def _mask(poster: Poster, edges: np.ndarray, compat: Compat) -> np.ndarray:
    """Return which pixels boxes cover, bool [height, width]."""
    covered = np.zeros((poster.height_px, poster.width_px), dtype=bool)
    for left, top, right, bottom in edges.astype(int):
        if compat == "corrected":
            left, top, right, bottom = (max(0, side) for side in (left, top, right, bottom))
        covered[top:bottom, left:right] = True
    return covered


def _utility(poster: Poster, edges: np.ndarray, compat: Compat) -> float:
    calm = 1 - poster.saliency
    total = calm.sum()
    return float(calm[_mask(poster, edges, compat)].sum() / total) if total else 0.0


def _occlusion(poster: Poster, edges: np.ndarray, compat: Compat) -> float:
    mask = _mask(poster, edges, compat)
    return float(poster.saliency[mask].mean()) if mask.any() else 0.0


def _unreadability(poster: Poster, edges: np.ndarray, classes: np.ndarray, compat: Compat) -> float:
    mask = _mask(poster, edges[classes == TEXT], compat) & ~_mask(poster, edges[classes == UNDERLAY], compat)
    return float(gradients(poster.picture, compat)[mask].mean()) if mask.any() else 0.0


def gradients(picture: np.ndarray, compat: Compat = "corrected") -> np.ndarray:
    """Return the strength of the gradient at every pixel, by the largest of the picture: float [H, W], 0 to 1.

    Sobel's kernels with mirrored borders, sqrt((gx^2 + gy^2) / 2). See the head of this module for what "official" does
    differently: its arithmetic is that of 8-bit numbers.

    Args:
        picture: uint8 [H, W, 3].
    """
    grey = np.rint(picture.astype(np.float64) @ [0.299, 0.587, 0.114])
    around = np.pad(grey, 1, mode="reflect")
    down = around[2:] - around[:-2]
    across = around[:, 2:] - around[:, :-2]
    gx = across[:-2] + 2 * across[1:-1] + across[2:]
    gy = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    if compat == "official":
        gx, gy = (np.clip(one, 0, 255) ** 2 for one in (gx, gy))
        strength = np.sqrt((gx % 256 + gy % 256) % 256 / 2)
    else:
        strength = np.sqrt((gx**2 + gy**2) / 2)
    largest = strength.max()
    if not largest:
        return np.zeros_like(strength)
    scaled = strength / largest
    return np.floor(scaled * 255) / 255 if compat == "official" else scaled
