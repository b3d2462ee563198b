"""Get an answer that is guaranteed to match a JSON schema."""

from mlxcel import LLM

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}

with LLM("mlxcel-tiny") as llm:
    answer = llm.chat(
        "Extract name and age as JSON: Anna is 31 years old and lives in Berlin.",
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
        temperature=0,
        max_tokens=100,
    )
    print(answer)
    person = answer.parsed
    print(f"{person['name']} is {person['age']}")
