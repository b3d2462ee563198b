"""Get an answer as an instance of a type, and watch it grow."""

from pydantic import BaseModel

from mlxcel import LLM, MlxcelTruncatedError

ASK = "Extract name and age as JSON: Anna is 31 years old and lives in Berlin."


class Person(BaseModel):
    name: str
    age: int


with LLM("mlxcel-tiny") as llm:
    answer = llm.chat(ASK, response_format=Person, temperature=0, max_tokens=100)
    print(answer)
    print(f"{answer.parsed.name} is {answer.parsed.age}")

    with llm.chat_stream(ASK, response_format=Person, temperature=0) as stream:
        for person in stream.partials():
            print(f"so far: {person}")

    try:
        llm.chat(ASK, response_format=Person, temperature=0, max_tokens=6)
    except MlxcelTruncatedError as error:
        print(f"too short ({error.reason}): {error.partial}")
