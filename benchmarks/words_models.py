"""BLIP-large, Grounding DINO-base and CLIP-B/16 with random weights of full size, and their processors.

No file is read or fetched: vocabularies are made up, of the published lengths. `tiny` keeps everything but
widths and depths, so that a test can wait; what is left of its time is the host's.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from maskmill.pipeline.words.vocabulary import load_vocabulary

WORDS = (
    "a the of in on and with . two red green blue cat dog bird car tree house person sky water picture photo"
)
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789", *".,-'()"]


class Loaded(NamedTuple):
    """A model and what prepares for it, as `from_pretrained` gives them; most processors hold a tokenizer."""

    model: Any
    processor: Any
    tokenizer: Any = None


def blip(device: torch.device, *, tiny: bool = False) -> Loaded:
    """Salesforce/blip-image-captioning-large's shape."""
    tokenizer = _word_pieces(30_522)
    words = tokenizer.get_vocab()
    ends = {"bos_token_id": len(words), "sep_token_id": words["[SEP]"], "eos_token_id": words["[SEP]"]}
    config = transformers.BlipConfig(
        text_config={
            **_tower(*((32, 2, 2) if tiny else (768, 12, 12))),
            "vocab_size": len(words) + 2,  # BLIP's begin and matching tokens have no spelling
            "encoder_hidden_size": 32 if tiny else 1024,
            "pad_token_id": words["[PAD]"],
            **ends,
        },
        vision_config={
            **_tower(*((32, 2, 2) if tiny else (1024, 24, 16))),
            "image_size": 384,
            "patch_size": 96 if tiny else 16,
        },
    )
    size = {"height": 384, "width": 384}
    images = transformers.BlipImageProcessor(size=size)
    processor: Any = transformers.BlipProcessor(images, tokenizer)  # type: ignore[no-untyped-call]
    return Loaded(_random(transformers.BlipForConditionalGeneration, config, device), processor)


def grounding_dino(device: torch.device, *, tiny: bool = False) -> Loaded:
    """IDEA-Research/grounding-dino-base's shape."""
    tokenizer = _word_pieces(30_522)
    swin: dict[str, Any] = {"embed_dim": 128, "depths": [2, 2, 18, 2], "num_heads": [4, 8, 16, 32]}
    if tiny:
        swin = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}
    shape: dict[str, Any] = {"d_model": 64 if tiny else 256, "num_queries": 30 if tiny else 900}
    for part in ("encoder", "decoder"):
        shape |= {
            f"{part}_layers": 2 if tiny else 6,
            f"{part}_ffn_dim": 32 if tiny else 2048,
            f"{part}_attention_heads": 2 if tiny else 8,
        }
    config = transformers.GroundingDinoConfig(
        backbone_config={
            "model_type": "swin",
            "image_size": 384,
            "window_size": 12,
            "out_indices": [2, 3, 4],
            **swin,
        },
        text_config={
            "model_type": "bert",
            "vocab_size": len(tokenizer.get_vocab()),
            **_tower(*((32, 2, 2) if tiny else (768, 12, 12))),
        },
        disable_custom_kernels=True,
        **shape,
    )
    sides = (
        {"shortest_edge": 64, "longest_edge": 96} if tiny else {"shortest_edge": 800, "longest_edge": 1333}
    )
    images = transformers.GroundingDinoImageProcessor(size=sides)
    processor: Any = transformers.GroundingDinoProcessor(images, tokenizer)  # type: ignore[no-untyped-call]
    return Loaded(_random(transformers.GroundingDinoForObjectDetection, config, device), processor)


def clip(device: torch.device, *, tiny: bool = False) -> Loaded:
    """openai/clip-vit-base-patch16's shape."""
    tokenizer = _word_level(49_408)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = transformers.CLIPConfig(
        text_config={
            **_tower(*((32, 2, 2) if tiny else (512, 12, 8))),
            "vocab_size": len(tokenizer),
            "max_position_embeddings": 77,
            "pad_token_id": tokenizer.eos_token_id,
            **ends,
        },
        vision_config={
            **_tower(*((32, 2, 2) if tiny else (768, 12, 12))),
            "image_size": 224,
            "patch_size": 56 if tiny else 16,
        },
        projection_dim=16 if tiny else 512,
    )
    images = transformers.CLIPImageProcessor()
    return Loaded(_random(transformers.CLIPModel, config, device), images, tokenizer)


def _tower(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


@torch.no_grad()
def _random(kind: Any, config: Any, device: torch.device) -> Any:
    """A model made on the device; matrices as wide as trained ones, so that inputs tell in the outputs."""
    torch.manual_seed(0)
    with torch.device(device):
        model = kind(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=parameter[0].numel() ** -0.5)
    return model.eval().requires_grad_(False)


def _word_pieces(size: int) -> Any:
    """BERT's tokenizer with a vocabulary of words, letters, and fillers up to its length."""
    tokens = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_spelled()])
    tokens |= dict.fromkeys(f"##{letter}" for letter in LETTERS)
    tokens |= dict.fromkeys(f"word{number}" for number in range(size - len(tokens)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocab.txt"
        path.write_text("\n".join(tokens) + "\n")
        return transformers.BertTokenizer(str(path))


def _word_level(size: int) -> Any:
    """A tokenizer of whole words with CLIP's ends: names are about as many tokens as byte pairs make them."""
    tokens = ["[PAD]", "[UNK]", "<|startoftext|>", *_spelled()]
    tokens += [f"word{number}" for number in range(size - 1 - len(tokens))]
    vocabulary = {token: number for number, token in enumerate([*tokens, "<|endoftext|>"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    ends = [(token, vocabulary[token]) for token in ("<|startoftext|>", "<|endoftext|>")]
    words.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>", special_tokens=ends
    )
    fast: Any = transformers.PreTrainedTokenizerFast
    return fast(
        tokenizer_object=words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        model_max_length=77,
    )


def _spelled() -> list[str]:
    """The words of LVIS's and COCO's names, and some more, each once."""
    names = " ".join([*load_vocabulary("lvis"), *load_vocabulary("coco")]).lower()
    return list(dict.fromkeys([*WORDS.split(), *re.findall("[a-z0-9]+", names), *LETTERS]))
