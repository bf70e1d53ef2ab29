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

from perfuse.errors import BaseModelUnsuitable, PromptRefused

_CONTROL_WORDS = ("<|startoftext|>", "<|endoftext|>")
_PLACEHOLDER = re.compile(r"<([^\s<>|]+)>")


@dataclass(frozen=True)
class Slot:
    """Where a concept stands in a tokenised prompt.

    Attributes:
        name: the placeholder's name, without its angle brackets.
        position: of the placeholder, or of the last sub-token of the super-category in its place.
        sub_tokens: 1, or how many tokens the super-category in its place has.
        supplied: whether the word embedding at this position comes with the request.
    """

    name: str
    position: int
    sub_tokens: int
    supplied: bool


@dataclass(frozen=True)
class Tokens:
    """A tokenised prompt.

    Attributes:
        ids: per text encoder, M token ids: start, words, end of text, padding.
        end_of_text: position of the end-of-text token; padding follows.
        slots: every occurrence of a concept, in order of position.
    """

    ids: tuple[tuple[int, ...], ...]
    end_of_text: int
    slots: tuple[Slot, ...]

    @property
    def placeholders(self) -> tuple[tuple[int, str], ...]:
        """The positions whose word embedding is supplied, with the concept's name."""
        return tuple((slot.position, slot.name) for slot in self.slots if slot.supplied)


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
        bodies = [self._body(tokenizer) for tokenizer in tokenizers]
        slots = bodies[0][1]
        if any(body[1] != slots or len(body[0]) != len(bodies[0][0]) for body in bodies):
            raise BaseModelUnsuitable(
                "the two tokenizers cut the same text into different tokens, so that a concept "
                "would stand at two positions; a base model's tokenizers must agree"
            )
        room = tokenizers[0].model_max_length - 2
        if len(bodies[0][0]) > room:
            if not truncate:
                raise PromptRefused(_too_long(tokenizers[0], bodies[0][0], slots, room))
            slots = tuple(slot for slot in slots if slot.position <= room)
        end = min(len(bodies[0][0]), room) + 1
        rows = []
        for tokenizer, (body, _) in zip(tokenizers, bodies, strict=True):
            row = [tokenizer.bos_token_id, *body[:room], tokenizer.eos_token_id]
            row += [tokenizer.pad_token_id] * (tokenizer.model_max_length - len(row))
            rows.append(tuple(row))
        return Tokens(tuple(rows), end, slots)

    def _body(self, tokenizer: Any) -> tuple[list[int], tuple[Slot, ...]]:
        """Token ids between start and end of text, with the slots at their final positions."""
        ids: list[int] = []
        slots = []
        for piece in self.pieces:
            if piece.text is None:
                ids.append(_stand_in(tokenizer))
                slots.append(Slot(str(piece.name), len(ids), 1, supplied=True))
                continue
            words = tokenizer(piece.text, add_special_tokens=False, verbose=False).input_ids
            ids += words
            if piece.name is not None:
                if not words:
                    raise PromptRefused(
                        f"the super-category {piece.text!r} of <{piece.name}> gives no token; "
                        "it must be a word"
                    )
                slots.append(Slot(piece.name, len(ids), len(words), supplied=False))
        return ids, tuple(slots)


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


def _stand_in(tokenizer: Any) -> int:
    """An id that is neither special nor the highest: pooling looks for those."""
    special = set(tokenizer.all_special_ids)
    return next(token for token in range(len(tokenizer)) if token not in special)


def _too_long(tokenizer: Any, body: list[int], slots: tuple[Slot, ...], room: int) -> str:
    names = {slot.position - 1: slot.name for slot in slots if slot.supplied}
    words = [
        f"<{names[place]}>" if place in names else tokenizer.decode([token]).strip()
        for place, token in enumerate(body)
    ]
    kept, lost = " ".join(words[max(0, room - 4) : room]), " ".join(words[room : room + 4])
    return (
        f"the prompt has {len(body)} tokens and the text encoder reads {room}; the limit falls "
        f"after '... {kept}' and before '{lost} ...': shorten it by {len(body) - room} tokens"
    )
