"""AMD's GPUs by rocm-smi."""

import json
import time

from kimideploy.facts.probe.base import Facts, Unknown, find_program, number, run, said
from kimideploy.facts.probe.vendor import Refused


def over_rocm_smi(unknown: Unknown, end: float) -> Facts:
    """Return AMD's GPUs: name, memory and architecture, as rocm-smi's JSON gives them.

    Unproved: written after published output; no AMD GPU was at hand.
    """
    program = find_program("rocm-smi", "/opt/rocm/bin")
    if program is None:
        raise Refused("not in PATH")
    options = ["--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json"]
    try:
        output = run([program] + options, end - time.monotonic())[1]
    except (OSError, TimeoutError) as error:
        raise Refused(error if isinstance(error, TimeoutError) else said(error))
    try:
        # Why: warnings are printed before the object.
        cards = json.loads(output[max(0, output.find("{")) :])
    except ValueError:
        raise Refused("it printed no JSON: " + output.strip()[:200])
    gpus = []
    version = None
    for key, card in cards.items():
        values = {name.lower(): value for name, value in card.items()}
        version = values.get("driver version", version)
        index = number(key[4:]) if key.startswith("card") else None
        if index is None:
            continue
        total = number(values.get("vram total memory (b)"))
        used = number(values.get("vram total used memory (b)"))
        gpu = {"index": index, "memory_total": total, "memory_used": used}  # type: Facts
        if total is not None and used is not None:
            gpu["memory_free"] = total - used
        gpu["name"] = values.get("card series") or values.get("card model")
        gpu["compute_capability"] = values.get("gfx version")
        gpus.append(gpu)
    if not gpus:
        raise Refused("it lists no GPU")
    unknown.add("links, processes and modes of AMD GPUs", "rocm-smi is asked for names and memory")
    gpus.sort(key=lambda gpu: int(gpu["index"]))
    return {"gpus": gpus, "driver": {"version": version, "source": "rocm-smi"}}
