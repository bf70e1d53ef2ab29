"""Where the shipped base model lies. To name it loads nothing."""

from pathlib import Path

DIRECTORY = Path(__file__).parent / "base"
"""In diffusers layout, prepared; `BaseModel.load` and stock diffusers load it."""
