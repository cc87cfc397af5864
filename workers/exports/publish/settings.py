"""What a published dataset says of itself that its files don't know: name, licence, consent, contact.

[publish]
title = "Street scenes of Ghent"
license = "cc-by-4.0"
consent = "Faces and plates are blurred; the city gave the pictures out in 2025."
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PublishSettings:
    """The words on a dataset's card that people write.

    Args:
        title: its name; "" takes the repository's.
        description: what it is, in a few sentences.
        license: the hub's word for the terms of masks and pictures, such as "cc-by-4.0"; "" says unknown.
        license_link: where other terms stand; needed for license = "other".
        consent: who agreed that the pictures are shown, and how that was asked.
        source: where the pictures come from.
        contact: whom to ask for an image to be removed.
        citation: how to cite it, BibTeX or a sentence.
        languages: of captions and labels, as ISO codes.

    Raises:
        ValueError: a licence that is no single word, or other terms without a link.
    """

    title: str = ""
    description: str = ""
    license: str = ""
    license_link: str = ""
    consent: str = ""
    source: str = ""
    contact: str = ""
    citation: str = ""
    languages: tuple[str, ...] = ("en",)

    def __post_init__(self) -> None:
        if any(letter.isspace() for letter in self.license):
            raise ValueError(f'license={self.license!r}: use the hub\'s word, such as "cc-by-4.0" or "other"')
        if self.license == "other" and not self.license_link:
            raise ValueError('license="other" needs license_link: where the terms stand')
