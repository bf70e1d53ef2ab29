"""Teach a concept from a folder of pictures and point `prod` at what came of it.

python examples/train_concept.py tom cat pictures/tom
"""

import sys

from perfuse.client import Client, TrainingProgress, TrainingSettings

concept, super_category, pictures, *steps = sys.argv[1:]
# No mirrored pictures: this cat's left and right differ. Few steps at a high rate, which the toybox
# likes; leave both out on Stable Diffusion.
settings = TrainingSettings(flip=0.0, steps=int(steps[0]) if steps else 100, output_rate=0.1)

with Client() as perfuse:
    run = perfuse.train(concept, [pictures], super_category=super_category, settings=settings)
    for event in perfuse.training_runs.watch(run.name):
        if isinstance(event, TrainingProgress):
            print(f"step {event.step} of {event.steps}, loss {event.loss:.3f}", end="\r")
    done = perfuse.training_runs.get(run.name)
    if not done.version:
        sys.exit(f"{done.state}: {done.error and done.error.message}")
    perfuse.aliases.point(concept, "prod", done.version)
    print(f"{done.version} is prod now, {perfuse.versions.get(done.version).size_bytes} bytes")
