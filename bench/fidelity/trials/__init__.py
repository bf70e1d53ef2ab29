"""Trials: what the method leaves open, tried both ways; `docs/decisions/0025` to `0032`.

A trial renders, and where it must also learns, in ways that the product does not offer. They are
written out here, beside the product's own way, with which a test holds them equal.
"""
