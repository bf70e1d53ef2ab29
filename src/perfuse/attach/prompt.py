"""A prompt with placeholders, as token ids.

A prompt names concepts in place: `a photo of <tom> wearing <shades>`. Each placeholder becomes one
position whose word embedding is supplied with the request; the text between placeholders goes
through the shipped tokenizer, so that ordinary words get the ids that they always get. The
tokenizer itself learns nothing: a placeholder's position holds a stand-in id that is never
looked up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from perfuse.attach.tokens import (
    Body,
    Break,
    Slot,
    Tokens,
    around,
    breaks_of,
    encoding_of,
    stand_in,
)
from perfuse.errors import BaseModelUnsuitable, PromptRefused

_CONTROL_WORDS = ("<|startoftext|>", "<|endoftext|>")
_PLACEHOLDER = re.compile(r"<([^\s<>|]+)>")


@dataclass(frozen=True)
class _Piece:
    """Text, a placeholder (a name and no text), or a placeholder's super-category (both)."""

    text: str | None
    name: str | None = None


@dataclass(frozen=True)
class Named:
    """A concept in a prompt, by the name under which it is planned."""

    name: str


@dataclass(frozen=True)
class Prompt:
    """A prompt cut at its placeholders.

    Attributes:
        pieces: text and placeholders in order.
    """

    pieces: tuple[_Piece, ...]

    @classmethod
    def of(cls, parts: Iterable[str | Named]) -> Prompt:
        """A prompt from texts, taken as they are, and concepts between them.

        Raises:
            PromptRefused: a text spells out one of the tokenizer's control words.
        """
        pieces = []
        for part in parts:
            if isinstance(part, Named):
                pieces.append(_Piece(None, part.name))
            elif part:
                _refuse_control_words(part)
                pieces.append(_Piece(part))
        return cls(tuple(pieces))

    @classmethod
    def parse(cls, text: str, names: Collection[str] = ()) -> Prompt:
        """Cut `text` at the placeholders `<name>`.

        Args:
            text: the prompt as written.
            names: the concepts that it may name.

        Raises:
            PromptRefused: it names a concept that is not among `names`, or spells out one of
                the tokenizer's control words.
        """
        pieces = []
        start = 0
        for found in _PLACEHOLDER.finditer(text):
            name = found.group(1)
            if name not in names:
                known = ", ".join(f"<{known}>" for known in sorted(names)) or "none"
                raise PromptRefused(
                    f"the prompt names <{name}>, which is not among the concepts given ({known}); "
                    "give that concept, or write the word without angle brackets"
                )
            pieces += [_Piece(text[start : found.start()]), _Piece(None, name)]
            start = found.end()
        pieces.append(_Piece(text[start:]))
        _refuse_control_words(text)
        return cls(tuple(piece for piece in pieces if piece.name is not None or piece.text))

    @property
    def names(self) -> tuple[str, ...]:
        """The concepts named, each once, in order of first appearance."""
        return tuple(dict.fromkeys(piece.name for piece in self.pieces if piece.name is not None))

    def with_super_categories(self, super_categories: Mapping[str, str]) -> Prompt:
        """The same prompt with every placeholder replaced by its super-category.

        Args:
            super_categories: placeholder's name → super-category, for every name.
        """
        return Prompt(
            tuple(
                piece
                if piece.name is None
                else replace(piece, text=_checked(super_categories[piece.name]))
                for piece in self.pieces
            )
        )

    def tokens(self, tokenizers: Sequence[Any], *, truncate: bool = False) -> Tokens:
        """Tokenise for every text encoder.

        Args:
            tokenizers: the base model's shipped tokenizers.
            truncate: cut off what does not fit, as diffusers does, where the default refuses.

        Raises:
            PromptRefused: it is too long; the message says where the limit falls.
            BaseModelUnsuitable: two tokenizers cut the text into different numbers of tokens.
        """
        body = self.body(tokenizers)
        room = tokenizers[0].model_max_length - 2
        if len(body) > room and not truncate:
            raise PromptRefused(
                f"the prompt has {len(body)} tokens and the text encoder reads {room}; the limit "
                f"falls {around(tokenizers[0], body, room)}: shorten it by {len(body) - room} "
                "tokens, or have it split into chunks"
            )
        return body.tokens(tokenizers, 0, min(len(body), room))

    def body(self, tokenizers: Sequence[Any]) -> Body:
        """Tokenise for every text encoder, without regard to how much it reads.

        Raises:
            BaseModelUnsuitable: two tokenizers cut the text into different numbers of tokens.
        """
        bodies = [self._body(tokenizer) for tokenizer in tokenizers]
        first = bodies[0]
        if any(body.slots != first.slots or len(body) != len(first) for body in bodies):
            raise BaseModelUnsuitable(
                "the two tokenizers cut the same text into different tokens, so that a concept "
                "would stand at two positions; a base model's tokenizers must agree"
            )
        breaks = zip(*(body.breaks for body in bodies), strict=True)
        return Body(tuple(body.ids[0] for body in bodies), first.slots, tuple(map(min, breaks)))

    def _body(self, tokenizer: Any) -> Body:
        ids: list[int] = []
        slots = []
        breaks: list[Break] = []
        spaced = True
        for piece in self.pieces:
            if piece.text is None:
                ids.append(stand_in(tokenizer))
                slots.append(Slot(str(piece.name), len(ids), 1, supplied=True))
                breaks.append(Break.SPACE if spaced else Break.WORD)
                spaced = False
                continue
            found = encoding_of(tokenizer, piece.text)
            ids += found.ids
            if piece.name is not None:
                count = len(found.ids)
                if not count:
                    raise PromptRefused(
                        f"the super-category {piece.text!r} of <{piece.name}> gives no token; "
                        "it must be a word"
                    )
                slots.append(Slot(piece.name, len(ids), count, supplied=False))
                breaks += [Break.SPACE if spaced else Break.WORD] + [Break.NEVER] * (count - 1)
                spaced = False
                continue
            breaks += breaks_of(piece.text, found.offsets, found.word_ids, spaced)
            spaced = piece.text[-1].isspace()
        return Body((tuple(ids),), tuple(slots), tuple(breaks))


def _refuse_control_words(text: str) -> None:
    for control in _CONTROL_WORDS:
        if control in text.lower():
            raise PromptRefused(
                f"the prompt spells out {control}, which ends or begins a text for the encoder; "
                "leave it out"
            )


def plain(text: str) -> Prompt:
    """A caption as a prompt without placeholders, whatever it spells out in angle brackets."""
    for control in _CONTROL_WORDS:
        text = re.sub(re.escape(control), " ", text, flags=re.IGNORECASE)
    return Prompt((_Piece(text),))


def _checked(super_category: str) -> str:
    for control in _CONTROL_WORDS:
        if control in super_category.lower():
            raise PromptRefused(f"the super-category {super_category!r} holds a control word")
    return super_category
