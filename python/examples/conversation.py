"""A conversation that is saved, loaded, and goes on in two ways."""

import tempfile
from pathlib import Path

from mlxcel import LLM, Chat

with LLM("mlxcel-tiny") as llm, tempfile.TemporaryDirectory() as folder:
    chat = Chat(llm, system="Be brief.", temperature=0)
    print(chat.send("What is 17 + 25?"))

    chat.save(Path(folder) / "chat.json")
    again = Chat.load(Path(folder) / "chat.json", llm, temperature=0)

    other = again.branch()
    for piece in again.stream("What is 3 + 4?"):
        print(piece, end="", flush=True)
    print()
    print(other.send("Count from 1 to 9."))
    print(len(chat.messages), len(again.messages), len(other.messages))
