"""What a process that is started here may take: locked memory, files, tasks; and its variables."""

import os
import re
from typing import Any, Iterable, List, Optional

from kimideploy.facts.probe.base import Facts, Unknown, number, read_or, under
from kimideploy.facts.probe.memory import limits_above

#: variables that change how an engine runs; no secret is among them
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "GLOO_SOCKET_IFNAME",
    "HIP_VISIBLE_DEVICES",
    "HF_ENDPOINT",
    "HF_HUB_DISABLE_XET",
    "HF_HUB_OFFLINE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "NCCL_CUMEM_ENABLE",
    "NCCL_IB_DISABLE",
    "NCCL_IB_HCA",
    "NCCL_P2P_DISABLE",
    "NCCL_P2P_LEVEL",
    "NCCL_SHM_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "PYTHONNOUSERSITE",
    "PYTHONPATH",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_HIP_ALLOC_CONF",
    "ROCR_VISIBLE_DEVICES",
    "SAFETENSORS_FAST_GPU",
    "TMPDIR",
    "VLLM_ALLOW_INSECURE_SERIALIZATION",
    "VLLM_ATTENTION_BACKEND",
    "VLLM_ENGINE_READY_TIMEOUT_S",
    "VLLM_HOST_IP",
    "VLLM_SERVER_DEV_MODE",
)
USERINFO = re.compile(r"//[^/@\s]*@")


def about_limits(root: str, unknown: Unknown) -> Facts:
    facts = {"limits": {"tasks": tasks(root)}}  # type: Facts
    try:
        import resource
    except ImportError:
        unknown.add("limits", "this system has no limits of processes")
    else:
        for field, name in (("memlock", "RLIMIT_MEMLOCK"), ("nofile", "RLIMIT_NOFILE")):
            kind = getattr(resource, name, None)
            if kind is not None:
                # Why the hard one: engines raise the soft limit to it by themselves.
                hard = resource.getrlimit(kind)[1]
                none = hard in (resource.RLIM_INFINITY, -1)
                facts["limits"][field] = "unlimited" if none else hard
    given = [(name, os.environ[name]) for name in VARIABLES if name in os.environ]
    facts["environment"] = [[name, USERINFO.sub("//", value)] for name, value in given]
    facts["home"] = os.path.expanduser("~")
    return facts


def tasks(root: str) -> Any:
    """Return how many tasks the cgroups above this process allow; None where they don't say."""
    found = []  # type: List[Optional[int]]
    said = False
    for line in read_or(under(root, "/proc/self/cgroup")).splitlines():
        hierarchy, controllers, path = (line.split(":", 2) + ["", ""])[:3]
        if hierarchy == "0" and not controllers:
            each = limits_above(root, path, "cgroup2", "", "pids.max")  # type: Iterable[Any]
        elif "pids" in controllers.split(","):
            each = limits_above(root, path, "cgroup", "pids", "pids.max")
        else:
            continue
        said = True
        found += list(each)
    real = [limit for limit in found if limit is not None]
    most = number(read_or(under(root, "/proc/sys/kernel/pid_max")))
    return min(real) if real else "unlimited" if said and most else None
