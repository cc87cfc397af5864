"""The shared-image mask decoder: many prompts on one image, predicted IoU before any mask.

`segment_anything`'s PromptEncoder and MaskDecoder, and those of the families that came after it (forms.py),
with the same weights and, within float noise, the same numbers, in another order:

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

from maskmill.pipeline.decoder import lowrank, lowrank_image
from maskmill.pipeline.decoder.forms import SAM, DecoderForm, StabilityChoice
from maskmill.pipeline.decoder.fused.attention import Blocks
from maskmill.pipeline.decoder.fused.head import FusedHead
from maskmill.pipeline.decoder.fused.head_kernels import FusedImage
from maskmill.pipeline.decoder.lowrank import ImageKeys
from maskmill.pipeline.decoder.lowrank_image import SharedImage
from maskmill.pipeline.decoder.lowrank_steps import InSteps, Scratch
from maskmill.pipeline.decoder.mask_head import Halves, HeadMaps, MaskHead, Wanted
from maskmill.pipeline.decoder.prompts import Prompts, encode
from maskmill.pipeline.machine.blas import one_blas_thread
from maskmill.pipeline.machine.torch_threads import map_jobs, one_thread

_log = logging.getLogger(__name__)

# Numbers in a chunk's largest intermediate result: 8 MiB stay in a CPU's cache, a GPU wants more at once.
_CHUNK_NUMBERS_CPU = 2**21
_CHUNK_NUMBERS_GPU = 2**27

# Above this, lost digits in a norm could show in the results: see ImageKeys.cancellation.
MAX_CANCELLATION = 256.0

_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class ImageState:
    """What all prompts on one image share; made by `SharedImageDecoder.prepare`."""

    embedding_1CHW: Tensor
    shared: SharedImage
    first_upscale: Halves | FusedImage
    maps: HeadMaps
    blocks: lowrank.Work | None


@dataclass(frozen=True)
class _Chunk:
    """Some prompts after the transformer: their tokens, and the image tokens in one form or the other."""

    tokens_PTC: Tensor
    image: ImageKeys | Tensor


class _MaskJob(NamedTuple):
    """The kept outputs of one prompt, and its place in the image tokens' batch."""

    image: ImageKeys | Tensor
    prompt: int
    wanted: Wanted


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
        _check_keep(keep_PM, self.predicted_iou_PM)
        height, width = self._state.embedding_1CHW.shape[-2:]
        logits_Khw = self.predicted_iou_PM.new_empty(int(keep_PM.sum()), 4 * height, 4 * width)
        jobs: list[_MaskJob] = []
        prompt, made = 0, 0
        for chunk in self._chunks:
            keep = keep_PM[prompt : prompt + len(chunk.tokens_PTC)].cpu()
            wanted_Khw = logits_Khw[made : made + int(keep.sum())]
            jobs += self._decoder._mask_jobs(self._state, chunk, self.output_tokens, keep, wanted_Khw)
            prompt, made = prompt + len(keep), made + len(wanted_Khw)
        threads = self._decoder.threads
        size = max(1, -(-len(jobs) // threads))
        parts = [jobs[first : first + size] for first in range(0, len(jobs), size)]
        with one_blas_thread():
            map_jobs(partial(self._decoder._make_masks, self._state), parts, threads)
        return logits_Khw


@dataclass(frozen=True)
class Chosen:
    """One output a prompt, chosen by its mask: predicted IoU and the masks themselves.

    Attributes:
        predicted_iou_PM: float32[P, 1].
    """

    predicted_iou_PM: Tensor
    _logits_Phw: Tensor

    def masks(self, keep_PM: Tensor) -> Tensor:
        """As `IouFirst.masks`."""
        _check_keep(keep_PM, self.predicted_iou_PM)
        return self._logits_Phw[keep_PM[:, 0]]


def choose(outputs: IouFirst, choice: StabilityChoice) -> Chosen:
    """Token 0's mask of each prompt, or where it is unstable the best of the others.

    Args:
        outputs: of all mask tokens, in order.
        choice: what counts as stable.
    """
    iou_PM = outputs.predicted_iou_PM
    prompts = torch.arange(len(iou_PM), device=iou_PM.device)
    only_first = torch.zeros_like(iou_PM, dtype=torch.bool)
    only_first[:, 0] = True
    logits_Phw = outputs.masks(only_first)

    # The others' best, made for the unstable alone
    stable_P = choice.stable(logits_Phw)
    best_P = torch.where(stable_P, 0, 1 + iou_PM[:, 1:].argmax(dim=1))
    only_best = torch.zeros_like(only_first)
    only_best[prompts, best_P] = ~stable_P
    logits_Phw[~stable_P] = outputs.masks(only_best)
    return Chosen(iou_PM[prompts, best_P][:, None], logits_Phw)


@dataclass(frozen=True)
class DecoderWeights:
    """What a decoder is made of, for engines that run it in another order (pipeline/gpu/).

    Attributes:
        prompt_encoder, mask_decoder: the modules.
        form: what the mask decoder has beside SAM's.
        position_1CHW: the image tokens' positions.
        stages, prompt_stages: lowrank_image.py's, for what is computed once an image and for each prompt.
        head: the mask head, laid out.
        dtype: of the arithmetic on image tokens and pixels.
    """

    prompt_encoder: Any
    mask_decoder: Any
    form: DecoderForm
    position_1CHW: Tensor
    stages: tuple[lowrank_image.Stage, ...]
    prompt_stages: tuple[lowrank_image.Stage, ...]
    head: MaskHead
    dtype: torch.dtype


class SharedImageDecoder:
    """A prompt encoder and mask decoder of SAM's family, for many prompts on one image.

    Build it after weights are loaded and moved to their device: it keeps copies in other layouts.

    Args:
        prompt_encoder: `segment_anything.modeling.PromptEncoder`.
        mask_decoder: `segment_anything.modeling.MaskDecoder`; any width, depth, heads and embedding size; for
            another family's form with its further parts.
        form: what the mask decoder has beside SAM's.
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
        form: DecoderForm = SAM,
        chunk_numbers: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dtype not in _DTYPES:
            raise ValueError(f"the decoder computes in float32 or bfloat16, not in {dtype}")
        self._dtype = dtype
        self._prompt_encoder = prompt_encoder
        self._mask_decoder = mask_decoder
        self._form = form
        self._position_1CHW: Tensor = prompt_encoder.get_dense_pe()
        on_cpu = self._position_1CHW.device.type == "cpu"
        self._chunk_numbers = chunk_numbers or (_CHUNK_NUMBERS_CPU if on_cpu else _CHUNK_NUMBERS_GPU)
        self._stages = lowrank_image.build_stages(mask_decoder.transformer, self._position_1CHW[0].flatten(1))
        self._prompt_stages = lowrank_image.stages_in(self._stages, dtype)
        self._blocks = Blocks.of(self._prompt_stages)
        self._head = MaskHead(mask_decoder, prompt_encoder.image_embedding_size, dtype, form)
        self._fused = FusedHead.of(mask_decoder, self._stages[-1].shift_C, form, dtype)

    @property
    def weights(self) -> DecoderWeights:
        """The parts, shared and not copied."""
        return DecoderWeights(
            self._prompt_encoder,
            self._mask_decoder,
            self._form,
            self._position_1CHW,
            self._stages,
            self._prompt_stages,
            self._head,
            self._dtype,
        )

    @torch.no_grad()
    def prepare(self, embedding_CHW: Tensor, maps: Sequence[Tensor] = ()) -> ImageState:
        """The part of decoding that all prompts on an image share.

        Args:
            embedding_CHW: float[C, H, W] from the image encoder.
            maps: further maps of the image that the family's mask head reads: see `MaskHead.maps`.

        Raises:
            ValueError: another shape than the decoder's embedding, other maps than its form's.
        """
        wanted = tuple(self._position_1CHW.shape[1:])
        if tuple(embedding_CHW.shape) != wanted:
            raise ValueError(f"this decoder takes embeddings of {wanted}, got {tuple(embedding_CHW.shape)}")
        image_CS = (embedding_CHW + self._prompt_encoder.no_mask_embed.weight.view(-1, 1, 1)).flatten(1)
        shared = lowrank_image.share(self._stages, image_CS, self._dtype)
        head_maps = self._head.maps(embedding_CHW, maps)
        blocks = None if self._blocks is None else self._blocks.image(shared)
        if self._fused is not None:
            fused = self._fused.image(shared.last_CS, tuple(maps) if self._form.finer_maps else ())
            return ImageState(embedding_CHW[None], shared, fused, head_maps, blocks)
        first = Halves(*((shared.last_CS.T @ weight).to(self._dtype) for weight in self._head.first_CE))
        return ImageState(embedding_CHW[None], shared, first, head_maps, blocks)

    @torch.no_grad()
    def predict(self, state: ImageState, prompts: Prompts, *, multimask: bool) -> IouFirst | Chosen:
        """Predicted IoU of each prompt's outputs; no mask is made yet, unless choosing one needs them.

        Args:
            state: of the image the prompts are on.
            prompts: P prompts; each keeps 1.6 MiB (ViT shapes) until the result is dropped.
            multimask: three outputs (whole, part, subpart) a prompt, else one.

        Raises:
            ValueError: no prompts.
        """
        if len(prompts) == 0:
            raise ValueError("no prompts: give at least one")
        several = tuple(range(1, self._mask_decoder.num_mask_tokens))
        if multimask:
            return self._predict(state, prompts, several)
        if self._form.choice is None:
            return self._predict(state, prompts, (0,))
        return choose(self._predict(state, prompts, (0, *several)), self._form.choice)

    def _predict(self, state: ImageState, prompts: Prompts, output_tokens: tuple[int, ...]) -> IouFirst:
        cut = list(self._cut(prompts))
        threads = self.threads
        size = -(-len(cut) // threads)
        parts = [cut[first : first + size] for first in range(0, len(cut), size)]
        with one_blas_thread():
            transformed = map_jobs(partial(self._transform_all, state), parts, threads)
        chunks = tuple(chunk for part in transformed for chunk in part)

        with one_thread():
            iou_parts = [self._form.predicted_iou(self._mask_decoder, chunk.tokens_PTC) for chunk in chunks]
        iou_PM = torch.cat(iou_parts)[:, list(output_tokens)]
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
        sparse_PNC, dense_PCHW = encode(self._prompt_encoder, prompts, self._form)
        output_tokens_TC = self._form.output_tokens(decoder)
        tokens_PTC = torch.cat([output_tokens_TC.expand(len(prompts), -1, -1), sparse_PNC], dim=1)
        transformer = decoder.transformer
        pays = lowrank.pays(tokens_PTC.shape[1], transformer.num_heads, transformer.embedding_dim)
        if prompts.masks_P1hw is None and pays:
            work = state.blocks or InSteps(self._prompt_stages, state.shared, scratch)
            out_PTC, keys = lowrank.transform(transformer, self._prompt_stages, tokens_PTC, work)
            if float(keys.cancellation) <= MAX_CANCELLATION:
                return _Chunk(out_PTC, keys)
            _log.info("%d prompts redone in dense form: cancellation %.3g", len(prompts), keys.cancellation)
        source_PCHW = state.embedding_1CHW + dense_PCHW
        return _Chunk(*transformer(source_PCHW, self._position_1CHW.expand_as(source_PCHW), tokens_PTC))

    def _mask_jobs(
        self,
        state: ImageState,
        chunk: _Chunk,
        output_tokens: tuple[int, ...],
        keep_PM: Tensor,
        out_Khw: Tensor,
    ) -> list[_MaskJob]:
        """One for each of a chunk's prompts with a kept output; their masks go into `out_Khw` in order."""
        if len(out_Khw) == 0:
            return []
        first, masks = self._form.iou_place + 1, self._mask_decoder.num_mask_tokens
        mask_tokens_PMC = chunk.tokens_PTC[:, [first + token for token in output_tokens]]
        with one_thread():
            hyper_PMG = self._head.hypernetworks(mask_tokens_PMC, output_tokens)
            hq_P = self._head.hq_prompts(chunk.tokens_PTC[:, first + masks :], state.maps)
        jobs, made = [], 0
        for prompt in keep_PM.any(dim=1).nonzero().flatten().tolist():
            hyper_KG = hyper_PMG[prompt, keep_PM[prompt]]
            wanted = Wanted(hyper_KG, out_Khw[made : made + len(hyper_KG)], hq_P[prompt])
            jobs.append(_MaskJob(chunk.image, prompt, wanted))
            made += len(hyper_KG)
        return jobs

    def _make_masks(self, state: ImageState, jobs: Sequence[_MaskJob]) -> None:
        scratch = Scratch(state.shared.like)
        for job in jobs:
            if isinstance(job.image, Tensor):
                halves = self._head.from_tokens(job.image[job.prompt], state.maps)
            elif self._fused is not None and isinstance(state.first_upscale, FusedImage):
                self._fused.logits(state.first_upscale, job.image, job.prompt, job.wanted, scratch)
                continue
            else:
                halves = self._first_upscale(state, job.image, job.prompt, scratch)
            self._head.logits(halves, state.maps, job.wanted, scratch)

    def _first_upscale(self, state: ImageState, keys: ImageKeys, prompt: int, scratch: Scratch) -> Halves:
        """The first convolution, on image tokens in low-rank form."""
        weight_S, rows_KS, factors_KC = lowrank.head_rows(keys, self._stages[-1].shift_C, prompt)
        middle = state.maps.middle
        assert isinstance(state.first_upscale, Halves), "not the fused head's"
        halves = []
        for upper, (name, shared_SE, weight_CE) in enumerate(
            zip(Halves._fields, state.first_upscale, self._head.first_CE, strict=True)
        ):
            mapped_KE = factors_KC @ weight_CE
            mapped_KE[-1] += self._head.first_bias_E
            half_SE = scratch.take(name, *shared_SE.shape)
            if middle is None:
                torch.mul(shared_SE, weight_S[:, None], out=half_SE)
            else:
                torch.addcmul(middle[upper], shared_SE, weight_S[:, None], out=half_SE)
            halves.append(half_SE.addmm_(rows_KS.T, mapped_KE.to(half_SE.dtype)))
        return Halves(*halves)


def _check_keep(keep_PM: Tensor, iou_PM: Tensor) -> None:
    if keep_PM.shape != iou_PM.shape or keep_PM.dtype != torch.bool:
        wanted = tuple(iou_PM.shape)
        raise ValueError(f"keep_PM must be bool{wanted}, got {keep_PM.dtype}{tuple(keep_PM.shape)}")
