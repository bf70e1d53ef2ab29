"""Move a finished concept from likeness to editability by its bias alone, many at a time.

python examples/sweep.py "a photo of <tom> on the beach" tom pictures
"""

import asyncio
import sys
from pathlib import Path

from perfuse.client import AsyncClient, ConceptSettings

prompt, concept, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])


async def main() -> None:
    async with AsyncClient() as perfuse:

        async def one(bias: float) -> None:
            settings = {concept: ConceptSettings(bias=bias)}
            (image,) = await perfuse.render(prompt, seeds=(3,), concepts=settings)
            print(image.save(folder / f"bias-{bias:.1f}"))

        await asyncio.gather(*(one(step / 10) for step in range(3, 10)))


asyncio.run(main())
