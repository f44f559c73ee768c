"""The kind that docs/howto/declare-a-kind.md declares, piece by piece."""

import re
import runpy
import tempfile
from pathlib import Path
from typing import Any

from pilothouse.api import Kind

_PAGE = Path(__file__).parents[3] / "docs" / "howto" / "declare-a-kind.md"


def _run(pieces: list[str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "web_sites.py"
        module.write_text("\n\n".join(pieces))
        return runpy.run_path(str(module), run_name="web_sites")


EXAMPLE = _run(re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL))
WEB_SITE: Kind[Any] = EXAMPLE["WEB_SITE"]
