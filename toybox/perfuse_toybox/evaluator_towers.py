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

from perfuse_toybox.canvas import outline
from perfuse_toybox.evaluator_attributes import HEADS
from perfuse_toybox.world import COLOURS

WIDTH = 128
"""Numbers in an embedding, more than the hundred that the heads' words can span."""

_TRUNK = 256
_MAPS = 24
_STEPS = 4
_TEXTURES = 20

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
    """Pixels `[N, 3, 32, 32]` in -1 to 1 to trunk vectors `[N, 256]`.

    Convolutions find where a figure's parts are; maps of attention over 16 × 16 positions then
    gather the colours and textures found there. Convolutions alone read worn things and second
    colours far worse after the same training.
    """

    tones: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("tones", _tones(), persistent=False)
        count = len(self.tones) + _STEPS
        # Two by two pixels become channels, so that all convolutions run on 16 × 16 or less; the
        # channel of zeros makes their number one that kernels are quick with.
        self.fine = nn.Sequential(
            nn.PixelUnshuffle(2),
            *_convolution(4 * (3 + count + 1), 48, size=1),
            *_convolution(48, 64),
        )
        self.middle = nn.Sequential(*_convolution(64, 96, stride=2), *_convolution(96, 96))
        self.coarse = nn.Sequential(*_convolution(96, 112, stride=2), *_convolution(112, 112))
        self.map_logits = nn.ModuleList(nn.Conv2d(width, _MAPS, 1) for width in (64, 96, 112))
        self.map_places = nn.Parameter(torch.randn(_MAPS, 16 * 16) * 0.5)
        self.texture = nn.Sequential(*_convolution(64, _TEXTURES, size=1))
        self.layout = nn.Sequential(*_convolution(112, 32, size=1))
        gathered = _MAPS * (_TEXTURES + count) + 32 * 4 * 4
        self.trunk = nn.Linear(gathered, _TRUNK, bias=False)
        self.norm = nn.BatchNorm1d(_TRUNK)

    def forward(self, samples: Tensor) -> Tensor:
        plain = torch.cat([self._nearness(samples), _contrast(samples)], 1)
        fine = self.fine(torch.cat([samples, plain, torch.zeros_like(samples[:, :1])], 1))
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        logits = self.map_logits[2](coarse)
        logits = self.map_logits[1](middle) + F.interpolate(logits, scale_factor=2.0)
        logits = self.map_logits[0](fine) + F.interpolate(logits, scale_factor=2.0)
        maps = (logits.flatten(2) + self.map_places).softmax(-1)
        found = torch.cat([self.texture(fine), 4.0 * F.avg_pool2d(plain, 2)], 1).flatten(2)
        gathered = torch.bmm(maps, found.transpose(1, 2)).flatten(1)
        seen = torch.cat([gathered, self.layout(coarse).flatten(1)], 1)
        return F.relu(self.norm(self.trunk(seen)))

    def _nearness(self, samples: Tensor) -> Tensor:
        """How near each pixel is to each tone, 0 to 1, `[N, tones, 32, 32]`."""
        products = F.conv2d(
            samples, -2.0 * self.tones[:, :, None, None], self.tones.square().sum(1)
        )
        distance = products + samples.square().sum(1, keepdim=True)
        return torch.exp(-distance / 0.06)


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


def _contrast(samples: Tensor) -> Tensor:
    """Differences to the pixels one and two to the right and below, whatever the colours.

    Patterns repeat after four pixels, so these tell them apart. `[N, 4, 32, 32]`, 0 at the border.
    """
    channels = []
    for step in (1, 2):
        right = (samples[..., step:] - samples[..., :-step]).abs().amax(1, keepdim=True)
        below = (samples[..., step:, :] - samples[..., :-step, :]).abs().amax(1, keepdim=True)
        channels += [F.pad(right, (0, step)), F.pad(below, (0, 0, 0, step))]
    return torch.cat(channels, 1)


def _tones() -> Tensor:
    """The named colours and the darker tones of their outlines, `[20, 3]` in -1 to 1.

    Half of a striped thing is in its secondary colour; its outlines say which is the primary.
    """
    named = [*COLOURS.values(), *map(outline, COLOURS)]
    return torch.tensor(named, dtype=torch.float32) / 127.5 - 1.0


def _convolution(before: int, after: int, size: int = 3, stride: int = 1) -> list[nn.Module]:
    return [
        nn.Conv2d(before, after, size, stride, padding=size // 2 if size % 2 else 0, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    ]


def _split(caption: str) -> list[str]:
    return re.findall(r"[a-z]+", caption.lower())
