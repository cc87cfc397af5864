"""Small models of transformers with random weights, in the real formats that `save_pretrained` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

WORDS = """
a the of in on and with . two three red green blue yellow black white small large cat dog bird horse car tree
house ball box circle square triangle person man woman sky grass water picture photo sitting standing next to
left right ##s ##y ##ing ##ed
"""
LETTERS = [chr(ord("a") + i) for i in range(26)] + [f"##{chr(ord('a') + i)}" for i in range(26)]


def write_vocabulary(folder: Path, extra: tuple[str, ...] = ()) -> Path:
    """A WordPiece vocabulary: BERT's special tokens, words, letters."""
    folder.mkdir(parents=True, exist_ok=True)
    tokens = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(), *LETTERS, *extra])
    path = folder / "vocab.txt"
    path.write_text("\n".join(tokens) + "\n")
    return path


def save_blip(folder: Path, *, retrieval: bool, seed: int = 0) -> Path:
    """A BLIP captioner, or matcher, of a few thousand weights, with its processor."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = BertTokenizer(str(write_vocabulary(folder)))
    words = tokenizer.get_vocab()
    config = BlipConfig(
        text_config={
            "vocab_size": len(words) + 2,  # BLIP's begin and matching tokens have no spelling
            "hidden_size": 32,
            "encoder_hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 40,
            "bos_token_id": len(words),
            "sep_token_id": words["[SEP]"],
            "eos_token_id": words["[SEP]"],
            "pad_token_id": words["[PAD]"],
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "image_size": 32,
            "patch_size": 8,
        },
        image_text_hidden_size=16,
    )
    torch.manual_seed(seed)
    model = (BlipForImageTextRetrieval if retrieval else BlipForConditionalGeneration)(config)
    enlarge(model)
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    processor: Any = BlipProcessor(BlipImageProcessor(size=size), tokenizer)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    return folder


def enlarge(model: torch.nn.Module, factor: float = 8.0) -> None:
    """Random weights as drawn give nearly the same output for any input; larger ones tell inputs apart."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(factor)
