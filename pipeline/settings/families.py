"""The model families that maskmill knows, by role: names, where weights come from, what must be installed.

A table and nothing else, so that settings, messages and `maskmill models` say the same; it imports no model.
`segmenter.model` names a family, and for a student its encoder too (`student:repvit_m1`).
"""

from __future__ import annotations

import dataclasses

STUDENT = "student"
STUDENT_ENCODERS = ("repvit_m1", "tiny_vit_5m")
"""EdgeSAM's encoder and MobileSAM's, by timm's names."""

_SAM_PAGE = "github.com/facebookresearch/segment-anything#model-checkpoints"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """Models that load by the same code.

    Args:
        role: segmenter, captioner, filter, detector or namer.
        name: as settings spell it.
        title: what it is, for people.
        example: public weights that fit: a hub id, or the page of a file.
        takes_file, takes_folder: the forms of weights that it loads: a .pth or .safetensors file, a folder
            written by `save_pretrained` (or a hub id of one).
        model_types: what such a folder's config.json calls its model.
        needs: modules that must be importable beside torch.
        extra: the extra of maskmill that installs them; None where maskmill itself does.
        encoder: of a segmenter: "ours" (segment_anything's network or a student's, run by this project) or
            "transformers". The decoder is the shared-image decoder for all.
        gated: the hub asks for a login and accepted terms.
        parameters: of a segmenter, the largest of the family's public models; memory is planned by it.
        input_px: side of a segmenter's square input.
    """

    role: str
    name: str
    title: str
    example: str
    takes_file: bool = False
    takes_folder: bool = True
    model_types: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    extra: str | None = None
    encoder: str | None = None
    gated: bool = False
    parameters: int = 0
    input_px: int = 1024

    @property
    def weights(self) -> str:
        """The forms of weights in words."""
        forms = [
            "a checkpoint file (.pth or .safetensors)" if self.takes_file else "",
            "a save_pretrained folder or its hub id" if self.takes_folder else "",
        ]
        return " or ".join(form for form in forms if form)


def _segment_anything(name: str, size: str, hub_id: str, file: str, parameters: int) -> Family:
    return Family(
        role="segmenter",
        name=name,
        title=f"Segment Anything {size}",
        example=f"{file} ({_SAM_PAGE}) or {hub_id}",
        takes_file=True,
        model_types=("sam",),
        needs=("segment_anything",),
        encoder="ours",
        parameters=parameters,
    )


def _by_transformers(
    role: str, name: str, title: str, example: str, *model_types: str, **more: object
) -> Family:
    fields: dict[str, object] = {
        "role": role,
        "name": name,
        "title": title,
        "example": example,
        "model_types": model_types,
        "needs": (f"transformers.models.{model_types[0]}",),
        **more,
    }
    return Family(**fields)  # type: ignore[arg-type]


FAMILIES = (
    Family(
        role="segmenter",
        name="nano",
        title="maskmill's own small student",
        example="none needed: its weights ship inside",
        takes_file=True,
        takes_folder=False,
        needs=("segment_anything",),
        encoder="ours",
        parameters=3_000_000,
        input_px=320,
    ),
    _segment_anything("vit_b", "ViT-B", "facebook/sam-vit-base", "sam_vit_b_01ec64.pth", 93_735_472),
    _segment_anything("vit_l", "ViT-L", "facebook/sam-vit-large", "sam_vit_l_0b3195.pth", 312_342_832),
    _segment_anything("vit_h", "ViT-H", "facebook/sam-vit-huge", "sam_vit_h_4b8939.pth", 641_090_608),
    _by_transformers(
        "segmenter",
        "sam",
        "Segment Anything of any size",
        "facebook/sam-vit-base",
        "sam",
        encoder="ours",
        parameters=641_090_608,
    ),
    _by_transformers(
        "segmenter",
        "sam_hq",
        "SAM-HQ",
        "syscv-community/sam-hq-vit-base",
        "sam_hq",
        encoder="transformers",
        parameters=650_000_000,
    ),
    _by_transformers(
        "segmenter",
        "sam2",
        "SAM 2 and 2.1, image model",
        "sam2.1_hiera_large.pt (github.com/facebookresearch/sam2#download-checkpoints) or "
        "facebook/sam2.1-hiera-large",
        "sam2",
        "sam2_video",
        takes_file=True,
        encoder="transformers",
        parameters=224_400_000,
    ),
    _by_transformers(
        "segmenter",
        "edgetam",
        "EdgeTAM, image model",
        "yonigozlan/EdgeTAM-hf",
        "edgetam",
        "edgetam_video",
        encoder="transformers",
        parameters=13_900_000,
        needs=("transformers.models.edgetam", "timm"),
        extra="timm",
    ),
    _by_transformers(
        "segmenter",
        "sam3",
        "SAM 3's promptable image model",
        "facebook/sam3",
        "sam3_tracker",
        "sam3_video",
        encoder="transformers",
        gated=True,
        parameters=850_000_000,
        input_px=1008,
    ),
    *(
        Family(
            role="segmenter",
            name=f"{STUDENT}:{encoder}",
            title=title,
            example=example,
            takes_file=True,
            takes_folder=False,
            needs=("segment_anything", "timm"),
            extra="timm",
            encoder="ours",
            parameters=parameters,
        )
        for encoder, title, example, parameters in (
            (
                "repvit_m1",
                "EdgeSAM: RepViT-M1 under SAM's decoder",
                "edge_sam_3x.pth (github.com/chongzhou96/EdgeSAM)",
                9_600_000,
            ),
            (
                "tiny_vit_5m",
                "MobileSAM: TinyViT-5M under SAM's decoder",
                "mobile_sam.pt (github.com/ChaoningZhang/MobileSAM)",
                10_130_000,
            ),
        )
    ),
    _by_transformers(
        "captioner", "blip", "BLIP captioning", "Salesforce/blip-image-captioning-large", "blip"
    ),
    _by_transformers(
        "captioner",
        "blip2",
        "BLIP-2 over OPT or T5",
        "Salesforce/blip2-opt-2.7b",
        "blip-2",
        needs=("transformers.models.blip_2",),
    ),
    _by_transformers(
        "captioner", "florence2", "Florence-2", "florence-community/Florence-2-large", "florence2"
    ),
    _by_transformers(
        "filter", "blip", "BLIP image-text matching (CapFilt)", "Salesforce/blip-itm-large-coco", "blip"
    ),
    _by_transformers(
        "detector",
        "grounding_dino",
        "Grounding DINO",
        "IDEA-Research/grounding-dino-base",
        "grounding-dino",
        needs=("transformers.models.grounding_dino",),
    ),
    _by_transformers(
        "detector",
        "mm_grounding_dino",
        "MM-Grounding-DINO",
        "openmmlab-community/mm_grounding_dino_base_all",
        "mm-grounding-dino",
        needs=("transformers.models.mm_grounding_dino",),
    ),
    _by_transformers(
        "detector", "owlv2", "OWLv2 and OWL-ViT", "google/owlv2-base-patch16-ensemble", "owlv2", "owlvit"
    ),
    _by_transformers(
        "detector",
        "omdet_turbo",
        "OmDet-Turbo",
        "omlab/omdet-turbo-swin-tiny-hf",
        "omdet-turbo",
        needs=("transformers.models.omdet_turbo", "timm"),
        extra="timm",
    ),
    _by_transformers("namer", "clip", "CLIP", "openai/clip-vit-base-patch16", "clip"),
    _by_transformers(
        "namer", "siglip", "SigLIP and SigLIP 2 of fixed size", "google/siglip2-base-patch16-256", "siglip"
    ),
)

ROLES = ("segmenter", "captioner", "filter", "detector", "namer")
SEGMENTERS = tuple(family.name for family in FAMILIES if family.role == "segmenter")


def families_of(role: str) -> tuple[Family, ...]:
    """The families of a role, in the table's order."""
    return tuple(family for family in FAMILIES if family.role == role)


def model_types_of(role: str) -> tuple[str, ...]:
    """What the config.json of a folder that this role loads may call its model, each once."""
    return tuple(dict.fromkeys(kind for family in families_of(role) for kind in family.model_types))


def family_of(role: str, name: str) -> Family:
    """The family that a setting names.

    Raises:
        ValueError: the role has no such family; all are listed.
    """
    for family in families_of(role):
        if family.name == name:
            return family
    known = ", ".join(family.name for family in families_of(role))
    raise ValueError(f"{role} model={name!r} is unknown: use one of {known}")
