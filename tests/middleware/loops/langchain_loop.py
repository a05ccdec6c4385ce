"""A tool loop of LangChain: ChatOpenAI with a bound tool, messages appended as they came."""

import os
import sys

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI


@tool
def run_python(code: str) -> str:
    """Run Python."""
    return "1"


model = ChatOpenAI(model=os.environ["KIMIDEPLOY_MODEL"], base_url=sys.argv[1], api_key="none",
                   max_retries=0).bind_tools([run_python])
messages = [SystemMessage("You are careful."), HumanMessage("Compute something.")]
while True:
    message = model.invoke(messages)
    messages.append(message)
    if not message.tool_calls:
        break
    for call in message.tool_calls:
        messages.append(ToolMessage("1", tool_call_id=call["id"]))
