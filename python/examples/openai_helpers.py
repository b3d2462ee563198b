"""The OpenAI SDK's own helpers, on the same server: parse, streaming helpers, Responses."""

from pydantic import BaseModel

from mlxcel import LLM


class Person(BaseModel):
    name: str
    age: int


ASK = "Extract name and age as JSON: Anna is 31 years old."

with LLM("mlxcel-tiny") as llm:
    client, model = llm.openai_client, llm.model
    parsed = client.responses.parse(model=model, input=ASK, text_format=Person, temperature=0)
    print(parsed.output_parsed)

    with client.responses.stream(model=model, input="Count from 1 to 9.", temperature=0) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
    print()
