"""What the flow leaves in Prefect: a table always, a sheet where a server with pages may show it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from maskmill.flows.deployments import generate as flow
from maskmill.flows.report.report import RunReport, without_pictures

REPORT = RunReport(
    dataset="data", generation=3, published=True, images=4, annotated=4, rejected=0, missing=0, duplicated=0,
    damaged=0, masks=9, new_images=4, rejects={},
    failed_shards={}, problems=(), seconds=1.0, images_per_s=4.0,
)  # fmt: skip


@pytest.mark.parametrize("wanted", [True, False])
def test_a_sheet_is_drawn_where_somebody_may_see_it(monkeypatch: pytest.MonkeyPatch, wanted: bool) -> None:
    left: list[object] = []
    monkeypatch.setattr(flow, "table_artifact", left.append)
    monkeypatch.setattr(flow.run, "contact_sheet", lambda dataset, number: f"sheet of {dataset}, {number}")
    monkeypatch.setattr(flow, "sheet_artifact", lambda png, generation: left.append((png, generation)))

    with nullcontext() if wanted else without_pictures():
        flow.show.fn(REPORT)
    assert left == [REPORT, *([("sheet of data, 3", 3)] if wanted else [])]
