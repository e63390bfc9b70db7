"""Presets that compare under changed media: a good answer must be good because of what is seen.

R = S - S_ref under the media of the row, R(y | c) under changed media c; w the better response, l the worse; D the
divergence from the reference summed along a response (TDPO).
"""

from __future__ import annotations

from mmalign.engine.views import LAST_RESPONSE, contrasted, other_media
from mmalign.objectives.cells import BETTER, LAST, WORSE, Cell, Contrast
from mmalign.objectives.links import square
from mmalign.objectives.preset import PAIR, Preset, alone, ratio, weighed
from mmalign.objectives.tokens import edited

_FROM_THE_ROW = "What is changed is drawn from the id of the row: the same for policy, reference and every epoch."
_NOISE = (
    "Noise is mixed into pixels scaled to [-1, 1], at the size that the model sees; the authors' into pixels scaled by "
    "their mean and deviation, where it is about half as strong."
)


def _mdpo(o):
    view = contrasted(o.contrast)
    how = {"beta": o.beta, "pairs": o.pairs}
    visual = Contrast(cells=(Cell(response=BETTER), Cell(response=BETTER, view=view, weight=-1)), **how)
    anchor = Contrast(cells=(Cell(response=BETTER),), shift=o.anchor, **how)
    return weighed(("", 1.0, ratio(o)), ("_visual", o.visual_weight, visual), ("_anchor", o.anchor_weight, anchor))


def _chip(o):
    cells = (
        Cell(response=BETTER, weight=2),
        Cell(response=WORSE, weight=-1),
        Cell(response=BETTER, view=contrasted(o.contrast), weight=-1),
    )
    how = {"beta": o.beta, "pairs": o.pairs, "tokens": edited(o.edit_weight), "kl_weight": o.kl_weight}
    return alone(Contrast(cells=cells, **how))


def _povid(o):
    told = contrasted(o.contrast, likeliest=True)
    cells = (Cell(response=BETTER), Cell(response=BETTER, view=told, weight=-1))
    visual = Contrast(cells=cells, beta=o.beta, pairs=o.pairs)
    return ("", 1 - o.visual_share, ratio(o)), ("_visual", o.visual_share, visual)


def _v_dpo(o):
    view = contrasted(o.contrast)
    cells = [Cell(response=BETTER), Cell(response=WORSE, weight=-1)]
    for response, sign in ((BETTER, 1), (WORSE, -1)):
        weight = sign * (o.guidance - 1)
        cells += [
            Cell(response=response, weight=weight, reference=False),
            Cell(response=response, view=view, weight=-weight, reference=False, fixed=True),
        ]
    guided = Contrast(cells=tuple(cell for cell in cells if cell.weight), beta=o.beta, pairs=o.pairs)
    seen = (Cell(response=BETTER), Cell(response=BETTER, view=view, weight=-1, fixed=True))
    return weighed(("", 1.0, guided), ("_visual", o.visual_weight, Contrast(cells=seen, beta=o.beta, pairs=o.pairs)))


def _symmpo(o):
    other = other_media(LAST_RESPONSE)
    here = (Cell(response=BETTER), Cell(response=LAST, weight=-1))
    there = (Cell(response=LAST, view=other), Cell(response=BETTER, view=other, weight=-1))
    away = tuple(Cell(response=cell.response, view=cell.view, weight=-cell.weight) for cell in there)

    def part(*cells: Cell, beta: float = o.beta, **how) -> Contrast:
        return Contrast(cells=cells, beta=beta, pairs="best_rest", last_apart=True, **how)

    return weighed(
        ("", 1.0, part(Cell(response=BETTER), Cell(response=WORSE, weight=-1))),
        ("_here", o.symmetry_weight, part(*here)),
        ("_there", o.symmetry_weight, part(*there)),
        ("_anchor", o.anchor_weight, part(Cell(response=BETTER), beta=o.anchor_beta)),
        ("_anchor_there", o.anchor_weight, part(Cell(response=LAST, view=other), beta=o.anchor_beta)),
        ("_margins", o.margin_weight, part(*here, *away, beta=1.0, link=square(0.0))),
    )


def _vista_dpo(o):
    def part(*cells: Cell, **how) -> Contrast:
        return Contrast(cells=cells, beta=o.beta, pairs="best_rest", last_apart=True, **how)

    def seen(better, worse) -> Contrast:
        return part(Cell(response=BETTER, view=better), Cell(response=BETTER, view=worse, weight=-1))

    sentence = part(
        Cell(response=BETTER),
        Cell(response=WORSE, weight=o.irrelevant_share - 1),
        Cell(response=LAST, weight=-o.irrelevant_share),
    )
    pair = (Cell(response=BETTER), Cell(response=WORSE, weight=-1))
    return weighed(
        ("", 1.0, sentence),
        ("_token", o.token_weight, part(*pair, kl_weight=o.kl_weight)),
        ("_video", o.video_weight, seen(None, contrasted("static"))),
        ("_clip", o.clip_weight, seen(other_media("clip_w"), other_media("clip_l"))),
        ("_frame", o.frame_weight, seen(other_media("frame"), other_media("frame", hidden_box="bbox"))),
    )


def _mixed_image(o):
    scored = LAST if o.other_text == "rejected" else BETTER
    other = other_media(LAST_RESPONSE, "mixed_up_image")
    cells = (Cell(response=BETTER), Cell(response=scored, view=other, weight=-1))
    return alone(Contrast(cells=cells, beta=o.beta, pairs="best_worst"))


VISUAL_PRESETS = (
    Preset(
        name="mdpo",
        says="DPO, the same better answer under a picture that shows little, and an anchor that keeps it from falling",
        source="Wang et al. 2024 (mDPO), arXiv:2406.11839, as in the authors' code",
        formula="-log sigmoid(beta (R_w - R_l)) - visual_weight log sigmoid(beta (R_w - R(w | c))) "
        "- anchor_weight log sigmoid(beta R_w - anchor)",
        options={**PAIR, "contrast": "crop", "visual_weight": 1.0, "anchor_weight": 1.0, "anchor": 0.0},
        parts=_mdpo,
        departures=(
            "The window keeps the shape of the picture; the authors' RandomResizedCrop also varies it.",
            _FROM_THE_ROW + " The authors draw anew at every forward.",
        ),
    ),
    Preset(
        name="chip",
        says="response, edited segments and a noisy picture behind one link",
        source="Fu et al. 2025 (CHiP), arXiv:2501.16629, as in the authors' code",
        formula="-log sigmoid(beta ([R_w - R_l] + [R_w - R(w | c)] - kl_weight [D_l - sg(D_w)])),  S = sum_t u_t lp_t, "
        "D = sum_t u_t KL(reference || policy), u = edit_weight where w and l differ, else 1",
        options={**PAIR, "contrast": "noise", "edit_weight": 4.0, "kl_weight": 0.1},
        parts=_chip,
        departures=(
            "One link over the sum, as in the authors' code; the paper presents separate losses.",
            "edit_weight weighs the divergences too, as it does the log-probs.",
            _NOISE,
            _FROM_THE_ROW,
        ),
    ),
    Preset(
        name="povid",
        says="DPO, and the better answer before the words that a noisy picture makes likeliest in its place",
        source="Zhou et al. 2024 (POVID), arXiv:2402.11411, second stage, as in the authors' code",
        formula="(1 - visual_share) (-log sigmoid(beta (R_w - R_l))) + visual_share (-log sigmoid(beta (R_w - n))),  "
        "n = sum_t lp(v_t) - lp_ref(v_t), v_t likeliest under c behind w_<t, each under its own model",
        options={**PAIR, "contrast": "noise", "visual_share": 0.5},
        parts=_povid,
        departures=(
            "v_t passes no gradient; its log-prob under the picture of the row does.",
            _NOISE,
            _FROM_THE_ROW,
            "The first stage is dpo on rows whose worse answers hold injected hallucinations.",
        ),
    ),
    Preset(
        name="v_dpo",
        says="DPO of a policy whose log-probs count what is seen above what it would say without looking",
        source="Xie et al. 2024 (V-DPO), arXiv:2411.02712, as in the authors' code",
        formula="-log sigmoid(beta (G_w - G_l)) - visual_weight log sigmoid(beta (R_w - sg R(w | c))),  "
        "G = guidance S - (guidance - 1) sg S(y | c) - S_ref",
        options={**PAIR, "contrast": "black", "guidance": 1.5, "visual_weight": 0.0},
        parts=_v_dpo,
        departures=(
            "guidance 1.5 is ours: the released script passes 0, under which the formula has no gradient.",
            "Log-probs are guided, without normalising over the vocabulary again.",
            "Black pixels; the authors take a picture of zeros or a mean of other pictures.",
        ),
    ),
    Preset(
        name="symmpo",
        says="two similar pictures, each with a good answer of its own: either answer is better under its own picture",
        source="Liu et al. 2025 (SymMPO), arXiv:2506.11712, as in the authors' code",
        formula="-log sigmoid(beta (R_w - R_l)) + symmetry_weight [-log sigmoid(beta d_1) - log sigmoid(beta d_2)] + "
        "anchor_weight [-log sigmoid(anchor_beta R_w) - log sigmoid(anchor_beta R(o | c))] + "
        "margin_weight (d_1 - d_2)^2,  d_1 = R_w - R_o, d_2 = R(o | c) - R(w | c)",
        options={
            "beta": 0.1,
            "symmetry_weight": 0.5,
            "anchor_weight": 1.0,
            "anchor_beta": 0.1,
            "margin_weight": 1e-4,
        },
        parts=_symmpo,
        departures=(
            "A row has three responses: the good one, the bad one, and last the good one o of the other picture, which "
            "stands in its media.",
        ),
    ),
    Preset(
        name="vista_dpo",
        says="DPO on videos at levels: answers, the whole video, a clip of it, a part of one frame",
        source="Huang et al. 2025 (VistaDPO), arXiv:2504.13122",
        formula="-log sigmoid(beta (R_w - (1 - irrelevant_share) R_l - irrelevant_share R_o)) "
        "- video_weight log sigmoid(beta (R_w - R(w | drawn))) "
        "- clip_weight log sigmoid(beta (R(w | clip_w) - R(w | clip_l))) "
        "- frame_weight log sigmoid(beta (R(w | frame) - R(w | frame without its box))) "
        "- token_weight log sigmoid(beta (R_w - R_l - kl_weight [D_l - sg(D_w)]))",
        options={
            "beta": 0.1,
            "irrelevant_share": 0.3,
            "video_weight": 0.8,
            "clip_weight": 0.6,
            "frame_weight": 0.4,
            "token_weight": 0.1,
            "kl_weight": 0.5,
        },
        parts=_vista_dpo,
        departures=(
            "Gradients reach the visual terms and the irrelevant answer o, and the reference has the same weights: the "
            "authors' code detaches the former and leaves out the latter.",
            "Numbers drawn evenly are pixels; the authors draw what the model sees of them.",
        ),
    ),
    Preset(
        name="mixed_image",
        says="the better answer under its own picture before an answer under another picture; a term beside mm_dpo",
        source="released trainer of MM-RLHF (vision_dpo), github.com/Kwai-YuanQi/MM-RLHF; arXiv:2502.10391",
        formula="-log sigmoid(beta (R_w - R(y | c))),  y = l, or w where other_text is chosen",
        options={"beta": 0.1, "other_text": "rejected"},
        parts=_mixed_image,
        departures=(
            "c are the media that the last response saw, or what the tag mixed_up_image names.",
            "Right for any size of batch; the authors' code is for one row a device.",
        ),
    ),
)
