"""The probe as a program: every source on a thread of its own, until a deadline."""

import argparse
import json
import os
import sys
import time
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Sequence

from kimideploy.facts.probe.base import Facts, Unknown, clean, start
from kimideploy.facts.probe.cpu import about_cpu
from kimideploy.facts.probe.disks import about_disks
from kimideploy.facts.probe.engines import about_engines
from kimideploy.facts.probe.folder import about_files, about_folder
from kimideploy.facts.probe.gpus import about_gpus
from kimideploy.facts.probe.kernel import about_kernel
from kimideploy.facts.probe.limits import about_limits
from kimideploy.facts.probe.memory import about_memory
from kimideploy.facts.probe.network import about_network
from kimideploy.facts.probe.ports import about_ports
from kimideploy.facts.probe.reach import about_listen, about_programs, about_reach
from kimideploy.facts.probe.services import about_services
from kimideploy.facts.probe.system import about_system

SCHEMA = "kimideploy.facts/1"
PROBE = "2"
#: seconds. Why so long: without persistence mode the driver wakes each GPU, some seconds apiece
DEADLINE = 60.0
#: seconds for what a plan wants to know besides
AIM_DEADLINE = 10.0


def main() -> None:
    """Print the facts of this machine."""
    parser = argparse.ArgumentParser(description="print what this machine is, as JSON")
    parser.add_argument("--venv", action="append", default=[], help="look for engines here too")
    parser.add_argument("--deadline", type=float, default=DEADLINE, help="seconds for a source")
    parser.add_argument("--aims", type=json.loads, default={}, help="what a plan wants to know")
    options = parser.parse_args()
    facts = probe(options.venv, deadline=options.deadline, aims=options.aims)
    json.dump(facts, sys.stdout)
    sys.stdout.write("\n")
    sys.stdout.flush()
    # Why: a thread that hangs in the driver must not keep the process alive.
    os._exit(0)


def probe(
    venvs: Sequence[str] = (),
    *,
    deadline: float = DEADLINE,
    root: str = "/",
    aims: Optional[Mapping[str, Any]] = None,
    only: Collection[str] = (),
) -> Facts:
    """Return the facts; *root* is where /proc, /sys and /etc are read.

    *aims* is what a plan wants to know besides: kimideploy/facts/types.py, Aims. *only* names
    the sources that are asked, all of them if it is empty.
    """
    wish = dict(aims or {})
    sources = {
        "system": lambda unknown: about_system(root, unknown),
        "cpu": lambda unknown: about_cpu(root, unknown),
        "memory": lambda unknown: about_memory(root, unknown),
        "kernel": lambda unknown: about_kernel(root, unknown),
        "limits": lambda unknown: about_limits(root, unknown),
        "disks": lambda unknown: about_disks(root, unknown),
        "network": lambda unknown: about_network(root, unknown),
        "services": lambda unknown: about_services(root, unknown),
        "gpus": lambda unknown: about_gpus(root, unknown, deadline),
        "engines": lambda unknown: about_engines(venvs, unknown, imports=bool(wish.get("imports"))),
        "ports": lambda unknown: about_ports(root, unknown),
    }  # type: Dict[str, Callable[[Unknown], Facts]]
    wanted = asked(wish, root)
    chosen = {name: source for name, source in sources.items() if not only or name in only}
    running = [(name, *start(source)) for name, source in {**chosen, **wanted}.items()]
    begun = time.monotonic()
    facts = {"schema": SCHEMA, "probe": PROBE}  # type: Facts
    unknown = []  # type: List[Dict[str, str]]
    for name, thread, outcome in running:
        patience = min(deadline, AIM_DEADLINE) if name in wanted else deadline
        # Why more than the deadline: a program that hangs is ended and said by its own source.
        thread.join(max(0.0, begun + patience + 2 - time.monotonic()))
        if "facts" in outcome:
            facts.update(outcome["facts"])
            unknown.extend(outcome["unknown"])
        else:
            reason = outcome.get("error", "no answer within %g s" % patience)
            unknown.append({"what": name, "reason": reason})
    return {**clean(facts), "unknown": clean(unknown)}


def asked(wish: Mapping[str, Any], root: str) -> Dict[str, Callable[[Unknown], Facts]]:
    """Return a source for each thing that a plan wants to know."""
    sources = {}  # type: Dict[str, Callable[[Unknown], Facts]]
    if wish.get("weights"):
        measure = float(wish.get("measure") or 0)
        sources["weights"] = lambda unknown: about_folder(wish["weights"], measure, unknown)
    if wish.get("files"):
        sources["files"] = lambda _: about_files(wish["files"], root)
    if wish.get("listen"):
        sources["listen"] = lambda _: about_listen(wish["listen"])
    if wish.get("programs"):
        sources["programs"] = lambda _: about_programs(wish["programs"], wish.get("path") or ())
    if wish.get("reach"):
        sources["reach"] = lambda unknown: about_reach(wish["reach"], unknown)
    return sources


if __name__ == "__main__":
    main()
