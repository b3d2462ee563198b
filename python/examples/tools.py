"""A model that calls Python functions, and what it did on the way."""

from mlxcel import LLM, ToolOutcome


def add(a: int, b: int) -> int:
    """Add two numbers.

    Args:
        a: The first number
        b: The second number
    """
    return a + b


def tell(event: object) -> None:
    if isinstance(event, ToolOutcome):
        print(f"{event.call} -> {event.content}")


with LLM("mlxcel-tiny") as llm:
    run = llm.run_tools("Use the tool to add 17 and 25.", tools=[add], on_event=tell, temperature=0)
    print(run)
    print(f"{len(run.steps)} answers, {run.usage.total_tokens if run.usage else '?'} tokens")
