"""Segmenters' weights that can be had by one word: where their authors publish them, how large, whose terms.

A table and nothing else: `maskmill fetch` reads it, and so do the messages that name a command. The word, or
the authors' own file name, is what `segmenter.weights` may say; a file of that name where the command is
typed comes first. Each sha256 was compared with those that several independent users of the files publish
(micro-sam's `_CHECKSUMS` among them); the authors publish none.
"""

from __future__ import annotations

import dataclasses

_SAM = "https://dl.fbaipublicfiles.com/segment_anything/"
_SAM2 = "https://dl.fbaipublicfiles.com/segment_anything_2/092824/"
_MOBILE = "https://github.com/ChaoningZhang/MobileSAM/raw/f706ad9c4eb7f219c00d9050e46328518ffb65d2/weights/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Published:
    """A file of weights that somebody publishes.

    Args:
        name: the word for it.
        title: what it is, for people.
        model: what `segmenter.model` must say with it.
        url: of the file.
        size_bytes: of the file.
        sha256: in hex.
        licence: its terms, by SPDX's name.
        page: where its authors tell of it.
        recipe: whose settings it is run with.
    """

    name: str
    title: str
    model: str
    url: str
    size_bytes: int
    sha256: str
    licence: str
    page: str
    recipe: str

    @property
    def file_name(self) -> str:
        """As its authors name it."""
        return self.url.rpartition("/")[2]


def _sam(name: str, size: str, file: str, size_bytes: int, sha256: str) -> Published:
    return Published(
        name=name,
        title=f"Segment Anything, {size}",
        model=name,
        url=_SAM + file,
        size_bytes=size_bytes,
        sha256=sha256,
        licence="Apache-2.0",
        page="github.com/facebookresearch/segment-anything",
        recipe="fast",
    )


def _sam2(size: str, file: str, size_bytes: int, sha256: str) -> Published:
    return Published(
        name=f"sam2.1_{size}",
        title=f"SAM 2.1, {size.replace('_', ' ')}",
        model="sam2",
        url=_SAM2 + file,
        size_bytes=size_bytes,
        sha256=sha256,
        licence="Apache-2.0",
        page="github.com/facebookresearch/sam2",
        recipe="sam2",
    )


PUBLISHED = (
    _sam(
        "vit_h",
        "ViT-H",
        "sam_vit_h_4b8939.pth",
        2_564_550_879,
        "a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
    ),
    _sam(
        "vit_l",
        "ViT-L",
        "sam_vit_l_0b3195.pth",
        1_249_524_607,
        "3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
    ),
    _sam(
        "vit_b",
        "ViT-B",
        "sam_vit_b_01ec64.pth",
        375_042_383,
        "ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
    ),
    _sam2(
        "tiny",
        "sam2.1_hiera_tiny.pt",
        156_008_466,
        "7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69",
    ),
    _sam2(
        "small",
        "sam2.1_hiera_small.pt",
        184_416_285,
        "6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38",
    ),
    _sam2(
        "base_plus",
        "sam2.1_hiera_base_plus.pt",
        323_606_802,
        "a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5",
    ),
    _sam2(
        "large",
        "sam2.1_hiera_large.pt",
        898_083_611,
        "2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318",
    ),
    Published(
        name="mobile_sam",
        title="MobileSAM",
        model="student:tiny_vit_5m",
        url=f"{_MOBILE}mobile_sam.pt",
        size_bytes=40_728_226,
        sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
        licence="Apache-2.0",
        page="github.com/ChaoningZhang/MobileSAM",
        recipe="fast",
    ),
)


def published(source: str) -> Published | None:
    """What a word, or the authors' file name, stands for; None for anything else."""
    return next((one for one in PUBLISHED if source in (one.name, one.file_name)), None)


def names_for(model: str) -> tuple[str, ...]:
    """The words for weights of a model, as `segmenter.model` spells it."""
    return tuple(one.name for one in PUBLISHED if one.model == model)


def size_text(size_bytes: int) -> str:
    """Megabytes or gigabytes, as download pages count them."""
    return f"{size_bytes / 1e9:.2f} GB" if size_bytes >= 1e9 else f"{size_bytes / 1e6:.0f} MB"
