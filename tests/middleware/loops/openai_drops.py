"""A tool loop of the openai package that rebuilds the answer field by field: the broken pattern."""

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
    answer = client.chat.completions.create(
        model=os.environ["KIMIDEPLOY_MODEL"], messages=messages, tools=[TOOL])
    message = answer.choices[0].message
    calls = [call.model_dump() for call in message.tool_calls or []]
    messages.append({"role": "assistant", "content": message.content, "tool_calls": calls})
    if not calls:
        break
    for call in calls:
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": "1"})
