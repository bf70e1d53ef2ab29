"""What people saw in pictures and plots, told beside the figures; nothing here is computed."""

from __future__ import annotations

SIGHTINGS: dict[int, str] = {}
"""A claim's number → a paragraph, with the form and date of what was looked at."""
