"""A tool loop of the openai package that appends the message object itself, as its guide does."""

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
    messages.append(message)
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "1"})
