"""Pictures of an unfinished concept, and how alike they are to its images."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from perfuse.adapter.tensors import Adapter
from perfuse.attach import BaseModel, PlannedConcept, Prompt, generate, plan, tokenise
from perfuse.errors import FailedPrecondition, NotFound
from perfuse_trainer.runs.run_settings import PreviewSettings

_QUALITY = 90


class Previews:
    """Renders the same pictures, from the same noise, as a concept is learned.

    Args:
        base: prepared, and attached.
        settings: which pictures.
        placeholder: the word that stands for the concept.
        seed: of the noise.

    Raises:
        PromptRefused: a prompt cannot be encoded.
    """

    def __init__(
        self, base: BaseModel, settings: PreviewSettings, placeholder: str, seed: int
    ) -> None:
        self._base, self._settings, self._seed = base, settings, seed
        self._placeholder = placeholder
        self._texts = [text.replace("<>", f"<{placeholder}>") for text in settings.prompts]
        for text in self._texts:
            tokenise(base, Prompt.parse(text, [placeholder]))

    def due(self, step: int) -> bool:
        """Whether pictures are wanted after so many steps."""
        return step % self._settings.every == 0

    @property
    def prompts(self) -> Sequence[str]:
        """As asked for, in the pictures' order."""
        return self._settings.prompts

    def render(self, adapter: Adapter) -> list[Image.Image]:
        """One picture for each prompt."""
        concept = PlannedConcept(self._placeholder, adapter)
        plans = [plan(self._base, text, [concept]) for text in self._texts]
        pictures: list[Image.Image] = generate(
            self._base,
            plans,
            seeds=[self._seed + index for index in range(len(plans))],
            steps=self._settings.steps,
            guidance=self._settings.guidance,
        )
        return pictures


def jpeg(picture: Image.Image) -> bytes:
    """A picture's file."""
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


class ImageEncoder:
    """A CLIP vision checkpoint that tells how alike pictures are.

    Args:
        directory: local, with the model in safetensors and its image processor.
        device: where it computes.

    Raises:
        NotFound, FailedPrecondition: it cannot be loaded.
    """

    def __init__(self, directory: Path, device: torch.device) -> None:
        try:
            json.loads((directory / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise NotFound(
                f"{directory} holds no readable config.json; give a directory with a CLIP vision "
                "checkpoint in safetensors and its image processor"
            ) from error
        from transformers import AutoImageProcessor, CLIPVisionModelWithProjection

        try:
            self._processor = AutoImageProcessor.from_pretrained(directory, local_files_only=True)
            self._model: Any = CLIPVisionModelWithProjection.from_pretrained(
                directory, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
            raise FailedPrecondition(
                f"{directory} cannot be loaded as a CLIP vision checkpoint ({error})"
            ) from error
        self._model.requires_grad_(False).eval().to(device)
        self._device = device

    @torch.no_grad()
    def encode(self, pictures: Sequence[Image.Image]) -> Tensor:
        """Unit vectors `[N, d]`."""
        pixels = self._processor(list(pictures), return_tensors="pt").pixel_values
        embedded: Tensor = self._model(pixel_values=pixels.to(self._device)).image_embeds
        return torch.nn.functional.normalize(embedded.float(), dim=-1)


def cosine(one: Tensor, other: Tensor) -> float:
    """The mean cosine over all pairs of unit vectors `[N, d]` and `[M, d]`."""
    return float((one @ other.T).mean())
