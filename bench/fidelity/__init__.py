"""Fidelity: the paper's claims, measured on the toybox base; `docs/fidelity.md` is written here."""
