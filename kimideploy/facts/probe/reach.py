"""What can be reached from here: the hub and the other nodes; and whether a port can be had."""

import email.utils
import errno
import os
import socket
import time
from typing import Any, List, Optional, Sequence

from kimideploy.facts.probe.base import Facts, Unknown, said, start
from kimideploy.facts.probe.ports import holders, program

#: seconds for one target, and for a resolver that does not answer
PATIENCE_REACH = 8.0


def about_reach(targets: Sequence[str], unknown: Unknown) -> Facts:
    """Return for each URL or host:port whether it answers, and how far the clocks are apart."""
    asked = [(target, *start(asking(target))) for target in targets]
    end = time.monotonic() + PATIENCE_REACH + 0.5
    found = []
    for target, thread, outcome in asked:
        thread.join(max(0.0, end - time.monotonic()))
        fallback = outcome.get("error", "no answer within %g s" % PATIENCE_REACH)
        found.append(outcome.get("facts") or {"target": target, "state": "no", "reason": fallback})
    return {"reach": found}


def asking(target: str) -> Any:
    web = target.startswith(("http://", "https://"))
    return lambda unknown: (over_http if web else over_tcp)(target)


def over_tcp(target: str) -> Facts:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE_REACH).close()
    except ConnectionRefusedError:
        # Why no failure: somebody said no, so the way there is open.
        return {"target": target, "state": "refused"}
    except OSError as error:
        return {"target": target, "state": "no", "reason": said(error)}
    return {"target": target, "state": "open"}


def over_http(target: str) -> Facts:
    import urllib.error
    import urllib.request

    request = urllib.request.Request(target, method="HEAD", headers={"User-Agent": "kimideploy"})
    sent = time.time()
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_REACH) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:
        # Why no failure: whoever says 404 has been reached.
        headers = error.headers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None)
        why = said(reason) if isinstance(reason, OSError) else str(reason or said(error))
        return {"target": target, "state": "no", "reason": why[:200]}
    # Why not then: what a cache kept has the time of when it was made.
    date = headers.get("Date") if headers.get("Age") is None else None
    return {"target": target, "state": "open", "skew": skew(date, (sent + time.time()) / 2)}


def skew(date: Optional[str], now: float) -> Optional[float]:
    """Return by how many seconds this clock is ahead of a Date header."""
    try:
        there = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (TypeError, ValueError, IndexError):
        return None
    return round(now - there, 1)


def look_at_port(host: str, port: int) -> Facts:
    """Return whether *port* of *host* can be listened on right now, and who does if not."""
    state, who, pids = "free", None, []  # type: str, Optional[str], List[int]
    try:
        if port > 65535:
            raise OverflowError(port)
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as asked:
            # Why: a port whose connections are still closing is free, and engines take it.
            asked.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            asked.bind(address)
    except OverflowError:
        state, who = "forbidden", "no port has that number"
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        state = "taken" if taken else "forbidden"
        pids = sorted(holders(port)) if taken else []
        who = (program(pids[0]) if pids else None) if taken else error.strerror or str(error)
    return {"host": host, "port": port, "state": state, "holder": who, "pids": pids}


def about_listen(wanted: Sequence[str]) -> Facts:
    """Return the state of each host:port that something is going to listen on."""
    found = []  # type: List[Facts]
    for word in wanted:
        host, _, port = word.rpartition(":")
        found.append(look_at_port(host.strip("[]"), int(port)))
    return {"listen": found}


def about_programs(words: Sequence[str], folders: Sequence[str]) -> Facts:
    """Return where the program of each word is, in *folders* first and then in PATH."""
    import shutil

    path = os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)])
    found = [(word, shutil.which(word, path=path)) for word in words]
    return {
        "programs": [
            {"word": word, "path": where, "real": os.path.realpath(where) if where else None}
            for word, where in found
        ]
    }
