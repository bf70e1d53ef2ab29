"""The evaluator's network: an image tower and a text tower that meet in one space.

The image embedding is a unit vector of `WIDTH` numbers. It is aligned with the text tower by
CLIP's loss (Radford et al. 2021, section 2.3), and the attribute heads are linear in it, so it also
carries what captions leave unsaid: secondary colour, marking, accent and build.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perfuse_toybox.evaluator_attributes import HEADS

WIDTH = 192
"""Numbers in an embedding, well above the hundred or so that the heads' words can span."""

_TEXT = 64
_PAD, _UNKNOWN = 0, 1
_LONGEST = 48
"""Words of a caption that are read; the grammar's longest has fewer."""


class Vocabulary:
    """Words and their ids; 0 pads and 1 stands for every unknown word.

    Attributes:
        words: The known words, the first with id 2.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        self._ids = {word: i for i, word in enumerate(self.words, start=_UNKNOWN + 1)}

    @classmethod
    def of(cls, captions: Iterable[str]) -> Vocabulary:
        """Every word of the captions, in alphabetical order."""
        return cls(sorted({word for caption in captions for word in _split(caption)}))

    def __len__(self) -> int:
        return len(self.words) + _UNKNOWN + 1

    def encode(self, captions: Sequence[str]) -> Tensor:
        """Ids `[N, L]` int64, padded to the longest caption; an empty one is one unknown word."""
        rows = [
            [self._ids.get(word, _UNKNOWN) for word in _split(caption)[:_LONGEST]] or [_UNKNOWN]
            for caption in captions
        ]
        longest = max(map(len, rows), default=1)
        padded = [row + [_PAD] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), longest)


class ImageTower(nn.Module):
    """Pixels `[N, 3, 32, 32]` in -1 to 1 to unit embeddings `[N, WIDTH]`."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            # Two by two pixels become channels: half the cost, and no pixel of pixel art is lost.
            nn.PixelUnshuffle(2),
            *_convolution(12, 48),
            *_convolution(48, 96, stride=2),
            *_convolution(96, 96),
            *_convolution(96, 128, stride=2),
            *_convolution(128, 128),
        )
        # No pooling: where a colour is says whose it is.
        self.hidden = nn.Linear(128 * 4 * 4, 256)
        self.projection = nn.Linear(256, WIDTH)

    def forward(self, samples: Tensor) -> Tensor:
        hidden = F.relu(self.hidden(self.convolutions(samples).flatten(1)))
        return F.normalize(self.projection(hidden), dim=-1)


class TextTower(nn.Module):
    """Ids `[N, L]` to unit embeddings `[N, WIDTH]`: two transformer layers, then the mean."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, _TEXT, padding_idx=_PAD)
        self.positions = nn.Parameter(torch.randn(_LONGEST, _TEXT) * 0.02)
        layer = nn.TransformerEncoderLayer(
            _TEXT, 4, 2 * _TEXT, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(_TEXT)
        self.projection = nn.Linear(_TEXT, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        padding = ids == _PAD
        states = self.words(ids) + self.positions[: ids.shape[1]]
        states = self.norm(self.layers(states, src_key_padding_mask=padding))
        said = (~padding).unsqueeze(-1)
        mean = (states * said).sum(1) / said.sum(1)
        return F.normalize(self.projection(mean), dim=-1)


class DualEncoder(nn.Module):
    """Both towers, CLIP's temperature, and the heads that read attributes from an embedding."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.image = ImageTower()
        self.text = TextTower(len(vocabulary))
        self.heads = nn.Linear(WIDTH, sum(map(len, HEADS.values())))
        # Logarithms of factors on unit vectors; CLIP starts its own at 1 / 0.07.
        self.contrast = nn.Parameter(torch.tensor(14.0).log())
        self.sharpness = nn.Parameter(torch.tensor(14.0).log())

    def logits(self, embeddings: Tensor) -> dict[str, Tensor]:
        """Each head's logits `[N, words]` for image embeddings `[N, WIDTH]`."""
        together = self.heads(embeddings * self.sharpness.exp())
        parts = together.split([len(words) for words in HEADS.values()], dim=-1)
        return dict(zip(HEADS, parts, strict=True))

    def contrastive_loss(self, images: Tensor, texts: Tensor) -> Tensor:
        """CLIP's symmetric loss over a batch of pairs."""
        similarity = self.contrast.clamp(max=4.6).exp() * images @ texts.T
        pairs = torch.arange(len(images), device=images.device)
        return (F.cross_entropy(similarity, pairs) + F.cross_entropy(similarity.T, pairs)) / 2


def _convolution(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, 3, stride, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


def _split(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption.lower())
