"""CLIP and SigLIP by transformers: images and words in one space, and a dense map of an image in it.

`image_features` and `text_features` are the classes' own. The dense map is MaskCLIP's way: in CLIP's last
block each position attends to itself alone (its value goes through), then the same norm and projection that
the class token gets; in SigLIP each position alone goes through the pooling head. Positions then lie in the
space of the words without any training.

Shape suffixes: B images, N words or positions, D dimensions of the common space, C channels, H x W positions.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.machine.devices import choose_device
from maskmill.pipeline.pixels import Pixels, check_rgb
from maskmill.pipeline.settings.families import model_types_of
from maskmill.pipeline.weights import pretrained

_TEXTS_PER_BATCH = 256

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions of a dense map."""

    height: int
    width: int


class _Towers(Protocol):
    """What differs between the families."""

    def image_features(self, pixels_B3HW: Tensor) -> Tensor:
        """float[B, D] of whole images."""
        ...

    def text_features(self, inputs: Any) -> Tensor:
        """float[N, D] of tokenised texts."""
        ...

    def dense_features(self, pixels_B3HW: Tensor) -> Tensor:
        """float[B, N, D] of each position."""
        ...

    def logits(self, cosines: Tensor) -> Tensor:
        """Cosines scaled as the model was trained."""
        ...

    def scores(self, logits: Tensor) -> Tensor:
        """In [0, 1], of words along the last axis."""
        ...


class Namer:
    """CLIP or SigLIP with its weights, on its device.

    Args:
        model: a `CLIPModel` or `SiglipModel`, in its number format; it is taken over.
        images, texts: its image processor and its tokenizer.
        device: "auto" is CUDA where there is one, else the CPU.

    Attributes:
        image_size: side in px of its square input.
        pixel_mean: RGB in 0 to 255 that its normalisation takes for zero.

    Raises:
        ValueError: a device that this machine lacks.
    """

    def __init__(self, model: Any, images: Any, texts: Any, *, device: str = "auto") -> None:
        self.device = choose_device(device)
        self._dtype: torch.dtype = model.dtype
        self._images, self._texts = images, texts
        towers = ClipTowers if model.config.model_type == "clip" else SiglipTowers
        self._towers: _Towers = towers(model.to(self.device))
        vision = model.config.vision_config
        self.image_size: int = vision.image_size
        self._patch_size: int = vision.patch_size
        self._max_tokens: int = model.config.text_config.max_position_embeddings
        self._pads_to_max = model.config.model_type == "siglip"
        self.pixel_mean: tuple[int, ...] = tuple(round(255 * mean) for mean in self._images.image_mean)

    @torch.inference_mode()
    def image_features(self, images: Sequence[Pixels]) -> Tensor:
        """Of whole images, float32[B, D] of length 1, on the device.

        Args:
            images: uint8[H, W, 3] RGB each; prepared as the model's own processor does.

        Raises:
            ValueError: an image of another form.
        """
        for image in images:
            check_rgb(image)
        inputs = self._images(images=[pretrained.processor_input(one) for one in images], return_tensors="pt")
        pixels_B3HW = inputs["pixel_values"].to(self.device, self._dtype)
        return F.normalize(self._towers.image_features(pixels_B3HW).float(), dim=-1)

    @torch.inference_mode()
    def dense_features(self, image: Pixels, longer_side: int) -> Tensor:
        """A feature for each patch of an image, float32[H, W, D] of length 1, on the device.

        Args:
            image: uint8[H, W, 3] RGB, of any size.
            longer_side: the image is resized to about this many px, each side to whole patches.

        Raises:
            ValueError: an image of another form.
        """
        check_rgb(image)
        grid = self.grid_of(image.shape[0], image.shape[1], longer_side)
        size = {"height": grid.height * self._patch_size, "width": grid.width * self._patch_size}
        inputs = self._images(
            images=[pretrained.processor_input(image)],
            return_tensors="pt",
            do_resize=True,
            size=size,
            do_center_crop=False,
        )
        pixels_13HW = inputs["pixel_values"].to(self.device, self._dtype)
        features_ND = self._towers.dense_features(pixels_13HW)[0].float()
        return F.normalize(features_ND, dim=-1).view(grid.height, grid.width, -1)

    def grid_of(self, height: int, width: int, longer_side: int) -> Grid:
        """The positions of `dense_features` of an image of this size."""
        scale = longer_side / max(height, width)
        return Grid(*(max(1, round(side * scale / self._patch_size)) for side in (height, width)))

    @torch.inference_mode()
    def text_features(self, words: Sequence[str], templates: Sequence[str]) -> Tensor:
        """Of words, float32[N, D] of length 1, on the device: the mean over the templates.

        Args:
            words: at least one.
            templates: prompts with {} where the word goes.

        Raises:
            ValueError: no words.
        """
        if not words:
            raise ValueError("no words to name masks with: give a vocabulary")
        features = [self._of_texts([template.format(word) for word in words]) for template in templates]
        return F.normalize(torch.stack(features).mean(dim=0), dim=-1)

    def scores(self, features_ND: Tensor, words_WD: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of features against words, and scores in [0, 1], float32[N, W] each.

        CLIP's scores are shares of one (a softmax over the words), SigLIP's stand each for itself.
        """
        logits_NW = self._towers.logits(features_ND @ words_WD.T).float()
        return logits_NW, self._towers.scores(logits_NW)

    def _of_texts(self, texts: list[str]) -> Tensor:
        found = []
        for start in range(0, len(texts), _TEXTS_PER_BATCH):
            inputs = self._texts(
                texts[start : start + _TEXTS_PER_BATCH],
                padding="max_length" if self._pads_to_max else True,
                max_length=self._max_tokens,
                truncation=True,
                return_tensors="pt",
            ).to(self.device)
            found.append(F.normalize(self._towers.text_features(inputs).float(), dim=-1))
        return torch.cat(found)


def load_namer(source: str, *, device: str = "auto", dtype: str = "float32") -> Namer:
    """The namer in a folder or of a hub id.

    Args:
        source: its folder or hub id.
        device: see `Namer`.
        dtype: of the model, "float32", "bfloat16" or "float16"; features come out as float32.

    Raises:
        WeightsError: the model or its processor is missing, damaged or of another class.
        ValueError: as `Namer`.
    """
    import transformers

    found = pretrained.find(source, role="namer", model_types=model_types_of("namer"))
    classes = {
        "clip": (transformers.CLIPModel, transformers.CLIPImageProcessor),
        "siglip": (transformers.SiglipModel, transformers.SiglipImageProcessor),
    }
    model_class, processor_class = classes[found.model_type]
    made: tuple[Any, Any] = pretrained.load(model_class, processor_class, found, dtype=dtype)
    return Namer(*made, pretrained.load_processor(transformers.AutoTokenizer, found), device=device)


class ClipTowers:
    """CLIP: a class token, a projection, a softmax over words."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def image_features(self, pixels_B3HW: Tensor) -> Tensor:
        """float[B, D] of whole images."""
        features: Tensor = self._model.get_image_features(pixel_values=pixels_B3HW).pooler_output
        return features

    def text_features(self, inputs: Any) -> Tensor:
        """float[N, D] of tokenised texts."""
        features: Tensor = self._model.get_text_features(
            input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]
        ).pooler_output
        return features

    def dense_features(self, pixels_B3HW: Tensor) -> Tensor:
        """float[B, N, D].

        Source: Zhou et al., Extract Free Dense Labels from CLIP (2022), section 3.2.
        """
        vision = self._model.vision_model
        tokens_BNC = vision.pre_layrnorm(vision.embeddings(pixels_B3HW, interpolate_pos_encoding=True))
        *layers, last = vision.encoder.layers
        for layer in layers:
            tokens_BNC = layer(tokens_BNC, None)
        tokens_BNC = tokens_BNC[:, 1:]
        attention = last.self_attn
        tokens_BNC = tokens_BNC + attention.out_proj(attention.v_proj(last.layer_norm1(tokens_BNC)))
        tokens_BNC = tokens_BNC + last.mlp(last.layer_norm2(tokens_BNC))
        features_BND: Tensor = self._model.visual_projection(vision.post_layernorm(tokens_BNC))
        return features_BND

    def logits(self, cosines: Tensor) -> Tensor:
        """Cosines scaled as the model was trained."""
        logits: Tensor = cosines * self._model.logit_scale.float().exp()
        return logits

    def scores(self, logits: Tensor) -> Tensor:
        """In [0, 1], of words along the last axis."""
        return logits.softmax(dim=-1)


class SiglipTowers:
    """SigLIP: an attention pooling head, a bias, a sigmoid for each word."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def image_features(self, pixels_B3HW: Tensor) -> Tensor:
        """float[B, D] of whole images."""
        features: Tensor = self._model.get_image_features(pixel_values=pixels_B3HW).pooler_output
        return features

    def text_features(self, inputs: Any) -> Tensor:
        """float[N, D] of tokenised texts."""
        features: Tensor = self._model.get_text_features(input_ids=inputs["input_ids"]).pooler_output
        return features

    def dense_features(self, pixels_B3HW: Tensor) -> Tensor:
        """float[B, N, D]: the pooling head on each position alone."""
        vision = self._model.vision_model
        tokens_BNC = vision(pixel_values=pixels_B3HW, interpolate_pos_encoding=True).last_hidden_state
        pooled = vision.head(tokens_BNC.flatten(0, 1)[:, None])
        features_BND: Tensor = pooled.view(*tokens_BNC.shape[:2], -1)
        return features_BND

    def logits(self, cosines: Tensor) -> Tensor:
        """Cosines scaled as the model was trained."""
        logits: Tensor = cosines * self._model.logit_scale.float().exp() + self._model.logit_bias.float()
        return logits

    def scores(self, logits: Tensor) -> Tensor:
        """In [0, 1], of words along the last axis."""
        return logits.sigmoid()
