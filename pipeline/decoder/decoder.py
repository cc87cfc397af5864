"""The shared-image mask decoder: many prompts on one image, predicted IoU before any mask.

`segment_anything`'s PromptEncoder and MaskDecoder with the same weights and, within float noise, the same
numbers, in another order:

* `prepare` does once per image what does not depend on the prompt;
* `predict` runs the transformer, with the image tokens in low-rank form (lowrank.py), and the IoU head;
* `IouFirst.masks` runs the mask head (mask_head.py) for the kept outputs only.

Mask prompts make the image side each prompt's own, prompts of many tokens make the low-rank form dear, and a
transformer whose residual sums cancel makes it inexact: these run the reference's own transformer.

Prompts go through in chunks whose intermediate results stay in cache, one chunk a thread; a chunk never spans
images.

Shapes: P prompts, N points of a prompt, M outputs of a prompt (3 or 1), T tokens, C channels, S image tokens
(H x W of the embedding), K kept outputs, h x w low-resolution mask (4 H x 4 W).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maskmill.pipeline.decoder import lowrank
from maskmill.pipeline.decoder import lowrank_image as lowrank_shared
from maskmill.pipeline.decoder.lowrank import ImageKeys, Scratch
from maskmill.pipeline.decoder.lowrank_image import SharedImage
from maskmill.pipeline.decoder.mask_head import Halves, MaskHead
from maskmill.pipeline.machine.torch_threads import map_jobs

_log = logging.getLogger(__name__)

# Numbers in a chunk's largest intermediate result: 8 MiB stay in a CPU's cache, a GPU wants more at once.
_CHUNK_NUMBERS_CPU = 2**21
_CHUNK_NUMBERS_GPU = 2**27

# Above this, lost digits in a norm could show in the results: see ImageKeys.cancellation.
_MAX_CANCELLATION = 256.0

_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Prompts:
    """A batch of prompts of one shape, in pixels of the model's input (resized, padded) frame.

    Args:
        points_xy_PN2: float[P, N, 2], x before y, or None.
        labels_PN: int or float[P, N]: 1 foreground, 0 background, -1 padding; None exactly without points.
        boxes_xyxy_P4: float[P, 4], or None.
        masks_P1hw: float[P, 1, 4H, 4W] logits of an earlier round, or None.

    Raises:
        ValueError: nothing given, points without labels, or counts that differ.
    """

    points_xy_PN2: Tensor | None = None
    labels_PN: Tensor | None = None
    boxes_xyxy_P4: Tensor | None = None
    masks_P1hw: Tensor | None = None

    def __post_init__(self) -> None:
        if (self.points_xy_PN2 is None) != (self.labels_PN is None):
            raise ValueError("points and labels come together: give both or neither")
        counts = {len(part) for part in self._parts()}
        if len(counts) != 1:
            raise ValueError(f"a batch of prompts needs one count over its parts, got {sorted(counts)}")
        if self.points_xy_PN2 is not None and self.labels_PN is not None:
            points, labels = tuple(self.points_xy_PN2.shape), tuple(self.labels_PN.shape)
            if points != (*labels, 2):
                raise ValueError(f"points need shape (P, N, 2) and labels (P, N), got {points} and {labels}")

    def __len__(self) -> int:
        return len(self._parts()[0])

    def __getitem__(self, rows: slice) -> Prompts:
        """The prompts `rows`, the other parts cut alike."""

        def cut(part: Tensor | None) -> Tensor | None:
            """Its rows, if it is given."""
            return None if part is None else part[rows]

        points, labels = cut(self.points_xy_PN2), cut(self.labels_PN)
        return Prompts(points, labels, cut(self.boxes_xyxy_P4), cut(self.masks_P1hw))

    def _parts(self) -> list[Tensor]:
        parts = (self.points_xy_PN2, self.labels_PN, self.boxes_xyxy_P4, self.masks_P1hw)
        return [part for part in parts if part is not None]


@dataclass(frozen=True)
class ImageState:
    """What all prompts on one image share; made by `SharedImageDecoder.prepare`."""

    embedding_1CHW: Tensor
    shared: SharedImage
    first_upscale: Halves


@dataclass(frozen=True)
class _Chunk:
    """Some prompts after the transformer: their tokens, and the image tokens in one form or the other."""

    tokens_PTC: Tensor
    image: ImageKeys | Tensor


class _MaskJob(NamedTuple):
    """The kept outputs of one prompt: its place in the image tokens' batch, and where its masks go."""

    image: ImageKeys | Tensor
    prompt: int
    hyper_KG: Tensor
    out_Khw: Tensor


@dataclass(frozen=True)
class IouFirst:
    """Predicted IoU of each output, and the means to make the masks of those that are wanted.

    Attributes:
        predicted_iou_PM: float32[P, M].
        output_tokens: the mask token of each column: (1, 2, 3) for several outputs, (0,) for one.
    """

    predicted_iou_PM: Tensor
    output_tokens: tuple[int, ...]
    _decoder: SharedImageDecoder
    _state: ImageState
    _chunks: tuple[_Chunk, ...]

    @torch.no_grad()
    def masks(self, keep_PM: Tensor) -> Tensor:
        """Low-resolution logits of the kept outputs.

        Args:
            keep_PM: bool[P, M]: which outputs to make.

        Returns:
            float32[K, h, w], in the order of `keep_PM.nonzero()`; K may be 0.

        Raises:
            ValueError: `keep_PM` has another shape or type.
        """
        if keep_PM.shape != self.predicted_iou_PM.shape or keep_PM.dtype != torch.bool:
            wanted = tuple(self.predicted_iou_PM.shape)
            raise ValueError(f"keep_PM must be bool{wanted}, got {keep_PM.dtype}{tuple(keep_PM.shape)}")
        height, width = self._state.embedding_1CHW.shape[-2:]
        logits_Khw = self.predicted_iou_PM.new_empty(int(keep_PM.sum()), 4 * height, 4 * width)
        jobs: list[_MaskJob] = []
        prompt, made = 0, 0
        for chunk in self._chunks:
            keep = keep_PM[prompt : prompt + len(chunk.tokens_PTC)].cpu()
            wanted_Khw = logits_Khw[made : made + int(keep.sum())]
            jobs += self._decoder._mask_jobs(chunk, self.output_tokens, keep, wanted_Khw)
            prompt, made = prompt + len(keep), made + len(wanted_Khw)
        threads = self._decoder.threads
        size = max(1, -(-len(jobs) // threads))
        parts = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        map_jobs(partial(self._decoder._make_masks, self._state), parts, threads)
        return logits_Khw


class SharedImageDecoder:
    """A prompt encoder and mask decoder of `segment_anything`, for many prompts on one image.

    Build it after weights are loaded and moved to their device: it keeps copies in other layouts.

    Args:
        prompt_encoder: `segment_anything.modeling.PromptEncoder`.
        mask_decoder: `segment_anything.modeling.MaskDecoder`; any width, depth, heads and embedding size.
        chunk_numbers: size of a chunk's largest intermediate result; None chooses by device. Results differ
            by float noise only.
        dtype: of the arithmetic on image tokens and pixels, torch.float32 or torch.bfloat16. Tokens,
            predicted IoU and logits are in float32 always, and so is the dense form.

    Raises:
        ValueError: another dtype.
    """

    @torch.no_grad()
    def __init__(
        self,
        prompt_encoder: Any,
        mask_decoder: Any,
        *,
        chunk_numbers: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"the decoder computes in float32 or bfloat16, not in {dtype}")
        self._dtype = dtype
        self._prompt_encoder = prompt_encoder
        self._mask_decoder = mask_decoder
        self._position_1CHW: Tensor = prompt_encoder.get_dense_pe()
        on_cpu = self._position_1CHW.device.type == "cpu"
        self._chunk_numbers = chunk_numbers or (_CHUNK_NUMBERS_CPU if on_cpu else _CHUNK_NUMBERS_GPU)
        self._stages = lowrank_shared.build_stages(
            mask_decoder.transformer, self._position_1CHW[0].flatten(1)
        )
        self._prompt_stages = lowrank_shared.stages_in(self._stages, dtype)
        self._head = MaskHead(mask_decoder, prompt_encoder.image_embedding_size, dtype)

    @torch.no_grad()
    def prepare(self, embedding_CHW: Tensor) -> ImageState:
        """The part of decoding that all prompts on an image share.

        Args:
            embedding_CHW: float[C, H, W] from the image encoder.

        Raises:
            ValueError: another shape than the decoder's embedding.
        """
        wanted = tuple(self._position_1CHW.shape[1:])
        if tuple(embedding_CHW.shape) != wanted:
            raise ValueError(f"this decoder takes embeddings of {wanted}, got {tuple(embedding_CHW.shape)}")
        image_CS = (embedding_CHW + self._prompt_encoder.no_mask_embed.weight.view(-1, 1, 1)).flatten(1)
        shared = lowrank_shared.share(self._stages, image_CS, self._dtype)
        first = Halves(*((shared.last_CS.T @ weight).to(self._dtype) for weight in self._head.first_CE))
        return ImageState(embedding_CHW[None], shared, first)

    @torch.no_grad()
    def predict(self, state: ImageState, prompts: Prompts, *, multimask: bool) -> IouFirst:
        """Predicted IoU of each prompt's outputs; no mask is made yet.

        Args:
            state: of the image the prompts are on.
            prompts: P prompts; each keeps 1.6 MiB (ViT shapes) until the result is dropped.
            multimask: three outputs (whole, part, subpart) a prompt, else one.

        Raises:
            ValueError: no prompts.
        """
        if len(prompts) == 0:
            raise ValueError("no prompts: give at least one")
        num_outputs = self._mask_decoder.num_mask_tokens
        output_tokens = tuple(range(1, num_outputs)) if multimask else (0,)
        cut = list(self._cut(prompts))
        threads = self.threads
        size = -(-len(cut) // threads)
        parts = [cut[first : first + size] for first in range(0, len(cut), size)]
        transformed = map_jobs(partial(self._transform_all, state), parts, threads)
        chunks = tuple(chunk for part in transformed for chunk in part)
        first_tokens_PC = torch.cat([chunk.tokens_PTC[:, 0] for chunk in chunks])
        iou_PM = self._mask_decoder.iou_prediction_head(first_tokens_PC)[:, list(output_tokens)]
        return IouFirst(iou_PM, output_tokens, self, state, chunks)

    @property
    def threads(self) -> int:
        """How many chunks to work at side by side: torch's threads, each alone being faster than together."""
        return torch.get_num_threads() if self._position_1CHW.device.type == "cpu" else 1

    def _cut(self, prompts: Prompts) -> Iterator[Prompts]:
        channels, height, width = self._position_1CHW.shape[1:]
        size = max(1, self._chunk_numbers // (height * width * channels // 4))
        size = min(size, -(-len(prompts) // self.threads))
        for first in range(0, len(prompts), size):
            yield prompts[first : first + size]

    def _transform_all(self, state: ImageState, chunks: Sequence[Prompts]) -> list[_Chunk]:
        scratch = Scratch(state.shared.like)
        return [self._transform(state, chunk, scratch) for chunk in chunks]

    def _transform(self, state: ImageState, prompts: Prompts, scratch: Scratch) -> _Chunk:
        """The transformer: in low-rank form where that is exact and pays, else the reference's."""
        decoder = self._mask_decoder
        points = None if prompts.points_xy_PN2 is None else (prompts.points_xy_PN2, prompts.labels_PN)
        sparse_PNC, dense_PCHW = self._prompt_encoder(points, prompts.boxes_xyxy_P4, prompts.masks_P1hw)
        output_tokens_TC = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens_PTC = torch.cat([output_tokens_TC.expand(len(prompts), -1, -1), sparse_PNC], dim=1)
        transformer = decoder.transformer
        pays = lowrank.pays(tokens_PTC.shape[1], transformer.num_heads, transformer.embedding_dim)
        if prompts.masks_P1hw is None and pays:
            stages, shared = self._prompt_stages, state.shared
            out_PTC, keys = lowrank.transform(transformer, stages, shared, tokens_PTC, scratch)
            if float(keys.cancellation) <= _MAX_CANCELLATION:
                return _Chunk(out_PTC, keys)
            _log.info("%d prompts redone in dense form: cancellation %.3g", len(prompts), keys.cancellation)
        source_PCHW = state.embedding_1CHW + dense_PCHW
        return _Chunk(*transformer(source_PCHW, self._position_1CHW.expand_as(source_PCHW), tokens_PTC))

    def _mask_jobs(
        self, chunk: _Chunk, output_tokens: tuple[int, ...], keep_PM: Tensor, out_Khw: Tensor
    ) -> list[_MaskJob]:
        """One for each of a chunk's prompts with a kept output; their masks go into `out_Khw` in order."""
        if len(out_Khw) == 0:
            return []
        mask_tokens_PMC = chunk.tokens_PTC[:, [1 + token for token in output_tokens]]
        hyper_PMG = self._head.hypernetworks(mask_tokens_PMC, output_tokens)
        jobs, made = [], 0
        for prompt in keep_PM.any(dim=1).nonzero().flatten().tolist():
            hyper_KG = hyper_PMG[prompt, keep_PM[prompt]]
            jobs.append(_MaskJob(chunk.image, prompt, hyper_KG, out_Khw[made : made + len(hyper_KG)]))
            made += len(hyper_KG)
        return jobs

    def _make_masks(self, state: ImageState, jobs: Sequence[_MaskJob]) -> None:
        scratch = Scratch(state.shared.like)
        for job in jobs:
            if isinstance(job.image, ImageKeys):
                halves = self._first_upscale(state, job.image, job.prompt, scratch)
            else:
                halves = self._head.from_tokens(job.image[job.prompt])
            self._head.logits(halves, job.hyper_KG, job.out_Khw, scratch)

    def _first_upscale(self, state: ImageState, keys: ImageKeys, prompt: int, scratch: Scratch) -> Halves:
        """The first convolution, on image tokens in low-rank form."""
        weight_S, rows_KS, factors_KC = lowrank.head_rows(keys, self._stages[-1].shift_C, prompt)
        halves = []
        for name, shared_SE, weight_CE in zip(
            Halves._fields, state.first_upscale, self._head.first_CE, strict=True
        ):
            mapped_KE = factors_KC @ weight_CE
            mapped_KE[-1] += self._head.first_bias_E
            half_SE = scratch.take(name, *shared_SE.shape)
            torch.mul(shared_SE, weight_S[:, None], out=half_SE)
            halves.append(half_SE.addmm_(rows_KS.T, mapped_KE.to(half_SE.dtype)))
        return Halves(*halves)
