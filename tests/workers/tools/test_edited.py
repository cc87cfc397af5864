"""How pictures are known again by what editors call them."""

from __future__ import annotations

import pytest

from maskmill.storage.errors import InputError
from maskmill.workers.tools.edited import image_id_of

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.mark.parametrize(
    "name",
    [
        "sa_17.jpg",
        "uploads/ab12-sa_17.jpg",
        "a\\b\\sa_17.jpg",
        "/data/local-files/?d=images%2Fsa_17.jpg",
        "https://x/sa_17.jpg?X-Amz-Signature=a.b",
        "sa_017.JPG",
    ],
)
def test_a_pictures_name_is_known_again(name: str) -> None:
    assert image_id_of(name) == 17


@pytest.mark.parametrize(
    "name",
    ["mesa_17.jpg", "my_sa_17.jpg", "sa_17", "sa_17b.jpg", "sa_.jpg", "sa_17.jpg.zip", "sa_²1.jpg", ""],
)
def test_no_other_name_is_taken_for_one(name: str) -> None:
    with pytest.raises(InputError, match="take it out of the file"):
        image_id_of(name)
