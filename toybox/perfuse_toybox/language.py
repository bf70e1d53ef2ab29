"""The base's tokenizer and text encoder, in CLIP's own classes."""

from __future__ import annotations

import random

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from perfuse_toybox.captions import caption
from perfuse_toybox.world import draw_picture

MAX_TOKENS = 32
WIDTH = 192

_TRAINING_PHRASES = (
    "a photo of a",
    "a photo of the",
    "image of the",
    "an image of a",
    "a picture of the",
    "a rendering of a",
    "a drawing of the",
    "a depiction of the",
    "a close view of a",
    "shown in a photo",
    "in a picture",
    "and with without under above beside next to wearing sitting standing",
)
"""Words of prompts that captions do not use; each becomes a token of its own too."""


def build_tokenizer(seed: int = 5) -> CLIPTokenizer:
    """A byte-level BPE tokenizer in which every word of the captions is one token."""
    lot = random.Random(seed)
    texts = [caption(draw_picture(lot), lot) for _ in range(20_000)]
    texts += list(_TRAINING_PHRASES) * 50
    blank = CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = blank.backend_tokenizer.normalizer
    learner.pre_tokenizer = blank.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=1600, end_of_word_suffix="</w>", min_frequency=2, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in _merges(learner)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(m) for m in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """An untrained text encoder for the tokenizer, 192 wide, two layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=6,
            max_position_embeddings=MAX_TOKENS,
            projection_dim=WIDTH,
            hidden_act="quick_gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _merges(learner: Tokenizer) -> list[list[str]]:
    import json

    merges: list[list[str] | str] = json.loads(learner.to_str())["model"]["merges"]
    return [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
