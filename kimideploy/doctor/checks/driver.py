"""The driver against the CUDA that the engine was built for."""

from __future__ import annotations

from collections.abc import Iterator

from kimideploy.catalog.find import gpu_by_driver_name
from kimideploy.catalog.versions import release
from kimideploy.doctor.case import Case, Unseen
from kimideploy.doctor.check import NVIDIA, PYTHON, check
from kimideploy.doctor.types import Finding

_COMPATIBILITY = "https://docs.nvidia.com/deploy/cuda-compatibility/"


@check(
    "driver-cuda",
    "blocks",
    scope=NVIDIA & PYTHON,
    why="CUDA ends with error 35 or 803 when the driver is of an older major version than the"
    " engine's build",
    link="https://github.com/vllm-project/vllm/pull/33992",
)
def driver_cuda(case: Case) -> Iterator[Finding]:
    """The driver can run the CUDA that the engine was built for."""
    driver = case.facts.driver
    newest = case.known(driver.cuda if driver is not None else None, "CUDA version", "GPUs")
    built = _cuda_of_engine(case)
    have, need = release(newest), release(built)
    if have is None or need is None or have[0] >= need[0]:
        return
    floors = {one.major: one.driver for one in case.catalog.thresholds.cuda}
    floor = floors.get(need[0])
    version = driver.version if driver is not None else None
    yield Finding(
        f"the engine is built for CUDA {built}, and the driver"
        f"{f' {version}' if version is not None else ''} runs {newest} at most",
        f"install driver r{floor} or newer" if floor is not None else "install a newer driver",
    )


@check(
    "cuda-library",
    "blocks",
    scope=NVIDIA & PYTHON,
    why="a libcuda of another version than the kernel module works one way only: newer, on"
    " data-centre cards (errors 803 and 804)",
    link=_COMPATIBILITY,
)
def cuda_library(case: Case) -> Iterator[Finding]:
    """The libcuda that a program would load is the kernel module's own."""
    driver = case.facts.driver
    module = driver.kernel_module if driver is not None else None
    library = driver.library if driver is not None else None
    mine = release(str(case.known(library, "driver")))
    theirs = release(str(case.known(module, "driver")))
    if mine is None or theirs is None or mine == theirs:
        return
    said = f"programs load libcuda {library}, and the kernel module is {module}"
    if mine < theirs:
        yield Finding(
            f"{said}: CUDA fails with error 803",
            "take the older libcuda out of LD_LIBRARY_PATH and of /etc/ld.so.conf.d",
        )
    elif _is_for_games(case):
        yield Finding(
            f"{said}: these cards have no forward compatibility, CUDA fails with error 804",
            "install the driver of that version instead of the compatibility package",
        )
    else:
        yield Finding(f"{said}: this is forward compatibility", None, "notes")


@check(
    "cuda-modules",
    "warns",
    scope=NVIDIA,
    why="CUDA needs the module, and a hardened service can't load it",
)
def cuda_modules(case: Case) -> Iterator[Finding]:
    """The kernel module nvidia_uvm is loaded."""
    settings = case.facts.settings
    modules = case.known(settings.modules if settings is not None else None, "kernel")
    if "nvidia" in modules and "nvidia_uvm" not in modules:
        yield Finding("nvidia is loaded and nvidia_uvm is not", "modprobe nvidia_uvm")


def _cuda_of_engine(case: Case) -> str:
    """The CUDA of the installed engine, or of the one that is going to be installed."""
    engine = case.engine
    if engine is not None:
        return str(case.known(engine.cuda, "engines"))
    if case.container is not None:
        raise Unseen("the image brings its own CUDA")
    wheel = case.plan.engine.install.wheel if case.installs else None
    return str(case.known(wheel.cuda if wheel is not None else None, "engines"))


def _is_for_games(case: Case) -> bool:
    """Whether the cards are of the GeForce line, by the name the driver gives."""
    names = [gpu.name or "" for gpu in case.gpus]
    kinds = [gpu_by_driver_name(case.catalog, name, None) for name in names]
    return any("GeForce" in name for name in names) or all(
        kind is not None and kind.id.startswith("rtx") and "pro" not in kind.id for kind in kinds
    )
