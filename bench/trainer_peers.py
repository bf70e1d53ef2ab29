"""One training step of the peers, on the same base model and the same draws as ours.

Textual inversion is written after diffusers' training script: its objective, its optimiser, stock
modules. The package `perfusion-pytorch` is used as its readme shows: its word embedding wrapper on
the text encoder, its edit in place of every key and value projection of the denoiser.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import torch
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn
from torch.nn import functional

from perfuse import method
from perfuse.attach import BaseModel, encode_tokens
from perfuse_trainer.learning.draws import Batch
from perfuse_trainer.learning.learning import Learning

_RATE = 5e-4
"""Of the word embedding, as diffusers' script has it."""


def same_weights(module: Any) -> Any:
    """The module over the very same parameters, so that its processors can be changed."""
    shared = {id(weight): weight for weight in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, shared)


class Objective:
    """What every peer has to predict: the base's noise or velocity, at the batch's timesteps."""

    def __init__(self, base: BaseModel) -> None:
        self.base = base
        self.unet = same_weights(base.unet)
        self._alphas = base.pipeline.scheduler.alphas_cumprod.to(base.device)

    def loss(self, batch: Batch, latents: Tensor, encodings: Tensor) -> Tensor:
        """The mean square error of the rows."""
        scale = self._alphas[batch.timesteps][:, None, None, None]
        noisy = scale.sqrt() * latents + (1 - scale).sqrt() * batch.noise
        prediction = self.unet(
            noisy.to(self.base.dtype), batch.timesteps, encodings, return_dict=False
        )[0]
        target = method.diffusion_target(
            self.base.prediction_type, latents, batch.noise, self._alphas, batch.timesteps
        )
        return functional.mse_loss(prediction.float(), target.float())


class TextualInversion:
    """diffusers' script: the whole table of word embeddings trains, and all but one row go back.

    Args:
        base: The base model.
        learning: Gives the prompts and the word that the placeholder starts from.
        pictures: [N, 3, H, W] in -1 to 1, encoded anew in every step as the script does; None for
            the batch's latents, encoded once.
    """

    def __init__(self, base: BaseModel, learning: Learning, pictures: Tensor | None) -> None:
        self._objective, self._pictures, self._base = Objective(base), pictures, base
        encoder = base.encoders[0]
        own = replace(encoder, module=same_weights(encoder.module))
        self._text = own.module
        table = encoder.text_model.embeddings.token_embedding.weight
        start = learning.embeddings[encoder.name].detach().to(table)
        grown = nn.Embedding.from_pretrained(torch.cat([table, start[None]]), freeze=False)
        own.text_model.embeddings.token_embedding = grown
        self._before = table
        ids = torch.tensor([prompt.ids[0] for prompt in learning.prompts])
        slots = [prompt.slots[0].position for prompt in learning.prompts]
        ids[torch.arange(len(ids)), slots] = len(table)
        self._ids = ids.to(base.device)
        self._table = grown.weight
        self._optimiser = torch.optim.AdamW([self._table], lr=_RATE)

    def step(self, batch: Batch) -> Tensor:
        """The loss of one optimiser step."""
        latents = batch.latents
        if self._pictures is not None:
            rows = torch.arange(len(latents)) % len(self._pictures)
            with torch.no_grad():
                posterior = self._base.vae.encode(self._pictures[rows]).latent_dist
                latents = posterior.sample() * self._base.vae.config.scaling_factor
        encodings = self._text(self._ids[batch.templates.to(self._ids.device)])[0]
        loss = self._objective.loss(batch, latents, encodings)
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad()
        with torch.no_grad():
            self._table[:-1] = self._before
        return loss.detach()


class LeanTextualInversion:
    """Nothing left to save: latents encoded once, one vector trained in place of the table.

    Args:
        base: The base model.
        learning: Gives the prompts and the word that the placeholder starts from.
        rate: AdamW's learning rate.

    Attributes:
        words: Text encoder's name → the word embedding, trained.
    """

    def __init__(self, base: BaseModel, learning: Learning, rate: float = _RATE) -> None:
        self._objective, self._base, self._learning = Objective(base), base, learning
        self.words = {
            name: nn.Parameter(word.detach().clone()) for name, word in learning.embeddings.items()
        }
        self._optimiser = torch.optim.AdamW(self.words.values(), lr=rate)

    def step(self, batch: Batch) -> Tensor:
        """The loss of one optimiser step."""
        prompts = [self._learning.prompts[index] for index in batch.templates.tolist()]
        supplied = {self._learning.settings.placeholder: self.words}
        encodings = encode_tokens(self._base, prompts, [supplied] * len(prompts)).encodings
        loss = self._objective.loss(batch, batch.latents, encodings)
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad()
        return loss.detach()


def perfusion_package() -> Any | None:
    """The pip package `perfusion-pytorch`, or None where it is not installed.

    It imports `open_clip` for a tokenizer that is not needed here; a stand-in serves where that is
    not installed.
    """
    if "open_clip" not in sys.modules:
        try:
            import open_clip  # noqa: F401
        except ImportError:
            stand_in = ModuleType("open_clip")
            stand_in.tokenizer = ModuleType("tokenizer")  # type: ignore[attr-defined]
            stand_in.tokenizer.tokenize = None  # type: ignore[attr-defined]
            sys.modules["open_clip"] = stand_in
    try:
        import perfusion_pytorch
    except ImportError:
        return None
    return perfusion_pytorch


class PerfusionPackage:
    """`perfusion-pytorch` on this base.

    Its `parameters()` of an edit returns what must not be trained and leaves out what must, so the
    optimiser is given the value outputs and the word embedding by name.

    Args:
        package: `perfusion_package()`.
        base: The base model.
        learning: Gives the prompts; its super-category is one token.
    """

    def __init__(self, package: Any, base: BaseModel, learning: Learning) -> None:
        self._objective = Objective(base)
        covariance = base.covariance
        assert covariance is not None
        exact = torch.linalg.inv(covariance.covariance.inverse(covariance.ridge))
        self._now: dict[str, Tensor] = {}
        edits = []
        for name, module in self._objective.unet.named_modules():
            if isinstance(module, Attention) and name.endswith("attn2"):
                for projection in ("to_k", "to_v"):
                    edit = package.Rank1EditModule(
                        getattr(module, projection),
                        C=exact.float(),
                        text_seq_len=base.positions,
                        is_key_proj=projection == "to_k",
                    )
                    setattr(module, projection, edit.to(base.device).train())
                    edits.append(edit)
                module.processor = _HandsOver(self._now)
        encoder = base.encoders[0]
        own = replace(encoder, module=same_weights(encoder.module))
        self._text = own.module
        table = encoder.text_model.embeddings.token_embedding
        word = learning.embeddings[encoder.name].detach().to(table.weight)
        super_id = int((table.weight - word).abs().sum(-1).argmin())
        self._wrapper = package.EmbeddingWrapper(table, superclass_embed_id=super_id).train()
        own.text_model.embeddings.token_embedding = self._given = _Given()
        ids = torch.tensor([prompt.ids[0] for prompt in learning.prompts])
        slots = [prompt.slots[0].position for prompt in learning.prompts]
        ids[torch.arange(len(ids)), slots] = len(table.weight)
        self._ids = ids.to(base.device)
        outputs = [edit.concept_outputs for edit in edits if not edit.is_key_proj]
        self._optimiser = torch.optim.AdamW([*outputs, self._wrapper.concepts], lr=0.03)

    def step(self, batch: Batch) -> Tensor:
        """The loss of one optimiser step."""
        ids = self._ids[batch.templates.to(self._ids.device)]
        words = self._wrapper(ids)
        encodings = self._encode(ids, words.embed_with_concept)
        self._now["concept_indices"] = words.concept_indices
        self._now["text_enc_with_superclass"] = self._encode(ids, words.embed_with_superclass)
        loss = self._objective.loss(batch, batch.latents, encodings)
        loss.backward()
        self._optimiser.step()
        self._optimiser.zero_grad()
        return loss.detach()

    def _encode(self, ids: Tensor, words: Tensor) -> Tensor:
        self._given.words = words
        encodings: Tensor = self._text(ids)[0]
        return encodings


class _Given(nn.Module):
    """In the place of a word embedding: what was computed outside."""

    words: Tensor

    def forward(self, ids: Tensor) -> Tensor:
        del ids
        return self.words


class _HandsOver:
    """An attention processor that hands the package's edits what they ask for beside the text."""

    def __init__(self, now: dict[str, Tensor]) -> None:
        self._now = now

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        del attention_mask, temb
        key = attn.to_k(encoder_hidden_states, **self._now)
        value = attn.to_v(encoder_hidden_states, **self._now)
        rows, _, width = key.shape
        heads = (rows, -1, attn.heads, width // attn.heads)
        attended = functional.scaled_dot_product_attention(
            attn.to_q(hidden_states).view(heads).transpose(1, 2),
            key.view(heads).transpose(1, 2),
            value.view(heads).transpose(1, 2),
        )
        output: Tensor = attn.to_out[0](attended.transpose(1, 2).reshape(rows, -1, width))
        return output
