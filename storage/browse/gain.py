"""What a person's minute at a picture is expected to put right, as SQL over masks: the orders `most gain`.

    p        chance that a mask is right: the verifier's, else predicted IoU times stability
    s        share of the picture's objects that has a mask: the verifier's, else 1
    w        what a mask counts: 1; by size, its area's square root

    (1)  corrected = sum of w * min(p, 1 - p): what looking at masks changes, each being kept or dropped
                     before as the verifier would have it
    (2)  missing   = sum of w * p * (1 - s) / s: objects without a mask, as large as those with one
    (3)  seconds   = OPEN_S + LOOK_S * masks of which neither is sure + CLICK_S * (2) of w = 1
    (4)  gain      = 60 * ((1) + (2)) / (3), more where masks differ from another generation's that was named
    (5)  by rarity = (4) * (1 + log(pictures with labels / those with the picture's rarest label))

Masks that are surely right or wrong cost no look: the reviewer leaves them. Pictures without any mask have no
gain that could be told, and come first. Size and rarity are orders of their own: to a quality that counts
masks, they are a detour. What it does not know: what a picture teaches a model.

Source of the seconds: Kirillov et al., Segment Anything (2023), section 4: 34 s a mask in the beginning, 14 s
assisted. The others are ours. (5): Sparck Jones, A statistical interpretation of term specificity (1972).
"""

from __future__ import annotations

OPEN_S, LOOK_S, CLICK_S, DRAW_S = 3.0, 3.0, 14.0, 34.0
"""Seconds of a person: a picture opened, a mask looked at, an object clicked, an object drawn by hand."""
SURE = 0.1
"""A mask is sure where its chance to be right is at most this, or at least 1 less this."""
LEAST_SHARE = 0.05

RIGHT = "coalesce(p_right, least(1, greatest(0, predicted_iou * stability_score)))"
_LOOKED = f"count(*) filter (where {RIGHT} > {SURE} and {RIGHT} < {1 - SURE})"
_SHARE = f"greatest({LEAST_SHARE}, least(1, coalesce(max(share_found), 1)))"


def _missing(weight: str) -> str:
    return f"sum({weight} * {RIGHT}) * (1 - {_SHARE}) / {_SHARE}"


def _gain(weight: str) -> str:
    corrected = f"sum({weight} * least({RIGHT}, 1 - {RIGHT}))"
    seconds = f"({OPEN_S} + {LOOK_S} * {_LOOKED} + {CLICK_S} * {_missing('1')})"
    return f"60 * ({corrected} + {_missing(weight)}) / {seconds}"


GAIN, GAIN_BY_SIZE = _gain("1"), _gain("sqrt(area_px)")
"""(4) of one picture's masks: rows of predicted_iou, stability_score, p_right, share_found, area_px."""

LABELLED, RARITIES = "labelled", "rarities"
"""The table of labels (key, word), each once a picture, and the view of pictures' rarities (key, rarity)."""

RARITY_OF_ALL = (
    f"create view {RARITIES} as select key, max(ln((select count(distinct key) from {LABELLED}) / pictures)) "
    f"as rarity from {LABELLED} join (select word, count(*) as pictures from {LABELLED} group by word) "
    "using (word) group by key"
)
RARITY = f"(1 + coalesce((select rarity from {RARITIES} r where r.key = found.key), 0))"
"""What (5) multiplies the gain by."""

DISAGREES = (
    "(1 + (coalesce(d.added, 0) + coalesce(d.removed, 0) + coalesce(d.changed, 0)) / greatest(masks, 1))"
)
"""What the gain is multiplied by where `d` has the differences to another generation."""
