"""A first client for an endpoint that has just proved itself."""

from __future__ import annotations

import json

_SNIPPET = """\
from openai import OpenAI

client = OpenAI(base_url={url}, api_key={key})
history = []
for question in ("What is 17 times 23?", "And half of that?"):
    history.append({{"role": "user", "content": question}})
    answer = client.chat.completions.create(
        model={model}, messages=history, max_tokens={max_tokens}
    )
    message = answer.choices[0].message
    print(message.{field}, "\\n\\n", message.content)
    # Send the message back whole: the model needs its own {field}.
    history.append(message.model_dump(exclude_none=True))
"""


def snippet(url: str, model: str, field: str, *, max_tokens: int, needs_key: bool) -> str:
    """Return a Python program that talks to the endpoint and keeps the reasoning in its history.

    `field` is the name under which this engine sends the reasoning and takes it back.
    """
    key = 'os.environ["API_KEY"]' if needs_key else '"none"'
    text = _SNIPPET.format(
        url=json.dumps(f"{url}/v1"),
        key=key,
        model=json.dumps(model),
        field=field,
        max_tokens=max_tokens,
    )
    return f"import os\n\n{text}" if needs_key else text
