"""Measures client-go and the runtime of one checkout once; writes the figures to a file.

`tests.bench.against` runs this file with the modules of the checkout that it measures, which may be of an
earlier revision. So it uses only names that the benchmark has had for long.
"""

import asyncio
import json
import sys
from pathlib import Path

from tests.bench import contestants, image
from tests.bench.measure import told
from tests.bench.quiet import quiet_bench

ENTRIES = (contestants.CLIENT_GO, contestants.LIKE_FOR_LIKE, contestants.SHIPPED)


async def measure(tickets: int) -> dict[str, dict[str, float]]:
    """Measures each entry idle without tickets, and then a cold run, a storm and a restart."""
    figures: dict[str, dict[str, float]] = {}
    async with quiet_bench() as bench:
        await bench.node.fill(0)
        for entry in ENTRIES:
            figures[entry.name] = told(await bench.empty(entry))
        for entry in ENTRIES:
            figures[entry.name] |= told(await bench.cold(entry, tickets, thorough=True))
    return figures


if __name__ == "__main__":
    image.install(contestants.OURS)
    Path(sys.argv[1]).write_text(json.dumps(asyncio.run(measure(int(sys.argv[2]))), indent=1))
