"""The review column: what people, or an oracle, made of an image's masks.

A sample holds null for an image that nobody reviewed, else an SA-1B record like that of `masks`, whose
annotations say who made them (`made_by`) and whose `review` says how. No run makes this column and none
overwrites it; workers/jobs/review.py does, shard by shard. Where it has a record of an image, that stands in
place of the masks'.
"""

from __future__ import annotations

from maskmill.workers.run.columns import Column

REVIEW = "review"
BY_PERSON = "person"

COLUMN = Column(name=REVIEW, stands_in=True)
