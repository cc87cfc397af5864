"""What planning remembers of every input, as digests: to find duplicates and leave unchanged files unread.

    label (source, or tar::member) -> which bytes it was (offset, etag), which image they are
    sha256                         -> the image that has these bytes
    tar and etag                   -> how many images came from it
    label                          -> its reject in force

Two labels are taken for one when 96 bits of their digests agree, two pictures when 128 bits of their sha256
do. Read from several threads, written by one.

It does not know: what is written where (planning.py).
"""

from __future__ import annotations

from hashlib import blake2b

from maskmill.storage.plan.digests import DigestTable
from maskmill.storage.plan.examine import KnownInput
from maskmill.storage.plan.plan import Plan
from maskmill.storage.plan.sources import source_label
from maskmill.storage.plan.tables import REJECT_COLUMNS, read_rows

_IDENTITY_BYTES = 8
_ID_BYTES = 5  # an image id; 0 for a double
_LABEL_BYTES, _SHA256_BYTES, _TAR_BYTES = 12, 16, 16
_PLANNED = ("source", "member", "offset", "etag", "sha256", "image_id")


class Ledger:
    """Digests of what earlier plans, and the one being made, know. An `examine.Known`."""

    def __init__(self, plan: Plan) -> None:
        self._states = DigestTable(_LABEL_BYTES, _IDENTITY_BYTES + _ID_BYTES)
        self._ids = DigestTable(_SHA256_BYTES, _ID_BYTES)
        self._tars = DigestTable(_TAR_BYTES, _ID_BYTES)
        self._problems: dict[bytes, tuple[bytes, str]] = {}  # label -> reason and etag in force, the reason
        for tar in plan.iter_tars():
            self._tars.put(_tar_digest(tar.source, tar.etag), _packed(tar.num_images))
        for part in plan.parts:
            for row in read_rows(plan.store, part.rejects, REJECT_COLUMNS):
                self.add_reject(**row)
            for row in read_rows(plan.store, part.rows, _PLANNED):
                self.add_image(**row)

    @property
    def size_bytes(self) -> int:
        """Memory that its tables take, rejects apart."""
        return self._states.size_bytes + self._ids.size_bytes + self._tars.size_bytes

    def knows_image(self, source: str, member: str, offset: int, etag: str) -> KnownInput | None:
        """See `examine.Known`."""
        state = self._states.get(digest(source_label(source, member))[:_LABEL_BYTES])
        if state is None or state[:_IDENTITY_BYTES] != _identity(offset, etag):
            return None
        return KnownInput(source, int(any(state[_IDENTITY_BYTES:])))

    def knows_tar(self, source: str, etag: str) -> KnownInput | None:
        """See `examine.Known`."""
        num_images = self._tars.get(_tar_digest(source, etag))
        return None if num_images is None else KnownInput(source, int.from_bytes(num_images, "little"))

    def is_planned(self, label: str, sha256: str | None = None) -> bool:
        """Whether the label is an image's, with these bytes if given."""
        state = self._states.get(digest(label)[:_LABEL_BYTES])
        if state is None or not any(state[_IDENTITY_BYTES:]):
            return False
        return sha256 is None or self._ids.get(_short(sha256)) == state[_IDENTITY_BYTES:]

    def image_id_of(self, sha256: str) -> int | None:
        """The image with these bytes."""
        found = self._ids.get(_short(sha256))
        return None if found is None else int.from_bytes(found, "little")

    def add_image(self, source: str, member: str, offset: int, etag: str, sha256: str, image_id: int) -> None:
        """Takes note of a planned image."""
        self._put_state(source, member, offset, etag, image_id)
        if self._ids.get(_short(sha256)) is None:
            self._ids.put(_short(sha256), _packed(image_id))

    def add_reject(self, source: str, member: str, offset: int, etag: str, reason: str, detail: str) -> None:
        """Takes note of an input that is not in the dataset."""
        self._problems[digest(source_label(source, member))] = (digest(f"{reason} {etag}"), reason)
        if reason in ("duplicate", "forgotten"):
            self._put_state(source, member, offset, etag, 0)

    def has_reject(self, label: str, reason: str, etag: str) -> bool:
        """Whether this very reject is in force."""
        found = self._problems.get(digest(label))
        return found is not None and found[0] == digest(f"{reason} {etag}")

    def resolve(self, label: str) -> str | None:
        """Drops the label's reject, if there is one, and gives its reason."""
        found = self._problems.pop(digest(label), None) if self._problems else None
        return None if found is None else found[1]

    def _put_state(self, source: str, member: str, offset: int, etag: str, image_id: int) -> None:
        label = digest(source_label(source, member))[:_LABEL_BYTES]
        self._states.put(label, _identity(offset, etag) + _packed(image_id))


def digest(text: str) -> bytes:
    """16 bytes of a text."""
    return blake2b(text.encode(), digest_size=16).digest()


def _identity(offset: int, etag: str) -> bytes:
    return blake2b(f"{offset} {etag}".encode(), digest_size=_IDENTITY_BYTES).digest()


def _short(sha256: str) -> bytes:
    return bytes.fromhex(sha256)[:_SHA256_BYTES]


def _tar_digest(source: str, etag: str) -> bytes:
    return digest(f"{etag} {source}")


def _packed(number: int) -> bytes:
    return number.to_bytes(_ID_BYTES, "little")
