"""Text encodings that are kept: the dearest part of a plan, and most changes leave it as it is.

Another bias, temperature or key lock edits the same encodings anew; prompts whose concepts are of
one super-category share GLOBAL's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from perfuse.attach.base_model import BaseModel
from perfuse.attach.encoding import encode_chunks
from perfuse.attach.prepared_concept import PreparedConcept
from perfuse.attach.tokens import Tokens

TextEncoding = tuple[torch.Tensor, torch.Tensor | None]
"""Encodings [1, k·M, d] and, for SDXL, the pooled encoding [1, p]; never changed."""


class EncodingStore(Protocol):
    """Keeps one base model's encodings, as long as it pleases; used from several threads."""

    def get(self, key: str, /) -> TextEncoding | None:
        """What is kept under a key."""
        ...

    def put(self, key: str, value: TextEncoding, /) -> None:
        """Keep it under a key."""
        ...


def encoded(
    base: BaseModel,
    chunks: Sequence[Tokens],
    concepts: Mapping[str, PreparedConcept],
    store: EncodingStore | None = None,
) -> TextEncoding:
    """`encode_chunks` with the concepts' word embeddings, from the store where it is there.

    Args:
        base: the base model.
        chunks: k tokenised texts.
        concepts: name → concept, for every placeholder.
        store: of this base model.
    """
    embeddings = {name: concept.adapter.embeddings for name, concept in concepts.items()}
    if store is None:
        return encode_chunks(base, chunks, embeddings)
    # Adapters by digest: what a prompt calls them does not reach the text encoder.
    named = [
        [(position, concepts[name].digest) for position, name in tokens.placeholders]
        for tokens in chunks
    ]
    key = json.dumps([[tokens.ids for tokens in chunks], named])
    found = store.get(key)
    if found is None:
        found = encode_chunks(base, chunks, embeddings)
        store.put(key, found)
    return found
