"""The oracle of the automatic mask stage: the public generator, the two rules it lacks, and nothing fast.

`ReferenceGenerator` is `segment_anything.SamAutomaticMaskGenerator` with its batch step restated so
that the output token is carried along, and with the paper's rules that the public code has not: masks
that cover 95 % of the image or more are dropped, and so are masks whose largest island is too small.
With those rules off it is the public generator to the bit. Tests and benchmarks use it; the stage never
does.

Where it differs from the public code: an image or crop without any mask gives none (the public code fails on
it when there are crops), and masks without a pixel, which pass only a stability threshold of 0, are dropped.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam
from segment_anything.utils import amg

from maskmill.pipeline.annotation import AnnotatedImage, Annotation, to_xywh
from maskmill.pipeline.masks.geometry import point_grid
from maskmill.pipeline.rle import Rle
from maskmill.pipeline.segmenters.base import point_prompts
from maskmill.pipeline.segmenters.families import FamilyModel, FamilySegmenter, Sam2Encoder
from maskmill.pipeline.settings import MaskSettings


class ReferenceGenerator(SamAutomaticMaskGenerator):  # type: ignore[misc]
    """The public generator plus the paper's two rules.

    Args:
        sam: the model.
        settings: of the stage; all of them are honoured.
    """

    def __init__(self, sam: Sam, settings: MaskSettings) -> None:
        super().__init__(
            sam,
            points_per_side=settings.points_per_side,
            points_per_batch=settings.points_per_batch,
            pred_iou_thresh=settings.predicted_iou,
            stability_score_thresh=settings.stability,
            stability_score_offset=settings.stability_offset,
            box_nms_thresh=settings.box_nms,
            crop_n_layers=settings.crop_layers,
            crop_nms_thresh=settings.crop_nms,
            crop_overlap_ratio=settings.crop_overlap,
            crop_n_points_downscale_factor=settings.crop_points_downscale,
            min_mask_region_area=settings.min_area_px,
            output_mode="coco_rle",
        )
        self.settings = settings

    @torch.no_grad()
    def annotate(self, image: npt.NDArray[np.uint8]) -> AnnotatedImage:
        """The image's masks in the stage's form, in the public generator's order, without parents.

        Args:
            image: uint8[H, W, 3] RGB.
        """
        height, width = image.shape[:2]
        try:
            data = self._generate_masks(image)
        except IndexError:  # the public code's answer to crops without any mask
            return AnnotatedImage(width, height, ())
        if self.min_mask_region_area > 0:
            nms_thresh = max(self.box_nms_thresh, self.crop_nms_thresh)
            if self.settings.drop_small:
                self._drop_all_small(data)
            data = self.postprocess_small_regions(data, self.min_mask_region_area, nms_thresh)
        rows = range(len(data["rles"]))
        annotations = [_annotation(data, row) for row in rows if amg.area_from_rle(data["rles"][row])]
        return AnnotatedImage(width, height, tuple(annotations))

    def _drop_all_small(self, data: Any) -> None:
        """The paper's rule: no mask whose largest island, with its holes filled, is too small."""
        import cv2  # only here: the public code imports it as late

        keep = []
        for rle in data["rles"]:
            mask, _ = amg.remove_small_regions(amg.rle_to_mask(rle), self.min_mask_region_area, mode="holes")
            _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
            keep.append(stats[1:, -1].max(initial=0) >= self.min_mask_region_area)
        data.filter(torch.tensor(keep, dtype=torch.bool))

    def _process_batch(
        self,
        points: npt.NDArray[np.float64],
        im_size: tuple[int, int],
        crop_box: list[int],
        orig_size: tuple[int, int],
    ) -> Any:
        """The public batch step, carrying the output token, with the coverage rule after stability."""
        orig_h, orig_w = orig_size
        in_points = torch.as_tensor(self.predictor.transform.apply_coords(points, im_size))
        in_points = in_points.to(self.predictor.device)
        in_labels = torch.ones(in_points.shape[0], dtype=torch.int, device=in_points.device)
        masks, iou_preds, _ = self.predictor.predict_torch(
            in_points[:, None, :], in_labels[:, None], multimask_output=True, return_logits=True
        )

        data = amg.MaskData(
            masks=masks.flatten(0, 1),
            iou_preds=iou_preds.flatten(0, 1),
            points=torch.as_tensor(points.repeat(masks.shape[1], axis=0)),
            output_token=torch.arange(masks.shape[1]).repeat(len(points)),
        )
        del masks

        if self.pred_iou_thresh > 0.0:
            data.filter(data["iou_preds"] > self.pred_iou_thresh)
        threshold = self.predictor.model.mask_threshold
        data["stability_score"] = amg.calculate_stability_score(
            data["masks"], threshold, self.stability_score_offset
        )
        if self.stability_score_thresh > 0.0:
            data.filter(data["stability_score"] >= self.stability_score_thresh)

        # The paper's coverage rule
        data["masks"] = data["masks"] > threshold
        if self.settings.max_coverage is not None:
            area_px = data["masks"].flatten(1).sum(1)
            data.filter(area_px < self.settings.max_coverage * orig_h * orig_w)

        data["boxes"] = amg.batched_mask_to_box(data["masks"])
        data.filter(~amg.is_box_near_crop_edge(data["boxes"], crop_box, [0, 0, orig_w, orig_h]))
        data["masks"] = amg.uncrop_masks(data["masks"], crop_box, orig_h, orig_w)
        data["rles"] = amg.mask_to_rle_pytorch(data["masks"])
        del data["masks"]
        return data


def _annotation(data: Any, row: int) -> Annotation:
    x, y = data["points"][row].tolist()
    return Annotation(
        segmentation=Rle.from_coco(amg.coco_encode_rle(data["rles"][row])),
        bbox_xywh=to_xywh([float(side) for side in data["boxes"][row]]),
        area_px=int(amg.area_from_rle(data["rles"][row])),
        predicted_iou=float(data["iou_preds"][row]),
        stability_score=float(data["stability_score"][row]),
        crop_box_xywh=to_xywh([float(side) for side in data["crop_boxes"][row]]),
        point_xy=((x, y),),
        output_token=int(data["output_token"][row]),
    )


HQ_STRENGTH = 0.02
"""What is left of SAM-HQ's further mask by `adjust_family`."""


@torch.no_grad()
def adjust_heads(
    sam: Sam,
    image: npt.NDArray[np.uint8],
    *,
    predicted_iou: float = 0.88,
    stability: float = 0.95,
    share: float = 0.7,
    area: float = 0.1,
) -> None:
    """Makes a random `Sam` give masks that pass thresholds, by changing its output layers in place.

    Random weights give logits near zero and one predicted IoU for everything, so nothing would be compared.
    The embedding, the prompts and the transformer stay as they are. Changed: the upscaling gets kernels
    without a checkerboard and one constant channel, through which each output token's logits are shifted
    until its masks cover `area` of the map on average; their gain is set until `share` of them are stable;
    the predicted IoU head is scaled until `share` of its values pass.

    Args:
        sam: changed in place.
        image: uint8[H, W, 3], measured on a grid of 8x8 points.
        predicted_iou, stability: the thresholds to pass.
        share: of the masks that pass each of the two thresholds, in (0, 1).
        area: of the map that masks cover on average, in (0, 1).
    """
    _free_a_channel(sam.mask_decoder)

    # What the grid gives now
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    points = amg.build_point_grid(8) * np.array([image.shape[1], image.shape[0]])
    in_points = torch.as_tensor(predictor.transform.apply_coords(points, image.shape[:2]))[:, None]
    labels = torch.ones(len(points), 1, dtype=torch.int)
    _, iou_PM, logits_PMHW = predictor.predict_torch(in_points.to(sam.device), labels.to(sam.device))

    _adjust_outputs(sam.mask_decoder, iou_PM, logits_PMHW, predicted_iou, stability, share, area)


@torch.no_grad()
def adjust_family(
    model: FamilyModel,
    image: npt.NDArray[np.uint8],
    *,
    predicted_iou: float = 0.88,
    stability: float = 0.95,
    share: float = 0.7,
    area: float = 0.1,
) -> None:
    """`adjust_heads` for a family's model; weights that another model shares change there too.

    SAM 2's finer map leaves the constant channel alone; SAM-HQ's further mask is weakened, lest it decide.

    Args:
        model: changed in place; build its segmenter after.
        image, predicted_iou, stability, share, area: see `adjust_heads`.
    """
    decoder, form = model.modules.mask_decoder, model.form
    _free_a_channel(decoder)
    if isinstance(model.encoder, Sam2Encoder):
        for part in model.encoder.fine.parameters():
            part[0] = 0.0
    hq_last = list(decoder.hf_mlp.layers[-1].parameters()) if form.hq_token else []
    hq_before = [one.clone() for one in hq_last]
    for one in hq_last:
        one.zero_()

    # What the grid gives now, predicted IoU before the sigmoid
    segmenter = FamilySegmenter(model, device="cpu")
    points = point_grid(8) * np.array([image.shape[1], image.shape[0]])
    prediction = segmenter.prompt(segmenter.embed([image])[0]).predict(point_prompts(points))
    iou_PM = prediction.predicted_iou_PM
    logits_NHW = prediction.masks(torch.ones_like(iou_PM, dtype=torch.bool))
    logits_PMHW = logits_NHW.view(*iou_PM.shape, *logits_NHW.shape[1:])
    if form.sigmoid_iou:
        iou_PM, predicted_iou = iou_PM.logit(), float(np.log(predicted_iou / (1 - predicted_iou)))
    _adjust_outputs(decoder, iou_PM, logits_PMHW, predicted_iou, stability, share, area)
    for one, before in zip(hq_last, hq_before, strict=True):
        one.copy_(HQ_STRENGTH * before)


def _free_a_channel(decoder: Any) -> None:
    """No checkerboard, and one constant channel that no output reads."""
    for layer in (decoder.output_upscaling[0], decoder.output_upscaling[3]):
        layer.weight.copy_(layer.weight.mean((2, 3), keepdim=True).expand_as(layer.weight))
    decoder.output_upscaling[3].weight[:, 0] = 0.0
    decoder.output_upscaling[3].bias[0] = 1.0
    for network in decoder.output_hypernetworks_mlps:
        network.layers[-1].weight[0] = 0.0
        network.layers[-1].bias[0] = 0.0


def _adjust_outputs(
    decoder: Any,
    iou_PM: torch.Tensor,
    logits_PMHW: torch.Tensor,
    predicted_iou: float,
    stability: float,
    share: float,
    area: float,
) -> None:
    """Each output's level, gain and predicted IoU."""
    constant = float(torch.nn.functional.gelu(torch.tensor(1.0)))
    iou_layer = decoder.iou_prediction_head.layers[-1]
    for output in range(iou_PM.shape[1]):
        last = decoder.output_hypernetworks_mlps[output + 1].layers[-1]
        logits_PS = logits_PMHW[:, output].flatten(1)
        level = logits_PS.flatten().sort().values[int((1 - area) * (logits_PS.numel() - 1))]
        gain = _stable_gain(logits_PS - level, stability, share)
        last.weight.mul_(gain)
        last.bias.mul_(gain)
        last.bias[0] = -gain * level / constant
        scale = 0.1 / iou_PM[:, output].std().clamp(min=1e-6)
        shift = predicted_iou - scale * iou_PM[:, output].quantile(1 - share)
        iou_layer.weight[output + 1].mul_(scale)
        iou_layer.bias[output + 1] = iou_layer.bias[output + 1] * scale + shift


def _stable_gain(logits_PS: torch.Tensor, stability: float, share: float) -> float:
    """The smallest tried gain at which `share` of the maps are stable."""
    for gain in torch.logspace(0, 6, 61).tolist():
        outer_P = (logits_PS * gain > -1).sum(1).clamp(min=1)
        score_P = (logits_PS * gain > 1).sum(1) / outer_P
        if (score_P >= stability).float().mean() >= share:
            break
    return float(gain)
