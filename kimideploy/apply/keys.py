"""How an engine is given its API key: in a file, never in argv and never in its environment."""

from __future__ import annotations

import json
from pathlib import Path

from kimideploy.apply.files import write
from kimideploy.apply.job import Job
from kimideploy.errors import MachineError


def key_of(job: Job) -> str | None:
    """Return the key a client of this host's endpoint needs; root reads it where it lies."""
    if not job.launch.secrets:
        return None
    return _read(Path(job.launch.secrets[0].file))


def handed_over(
    job: Job, credentials: Path | None, runtime: Path
) -> tuple[tuple[str, ...], str | None]:
    """Return the engine's words with the file that holds its key, and the key; None: it needs none.

    systemd hands the key over in *credentials*. vLLM reads options from a file with --config and
    llama-server keys with --api-key-file; what is written for vLLM in *runtime* has mode 0600.
    """
    if not job.launch.secrets:
        return job.argv, None
    (secret,) = job.launch.secrets
    path = credentials / secret.variable if credentials is not None else Path(secret.file)
    key = _read(path)
    if job.site.engine.id == "llamacpp":
        return (*job.argv, "--api-key-file", str(path)), key
    options = runtime / "engine-options.yaml"
    write(options, f"api-key: {json.dumps(key)}\n".encode(), mode=0o600)
    return (*job.argv, "--config", str(options)), key


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"the key in {path} can't be read: {error}") from error
