"""A tool loop of the anthropic package, against an Anthropic-compatible route."""

import os
import sys

import anthropic

client = anthropic.Anthropic(base_url=sys.argv[1].removesuffix("/v1"), api_key=os.environ.get("LOOP_KEY", "none"),
                             max_retries=0, timeout=120)
TOOL = {"name": "run_python", "description": "Run Python.",
        "input_schema": {"type": "object", "properties": {"code": {"type": "string"}}}}
messages = [{"role": "user", "content": "Compute something."}]
while True:
    answer = client.messages.create(
        model=os.environ["KIMIDEPLOY_MODEL"], max_tokens=32768, system="You are careful.",
        messages=messages, tools=[TOOL])
    messages.append({"role": "assistant", "content": [b.model_dump() for b in answer.content]})
    used = [block for block in answer.content if block.type == "tool_use"]
    if not used:
        break
    messages.append({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": block.id, "content": "1"} for block in used]})
