"""The evaluator: reads what a picture shows, and measures how alike pictures and captions are.

An image embedding is a unit vector that CLIP's loss aligned with the text embedding of the
picture's caption, and from which every attribute of the picture can be read, captioned or not. So
the cosine of two image embeddings is similarity as a whole, scene included; the cosine of an image
and a text embedding is CLIP's text similarity; and `identity_similarity` compares one figure alone.

`python -m perfuse_toybox.evaluator` prints how well it reads held-out pictures; `--train` trains
it anew first.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from perfuse.errors import DataLoss, InvalidArgument, NotFound, WrongShape
from perfuse_toybox.corpus import Corpus, to_sample
from perfuse_toybox.evaluator_attributes import (
    NONE,
    READ,
    Reading,
    identity_heads,
    readings,
    words_of,
)
from perfuse_toybox.evaluator_towers import DualEncoder, Vocabulary
from perfuse_toybox.evaluator_training import EvaluatorRecipe, train_evaluator
from perfuse_toybox.world import SIZE, Picture, draw_picture

SHIPPED = Path(__file__).with_name("evaluator.safetensors")
"""The trained evaluator that comes with the package, float16."""

BAR = ("scene", "kind", "worn", "seat", "colour")
"""The attributes by which a base is judged."""

_CHUNK = 256
_METADATA = "perfuse_toybox"


class Evaluator:
    """The trained dual encoder with its attribute heads.

    Args:
        towers: As `train_evaluator` returns them.
        device: Where it computes; results come back to the CPU.
    """

    def __init__(self, towers: DualEncoder, device: str = "cpu") -> None:
        self._towers = towers.to(device).eval().requires_grad_(False)
        self._device = device

    @classmethod
    def load(cls, path: Path | None = None, device: str = "cpu") -> Evaluator:
        """The evaluator stored at `path`, by default the shipped one.

        Raises:
            NotFound: There is no file at `path`.
            DataLoss: The file is not an evaluator of this version.
        """
        path = path or SHIPPED
        if not path.is_file():
            raise NotFound(
                f"no evaluator at {path}; `python -m perfuse_toybox.evaluator --train` makes one."
            )
        try:
            with safe_open(path, framework="pt") as stored:
                described = json.loads(stored.metadata()[_METADATA])
                state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            towers = DualEncoder(Vocabulary(described["vocabulary"]))
            towers.load_state_dict(
                {n: v.float() if v.is_floating_point() else v for n, v in state.items()}
            )
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as cause:
            raise DataLoss(
                f"{path} does not hold an evaluator of this version ({cause}); restore it, or "
                "train anew with `python -m perfuse_toybox.evaluator --train`."
            ) from cause
        return cls(towers, device)

    @property
    def vocabulary(self) -> Vocabulary:
        """The words that the text tower knows."""
        return self._towers.vocabulary

    def save(self, path: Path) -> None:
        """Write the evaluator to `path` in float16, about 2 MB."""
        state = {
            name: value.half().contiguous() if value.is_floating_point() else value
            for name, value in self._towers.cpu().state_dict().items()
        }
        self._towers.to(self._device)
        described = {"vocabulary": list(self._towers.vocabulary.words)}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(state, path, {_METADATA: json.dumps(described, sort_keys=True)})

    @torch.no_grad()
    def image_embedding(self, pixels: Tensor) -> Tensor:
        """Unit embeddings `[N, e]` float32 of pictures `[N, 3, 32, 32]` uint8."""
        return self._towers.embed(self._trunk(pixels)).cpu()

    @torch.no_grad()
    def text_embedding(self, captions: Sequence[str]) -> Tensor:
        """Unit embeddings `[N, e]` float32; words that no caption has are all read as one.

        A placeholder is such a word: put the concept's super-category in its place first.
        """
        if isinstance(captions, str) or not captions:
            raise InvalidArgument(
                f"captions are {captions!r}; they must be a list of at least one text. "
                "Wrap a single caption in a list."
            )
        ids = self._towers.vocabulary.encode(captions)
        embedded: Tensor = self._towers.text(ids.to(self._device))
        return embedded.cpu()

    def image_similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosine `[N]` of the image embeddings of `a` and `b`, picture by picture.

        Either may hold a single picture, which is then compared with all of the other.
        """
        _check_pairs(len(a), len(b), "pictures", "pictures")
        return (self.image_embedding(a) * self.image_embedding(b)).sum(-1)

    def text_similarity(self, pixels: Tensor, captions: Sequence[str]) -> Tensor:
        """Cosine `[N]` of each picture's embedding with its caption's; one caption fits all."""
        texts = self.text_embedding(captions)
        _check_pairs(len(pixels), len(texts), "pictures", "captions")
        return (self.image_embedding(pixels) * texts).sum(-1)

    def identity_similarity(self, a: Tensor, b: Tensor, figure: str = "subject") -> Tensor:
        """How alike one figure is in `a` and `b`, `[N]` from 0 to 1, whatever is around it.

        For kind, colours, pattern, marking, accent and build alike: the overlap of what is read
        in both pictures (Bhattacharyya's coefficient of the two distributions); the mean of these.

        Args:
            a: Pictures `[N, 3, 32, 32]` or `[1, 3, 32, 32]`, uint8.
            b: Likewise.
            figure: `subject`, `worn` or `seat`.
        """
        _check_pairs(len(a), len(b), "pictures", "pictures")
        return identity_overlap(self.probabilities(a), self.probabilities(b), figure)

    def read(self, pixels: Tensor) -> list[Reading]:
        """What each picture of `[N, 3, 32, 32]` uint8 shows."""
        return readings(self.probabilities(pixels))

    @torch.no_grad()
    def probabilities(self, pixels: Tensor) -> dict[str, Tensor]:
        """What is read in pictures `[N, 3, 32, 32]` uint8: head → `[N, words]`, 0 to 1.

        The heads and their words are `evaluator_attributes.HEADS`.
        """
        logits = self._towers.logits(self._trunk(pixels))
        return {head: values.softmax(-1).cpu() for head, values in logits.items()}

    def _trunk(self, pixels: Tensor) -> Tensor:
        _check_pixels(pixels)
        chunks = [
            self._towers.image(to_sample(pixels[first : first + _CHUNK].to(self._device)))
            for first in range(0, len(pixels), _CHUNK)
        ]
        return torch.cat(chunks)


def identity_overlap(
    a: Mapping[str, Tensor], b: Mapping[str, Tensor], figure: str = "subject"
) -> Tensor:
    """`Evaluator.identity_similarity` of pictures whose `probabilities` are at hand.

    Raises:
        InvalidArgument: There is no such figure.
    """
    heads = identity_heads(figure)
    if not heads:
        raise InvalidArgument(
            f"figure is {figure!r}; it must be 'subject', 'worn' or 'seat'. Choose one of them."
        )
    overlaps = [(a[head] * b[head]).sqrt().sum(-1) for head in heads]
    return torch.stack(overlaps).mean(0).clamp(0.0, 1.0)


def attribute_accuracy(
    pictures: Sequence[Picture],
    pixels: Tensor,
    evaluator: Evaluator | None = None,
    attributes: Sequence[str] = BAR,
) -> dict[str, float]:
    """How often pictures show what they were asked to show, as read by the evaluator.

    Each attribute is judged over the pictures to which it applies: a subject's kind and colour
    where a subject was asked for, a worn thing and a seat where one was. An attribute that applies
    to none of the pictures is left out.

    Args:
        pictures: What was asked for.
        pixels: What came, `[N, 3, 32, 32]` uint8, in the same order.
        evaluator: The judge; the shipped one by default.
        attributes: Names of `Reading`'s attributes.

    Returns:
        For each attribute the share read right, 0 to 1.
    """
    if len(pictures) != len(pixels):
        raise WrongShape(
            f"{len(pictures)} pictures were asked for and {len(pixels)} are given; the two must "
            "be as many. Pass pixels in the order of the pictures."
        )
    read = (evaluator or Evaluator.load()).read(pixels)
    accuracy = {}
    for name in attributes:
        right = [
            getattr(reading, name) == words_of(picture)[READ[name]]
            for picture, reading in zip(pictures, read, strict=True)
            if words_of(picture).get(READ[name], NONE) != NONE
        ]
        if right:
            accuracy[name] = sum(right) / len(right)
    return accuracy


def absence_accuracy(
    pictures: Sequence[Picture], pixels: Tensor, evaluator: Evaluator | None = None
) -> dict[str, float]:
    """How often `none` is read where no subject, worn thing or seat was asked for.

    The arguments are those of `attribute_accuracy`, the keys `kind`, `worn` and `seat`.
    """
    read = (evaluator or Evaluator.load()).read(pixels)
    accuracy = {}
    for name in ("kind", "worn", "seat"):
        right = [
            getattr(reading, name) == NONE
            for picture, reading in zip(pictures, read, strict=True)
            if words_of(picture)[READ[name]] == NONE
        ]
        if right:
            accuracy[name] = sum(right) / len(right)
    return accuracy


def unseen_picture(lot: random.Random) -> Picture:
    """A picture by lot, with a subject or without, that no training shows."""
    while not (picture := draw_picture(lot)).held_out:
        pass
    return picture


def _check_pixels(pixels: Tensor) -> None:
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1:] != (3, SIZE, SIZE):
        raise WrongShape(
            f"pixels are {pixels.dtype} of shape {list(pixels.shape)}; they must be torch.uint8 of "
            f"shape [N, 3, {SIZE}, {SIZE}]. Convert with corpus.to_pixels and put channels second."
        )
    if not len(pixels):
        raise InvalidArgument("no picture is given; there must be at least one. Pass one or more.")


def _check_pairs(left: int, right: int, first: str, second: str) -> None:
    if left != right and 1 not in (left, right):
        raise WrongShape(
            f"{left} {first} stand against {right} {second}; there must be as "
            "many, or one on a side. Pair them before the call."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the held-out table; with `--train`, train and store the evaluator first."""
    parser = argparse.ArgumentParser(
        prog="python -m perfuse_toybox.evaluator", description=main.__doc__
    )
    parser.add_argument("--train", action="store_true", help="train anew and replace the weights")
    parser.add_argument("--weights", type=Path, default=SHIPPED, help="where the weights are")
    parser.add_argument("--state", type=Path, default=Path("build/evaluator.pt"), help="checkpoint")
    parser.add_argument("--pictures", type=int, default=40_000, help="pictures to train on")
    parser.add_argument("--steps", type=int, default=EvaluatorRecipe.steps, help="training steps")
    parser.add_argument("--judge", type=int, default=2000, help="held-out pictures to judge by")
    parser.add_argument("--device", default="cpu", help="cpu or an accelerator's name")
    options = parser.parse_args(arguments)
    if options.train:
        recipe = EvaluatorRecipe(steps=options.steps)
        towers = _train(recipe, options.state, options.pictures, options.device)
        Evaluator(towers, options.device).save(options.weights)
    _report(Evaluator.load(options.weights, options.device), options.judge)


def _train(recipe: EvaluatorRecipe, state: Path, count: int, device: str) -> DualEncoder:
    with Progress() as progress:
        drawing = progress.add_task("pictures", total=count)

        def on_drawn(drawn: int) -> None:
            progress.update(drawing, completed=drawn)

        corpus = Corpus.draw(count, recipe.seed, on_progress=on_drawn)
        training = progress.add_task("evaluator", total=recipe.steps)

        def on_step(step: int, loss: float) -> None:
            progress.update(training, completed=step, description=f"evaluator, loss {loss:.3f}")

        return train_evaluator(corpus, recipe, state, on_step, device)


def _report(evaluator: Evaluator, count: int, seed: int = 4242) -> None:
    corpus = Corpus.draw(count, seed, unseen_picture)
    table = Table(title=f"{count} held-out true pictures, read right")
    table.add_column("attribute")
    table.add_column("share", justify="right")
    shares = attribute_accuracy(corpus.pictures, corpus.pixels, evaluator, tuple(READ))
    for name, share in shares.items():
        table.add_row(name, f"{share:.1%}")
    for name, share in absence_accuracy(corpus.pictures, corpus.pixels, evaluator).items():
        table.add_row(f"no {name}", f"{share:.1%}")
    Console().print(table)


if __name__ == "__main__":
    main()
