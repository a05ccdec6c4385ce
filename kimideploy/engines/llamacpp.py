"""llama.cpp: the command and environment of llama-server on one node.

Sources: https://unsloth.ai/docs/models/kimi-k2.7-code and llama-server --help.

Left at the engine's default on purpose: weights are mapped, not read (`--load-mode`), so a
restart finds the experts in the page cache and the GPUs' share never takes host memory; the
planner has already proved that the rest fits into RAM.
"""

from __future__ import annotations

from kimideploy.engines.site import FIRST_PART, Site

#: more than any model has: every layer's attention goes to a GPU
_ALL_LAYERS = 99
_GGUF = ".gguf"

#: other spellings of flags that are ours (llama.cpp, common/arg.cpp)
SYNONYMS = (
    ("--model", "-m", "--model-url", "-mu", "--docker-repo", "-dr"),
    ("--model", "--hf-repo", "-hf", "-hfr", "--hf-file", "-hff"),
    ("--alias", "-a"),
    ("--ctx-size", "-c"),
    ("--parallel", "-np"),
    ("--n-gpu-layers", "--gpu-layers", "-ngl"),
    ("--override-tensor", "-ot"),
    ("--cpu-moe", "-cmoe"),
    ("--n-cpu-moe", "-ncmoe"),
    ("--tensor-split", "-ts"),
    ("--threads", "-t"),
    ("--cache-type-k", "-ctk"),
    ("--temp", "--temperature"),
    ("--mmproj", "-mm"),
    ("--fit", "-fit"),
)


def command(site: Site) -> tuple[str, ...]:
    """Return the words that serve the plan on its one node."""
    plan, model, say = site.plan, site.model, site.say
    sequences = plan.request.concurrency
    projector = model.vision.projector_file if model.vision is not None else None
    return (
        *site.engine.command,
        *say("model", first_part(site)),
        *say("mmproj", f"{_folder(site)}/{projector}", when=site.vision and projector is not None),
        *say("served_name", plan.served_name),
        *say("host", plan.request.bind),
        *say("port", site.port),
        *say("jinja"),
        *say("reasoning_format", "deepseek"),
        # Why: the server deals --ctx-size out to its slots.
        *say("context", plan.fit.context * sequences),
        *say("parallel", sequences),
        # Why: the default, f16, takes the bytes the plan counted for bf16; MLA caches K only.
        *say("kv_dtype", "q8_0", when=plan.candidate.kv_dtype == "q8_0"),
        *_placement(site),
        *say("threads", site.cores, when=site.cores is not None),
        *say("numa", "distribute", when=site.numa is not None and site.numa > 1),
        *say("temperature", model.sampling.temperature),
        *say("top_p", model.sampling.top_p, when=model.sampling.top_p is not None),
        *say("metrics"),
    )


def environment(_site: Site) -> dict[str, str]:
    """Return what the process finds in its environment: nothing of its own."""
    return {}


def first_part(site: Site) -> str:
    """Return the file to load; llama-server finds the other parts beside it."""
    if site.folder.endswith(_GGUF):
        return site.folder
    quant, parts = site.checkpoint.quant, site.checkpoint.files
    name = (site.checkpoint.repo or "").rpartition("/")[2].removesuffix("-GGUF")
    if quant is None:
        return f"{site.folder}/{FIRST_PART}"
    if parts is None:
        return f"{site.folder}/{quant}/{FIRST_PART}"
    if parts == 1:
        return f"{site.folder}/{quant}/{name}-{quant}.gguf"
    return f"{site.folder}/{quant}/{name}-{quant}-00001-of-{parts:05}.gguf"


def _folder(site: Site) -> str:
    """The repository's folder: where a file was named, above the quant's own folder."""
    if not site.folder.endswith(_GGUF):
        return site.folder
    beside = site.folder.rpartition("/")[0]
    return beside.removesuffix(f"/{site.checkpoint.quant}")


def _placement(site: Site) -> tuple[str, ...]:
    """Return where the layers live: all attention on the GPUs, experts as the plan dealt them."""
    offload, say = site.plan.candidate.offload, site.say
    gpus = site.plan.candidate.gpus_per_node
    if not gpus:
        return say("gpu_layers", 0)
    held = offload.gpu_layers if offload is not None else None
    on_gpu = {layer for group in held or () for layer in group}
    outside = [i for i in range(site.dense_layers, site.layers) if i not in on_gpu]
    return (
        *say("gpu_layers", _ALL_LAYERS),
        # Why: else llama-server fits what is not said to the memory it finds.
        *say("fit", "off"),
        *say("tensor_split", _split(site.layers, gpus), when=gpus > 1),
        *_outside(site, outside, gpus=gpus),
    )


def _outside(site: Site, layers: list[int], *, gpus: int) -> tuple[str, ...]:
    """Say which layers' experts the CPU computes, in the shortest of llama-server's three ways."""
    every = site.layers - site.dense_layers
    if not layers:
        return ()
    if len(layers) == every:
        return site.say("cpu_moe")
    if gpus == 1:
        # Why: it counts layers from the first, and which of equal layers are outside is all one.
        return site.say("cpu_moe_layers", site.dense_layers + len(layers))
    # Why not "=CUDA0" for the others: they follow their layer's attention, by any vendor's name.
    numbers = "|".join(map(str, layers))
    return site.say("override_tensor", rf"blk\.({numbers})\.ffn_.*_exps\.=CPU")


def _split(layers: int, gpus: int) -> str:
    """Layers on each GPU as the planner dealt them, larger blocks first, and the output layer last.

    llama.cpp compares layer / total with the running sum of these numbers, so whole numbers of
    layers are exact.
    """
    each, rest = divmod(layers, gpus)
    counts = [each + (index < rest) for index in range(gpus)]
    counts[-1] += 1
    return ",".join(map(str, counts))
