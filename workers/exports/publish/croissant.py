"""Croissant metadata of a published dataset: what its files and fields are, for machines that look for data.

Source: MLCommons' Croissant format 1.0 (docs.mlcommons.org/croissant/docs/croissant-spec.html).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from maskmill.workers.exports.publish.settings import PublishSettings

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

NO_DIGEST = "https://github.com/mlcommons/croissant/issues/80"
"""The format's own word for the digest of a repository, which has none."""

FIELDS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("image", "sc:ImageObject", "The photograph, a JPEG, upright.", {"transform": {"jsonPath": "bytes"}}),
    ("image_id", "sc:Integer", "Unique over the dataset.", {}),
    ("key", "sc:Text", "The image's key in the dataset it was exported from.", {}),
    ("width", "sc:Integer", "Of the image, in pixels.", {}),
    ("height", "sc:Integer", "Of the image, in pixels.", {}),
    ("source", "sc:Text", "Where the photograph came from.", {}),
    ("caption", "sc:Text", "What the image shows, where known.", {}),
    ("masks", "sc:Text", "Its masks: COCO run lengths in counts, box, area, scores, category.", {}),
    ("extra", "sc:Text", "What else is known, as JSON.", {}),
)


def croissant(
    repo: str,
    url: str,
    splits: Sequence[str],
    words: PublishSettings,
    *,
    version: str,
    published: str,
) -> bytes:
    """The metadata file.

    Args:
        repo: owner/name.
        url: of the dataset's page.
        splits: by `datasets`' names, as its files begin.
        words: what people say of it.
        version: the generation's number.
        published: ISO date of the generation.
    """
    files = [
        {
            "@type": "cr:FileSet",
            "@id": f"parquet-{split}",
            "name": f"parquet-{split}",
            "description": f"Parquet files of the {split} split.",
            "containedIn": {"@id": "repo"},
            "encodingFormat": "application/x-parquet",
            "includes": f"data/{split}-*.parquet",
        }
        for split in splits
    ]
    repository = {
        "@type": "cr:FileObject",
        "@id": "repo",
        "name": "repo",
        "description": "The repository on the hub.",
        "contentUrl": url,
        "encodingFormat": "git+https",
        "sha256": NO_DIGEST,
    }
    told = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": words.title or repo.rpartition("/")[2],
        "description": words.description or f"Images with masks, {repo}",
        "url": url,
        "version": f"{version}.0.0",
        "datePublished": published,
        "license": words.license_link or words.license or "unknown",
        "creator": {"@type": "sc:Organization", "name": repo.partition("/")[0]},
        "inLanguage": list(words.languages),
        "citeAs": words.citation or url,
        **({"rai:personalSensitiveInformation": words.consent} if words.consent else {}),
        **({"rai:dataCollection": words.source} if words.source else {}),
        "distribution": [repository, *files],
        "recordSet": [_records(split) for split in splits],
    }
    return (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode()


def _records(split: str) -> dict[str, Any]:
    """A split's rows."""
    return {
        "@type": "cr:RecordSet",
        "@id": split,
        "name": split,
        "description": f"An image a row, of the {split} split.",
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{split}/{name}",
                "name": f"{split}/{name}",
                "description": description,
                "dataType": kind,
                "source": {"fileSet": {"@id": f"parquet-{split}"}, "extract": {"column": name}, **more},
            }
            for name, kind, description, more in FIELDS
        ],
    }
