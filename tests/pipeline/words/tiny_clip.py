"""Small CLIP and SigLIP folders in the real format: a word-level tokenizer, random or trained weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SIDE = 32
WORDS = ("red", "blue", "green", "yellow", "circle", "square", "triangle", "a", "photo", "of", ".")
TOWER = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZE = {"height": SIDE, "width": SIDE}


def tokenizer() -> Any:
    """A word a token; [EOS] has the highest number, as CLIP's pooling expects of old configs."""
    specials = ["[PAD]", "[UNK]", "[BOS]"]
    vocabulary = {word: place for place, word in enumerate([*specials, *WORDS, "[EOS]"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    ends = [("[BOS]", vocabulary["[BOS]"]), ("[EOS]", vocabulary["[EOS]"])]
    words.post_processor = processors.TemplateProcessing(single="[BOS] $A [EOS]", special_tokens=ends)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", bos_token="[BOS]", eos_token="[EOS]"
    )


def build_clip(seed: int = 0) -> Any:
    """A `CLIPModel` of 32 px and 8 px patches."""
    length = len(tokenizer())
    ends = {"bos_token_id": 2, "eos_token_id": length - 1, "pad_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={**TOWER, "vocab_size": length, "max_position_embeddings": 16, **ends},
        vision_config={**TOWER, "image_size": SIDE, "patch_size": 8},
        projection_dim=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _shaken(transformers.CLIPModel(config))


def build_siglip(seed: int = 0) -> Any:
    """A `SiglipModel` of the same sizes."""
    config = transformers.SiglipConfig(
        text_config={**TOWER, "vocab_size": len(tokenizer()), "max_position_embeddings": 16},
        vision_config={**TOWER, "image_size": SIDE, "patch_size": 8},
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return _shaken(transformers.SiglipModel(config))


def save(model: Any, folder: Path) -> Path:
    """The model, its tokenizer and its image processor, as the hub has them."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    if model.config.model_type == "clip":
        processor = transformers.CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIZE)
    else:
        processor = transformers.SiglipImageProcessor(size=SIZE)
    processor.save_pretrained(folder)
    return folder


def _shaken(model: Any) -> Any:
    """Weights large enough that images and words differ."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()
