"""The run `browse`: a server on loopback that shows a dataset, and takes what people make of it.

It takes no lock, as tag and promote do: saves are numbered put-if-absent records that disturb no writer. A
heartbeat makes it seen by `forget`, garbage collection and `status`.
"""

from __future__ import annotations

import webbrowser
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlencode

from maskmill.flows.config import RunConfig
from maskmill.flows.runs.steps.holding import visiting
from maskmill.storage.dataset.picture_sets import load_set
from maskmill.storage.dataset.tags import find_generation


@dataclass(frozen=True, kw_only=True)
class BrowseOptions:
    """What a person asks of the page.

    Attributes:
        generation: a number or tag; None is the latest.
        column: that has the masks; None is `masks`, or an import where there are none.
        person: who reviews.
        port: of loopback; 0 takes a free one, None the dataset's own, the same at each start.
        opens: whether this machine's browser is opened.
        order: of review: "key", "random", "hardest", ... (storage/browse/filters.py).
        reviews: whether the page opens with the first picture to review.
        only: the name of a set of pictures that it opens with; "" for all.
    """

    generation: str | None = None
    column: str | None = None
    person: str = ""
    port: int | None = None
    opens: bool = True
    order: str = "key"
    reviews: bool = False
    only: str = ""


def browse(
    dataset: str, config: RunConfig, options: BrowseOptions, *, started: Callable[[str], None]
) -> None:
    """Serves the page until Ctrl-C.

    Args:
        dataset: its root.
        config: [segmenter], which answers clicks where no model of the dataset is in force.
        options: what is shown, to whom.
        started: told the page's address.

    Raises:
        DatasetError: there is no such generation, column or set of pictures.
        InputError: the port is taken, or there is no such order.
    """
    from maskmill.workers.page.serve import Server
    from maskmill.workers.page.session import Session

    def told(address: str) -> None:
        """Tells the address of the page that was asked for, and opens it where that is wanted."""
        address += "#/review" if options.reviews else "#/browse" if options.only else ""
        address += "?" + urlencode({"chosen": options.only}) if options.only else ""
        started(address)
        if options.opens:
            webbrowser.open(address)

    with visiting(dataset, "browse") as store:
        if options.only:
            load_set(store, options.only)
        session = Session(
            store,
            find_generation(store, options.generation),
            person=options.person,
            column=options.column,
            segmenter=config.segmenter,
            order=options.order,
        )
        Server(session, port=options.port).run(told)
