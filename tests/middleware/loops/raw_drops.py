"""A tool loop over httpx that builds the answer anew from role, content and calls."""

import os
import sys

import httpx

URL, MODEL = sys.argv[1], os.environ["KIMIDEPLOY_MODEL"]
TOOL = {"type": "function", "function": {
    "name": "run_python", "description": "Run Python.",
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}}}}
messages = [{"role": "system", "content": "You are careful."},
            {"role": "user", "content": "Compute something."}]
while True:
    body = {"model": MODEL, "messages": messages, "tools": [TOOL]}
    reply = httpx.post(f"{URL}/chat/completions", json=body, timeout=60)
    reply.raise_for_status()
    message = reply.json()["choices"][0]["message"]
    calls = message.get("tool_calls")
    messages.append({"role": "assistant", "content": message["content"], "tool_calls": calls})
    if not calls:
        break
    for call in calls:
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": "1"})
