"""Start the built-in model, ask it something, see what the answer carries."""

from mlxcel import LLM

with LLM("mlxcel-tiny") as llm:
    answer = llm.chat("What is 17 + 25?", temperature=0, max_tokens=100)
    print(f"{llm.model}: {answer}")
    if answer.usage is not None:
        print(f"tokens: {answer.usage.prompt_tokens} in, {answer.usage.completion_tokens} out")
    print(f"finished because: {answer.finish_reason}")

    tokens = llm.tokenize("hello world")
    print(f"{len(tokens)} tokens, back again: {llm.detokenize(tokens)!r}")
