"""Other packages, in a Python of their own: a script that answers requests in JSON lines."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from mtl_jax.errors import UserError


class Peers:
    """The process with the other packages.

    Args:
      python: the Python that has them, of a flag --peers.
      script: name of a script beside this file; its first line has "versions" and "missing".
      **env: variables that it gets besides this process's own.

    Attributes:
      versions: of the packages that are there.
      missing: what the script says of the others; empty where there are none.
    """

    def __init__(self, python: str, script: str, **env: str) -> None:
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        try:
            self._process = subprocess.Popen(
                [python, str(Path(__file__).with_name(script))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**kept, **env},
            )
        except OSError as error:
            raise UserError(f"--peers {python}: {error.strerror}; name a Python") from None
        hello = self._answer()
        self.versions: dict[str, str] = hello["versions"]
        self.missing: Any = hello.get("missing")

    def ask(self, **message: Any) -> dict[str, Any]:
        """Sends a request and waits for its answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise UserError(
                f"the other packages' process died with code {self._process.wait()}; see above"
            )
        return json.loads(line)
