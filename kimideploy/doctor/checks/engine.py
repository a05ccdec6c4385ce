"""The engine: there, of a version that serves the model, and with its own packages."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from kimideploy.catalog.versions import denial, older, release
from kimideploy.doctor.case import Case, program_of
from kimideploy.doctor.check import PLANNED, PYTHON, check, engine
from kimideploy.doctor.types import Finding
from kimideploy.engines.site import unresolved
from kimideploy.errors import RequestError
from kimideploy.planning.rules import RAWINT4_ISA

_KT_DETECT = (
    "https://github.com/kvcache-ai/ktransformers/blob/1cd083d8c6c9f6ca6aa65264258e54ed5bd860c2/"
    "kt-kernel/python/_cpu_detect.py"
)
#: as the allocator reads it: https://docs.pytorch.org/docs/stable/notes/cuda.html
_EXPANDABLE = re.compile(r"expandable_segments\s*:\s*(true|1)", re.IGNORECASE)
_ALLOCATOR = ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_HIP_ALLOC_CONF")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>|~=)\s*([0-9]+(?:\.[0-9A-Za-z+]+)*(?:\.\*)?)")


@check(
    "command",
    "blocks",
    scope=PLANNED,
    why="a placeholder in the command is never run",
    refusal=RequestError,
)
def command(case: Case) -> Iterator[Finding]:
    """Every word of the command is said."""
    missing = unresolved(case.command)
    if missing:
        yield Finding(
            f"{', '.join(missing)} stands for a word nobody has said",
            "plan again with --head-address ADDRESS or --model-path FILE",
        )


@check("engine", "blocks", scope=PLANNED, why="without it there is nothing to start")
def engine_there(case: Case) -> Iterator[Finding]:
    """The engine's program is found."""
    if case.installs or case.container is not None:
        return
    case.known(case.facts.programs, "programs")
    program = program_of(case.facts, case.command)
    # Why: any machine has the python3 that KTransformers is started by.
    bare = case.plan.engine.id == "ktransformers" and not any(
        engine.engine == "ktransformers" for engine in case.facts.engines
    )
    if program is not None and not bare:
        yield Finding(program, severity="fine")
    elif bare and program is not None:
        yield Finding(
            f"{program} has no kt-kernel and sglang-kt",
            f"uv pip install {shlex.join(case.plan.engine.install.requirements.get('nvidia', ()))}",
        )
    else:
        site = case.plan
        wanted = site.engine.install.requirements.get("amd" if site.amd else "nvidia", ())
        how = f"; to install it: uv pip install {shlex.join(wanted)}" if wanted else ""
        yield Finding(
            f"{site.engine.name} is not here: no {case.command.argv[0]} in PATH",
            f"--venv FOLDER names the environment it is in{how}",
        )


@check(
    "engine-version",
    "blocks",
    scope=PLANNED,
    why="older versions don't know the model or its parsers, and some crash or lose the reasoning",
    link="https://github.com/vllm-project/vllm/issues/37397",
)
def engine_version(case: Case) -> Iterator[Finding]:
    """The engine's version serves the model and is not denied on this machine."""
    if case.installs or case.container is not None:
        return
    site, found = case.plan, case.engine
    profile = site.engine
    if found is None:
        return
    version = found.version
    if version is None:
        yield Finding(
            f"{profile.name} does not say its version; the plan is for {profile.versions.pinned}",
            severity="warns",
        )
        return
    floor = site.model.engines.get(profile.id)
    for minimum in (profile.versions.minimum, floor.minimum if floor is not None else None):
        if minimum is not None and older(version, minimum):
            yield Finding(
                f"{profile.name} {version} is older than {minimum}, which {site.model.name} needs",
                f"install {profile.versions.pinned}",
            )
            return
    denied = denial(
        profile,
        version,
        generation=site.node.generation,
        architecture=case.facts.cpu.architecture,
    )
    if denied is not None:
        yield Finding(
            f"{profile.name} {version} must not be used here: {denied.why}",
            f"install {profile.versions.pinned}; see {denied.link}",
        )
    else:
        yield Finding(f"{profile.name} {version}", severity="fine")


@check(
    "engine-imports",
    "blocks",
    scope=PYTHON,
    why="the tokenizer of the family is tiktoken's, and the engine ends without it",
    link="https://github.com/vllm-project/vllm/issues/21750",
)
def engine_imports(case: Case) -> Iterator[Finding]:
    """The tokenizer's packages can be imported where the engine is."""
    found = case.engine
    if found is None:
        return
    for broken in case.known(found.broken_imports, "imports of"):
        name = broken.partition(":")[0]
        if name in case.plan.engine.install.imports:
            yield Finding(
                f"{broken}, in the environment of {found.path}",
                f"uv pip install --python {_python(found.path)} {name}",
                # Why: tiktoken asks for it only when it fetches from stores other than the web.
                "warns" if name == "blobfile" else None,
            )


@check(
    "engine-packages",
    "blocks",
    scope=PYTHON,
    why="an engine with packages other than it asks for fails late, or answers wrongly; the model"
    " card's transformers below 5 holds for engines that read the model by its own code",
    link="https://huggingface.co/moonshotai/Kimi-K2.7-Code",
)
def engine_packages(case: Case) -> Iterator[Finding]:
    """The packages beside the engine are of the versions it asks for."""
    found = case.engine
    if found is None:
        return
    for want in found.wants:
        name = re.split(r"[^A-Za-z0-9._-]", want)[0].lower()
        version = found.packages.get(name)
        if version is None:
            if name in found.packages or name not in ("tiktoken", "transformers"):
                continue
            yield Finding(
                f"{case.plan.engine.name} asks for {want}, and there is none",
                f"uv pip install --python {_python(found.path)} {shlex.quote(want)}",
            )
        elif not _within(version, want):
            yield Finding(
                f"{name} is {version}, and {case.plan.engine.name} asks for {want}",
                f"uv pip install --python {_python(found.path)} {shlex.quote(want)}",
                # Why: of the others a build of one's own is often meant so.
                None if name == "transformers" else "warns",
            )


@check(
    "engine-shadowed",
    "warns",
    scope=PYTHON,
    why="packages of a user's own folder or of PYTHONPATH were seen to take the place of the"
    " engine's",
    link="https://docs.python.org/3/using/cmdline.html#envvar-PYTHONNOUSERSITE",
)
def engine_shadowed(case: Case) -> Iterator[Finding]:
    """Nothing outside the engine's environment hides its packages."""
    found = case.engine
    if found is None:
        return
    isolated = bool(case.environment.get("PYTHONNOUSERSITE"))
    hidden = [path for path in found.shadowed if not (isolated and "/.local/lib/" in path)]
    if hidden and not case.unit:
        by_path = any("/.local/lib/" not in path for path in hidden)
        yield Finding(
            f"{hidden[0]}{f' and {len(hidden) - 1} more' if len(hidden) > 1 else ''} would be"
            " imported instead of the engine's own",
            "unset PYTHONPATH" if by_path else "export PYTHONNOUSERSITE=1",
        )


@check(
    "glibc",
    "blocks",
    scope=PYTHON,
    why="pip does not say that a wheel is too new for the system, only that it finds none",
    link="https://peps.python.org/pep-0600/",
)
def glibc(case: Case) -> Iterator[Finding]:
    """The C library is new enough for the engine's wheels."""
    wheel = case.plan.engine.install.wheel
    if wheel is None or case.container is not None or not (case.installs or case.engine is None):
        return
    have = case.known(case.facts.glibc, "glibc")
    if older(have, wheel.glibc):
        yield Finding(
            f"glibc is {have}, and the wheels of {case.plan.engine.name}"
            f" {case.plan.engine.versions.pinned} need {wheel.glibc}",
            "a newer distribution, or the engine's container image",
        )


@check(
    "wheel-platform",
    "blocks",
    scope=PYTHON,
    why="there are wheels for some processors and Pythons only",
    link="https://peps.python.org/pep-0600/",
)
def wheel_platform(case: Case) -> Iterator[Finding]:
    """There is a wheel of the engine for this processor."""
    wheel = case.plan.engine.install.wheel
    if wheel is None or case.container is not None or not (case.installs or case.engine is None):
        return
    here = case.known(case.facts.cpu.architecture, "cpu")
    if here not in wheel.architectures:
        yield Finding(
            f"this is {here}, and {case.plan.engine.name} has wheels for"
            f" {', '.join(wheel.architectures)}",
            "plan with another engine, or build it",
        )
    python = release(case.facts.python or "")
    low, high = release(wheel.python), release(wheel.python_most)
    if python is None or low is None or high is None:
        return
    # Why a note: uv fetches a Python of its own where the system's does not serve.
    if not low[:2] <= python[:2] <= high[:2]:
        yield Finding(
            f"Python here is {case.facts.python}, and the wheels are for {wheel.python} to"
            f" {wheel.python_most}",
            f"uv venv --python {wheel.python_most}",
            "notes",
        )


@check(
    "kt-isa",
    "blocks",
    scope=engine("ktransformers"),
    why="kt-kernel takes its AVX2 build where the processor fits none, and that ends with an"
    " illegal instruction, or is slow",
    link=_KT_DETECT,
)
def kt_isa(case: Case) -> Iterator[Finding]:
    """The processor has the instructions that kt-kernel computes experts with."""
    flags = set(case.known(case.facts.cpu.flags, "cpu flags", "cpu"))
    if "avx2" not in flags:
        yield Finding(
            "this processor has no AVX2, the least that kt-kernel is built for",
            "a GGUF on llama.cpp: --engine llamacpp",
        )
    elif not set(RAWINT4_ISA) <= flags:
        yield Finding(
            "this processor has no AVX-512: kt-kernel falls back to AVX2",
            "expect less than the estimate",
            "warns",
        )


@check(
    "parsers",
    "blocks",
    scope=engine("vllm", "sglang", "ktransformers"),
    why="without them reasoning and tool calls stay in the text, and the model silently gets worse",
    link="https://github.com/vllm-project/vllm/pull/37438",
    refusal=RequestError,
)
def parsers(case: Case) -> Iterator[Finding]:
    """The command names the kimi_k2 parsers, and lets the model choose tools."""
    site, argv = case.plan, case.command.argv
    wanted = [
        ("tool_parser", site.model.tool_parser),
        ("reasoning_parser", site.model.reasoning_parser),
    ]
    if site.engine.id == "vllm" and site.model.tool_parser is not None:
        wanted.append(("auto_tools", ""))
    for concept, value in wanted:
        flag = site.engine.flags.get(concept)
        if value is None or flag is None:
            continue
        word = flag.word
        at = next((i for i, said in enumerate(argv) if said == word), None)
        said = argv[at + 1] if at is not None and at + 1 < len(argv) else None
        if at is None:
            yield Finding(
                f"the command lacks {word}", f"plan again, or add {word} {value}".rstrip()
            )
        elif value and said != value:
            yield Finding(f"{word} is {said}, and the model needs {value}", f"{word} {value}")


@check(
    "alloc-conf",
    "blocks",
    scope=engine("vllm", "ktransformers"),
    why="custom all-reduce can't share memory that PyTorch may move; the workers die while graphs"
    " are captured, without a traceback",
    link="https://github.com/vllm-project/vllm/issues/42609",
)
def alloc_conf(case: Case) -> Iterator[Finding]:
    """PyTorch's expandable segments are off where custom all-reduce is on."""
    tp = case.plan.layout.tp
    if tp < 2 or "--disable-custom-all-reduce" in case.command.argv:  # noqa: PLR2004
        return
    over_pcie = any(peer.link != "nvlink" for gpu in case.facts.gpus for peer in gpu.peers)
    if tp > 2 and over_pcie:  # noqa: PLR2004
        # Why: vLLM turns it off by itself then (custom_all_reduce.py of 0.32.0).
        return
    # Why the first one: PyTorch reads them in this order.
    name = next((name for name in _ALLOCATOR if name in case.environment), None)
    if name is not None and _EXPANDABLE.search(case.environment[name]):
        yield Finding(
            f"{name}={case.environment[name]}", f"unset {name}, or --disable-custom-all-reduce"
        )


@check(
    "ready-timeout",
    "warns",
    scope=engine("vllm"),
    why="vLLM ends its own start after this time, ten minutes where nothing is said",
    link="https://github.com/vllm-project/vllm-ascend/pull/7098",
)
def ready_timeout(case: Case) -> Iterator[Finding]:
    """vLLM's own deadline is longer than the load."""
    usual = str(int(case.count("long_load")))
    said = case.environment.get("VLLM_ENGINE_READY_TIMEOUT_S", usual)
    weights = case.facts.weights
    rate = case.known(weights.read_rate if weights is not None else None, "read rate", "weights")
    if not said.isdecimal():
        return
    seconds = case.known(case.size) / rate
    if seconds > int(said):
        yield Finding(
            f"reading the weights takes {seconds / 60:.0f} min here, and vLLM waits"
            f" {int(said) / 60:.0f} min",
            f"VLLM_ENGINE_READY_TIMEOUT_S={int(2 * seconds)}",
        )


def _within(version: str, want: str) -> bool:
    """Return whether *version* is inside the bounds of a requirement; unread bounds hold."""
    have = release(version)
    if have is None:
        return True
    for sign, said in _BOUND.findall(want):
        word = said.removesuffix(".*")
        bound = release(word)
        if bound is None:
            continue
        if word != said:
            same = have[: len(bound)] == bound
            if same != (sign == "=="):
                return False
            continue
        width = max(len(have), len(bound))
        a, b = _padded(have, width), _padded(bound, width)
        holds = {
            ">=": a >= b,
            "<=": a <= b,
            "==": a == b,
            "!=": a != b,
            "<": a < b,
            ">": a > b,
            "~=": a >= b and have[: word.count(".")] == bound[: word.count(".")],
        }[sign]
        if not holds:
            return False
    return True


def _padded(numbers: tuple[int, ...], width: int) -> tuple[int, ...]:
    return numbers + (0,) * (width - len(numbers))


def _python(program: str) -> str:
    return f"{program.rpartition('/')[0]}/python"
