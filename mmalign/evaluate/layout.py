"""Metrics of layouts that need boxes alone: alignment, overlap and IoU in the variants of the field.

Definitions are those of layout-dm (github.com/CyberAgentAILab/layout-dm, helpers/metric.py at 93630ba), which gathers
them from the papers named below. The paper usually prints alignment times 100. Backgrounds are not looked at, since
everything overlaps them; `boxes_of` leaves them out. `compat`:

    official    what that program computes, for figures to be compared with published ones. It fills layouts up to
                the longest of a batch with empty boxes at (0, 0) and looks at these too when it searches for the
                nearest line, so that a box near the left or upper edge counts as aligned (`batch_length`).
    corrected   only real boxes are looked at.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from mmalign.errors import DataError
from mmalign.evaluate.assignment import best_assignment
from mmalign.formats import boxes as geometry
from mmalign.formats.compat import Compat, require_compat
from mmalign.formats.layout import Layout

_EPSILON = float(np.finfo(np.float32).eps)
_PERCEPTUAL_CELLS = 32
_FARTHEST = 1 - 1e-6
"""Boxes a canvas apart and more have no logarithm; they count as this far."""

METRICS = {
    "alignment": "mean over elements of -ln(1 - distance to the nearest line of another), LayoutGAN++; lower is better",
    "overlap": "share of an element that others cover, summed, mean over elements, LayoutGAN++; lower is better",
    "mean_iou": "mean over elements of IoU with the true box of the same element; higher is better",
}


def boxes_of(layout: Layout) -> np.ndarray:
    """Return the boxes that metrics look at, [N, 4] with left, top, right, bottom: all but backgrounds."""
    return geometry.as_edges(layout.boxes)[layout.placed()].reshape(-1, 4)


def alignment(edges: np.ndarray, *, compat: Compat = "corrected", batch_length: int = 0) -> dict[str, float]:
    """Return how far boxes [N, 4] are from being aligned, in three variants; 0 is aligned.

    With d_i = min over other boxes j and the six lines of |line_i - line_j|:

        ac_layout_gan    sum_i -ln(1 - d_i)            Attribute-conditioned Layout GAN, arXiv:2009.05284
        layout_gan_pp    the same / N                  LayoutGAN++, arXiv:2108.00871
        ndn              sum_i d_i over left, middle and right alone, without logarithm    NDN, arXiv:1912.09421

    Args:
        batch_length: with compat "official", the number of boxes of the longest layout of the batch.
    """
    require_compat(compat)
    count = len(edges)
    if compat == "official":
        padded = np.concatenate([edges, np.zeros((max(0, batch_length - count), 4))])
        nearest = geometry.nearest_line(padded)[:count]
        nearest = np.where(nearest >= 1, 0.0, nearest)  # as there: a distance of 1 stands for "no other box"
    else:
        nearest = np.minimum(geometry.nearest_line(edges), _FARTHEST)
    total = float(np.abs(np.log1p(-nearest)).sum())
    return {
        "ac_layout_gan": total,
        "layout_gan_pp": total / count if count else 0.0,
        "ndn": float(geometry.nearest_line(edges, (0, 1, 2)).sum()),
    }


def overlap(edges: np.ndarray) -> dict[str, float]:
    """Return how much boxes [N, 4] cover each other, in three variants; 0 is not at all.

    ac_layout_gan    sum_i sum_{j != i} area(i and j) / area(i)    arXiv:2009.05284
    layout_gan_pp    the same / N                                  arXiv:2108.00871
    layout_gan       sum_{i < j} area(i and j)                     LayoutGAN, arXiv:1901.06767
    """
    shared = geometry.intersections(edges, edges)
    np.fill_diagonal(shared, 0.0)
    total = float((shared / geometry.areas(edges)[:, None]).sum()) if len(edges) else 0.0
    return {
        "ac_layout_gan": total,
        "layout_gan_pp": total / len(edges) if len(edges) else 0.0,
        "layout_gan": float(shared.sum() / 2),
    }


def average_iou(edges: np.ndarray) -> dict[str, float]:
    """Return the mean IoU of the pairs of boxes that overlap at all; lower is better, 0 where none do.

    vtn    IoU                                                  Variational Transformer Networks, arXiv:2104.02416
    blt    intersection / share of a 32 x 32 grid that any box covers    BLT, arXiv:2112.05112
    """
    shared = geometry.intersections(edges, edges)[np.triu_indices(len(edges), 1)]
    covered = geometry.raster(edges, _PERCEPTUAL_CELLS, _PERCEPTUAL_CELLS).mean()
    perceptual = shared / covered if covered else np.zeros_like(shared)
    plain = geometry.ious(edges, edges)[np.triu_indices(len(edges), 1)]
    return {"vtn": _mean_of_overlapping(plain), "blt": _mean_of_overlapping(perceptual)}


def _mean_of_overlapping(values: np.ndarray) -> float:
    found = values[values > _EPSILON]
    return float(found.mean()) if len(found) else 0.0


def mean_iou(predicted: Layout, truth: Layout) -> float:
    """Return the mean over elements of the IoU of the predicted and the true box of the same element.

    Elements are matched by their position, as AesthetiQ's figure of this name does according to others
    (arXiv:2503.00591, section 4); the mean over layouts is a mean of these. Backgrounds are left out: a model would be
    paid for filling the canvas with them.

    Raises:
        DataError: the two are not layouts of the same elements.
    """
    if [one.kind for one in predicted.brief.elements] != [one.kind for one in truth.brief.elements]:
        raise DataError(
            f"layouts {predicted.brief.id!r} and {truth.brief.id!r} do not have the same elements in the same order"
        )
    first, second = boxes_of(predicted), boxes_of(truth)
    return float(np.diagonal(geometry.ious(first, second)).mean()) if len(first) else 0.0


Labelled = tuple[np.ndarray, Sequence[str]]
"""Boxes [N, 4] and the category of each."""


def labelled(layout: Layout, of: Callable[..., str] = lambda element: element.kind) -> Labelled:
    """Return the boxes of a layout and their categories, for `max_iou`; by default the kinds of the elements."""
    return boxes_of(layout), [of(layout.brief.elements[k]) for k in layout.placed()]


def max_iou(first: Sequence[Labelled], second: Sequence[Labelled]) -> float:
    """Return how alike two sets of layouts are at the best assignment: Maximum IoU of LayoutGAN++, arXiv:2108.00871.

    Layouts with the same categories, whatever their order, form a group. The likeness of two layouts is the mean over
    elements of IoU when elements of a category are assigned best; within a group layouts are assigned best, one to
    one. The mean is over all assigned pairs; layouts whose categories the other set does not have are not looked at,
    and 0 is returned where nothing can be assigned.
    """
    groups = [_by_categories(layouts) for layouts in (first, second)]
    values: list[float] = []
    for key in groups[0].keys() & groups[1].keys():
        likeness = np.array([[_likeness(one, other) for other in groups[1][key]] for one in groups[0][key]])
        values += likeness[best_assignment(likeness)].tolist()
    return float(np.mean(values)) if values else 0.0


def _by_categories(layouts: Sequence[Labelled]) -> dict[tuple[str, ...], list[Labelled]]:
    groups: dict[tuple[str, ...], list[Labelled]] = defaultdict(list)
    for edges, categories in layouts:
        groups[tuple(sorted(categories))].append((edges, categories))
    return groups


def _likeness(first: Labelled, second: Labelled) -> float:
    """Return the mean over elements of IoU of two layouts with the same categories."""
    total, categories = 0.0, [np.asarray(names) for _, names in (first, second)]
    for name in np.unique(categories[0]):
        ious = geometry.ious(first[0][categories[0] == name], second[0][categories[1] == name])
        total += float(ious[best_assignment(ious)].sum())
    return total / max(1, len(first[0]))
