"""Render a prompt that names concepts, and say what went into each picture.

python examples/render.py "a photo of <tom@prod> in the snow" pictures
"""

import sys
from pathlib import Path

from perfuse.client import Client

prompt, folder = sys.argv[1], Path(sys.argv[2])

with Client() as perfuse:
    for image in perfuse.render(prompt, seeds=(1, 2), key_lock="GLOBAL"):
        record = image.record
        place = image.save(folder / f"seed-{record.seed}")
        concepts = ", ".join(f"{each.version} ({each.digest[:14]})" for each in record.concepts)
        print(f"{place}: {concepts}, {record.steps} steps, guidance {record.guidance:g}")
