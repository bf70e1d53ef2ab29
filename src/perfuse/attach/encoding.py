"""Text encodings with word embeddings supplied per row.

The text encoder's own parts are called in the order in which its `forward` calls them, because
`forward` takes ids only. The one difference is where a word embedding comes from: at a
placeholder's position it is the row's own vector. Nothing is registered, grown or swapped, so
any number of requests may encode at once, and gradients reach the supplied vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.masking_utils import create_causal_mask

from perfuse import method
from perfuse.attach.base_model import BaseModel, TextEncoder
from perfuse.attach.prompt import Prompt
from perfuse.attach.tokens import Tokens
from perfuse.errors import InvalidArgument, WrongShape

Embeddings = Mapping[str, Mapping[str, torch.Tensor]]
"""Word embeddings supplied with a prompt: placeholder's name → text encoder's name → [d_enc]."""

OLD_END_OF_TEXT = 2
"""The wrong end-of-text id in the configuration of early CLIP checkpoints; transformers then
takes the highest id of a row for its end of text, and so do we."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """Text encodings of some prompts.

    Attributes:
        encodings: e [B, M, d], the text encoders' outputs side by side.
        pooled: [B, p] where the denoiser reads a pooled encoding (SDXL), else None.
        tokens: the B tokenised prompts.
    """

    encodings: torch.Tensor
    pooled: torch.Tensor | None
    tokens: tuple[Tokens, ...]

    def at_slots(self, name: str) -> torch.Tensor:
        """The encodings [N, d] at every slot of one concept, row by row.

        Raises:
            InvalidArgument: no prompt names it.
        """
        places = [
            (row, slot.position)
            for row, tokens in enumerate(self.tokens)
            for slot in tokens.slots
            if slot.name == name
        ]
        if not places:
            raise InvalidArgument(f"no prompt of the batch names <{name}>")
        rows, positions = zip(*places, strict=True)
        return self.encodings[list(rows), list(positions)]


def tokenise(base: BaseModel, prompt: Prompt, *, truncate: bool = False) -> Tokens:
    """`Prompt.tokens` with the base model's tokenizers."""
    return prompt.tokens([encoder.tokenizer for encoder in base.encoders], truncate=truncate)


def encode(base: BaseModel, prompt: str, embeddings: Embeddings | None = None) -> Encoding:
    """Encode one prompt, B = 1; without placeholders it is diffusers' own encoding bit for bit.

    Args:
        base: the base model.
        prompt: text with placeholders `<name>`.
        embeddings: word embeddings for every placeholder named.

    Raises:
        PromptRefused: an unknown placeholder, or too long.
        WrongShape, InvalidArgument: as `encode_tokens`.
    """
    embeddings = embeddings or {}
    tokens = tokenise(base, Prompt.parse(prompt, embeddings))
    return encode_tokens(base, [tokens], [embeddings])


def encode_tokens(
    base: BaseModel,
    prompts: Sequence[Tokens],
    embeddings: Sequence[Embeddings] | None = None,
) -> Encoding:
    """Encode tokenised prompts as one batch, each row with word embeddings of its own.

    Differentiable in the word embeddings.

    Args:
        base: the base model.
        prompts: B tokenised prompts.
        embeddings: B mappings; may be left out where no prompt has a placeholder. Vectors are
            converted to the encoder's dtype and device.

    Raises:
        InvalidArgument: a placeholder has no word embedding for some text encoder.
        WrongShape: a word embedding has another width than the encoder's.
    """
    if embeddings is None:
        embeddings = [{}] * len(prompts)
    if len(embeddings) != len(prompts):
        raise InvalidArgument(
            f"{len(embeddings)} mappings of word embeddings for {len(prompts)} prompts; one each"
        )
    outputs, pooled = [], None
    for index, encoder in enumerate(base.encoders):
        ids = torch.tensor([tokens.ids[index] for tokens in prompts], device=base.device)
        words = _word_embeddings(encoder, ids, prompts, embeddings)
        mask = None
        if getattr(encoder.module.config, "use_attention_mask", False) and not base.pooled:
            ends = torch.tensor([tokens.end_of_text for tokens in prompts], device=base.device)
            places = torch.arange(ids.shape[1], device=base.device)
            mask = (places <= ends[:, None]).to(ids.dtype)
        output, at_end = _forward(encoder, ids, words, mask, penultimate=base.pooled)
        outputs.append(output)
        if base.pooled and hasattr(encoder.module, "text_projection"):
            pooled = encoder.module.text_projection(at_end) if pooled is None else pooled
    joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
    return Encoding(joined, pooled, tuple(prompts))


def encode_chunks(
    base: BaseModel, chunks: Sequence[Tokens], embeddings: Embeddings | None = None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Encode the chunks of one prompt, each as a text of its own.

    Args:
        base: the base model.
        chunks: k tokenised texts of M positions.
        embeddings: word embeddings for every placeholder named.

    Returns:
        Their encodings one after the other [1, k·M, d]; and the pooled encoding [1, p] of the
        first, where the denoiser reads one (SDXL), else None.

    Raises:
        WrongShape, InvalidArgument: as `encode_tokens`.
    """
    encoding = encode_tokens(base, chunks, [embeddings or {}] * len(chunks))
    pooled = None if encoding.pooled is None else encoding.pooled[:1]
    return encoding.encodings.flatten(0, 1)[None], pooled


def super_category_encodings(
    base: BaseModel, encodings: torch.Tensor, chunks: Sequence[Tokens], replaced: Sequence[Tokens]
) -> torch.Tensor:
    """GLOBAL's view of a prompt: every placeholder replaced by its super-category (paper Sec. 4.2).

    Args:
        base: the base model.
        encodings: [1, k·M, d] of `replaced`.
        chunks: k chunks of the concept prompt, of M positions each.
        replaced: the same with the super-categories written out (`with_super_categories`).

    Returns:
        The encodings [1, k·M, d] gathered so that row m belongs to position m of the concept
        prompt (`method.key_positions`).
    """
    gathered = []
    for index, (tokens, other) in enumerate(zip(chunks, replaced, strict=True)):
        positions = method.key_positions(
            base.positions,
            [
                (slot.position, written.sub_tokens)
                for slot, written in zip(tokens.slots, other.slots, strict=True)
            ],
            device=base.device,
        )
        gathered.append(encodings[:, index * base.positions + positions])
    return torch.cat(gathered, dim=1)


def _word_embeddings(
    encoder: TextEncoder,
    ids: torch.Tensor,
    prompts: Sequence[Tokens],
    embeddings: Sequence[Embeddings],
) -> torch.Tensor:
    """Word embeddings [B, M, d_enc]: the shipped ones, and the rows' own at placeholders."""
    words: torch.Tensor = encoder.text_model.embeddings.token_embedding(ids)
    rows, positions, vectors = [], [], []
    for row, (tokens, supplied) in enumerate(zip(prompts, embeddings, strict=True)):
        for position, name in tokens.placeholders:
            vector = supplied.get(name, {}).get(encoder.name)
            if vector is None:
                raise InvalidArgument(
                    f"<{name}> has no word embedding for {encoder.name}; a concept brings one for "
                    "each text encoder of the base model"
                )
            if vector.shape != (encoder.width,):
                raise WrongShape(
                    f"the word embedding of <{name}> for {encoder.name} has shape "
                    f"{list(vector.shape)}; it must be [{encoder.width}]"
                )
            rows.append(row)
            positions.append(position)
            vectors.append(vector.to(device=words.device, dtype=words.dtype))
    if not vectors:
        return words
    places = (
        torch.tensor(rows, device=words.device),
        torch.tensor(positions, device=words.device),
    )
    return words.index_put(places, torch.stack(vectors))


def _forward(
    encoder: TextEncoder,
    ids: torch.Tensor,
    words: torch.Tensor,
    mask: torch.Tensor | None,
    *,
    penultimate: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The encoder's output [B, M, d_enc] and its normalised last state at end of text [B, d_enc].

    SDXL reads the states before the last layer, un-normalised; the others the normalised last.
    """
    text: Any = encoder.text_model
    hidden = text.embeddings(inputs_embeds=words)
    causal = create_causal_mask(
        config=text.config, inputs_embeds=hidden, attention_mask=mask, past_key_values=None
    )
    before_last = hidden
    for layer in text.encoder.layers:
        before_last = hidden
        hidden = layer(hidden, causal, is_causal=True)
    last = text.final_layer_norm(hidden)
    if text.config.eos_token_id == OLD_END_OF_TEXT:
        ends = ids.to(torch.int).argmax(dim=-1)
    else:
        ends = (ids == text.config.eos_token_id).to(torch.int).argmax(dim=-1)
    at_end = last[torch.arange(len(ids), device=ids.device), ends]
    return (before_last if penultimate else last), at_end
