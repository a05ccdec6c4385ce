"""Checkpoints made of headers alone: real names, types and shapes in sparse files, and a hub."""

from __future__ import annotations

import json
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from math import prod
from pathlib import Path
from typing import Any

from kimideploy.catalog.load import load_catalog
from kimideploy.catalog.types import Architecture
from kimideploy.planning.architecture import FIELDS

KIMI = load_catalog().architectures["kimi-k2"]
#: name → type and shape
Names = dict[str, tuple[str, tuple[int, ...]]]
_BYTES = {"BF16": 2, "I32": 4, "F32": 4, "U8": 1, "F8_E4M3": 1}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def config_of(a: Architecture, **changed: Any) -> dict[str, Any]:
    """Return a config.json of the shape *a*."""
    text = {key: getattr(a, name) for name, key in FIELDS.items()}
    text["num_nextn_predict_layers"] = 0
    return {"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", **text, **changed}


def layer(a: Architecture, number: int, *, packed: bool = True) -> Names:
    """Return the tensors of one layer, experts in compressed-tensors' INT4 where *packed*."""
    head = a.qk_nope_head_dim + a.qk_rope_head_dim
    at = f"model.layers.{number}."
    plain = {
        "self_attn.q_a_proj": (a.q_lora_rank, a.hidden),
        "self_attn.q_b_proj": (a.heads * head, a.q_lora_rank),
        "self_attn.kv_a_proj_with_mqa": (a.kv_lora_rank + a.qk_rope_head_dim, a.hidden),
        "self_attn.kv_b_proj": (a.heads * (a.qk_nope_head_dim + a.v_head_dim), a.kv_lora_rank),
        "self_attn.o_proj": (a.hidden, a.heads * a.v_head_dim),
        "self_attn.q_a_layernorm": (a.q_lora_rank,),
        "self_attn.kv_a_layernorm": (a.kv_lora_rank,),
        "input_layernorm": (a.hidden,),
        "post_attention_layernorm": (a.hidden,),
    }
    found: Names = {f"{at}{name}.weight": ("BF16", shape) for name, shape in plain.items()}
    for name, wide in (("mlp", a.dense_intermediate),) if number < a.dense_layers else ():
        found |= _mlp(f"{at}{name}.", a.hidden, wide)
    if number >= a.dense_layers:
        found[f"{at}mlp.gate.weight"] = ("BF16", (a.experts, a.hidden))
        found[f"{at}mlp.gate.e_score_correction_bias"] = ("F32", (a.experts,))
        found |= _mlp(f"{at}mlp.shared_experts.", a.hidden, a.expert_intermediate)
        for expert in range(a.experts):
            one = _mlp(f"{at}mlp.experts.{expert}.", a.hidden, a.expert_intermediate)
            found |= _int4(one) if packed else one
    return found


def _mlp(at: str, hidden: int, wide: int) -> Names:
    return {
        f"{at}gate_proj.weight": ("BF16", (wide, hidden)),
        f"{at}up_proj.weight": ("BF16", (wide, hidden)),
        f"{at}down_proj.weight": ("BF16", (hidden, wide)),
    }


def _int4(plain: Names) -> Names:
    """Eight values in 32 bits, a scale for each group of 32."""
    found: Names = {}
    for name, (_, (rows, columns)) in plain.items():
        found[f"{name}_packed"] = ("I32", (rows, columns // 8))
        found[f"{name}_scale"] = ("BF16", (rows, columns // 32))
        found[f"{name}_shape"] = ("I32", (2,))
    return found


def ends(a: Architecture) -> Names:
    """Return what stands before the first layer and after the last."""
    return {
        "model.embed_tokens.weight": ("BF16", (a.vocabulary, a.hidden)),
        "model.norm.weight": ("BF16", (a.hidden,)),
        "lm_head.weight": ("BF16", (a.vocabulary, a.hidden)),
    }


def size_of(names: Names) -> int:
    """Return the bytes of all tensors."""
    return sum(prod(shape) * _BYTES[dtype] for dtype, shape in names.values())


def header(names: Names) -> bytes:
    """Return the header of a safetensors file of these tensors."""
    at = 0
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    for name, (dtype, shape) in names.items():
        end = at + prod(shape) * _BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


def write(path: Path, names: Names) -> None:
    """Write the header; what follows is a hole of the right size."""
    start = header(names)
    with path.open("wb") as file:
        file.write(start)
        file.truncate(len(start) + size_of(names))


def checkpoint(folder: Path, a: Architecture = KIMI, *, packed: bool = True) -> int:
    """Write a checkpoint of the shape *a*, a file a layer; return the bytes of its tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [layer(a, number, packed=packed) for number in range(a.layers)] + [ends(a)]
    index: dict[str, str] = {}
    for number, names in enumerate(parts, 1):
        file = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        write(folder / file, names)
        index |= dict.fromkeys(names, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text(json.dumps(config_of(a)))
    return sum(size_of(names) for names in parts)


@dataclass
class Served:
    """A hub of one folder of repositories, and what was asked of it."""

    root: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    sent: int = 0
    ranges: bool = True
    #: path → the status and error code it is answered with
    refused: dict[str, tuple[int, str]] = field(default_factory=dict)
    authorized: set[str] = field(default_factory=set)


@contextmanager
def served(root: Path) -> Iterator[Served]:
    """Serve the folders ORG/NAME below *root* as a hub does, on this machine."""
    hub = Served(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Hub, hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Hub(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Served, *rest: Any) -> None:
        self.hub = hub
        super().__init__(*rest)

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append(path)
        self.hub.authorized.add(self.headers.get("Authorization", ""))
        for pattern, (status, code) in self.hub.refused.items():
            if re.search(pattern, path):
                return self._send(status, b"{}", {"X-Error-Code": code} if code else {})
        about = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        if about is not None:
            return self._about(about[1], about[2])
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if file is not None and (self.hub.root / file[1] / file[3]).is_file():
            return self._file(self.hub.root / file[1] / file[3])
        return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})

    def _about(self, repo: str, revision: str | None) -> None:
        folder = self.hub.root / repo
        if not folder.is_dir():
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if revision not in (None, "main", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        siblings = [
            {"rfilename": str(path.relative_to(folder)), "size": path.stat().st_size}
            for path in files
        ]
        body = {"id": repo, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
        return self._send(200, json.dumps(body).encode())

    def _file(self, path: Path) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
        size = path.stat().st_size
        start, end = (int(found[1]), min(int(found[2]), size - 1)) if found else (0, size - 1)
        if not self.hub.ranges:
            start, end = 0, size - 1
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(min(end - start + 1, 1 << 24))
        self.hub.sent += len(data)
        self._send(206 if self.hub.ranges and found else 200, data)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
