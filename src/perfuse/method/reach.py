"""At which positions of a prompt an edit acts.

    NAMED       from the first concept's word through the end of the text
    EVERYWHERE  at every position                                          (paper Eq. 3, App. B)

A causal text encoder knows nothing of a concept before its word, and most attention rests on the
start token and on padding, where a gate's tail of a few hundredths weighs heavily: it washes
scenes out and changes what is named beside the concept (docs/decisions/0030-reach.md has the
figures). Concepts are trained in the paper's form.
"""

from __future__ import annotations

from enum import StrEnum


class Reach(StrEnum):
    """The two ways; the value is the name."""

    NAMED = "NAMED"
    EVERYWHERE = "EVERYWHERE"
