"""Other looks for the same photographs: tone, colour, blur, noise and JPEG, on any device.

Shapes: B pictures, S the padded side.
"""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from maskmill.pipeline.train.pictures import Pictures


def changed_looks(pictures: Pictures, generator: torch.Generator) -> Pictures:
    """Pictures whose colours and sharpness are changed at random; masks stay.

    Args:
        pictures: any.
        generator: of their device.
    """
    image = pictures.image_B3SS.float()
    image = _toned(image, generator)
    image = _blurred(image, generator, share=0.25)
    noise = torch.randn(image.shape, generator=generator, device=image.device)
    level = _draw(generator, len(image)) * 8 * (_draw(generator, len(image)) < 0.3)
    image = (image + noise * level[:, None, None, None]).round().clamp(0, 255).to(torch.uint8)
    for row in torch.nonzero(_draw(generator, len(image)) < 0.25)[:, 0].tolist():
        quality = int(torch.randint(20, 85, (), generator=generator, device=generator.device))
        image[row] = _compressed(image[row], quality)
    return replace(pictures, image_B3SS=image * pictures.inside_BSS()[:, None])


def _draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _toned(image_B3SS: Tensor, generator: torch.Generator) -> Tensor:
    """Gamma, gain and offset by channel; a tenth in mixed channels, a tenth grey."""
    count = len(image_B3SS)
    gamma_B = torch.exp(0.25 * _normal(generator, count))[:, None, None, None]
    gain_B3 = 1 + 0.22 * (2 * _draw(generator, count, 3) - 1)
    offset_B3 = 9 * _normal(generator, count, 3)
    image = 255 * (image_B3SS / 255) ** gamma_B
    image = image * gain_B3[..., None, None] + offset_B3[..., None, None]
    kind_B = _draw(generator, count)[:, None, None, None]
    grey = image.mean(1, keepdim=True).expand_as(image)
    turned = image[:, torch.randperm(3, generator=generator, device=generator.device)]
    return torch.where(kind_B < 0.1, grey, torch.where(kind_B < 0.2, turned, image))


def _blurred(image_B3SS: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """A Gaussian of 0.4 to 1.6 px over a share of the pictures."""
    count = len(image_B3SS)
    sigma_B = 0.4 + 1.2 * _draw(generator, count)
    place_K = torch.arange(-3, 4, device=image_B3SS.device)
    kernel_BK = torch.exp(-0.5 * (place_K / sigma_B[:, None]).square())
    is_sharp_B = _draw(generator, count) >= share
    kernel_BK = torch.where(is_sharp_B[:, None], (place_K == 0).float(), kernel_BK)
    kernel_BK = (kernel_BK / kernel_BK.sum(1, keepdim=True)).repeat_interleave(3, 0)
    flat = image_B3SS.flatten(0, 1)[None]
    flat = F.conv2d(F.pad(flat, (3, 3, 0, 0), mode="replicate"), kernel_BK[:, None, None], groups=3 * count)
    flat = F.conv2d(
        F.pad(flat, (0, 0, 3, 3), mode="replicate"), kernel_BK[:, None, :, None], groups=3 * count
    )
    return flat.view_as(image_B3SS)


def _compressed(image_3SS: Tensor, quality: int) -> Tensor:
    """uint8[3, S, S] as JPEG gives it back; a way over the CPU."""
    written = io.BytesIO()
    Image.fromarray(image_3SS.permute(1, 2, 0).cpu().numpy()).save(written, "JPEG", quality=quality)
    with Image.open(written) as read:
        return torch.from_numpy(np.array(read)).permute(2, 0, 1).to(image_3SS.device)
