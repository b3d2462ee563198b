"""Print an answer while it is written, first blocking, then with asyncio."""

import asyncio

from mlxcel import LLM, AsyncLLM


def main() -> None:
    question = "Count from 1 to 9."
    with LLM("mlxcel-tiny") as llm, llm.chat_stream(question, temperature=0, max_tokens=100) as stream:
        for piece in stream:
            print(piece, end="", flush=True)
        print(f"\n({stream.result().finish_reason})")


async def async_main() -> None:
    async with AsyncLLM("mlxcel-tiny") as llm:
        questions = ["What is 2 + 3?", "What is 40 + 2?"]
        for answer in await asyncio.gather(*(llm.chat(q, temperature=0, max_tokens=100) for q in questions)):
            print(answer)


main()
asyncio.run(async_main())
