"""A streamed tool loop of the openai package that gathers the deltas, the reasoning's too."""

import os
import sys

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
TOOL = {"type": "function", "function": {
    "name": "run_python", "description": "Run Python.",
    "parameters": {"type": "object", "properties": {"code": {"type": "string"}}}}}
messages = [{"role": "system", "content": "You are careful."},
            {"role": "user", "content": "Compute something."}]
while True:
    reasoning, content, calls = "", "", {}
    for chunk in client.chat.completions.create(
            model=os.environ["KIMIDEPLOY_MODEL"], messages=messages, tools=[TOOL], stream=True):
        if not chunk.choices:
            continue
        delta = chunk.choices[0].delta
        reasoning += getattr(delta, "reasoning", None) or ""
        content += delta.content or ""
        for part in delta.tool_calls or []:
            call = calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
            call["id"] += part.id or ""
            call["name"] += part.function.name or ""
            call["arguments"] += part.function.arguments or ""
    messages.append({"role": "assistant", "content": content, "reasoning": reasoning})
    if not calls:
        break
    messages[-1]["tool_calls"] = [
        {"id": c["id"], "type": "function",
         "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls.values()]
    for call in calls.values():
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": "1"})
