"""python -m tests.hub REPO FOLDER…: serve each FOLDER as REPO, print the hub's address, stay."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from tests.hub.server import running


def main() -> None:
    """Serve until the process is ended."""
    with running() as hub:
        repo, folder = sys.argv[1:]
        commit = hub.add(repo, Path(folder))
        print(hub.url, commit, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
