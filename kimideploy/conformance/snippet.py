"""A first client for an endpoint that has just proved itself."""

from __future__ import annotations

_SNIPPET = """\
from openai import OpenAI

client = OpenAI(base_url={url!r}, api_key={key})
history = []
for question in ("What is 17 times 23?", "And half of that?"):
    history.append({{"role": "user", "content": question}})
    answer = client.chat.completions.create(
        model={model!r}, messages=history, max_tokens={max_tokens}
    )
    message = answer.choices[0].message
    print(message.{field}, "\\n\\n", message.content)
    # The message goes back whole: the model is trained to see its earlier {field}.
    history.append(message.model_dump(exclude_none=True))
"""


def snippet(url: str, model: str, field: str, *, max_tokens: int, needs_key: bool) -> str:
    """Return a Python program that talks to the endpoint and keeps the reasoning in its history.

    `field` is the name under which this engine sends the reasoning and takes it back.
    """
    key = 'os.environ["API_KEY"]' if needs_key else '"none"'
    text = _SNIPPET.format(
        url=f"{url}/v1", key=key, model=model, field=field, max_tokens=max_tokens
    )
    return f"import os\n\n{text}" if needs_key else text
