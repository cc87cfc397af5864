"""Small models of transformers with random weights, in the real formats that `save_pretrained` writes."""

from __future__ import annotations

import json
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


def save_grounding_dino(
    folder: Path, *, seed: int = 0, max_text_len: int = 32, kind: str = "GroundingDino"
) -> Path:
    """A Grounding DINO (or MMGroundingDino) with a tiny Swin backbone and BERT, and its processor."""
    import transformers
    from transformers import BertTokenizer, GroundingDinoImageProcessor, GroundingDinoProcessor

    tokenizer = BertTokenizer(str(write_vocabulary(folder)))
    config = getattr(transformers, f"{kind}Config")(
        backbone_config={
            "model_type": "swin",
            "image_size": 32,
            "patch_size": 4,
            "embed_dim": 8,
            "depths": [1, 1, 1, 1],
            "num_heads": [1, 1, 2, 2],
            "window_size": 4,
            "out_indices": [2, 3, 4],
        },
        text_config={
            "model_type": "bert",
            "vocab_size": len(tokenizer.get_vocab()),
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 64,
        },
        d_model=64,
        encoder_layers=1,
        encoder_ffn_dim=24,
        encoder_attention_heads=2,
        decoder_layers=2,
        decoder_ffn_dim=24,
        decoder_attention_heads=2,
        num_queries=12,
        num_feature_levels=4,
        encoder_n_points=2,
        decoder_n_points=2,
        max_text_len=max_text_len,
        disable_custom_kernels=True,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{kind}ForObjectDetection")(config)
    enlarge(model, 3.0)
    for name, parameter in model.named_parameters():
        if "class_embed" in name and name.endswith("bias"):
            torch.nn.init.zeros_(parameter)  # MM's begins with the belief that nothing is there
    model.save_pretrained(folder)
    images = GroundingDinoImageProcessor(size={"shortest_edge": 48, "longest_edge": 96})
    processor: Any = GroundingDinoProcessor(images, tokenizer)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    return folder


def save_owl(folder: Path, *, seed: int = 0) -> Path:
    """An OWLv2 that reads 8 tokens a phrase, with its processor."""
    from transformers import (
        CLIPTokenizer,
        Owlv2Config,
        Owlv2ForObjectDetection,
        Owlv2ImageProcessor,
        Owlv2Processor,
    )

    tokenizer = CLIPTokenizer(**write_bpe(folder))
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Owlv2Config(
        text_config={**sizes, "vocab_size": len(tokenizer.get_vocab()), "max_position_embeddings": 8},
        vision_config={**sizes, "image_size": 32, "patch_size": 8},
        projection_dim=32,
    )
    torch.manual_seed(seed)
    model = Owlv2ForObjectDetection(config)
    enlarge(model, 2.0)
    with torch.no_grad():  # random, they make most scores equal
        for head in (model.class_head.logit_scale, model.class_head.logit_shift):
            head.weight.zero_()
            head.bias.fill_(0.5)
    model.save_pretrained(folder)
    images = Owlv2ImageProcessor(size={"height": 32, "width": 32})
    processor: Any = Owlv2Processor(images, tokenizer)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    return folder


def write_bpe(folder: Path) -> dict[str, str]:
    """CLIP's vocabulary of letters, and no merges."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = [chr(ord("a") + i) for i in range(26)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}


def save_omdet_turbo(folder: Path, *, seed: int = 0) -> Path:
    """An OmDet-Turbo with timm's Swin, but tiny, and CLIP's text tower, and its processor."""
    from timm.models import register_model
    from transformers import (
        CLIPTokenizer,
        DetrImageProcessor,
        OmDetTurboConfig,
        OmDetTurboForObjectDetection,
        OmDetTurboProcessor,
    )

    register_model(swin_of_tests)
    tokenizer = CLIPTokenizer(**write_bpe(folder))
    config = OmDetTurboConfig(
        backbone_config={
            "model_type": "timm_backbone",
            "backbone": "swin_of_tests",
            "out_indices": [1, 2, 3],
            "img_size": 64,
            "always_partition": True,
        },
        text_config={
            "model_type": "clip_text_model",
            "vocab_size": len(tokenizer.get_vocab()),
            "hidden_size": 24,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "max_position_embeddings": 77,
            "eos_token_id": tokenizer.eos_token_id,
        },
        image_size=64,
        disable_custom_kernels=True,
        text_projection_in_dim=24,
        text_projection_out_dim=24,
        task_encoder_hidden_dim=24,
        class_embed_dim=24,
        num_queries=10,
        encoder_hidden_dim=16,
        vision_features_channels=[16, 16, 16],
        encoder_in_channels=[16, 32, 64],
        encoder_attention_heads=2,
        encoder_dim_feedforward=24,
        decoder_hidden_dim=16,
        decoder_num_heads=2,
        decoder_num_layers=2,
        decoder_dim_feedforward=24,
        decoder_num_points=2,
    )
    torch.manual_seed(seed)
    model = OmDetTurboForObjectDetection(config)
    enlarge(model, 3.0)
    with torch.no_grad():
        model.language_backbone.text_projection.normal_()
        for name, parameter in model.named_parameters():
            if "class_head" in name and name.endswith("bias"):
                parameter.zero_()  # it begins with the belief that nothing is there
    model.save_pretrained(folder)
    images = DetrImageProcessor(size={"height": 64, "width": 64})
    processor: Any = OmDetTurboProcessor(images, tokenizer)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    return folder


def swin_of_tests(pretrained: bool = False, **options: Any) -> Any:
    """Under this name timm makes it."""
    from timm.models import swin_transformer

    sizes = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4}
    return swin_transformer._create_swin_transformer("swin_of_tests", pretrained, **{**sizes, **options})


def save_blip2(folder: Path, *, language: str, seed: int = 0) -> Path:
    """A BLIP-2 over a tiny OPT, or T5, and its processor."""
    from transformers import (
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
        GPT2Tokenizer,
    )

    tokenizer = GPT2Tokenizer(**write_byte_bpe(folder), bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    size, queries = {"height": 32, "width": 32}, 4
    processor: Any = Blip2Processor(BlipImageProcessor(size=size), tokenizer, num_query_tokens=queries)
    num_words = len(tokenizer)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    opt = {
        "model_type": "opt",
        "hidden_size": 32,
        "word_embed_proj_dim": 32,
        "ffn_dim": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": tokenizer.bos_token_id,
    }
    t5 = {
        "model_type": "t5",
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    config = Blip2Config(
        vision_config={**sizes, "image_size": 32, "patch_size": 8, "initializer_range": 0.02},
        qformer_config={**sizes, "encoder_hidden_size": 32, "vocab_size": num_words},
        text_config={**(opt if language == "opt" else t5), **ends, "vocab_size": num_words},
        num_query_tokens=queries,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    torch.manual_seed(seed)
    model = Blip2ForConditionalGeneration(config)
    enlarge(model)
    with torch.no_grad():
        model.query_tokens.normal_()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_florence2(folder: Path, *, seed: int = 0) -> Path:
    """A Florence-2 over a tiny BART, and its processor."""
    from transformers import (
        BartTokenizer,
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    tokenizer = BartTokenizer(
        **write_byte_bpe(folder, ("<s>", "<pad>", "</s>", "<unk>", "<mask>")),
        extra_special_tokens={"image_token": "<image>"},
    )
    side, pixels = 4, {"height": 64, "width": 64}
    config = Florence2Config(
        vision_config={
            "depths": [1, 1, 1],
            "patch_size": [7, 3, 3],
            "patch_stride": [4, 2, 2],
            "patch_padding": [3, 1, 1],
            "patch_prenorm": [False, True, True],
            "embed_dim": [8, 16, 32],
            "num_heads": [1, 2, 2],
            "num_groups": [1, 2, 2],
            "window_size": 4,
            "projection_dim": 32,
            "drop_path_rate": 0.0,
        },
        text_config={
            "model_type": "bart",
            "vocab_size": len(tokenizer),
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 2,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            "max_position_embeddings": 256,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "decoder_start_token_id": tokenizer.eos_token_id,
            "forced_eos_token_id": tokenizer.eos_token_id,
        },
        image_token_id=tokenizer.image_token_id,
    )
    torch.manual_seed(seed)
    model = Florence2ForConditionalGeneration(config)
    enlarge(model)
    model.save_pretrained(folder)
    images: Any = CLIPImageProcessor(size=pixels, crop_size=pixels, do_center_crop=False)
    images.image_seq_length = side * side + 1
    texts = {"pure_text": {}}  # what of a text is made of the tasks that are asked
    processor: Any = Florence2Processor(images, tokenizer, post_processor_config=texts)  # type: ignore[no-untyped-call]
    processor.save_pretrained(folder)
    return folder


def write_byte_bpe(folder: Path, special: tuple[str, ...] = ("<pad>", "</s>", "<unk>")) -> dict[str, str]:
    """A vocabulary of the 256 bytes as GPT-2 spells them, after the special tokens, and no merges."""
    from tokenizers.pre_tokenizers import ByteLevel

    folder.mkdir(parents=True, exist_ok=True)
    tokens = [*special, *sorted(ByteLevel.alphabet())]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return {"vocab": str(folder / "vocab.json"), "merges": str(folder / "merges.txt")}
