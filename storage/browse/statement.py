"""The one SQL statement of a search: a short row for each picture of the shards in hand that fits.

Tables that it may name: images, masks, verdicts, rejects (key, word), makers (key, word), reviews, captions,
differences (key, added, removed, changed), and words0, words1, ... of columns with labels or names. Values
that people type are placeholders.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from maskmill.storage.browse.filters import CHANGES, DOUBT, Conditions, Filters, Need
from maskmill.storage.browse.gain import DISAGREES, GAIN, GAIN_BY_SIZE, LABELLED

WORD_FIELDS = ("label", "phrase", "name")

_OF_MASKS = (
    f"count(m.annotation_id) as masks, count(*) filter (where {{fits}}) as matching, "
    f"min(m.predicted_iou) as min_iou, min(m.stability_score) as min_stability, {DOUBT} as doubt, "
    "max(m.area_px) as largest_px, min(m.area_px) as smallest_px, {gains}"
)
_GAINS = f"{GAIN} as gain, {GAIN_BY_SIZE} as gain_by_size"
_NO_GAINS = "null as gain, null as gain_by_size"
_JUDGED = (
    "(select m.*, v.expected_iou, v.p_right, v.share_found from masks m left join verdicts v "
    "using (annotation_id))",
    "(select *, null::double as expected_iou, null::double as p_right, null::double as share_found "
    "from masks)",
)
"""Masks with what a verifier says of them, and where none was asked."""
_ROWS_WITH_PICTURES = (
    "(select i.*, m.* exclude (key, image_id, source) from images i left join {judged} m on m.key = i.key)"
)


def statement(
    filters: Filters, tables: Mapping[str, Sequence[str]], needs: Collection[Need] = ()
) -> Conditions:
    """The statement, and its values.

    Args:
        filters: what is asked.
        tables: the fields of each table that there is.
        needs: of the orders that will be asked for.
    """
    pictures, values = _picture_conditions(filters, tables)
    if "masks" not in tables:
        bare = "0, 0, null, null, null, null, null, null, null"
        kept = [*pictures, "false"] if filters.on_masks or filters.where.strip() else pictures
        return Conditions(_insert(bare, "", kept), values)

    fits, fit_values = _fits(filters)
    judged = _JUDGED[0 if "verdicts" in tables else 1]
    rows = _ROWS_WITH_PICTURES.format(judged=judged) if filters.where.strip() else judged
    of_mask = _OF_MASKS.format(fits=fits, gains=_GAINS if "gain" in needs else _NO_GAINS)
    of_masks = f"left join (select m.key, {of_mask} from {rows} m group by m.key) a using (key)"
    if fits != "true":
        pictures = [*pictures, "a.matching > 0"]
    more = "1"
    if "differences" in tables:
        of_masks += " left join differences d using (key)"
        more = DISAGREES
    scores = (
        "coalesce(masks, 0), coalesce(matching, 0), min_iou, min_stability, doubt, largest_px, smallest_px, "
        f"gain * {more}, gain_by_size * {more}"
    )
    return Conditions(_insert(scores, of_masks, pictures), (*fit_values, *values))


def labels_of(tables: Mapping[str, Sequence[str]]) -> str:
    """The statement that keeps labels and names of the shards in hand, each once a picture; "" for none."""
    found = [f"select key, lower({field}) as word from {table}" for table, field in _words(tables)]
    if not found:
        return ""
    return (
        f"insert into {LABELLED} select distinct * from ({' union all '.join(found)}) where word is not null"
    )


def _words(tables: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Tables with labels or names, and the fields that hold them."""
    named = [(table, found) for table, found in tables.items() if table.startswith("words")]
    return [(table, field) for table, found in named for field in WORD_FIELDS if field in found]


def _insert(scores: str, of_masks: str, conditions: Sequence[str]) -> str:
    where = f" where {' and '.join(conditions)}" if conditions else ""
    return (
        f"insert into found select i.key, i.shard, {scores}, r.word from images i {of_masks} "
        "left join (select key, min(word) as word from rejects group by key) r using (key)"
        f"{where} order by i.key"
    )


def _fits(filters: Filters) -> tuple[str, tuple[object, ...]]:
    """What a mask must be, over `m`; "true" for anything."""
    masks = filters.mask_conditions()
    parts = [masks.sql] if masks.sql else []
    if filters.where.strip():
        parts.append(f"({filters.where}\n)")
    return " and ".join(parts) or "true", masks.values


def _by(maker: str, has_reviews: bool) -> tuple[str, tuple[object, ...]]:
    """Who worked on a picture: its save in force says so, else the reviews from before there were saves."""
    made = "select key, word from makers"
    if has_reviews:
        made += (
            " union all select key, made_by from reviews where made_by in ('person', 'oracle') "
            "and key not in (select key from makers)"
        )
    if maker == "automatic":
        return f"i.key not in (select key from ({made}))", ()
    return f"i.key in (select key from ({made}) where word = ?)", (maker,)


def _picture_conditions(
    filters: Filters, tables: Mapping[str, Sequence[str]]
) -> tuple[list[str], tuple[object, ...]]:
    """What a picture must be, over `i` and `r`."""
    parts: list[tuple[str, tuple[object, ...]]] = []
    if filters.text:
        fields = [
            f"contains(lower(coalesce(i.{name}, '')), lower(?))" for name in ("source", "member", "caption")
        ]
        if "captions" in tables:
            fields.append("i.key in (select key from captions where contains(lower(text), lower(?)))")
        parts.append((f"({' or '.join(fields)})", (filters.text,) * len(fields)))

    if filters.label:
        named = [
            f"i.key in (select key from {table} where contains(lower({field}), lower(?)))"
            for table, field in _words(tables)
        ]
        parts.append((f"({' or '.join(named) or 'false'})", (filters.label,) * len(named)))

    if filters.reject:
        parts.append(
            ("r.word is not null", ()) if filters.reject == "any" else ("r.word = ?", (filters.reject,))
        )
    if filters.since:
        parts.append((f"i.key in (select key from differences where {CHANGES[filters.change]})", ()))
    if filters.made_by:
        parts.append(_by(filters.made_by, "reviews" in tables))
    return [sql for sql, _ in parts], tuple(value for _, some in parts for value in some)
