"""The page's server: addresses to answers. Every address lies behind the token (guard.py).

    /                    the page, and its parts under static/
    /api/about           the dataset, its columns, labels, orders, reject reasons
    /api/pictures        a page of a search
    /api/sets            what a search finds, kept under a name
    /api/pictures/KEY    one picture: record, image.jpg, thumb.jpg
    /api/review/...      queue, clicks, saves, summary (review_routes.py)

Errors come as {"error": a sentence}. It does not know: how anything is found or made.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Annotated

from fastapi import Body, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from jinja2 import Environment, PackageLoader, select_autoescape

from maskmill.pipeline.weights.errors import WeightsError
from maskmill.storage.browse.filters import Filters
from maskmill.storage.errors import InputError, ObjectNotFound, StorageError
from maskmill.workers.page.guard import Guard
from maskmill.workers.page.json_answer import FRESH, json_answer
from maskmill.workers.page.review_routes import add_review

if TYPE_CHECKING:
    from maskmill.workers.page.session import Session

PACKAGE = "maskmill.workers.page"
KINDS = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
KEPT = {"cache-control": "private, max-age=3600"}
MOST_PICTURES, MOST_SIDE_PX = 200, 1024


def make_app(session: Session, *, token: str, port: int) -> Guard:
    """The server's app, behind its door.

    Args:
        session: what is browsed.
        token: that addresses begin with.
        port: that the server listens on.
    """
    app = FastAPI(title="maskmill", openapi_url=None, docs_url=None, redoc_url=None)
    app.add_exception_handler(StorageError, _told)
    app.add_exception_handler(WeightsError, _told)
    app.add_exception_handler(RequestValidationError, _not_understood)
    _add_page(app)
    _add_pictures(app, session)
    add_review(app, session)
    return Guard(app, token=token, port=port)


async def _told(request: Request, exc: Exception) -> Response:
    """An error as a sentence, with the status of its kind."""
    status = 400 if isinstance(exc, ValueError) else 404 if isinstance(exc, ObjectNotFound) else 500
    return JSONResponse({"error": str(exc)}, status_code=status, headers=FRESH)


async def _not_understood(request: Request, exc: Exception) -> Response:
    """A request of another form, in a sentence."""
    assert isinstance(exc, RequestValidationError)
    first = exc.errors()[0]
    place = ".".join(str(part) for part in first["loc"][1:])
    said = str(first["msg"]).removeprefix("Value error, ")
    return JSONResponse({"error": f"{place}: {said}" if place else said}, status_code=422, headers=FRESH)


def _add_page(app: FastAPI) -> None:
    templates = Environment(loader=PackageLoader(PACKAGE), autoescape=select_autoescape())
    parts = {
        part.name: part.read_bytes()
        for part in (files(PACKAGE) / "static").iterdir()
        if part.name.rpartition(".")[2] in KINDS
    }

    @app.get("/")
    def page() -> HTMLResponse:
        """The page itself."""
        return HTMLResponse(templates.get_template("page.html").render(), headers=FRESH)

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        """A part of the page. Raises ObjectNotFound for what is none."""
        if name not in parts:
            raise ObjectNotFound(f"the page has no part {name!r}")
        return Response(
            parts[name], media_type=KINDS[name.rpartition(".")[2]], headers={"cache-control": "no-cache"}
        )


def _add_pictures(app: FastAPI, session: Session) -> None:
    @app.get("/api/about")
    def about() -> Response:
        """What is shown: dataset, generation, columns."""
        return json_answer(session.about())

    @app.get("/api/pictures")
    def pictures(
        filters: Annotated[Filters, Depends()],
        sort: str = "key",
        seed: int = 0,
        offset: int = 0,
        limit: int = 60,
    ) -> Response:
        """The pictures that filters let through. Raises InputError for places or numbers out of range."""
        if not offset >= 0 or not 1 <= limit <= MOST_PICTURES:
            raise InputError(f"offset={offset}, limit={limit}: give at least 0, and 1 to {MOST_PICTURES}")
        return json_answer(session.pictures(filters, sort, seed=seed, offset=offset, limit=limit))

    @app.post("/api/sets")
    def choose(name: Annotated[str, Body()], who: Annotated[str, Body()], filters: Filters) -> Response:
        """Keeps what filters let through under a name."""
        kept = session.choose(name, filters, who)
        return json_answer({"name": kept.name, "number": kept.number, "pictures": len(kept.keys)})

    @app.get("/api/pictures/{key}")
    def picture(key: str) -> Response:
        """A picture's record."""
        return json_answer(session.shown.record(key))

    @app.get("/api/pictures/{key}/image.jpg")
    def image(key: str) -> Response:
        """A picture, as it is stored."""
        return Response(session.shown.jpeg(key), media_type="image/jpeg", headers=KEPT)

    @app.get("/api/pictures/{key}/thumb.jpg")
    def thumb(key: str, side: int = 320, masks: bool = True) -> Response:
        """A small picture. Raises InputError for a side out of range."""
        if not 16 <= side <= MOST_SIDE_PX:
            raise InputError(f"side={side}: give 16 to {MOST_SIDE_PX} px")
        data = session.shown.thumbnail(key, side, masks=masks)
        return Response(data, media_type="image/jpeg", headers=FRESH if masks else KEPT)
