"""The evaluator's network: an image tower and a text tower that meet in one space.

The image tower ends in a trunk vector from which linear heads read every attribute. The image
embedding is a unit vector of `WIDTH` numbers, linear in the trunk before it is scaled. CLIP's loss
(Radford et al. 2021, section 2.3) aligns it with the text tower, and in training a second set of
heads reads the attributes from it alone, so it also carries what captions leave unsaid: secondary
colour, marking, accent and build.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perfuse_toybox.evaluator_attributes import HEADS
from perfuse_toybox.world import COLOURS

WIDTH = 128
"""Numbers in an embedding, more than the hundred that the heads' words can span."""

_TRUNK = 256

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
    """Pixels `[N, 3, 32, 32]` in -1 to 1 to trunk vectors `[N, 256]`."""

    palette: Tensor

    def __init__(self) -> None:
        super().__init__()
        palette = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 127.5 - 1.0
        self.register_buffer("palette", palette, persistent=False)
        self.convolutions = nn.Sequential(
            # Two by two pixels at a time, no overlap: half the cost, and pixel art loses nothing.
            *_convolution(3 + len(COLOURS), 40, size=2, stride=2),
            *_convolution(40, 48),
            *_convolution(48, 96, stride=2),
            *_convolution(96, 96),
            *_convolution(96, 128, stride=2),
            *_convolution(128, 128),
            *_convolution(128, 64, size=1),
        )
        # No pooling: where a colour is says whose it is.
        self.trunk = nn.Linear(64 * 4 * 4, _TRUNK, bias=False)
        self.norm = nn.BatchNorm1d(_TRUNK)

    def forward(self, samples: Tensor) -> Tensor:
        # Nearness to each named colour, as channels beside red, green and blue: a trial without
        # them had not told the subject's colours apart after 100 000 pictures.
        distance = (samples[:, None] - self.palette[:, :, None, None]).square().sum(2)
        coloured = torch.cat([samples, torch.exp(-distance / 0.15)], 1)
        seen = self.convolutions(coloured.contiguous(memory_format=torch.channels_last))
        return F.relu(self.norm(self.trunk(seen.flatten(1))))


class TextTower(nn.Module):
    """Ids `[N, L]` to unit embeddings `[N, WIDTH]`: two transformer layers, then the mean."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.word_embedding = nn.Embedding(words, _TEXT, padding_idx=_PAD)
        self.position_embedding = nn.Parameter(torch.randn(_LONGEST, _TEXT) * 0.02)
        layer = nn.TransformerEncoderLayer(
            _TEXT, 4, 2 * _TEXT, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(_TEXT)
        self.projection = nn.Linear(_TEXT, WIDTH)

    def forward(self, ids: Tensor) -> Tensor:
        padding = ids == _PAD
        states = self.word_embedding(ids) + self.position_embedding[: ids.shape[1]]
        states = self.norm(self.layers(states, src_key_padding_mask=padding))
        said = (~padding).unsqueeze(-1)
        mean = (states * said).sum(1) / said.sum(1)
        return F.normalize(self.projection(mean), dim=-1)


class DualEncoder(nn.Module):
    """Both towers, CLIP's temperature, and the heads that read attributes."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.image = ImageTower()
        self.text = TextTower(len(vocabulary))
        self.embedding = nn.Linear(_TRUNK, WIDTH)
        count = sum(map(len, HEADS.values()))
        self.heads = nn.Linear(_TRUNK, count)
        self.embedding_heads = nn.Linear(WIDTH, count)
        # Logarithms of the factors on unit vectors; CLIP starts its own at 1 / 0.07.
        self.contrast = nn.Parameter(torch.tensor(14.0).log())
        self.sharpness = nn.Parameter(torch.tensor(14.0).log())

    def embed(self, trunk: Tensor) -> Tensor:
        """Unit image embeddings `[N, WIDTH]` of trunk vectors."""
        return F.normalize(self.embedding(trunk), dim=-1)

    def logits(self, trunk: Tensor) -> dict[str, Tensor]:
        """Each head's logits `[N, words]`, read from trunk vectors."""
        return _by_head(self.heads(trunk))

    def embedding_logits(self, embeddings: Tensor) -> dict[str, Tensor]:
        """The same, read from embeddings; only training asks for them."""
        return _by_head(self.embedding_heads(embeddings * self.sharpness.exp()))

    def contrastive_loss(self, images: Tensor, texts: Tensor) -> Tensor:
        """CLIP's symmetric loss over a batch of pairs."""
        similarity = self.contrast.clamp(max=4.6).exp() * images @ texts.T
        pairs = torch.arange(len(images), device=images.device)
        return (F.cross_entropy(similarity, pairs) + F.cross_entropy(similarity.T, pairs)) / 2


def _by_head(logits: Tensor) -> dict[str, Tensor]:
    widths = [len(words) for words in HEADS.values()]
    return dict(zip(HEADS, torch.split(logits, widths, dim=-1), strict=True))


def _convolution(before: int, after: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, size, stride, padding=size // 2 if size % 2 else 0, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


def _split(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption.lower())
