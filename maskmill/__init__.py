"""maskmill: images in, a versioned, SA-1B-style dataset of masks out.

    import maskmill
    masks = maskmill.annotate("photo.jpg")        # or an array, or a list of either
    masks.show()
    dataset = maskmill.open("my-dataset")         # or s3://bucket/prefix
    for sample in dataset: ...

Names are fetched when first used: importing this takes milliseconds, and neither Ray nor Prefect is loaded.
`annotator`, `masks`, `dataset`, `torch_samples`, `web_samples`, `s3_opener` stand above the layers:
`maskmill.pipeline` knows arrays, `maskmill.storage` bytes, `maskmill.workers` both and `maskmill.flows` only
names and numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from maskmill.annotator import Annotator, annotate
    from maskmill.dataset import Dataset, Sample, open
    from maskmill.masks import Masks, to_coco
    from maskmill.pipeline.annotation import Annotation
    from maskmill.s3_opener import register_s3

__all__ = [
    "Annotation",
    "Annotator",
    "Dataset",
    "Masks",
    "Sample",
    "annotate",
    "open",
    "register_s3",
    "to_coco",
]


def __getattr__(name: str) -> object:
    """A public name, fetched from its file (PEP 562). Raises AttributeError for any other."""
    place: ModuleType
    if name in ("Annotator", "annotate"):
        from maskmill import annotator

        place = annotator
    elif name in ("Dataset", "Sample", "open"):
        from maskmill import dataset

        place = dataset
    elif name in ("Masks", "to_coco"):
        from maskmill import masks

        place = masks
    elif name == "register_s3":
        from maskmill import s3_opener

        place = s3_opener
    elif name == "Annotation":
        from maskmill.pipeline import annotation

        place = annotation
    else:
        raise AttributeError(f"module 'maskmill' has no attribute {name!r}; it has {', '.join(__all__)}")
    globals()[name] = found = getattr(place, name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
