"""How good a layout looks by rules of thumb, each between 0 and 1, larger is better.

Alignment and overlap are the two scores by which AesthetiQ keeps designs of quality (arXiv:2503.00591, section 3); the
paper's formulas and its threshold are not known here, these are our own. They are a signal where no annotator is at
hand, and no replacement for one: a layout can please all four and look dull.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mmalign.formats import boxes as geometry
from mmalign.formats.layout import Layout
from mmalign.modalities.image import ImageLimits
from mmalign.modalities.layout_render import paint

SCORES = {
    "alignment": "1 - mean over elements of the distance to the nearest line (edge or middle) of another",
    "overlap": "1 - mean over pairs of the share of the smaller element that the other covers",
    "balance": "1 - distance of the middle of what is covered from the middle of the canvas, by half a diagonal",
    "readability": "mean over texts of calm beneath it x contrast with it, from 1 to 1 up to the 4.5 to 1 of WCAG 2.2",
}
QUALITY = ("alignment", "overlap")
ENOUGH_CONTRAST = 4.5
_CELLS = 128
_PIXELS = 65_536


def score(layout: Layout, limits: ImageLimits | None = None) -> dict[str, float]:
    """Return the scores of a layout; without `limits` those that need no picture, which is all but readability.

    Args:
        limits: where pictures of elements may come from.

    Raises:
        RowError: the picture of an element cannot be read.
    """
    edges = geometry.as_edges(layout.boxes)[layout.placed()].reshape(-1, 4)
    made = {"alignment": _alignment(edges), "overlap": _overlap(edges), "balance": _balance(edges)}
    if limits is not None and any(element.kind == "text" for element in layout.brief.elements):
        made["readability"] = _readability(layout, limits)
    return made


def quality(scores: Mapping[str, float]) -> float:
    """Return the mean of alignment and overlap: AesthetiQ's filter keeps rows whose true layout exceeds a threshold.

    A threshold to begin with is the median of the training rows.
    """
    return sum(scores[name] for name in QUALITY) / len(QUALITY)


def _alignment(edges: np.ndarray) -> float:
    return float(1 - np.clip(geometry.nearest_line(edges), 0, 1).mean()) if len(edges) else 1.0


def _overlap(edges: np.ndarray) -> float:
    pairs = np.triu_indices(len(edges), 1)
    if not len(pairs[0]):
        return 1.0
    areas = geometry.areas(edges)
    shares = geometry.intersections(edges, edges) / np.minimum(areas[:, None], areas[None])
    return float(1 - shares[pairs].mean())


def _balance(edges: np.ndarray) -> float:
    rows, columns = np.nonzero(geometry.raster(edges, _CELLS, _CELLS))
    if not len(rows):
        return 0.0
    middle = (np.array([columns.mean(), rows.mean()]) + 0.5) / _CELLS
    return float(1 - np.linalg.norm(middle - 0.5) / np.hypot(0.5, 0.5))


def _readability(layout: Layout, limits: ImageLimits) -> float:
    """Look at each text with all texts left out (what is beneath), and with them (what it looks like)."""
    beneath, whole = (
        np.asarray(paint(layout, limits, _PIXELS, without=kinds), dtype=np.float64) / 255 for kinds in (("text",), ())
    )
    height, width = beneath.shape[:2]
    found = []
    for k, element in enumerate(layout.brief.elements):
        if element.kind != "text":
            continue
        scale = np.array([width, height, width, height])
        cells = np.clip(np.rint(np.array(layout.boxes[k].edges()) * scale), 0, scale).astype(int)
        here = slice(cells[1], cells[3]), slice(cells[0], cells[2])
        found.append(_readable(beneath[here], whole[here]) if beneath[here].size else 0.0)
    return float(np.mean(found))


def _readable(beneath: np.ndarray, whole: np.ndarray) -> float:
    """Return calm x contrast of one text: RGB from 0 to 1, [height, width, 3] without and with it."""
    light, ground = _luminance(whole), _luminance(beneath)
    inked = np.abs(light - ground) > 0.02
    if not inked.any():
        return 0.0
    # The strongest of the ink: the edges of letters are mixed with what is beneath.
    strongest = np.argsort(np.abs(light - ground)[inked])[-max(1, int(inked.sum()) // 4) :]
    ink, paper = light[inked][strongest].mean(), ground.mean()
    contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
    grey = beneath.mean(axis=-1)
    busy = sum(np.abs(np.diff(grey, axis=axis)).mean() for axis in (0, 1) if grey.shape[axis] > 1)
    return float(max(0.0, 1 - 4 * busy) * min(1.0, (contrast - 1) / (ENOUGH_CONTRAST - 1)))


def _luminance(rgb: np.ndarray) -> np.ndarray:
    """Return relative luminance as WCAG 2.2 defines it."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])
