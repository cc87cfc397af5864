"""What a person's minute at a picture is expected to put right, as SQL over its masks: the order `most gain`.

    p        chance that a mask is right: the verifier's, else predicted IoU times stability
    s        share of the picture's objects that has a mask: the verifier's, else 1

    (1)  corrected = sum of min(p, 1 - p): what looking at masks changes, each being kept or dropped before as
                     the verifier would have it
    (2)  missing   = sum of p * (1 - s) / s: objects without a mask
    (3)  seconds   = OPEN_S + LOOK_S * masks of which neither is sure + CLICK_S * missing
    (4)  gain      = 60 * ((1) + (2)) / (3), more where masks differ from another generation's that was named

Masks that are surely right or wrong cost no look: the reviewer leaves them. Pictures without any mask have no
gain that could be told, and come first. What it does not know: how large or how rare an object is, and what a
picture teaches a model.

Source of the seconds: Kirillov et al., Segment Anything (2023), section 4: 34 s a mask in the beginning, 14 s
assisted. The others are ours.
"""

from __future__ import annotations

OPEN_S, LOOK_S, CLICK_S, DRAW_S = 3.0, 3.0, 14.0, 34.0
"""Seconds of a person: a picture opened, a mask looked at, an object clicked, an object drawn by hand."""
SURE = 0.1
"""A mask is sure where its chance to be right is at most this, or at least 1 less this."""
LEAST_SHARE = 0.05

RIGHT = "coalesce(p_right, least(1, greatest(0, predicted_iou * stability_score)))"
_CORRECTED = f"sum(least({RIGHT}, 1 - {RIGHT}))"
_LOOKED = f"count(*) filter (where {RIGHT} > {SURE} and {RIGHT} < {1 - SURE})"
_SHARE = f"greatest({LEAST_SHARE}, least(1, coalesce(max(share_found), 1)))"
_MISSING = f"sum({RIGHT}) * (1 - {_SHARE}) / {_SHARE}"

GAIN = f"60 * ({_CORRECTED} + {_MISSING}) / ({OPEN_S} + {LOOK_S} * {_LOOKED} + {CLICK_S} * {_MISSING})"
"""(4) of the masks of one picture: rows with predicted_iou, stability_score, p_right and share_found."""

DISAGREES = (
    "(1 + (coalesce(d.added, 0) + coalesce(d.removed, 0) + coalesce(d.changed, 0)) / greatest(masks, 1))"
)
"""What the gain is multiplied by where `d` has the differences to another generation."""
