"""The run lengths of all of a picture's masks, read once for whatever looks at them.

Shape suffixes: N masks, R runs of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from maskmill.pipeline.annotation import AnnotatedImage
from maskmill.pipeline.rle import Ints, run_lengths


@dataclass(frozen=True, eq=False)
class Runs:
    """Where runs end, mask after mask.

    Attributes:
        height, width: of the picture in px.
        end_R: int64, the place behind each run, column by column; zeros and ones in turn, zeros first.
        first_N1: int64[N + 1], where each mask's runs begin in `end_R`; the last is R.
    """

    height: int
    width: int
    end_R: Ints
    first_N1: Ints

    @classmethod
    def of(cls, image: AnnotatedImage) -> Runs:
        """A picture's.

        Raises:
            ValueError: a mask of another size than the picture's, or damaged run lengths.
        """
        lengths = []
        for one in image.annotations:
            rle = one.segmentation
            if (rle.height, rle.width) != (image.height, image.width):
                raise ValueError(
                    f"a mask of {rle.height} x {rle.width} px on a picture of {image.height} x "
                    f"{image.width}: give its own picture's"
                )
            lengths.append(run_lengths(rle))
        first_N1 = np.cumsum([0, *(len(some) for some in lengths)])
        if not lengths:
            return cls(image.height, image.width, np.zeros(0, np.int64), first_N1)

        # A mask's lengths add up to the picture
        before_R = np.repeat(np.arange(len(lengths)) * image.height * image.width, np.diff(first_N1))
        return cls(image.height, image.width, np.cumsum(np.concatenate(lengths)) - before_R, first_N1)
