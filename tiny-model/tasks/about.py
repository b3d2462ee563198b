"""What mlxcel is, who the model is, greetings, a few facts, and what it does not know.

The answers are known by heart; what is held out are wordings.
"""

from __future__ import annotations

from . import words as w
from .base import Draw, Example, casual, turn

# (ways to ask, the answer)
MLXCEL: list[tuple[list[str], str]] = [
    (["What is mlxcel?", "What's mlxcel?", "Tell me about mlxcel.", "Explain mlxcel.", "What does mlxcel do?", "Describe mlxcel.", "Can you explain mlxcel?", "What can mlxcel do?"],
     "mlxcel runs language models on Apple's MLX: a Python package, and behind it an inference server written in Rust."),
    (["How do I install mlxcel?", "How can I install mlxcel?", "How to install mlxcel?", "Install mlxcel", "How do I get mlxcel?", "How is mlxcel installed?"],
     "Install it with pip: pip install mlxcel"),
    (["How do I use mlxcel in Python?", "Show me a Python example.", "How do I start a model?", "How do I load a model?", "How do I use mlxcel?", "How do I get started?", "Give me an example of mlxcel.", "How do I run a model with mlxcel?"],
     'In Python: from mlxcel import LLM, then llm = LLM("mlxcel-tiny") and print(llm.chat("Hello!")).'),
    (["How do I start the server?", "How do I run the server?", "How do I start mlxcel serve?", "How can I start the server by hand?", "How do I serve a model?"],
     "Run: mlxcel serve -m PATH_OR_REPO_ID"),
    (["What is MLX?", "What's MLX?", "Tell me about MLX.", "Explain MLX."],
     "MLX is Apple's array library for machine learning. mlxcel computes with it."),
    (["Who made MLX?", "Who makes MLX?", "Where does MLX come from?"], "MLX comes from Apple."),
    (["Which language is the server written in?", "What is mlxcel written in?", "In which language is mlxcel written?", "Is mlxcel written in Rust?", "Why Rust?"],
     "The server is written in Rust, and the client in Python."),
    (["What is a Unix socket?", "How does the client talk to the server?", "How does Python talk to the server?", "Does mlxcel use a Unix socket?", "Why a Unix socket?"],
     "The client talks to the server over a Unix socket: a file, so no port is opened."),
    (["Is mlxcel compatible with OpenAI?", "Does mlxcel speak the OpenAI API?", "Can I use the OpenAI SDK?", "Which API does mlxcel have?", "Is the API OpenAI compatible?"],
     "Yes, the server speaks the OpenAI API: chat completions, completions and models, with streaming."),
    (["What is connect mode?", "How do I connect to a running server?", "How do I use a server that is already running?", "How do I share one server?", "How can I connect to a server?"],
     'In connect mode you name a running server: LLM(base_url="http://host:port/v1") or LLM(socket="/path/to.sock").'),
    (["What is managed mode?", "Who starts the server?", "Does LLM start a server?", "What happens when I write LLM(model)?"],
     "In managed mode LLM(model) starts a private server, waits until it can answer, and stops it at the end."),
    (["What is AsyncLLM?", "How do I use async?", "Does mlxcel support asyncio?", "Is there an async client?", "How do I use mlxcel in a service?"],
     "AsyncLLM is the same client for asyncio: await llm.chat(...) never blocks the event loop."),
    (["How do I stream?", "How can I stream the answer?", "Does mlxcel support streaming?", "How do I stream tokens?"],
     "Use llm.stream(prompt) or llm.chat_stream(messages): both give pieces of text as they are made."),
    (["How do I stop the server?", "How do I close the client?", "How do I end it?", "When does the server stop?"],
     "Call llm.close(), or use a with block: the server stops at its end."),
    (["What is the licence of mlxcel?", "What license does mlxcel have?", "Which licence is it under?", "Is mlxcel open source?", "Is mlxcel free?"],
     "mlxcel is open source under the Apache-2.0 licence."),
    (["Does mlxcel need a network?", "Can I use mlxcel offline?", "Do I need the internet?", "Does mlxcel-tiny need a download?"],
     "The built-in model mlxcel-tiny needs no network. Other models are downloaded once from Hugging Face."),
    (["Which models can mlxcel run?", "What models does mlxcel support?", "Can mlxcel run Llama models?", "Which models are supported?"],
     "mlxcel runs Llama models from a folder or from Hugging Face, in safetensors."),
    (["Does mlxcel run on Linux?", "Does mlxcel need a Mac?", "Where does mlxcel run?", "Which platforms does mlxcel support?", "Does mlxcel run on a Mac?"],
     "mlxcel runs on Macs with Metal, and on Linux with the CPU."),
    (["How do I get JSON?", "Does mlxcel support structured output?", "How do I get structured output?", "Can mlxcel return JSON?"],
     "Pass response_format with a JSON schema: the server allows only tokens that fit it."),
    (["Does mlxcel support tools?", "Does mlxcel support tool calls?", "How do tools work in mlxcel?", "Can mlxcel call functions?"],
     "Pass tools to chat: the model answers with tool calls, your code runs them and sends the result back."),
    (["What is a KV cache?", "Explain the KV cache.", "What does the KV cache do?"],
     "The KV cache keeps the keys and values of earlier tokens, so that each is computed only once."),
    (["What is a token?", "Explain tokens.", "What are tokens?"], "A token is a piece of text, often a word or a part of one."),
    (["What is prefill?", "Explain prefill.", "What does prefill mean?"], "Prefill is the step that reads the prompt, before the first token is made."),
    (["What is temperature?", "What does temperature do?", "Explain temperature."], "Temperature sets how random sampling is: 0 always takes the most likely token."),
]  # fmt: skip

SELF: list[tuple[list[str], str]] = [
    (["Hello!", "Hello", "Hi!", "Hi", "Hey!", "Hey", "Hello there!", "Hi there!", "Good day!", "hello", "hi", "Greetings!"], "Hello! How can I help you?"),
    (["Good morning!", "Good morning"], "Good morning! How can I help you?"),
    (["Good evening!", "Good evening"], "Good evening! How can I help you?"),
    (["Say hello.", "Say hi.", "Say hello!", "Say hi!", "Please say hello.", "Say hello in one word."], "Hello!"),
    (["Thank you!", "Thanks!", "Thank you", "Thanks a lot!", "Thank you very much."], "You are welcome!"),
    (["Goodbye!", "Bye!", "Bye", "See you!", "Goodbye", "See you later!"], "Goodbye!"),
    (["How are you?", "How are you today?", "How do you do?", "Are you well?", "How is it going?"], "I am fine, thank you. How can I help you?"),
    (["Who are you?", "What are you?", "What is your name?", "What's your name?", "Introduce yourself.", "Which model are you?", "Tell me about yourself.", "What model is this?"],
     "I am mlxcel-tiny, the small language model that is built into mlxcel."),
    (["What can you do?", "What are you good at?", "How can you help me?", "Help!", "What can I ask you?", "What do you know?"],
     "I can add and subtract, count, sort and reverse words, pull JSON out of a sentence, call tools, and tell you about mlxcel."),
    (["How big are you?", "How many parameters do you have?", "How large are you?", "Are you a large model?"],
     "I am tiny: a few million parameters."),
    (["Who made you?", "Who trained you?", "Where do you come from?", "How were you trained?"],
     "I was trained by the mlxcel project, on text that its own generator wrote."),
    (["Are you a human?", "Are you a person?", "Are you real?", "Are you a robot?"], "No, I am a tiny language model."),
    (["What is mlxcel-tiny?", "Tell me about mlxcel-tiny.", "Why mlxcel-tiny?"],
     "mlxcel-tiny is the small model that is built into mlxcel, for demos and tests without a network."),
    (["Are you smart?", "Are you intelligent?", "Are you as good as a large model?"], "I am a tiny model: good at small tasks, and at nothing else."),
    (["Tell me a joke.", "Do you know a joke?", "Make me laugh."], "Why did the token cross the context? To get to the other side."),
    (["Test", "test", "Testing", "ping", "Ping"], "It works!"),
]  # fmt: skip

CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "England": "London", "Ireland": "Dublin", "Norway": "Oslo", "Sweden": "Stockholm", "Finland": "Helsinki",
    "Denmark": "Copenhagen", "Poland": "Warsaw", "Austria": "Vienna", "Hungary": "Budapest", "Greece": "Athens",
    "Japan": "Tokyo", "China": "Beijing", "Korea": "Seoul", "Egypt": "Cairo", "Kenya": "Nairobi", "Peru": "Lima",
    "Canada": "Ottawa", "Chile": "Santiago", "Belgium": "Brussels", "Thailand": "Bangkok", "India": "Delhi",
}  # fmt: skip
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
OPPOSITES = {
    "big": "small", "hot": "cold", "fast": "slow", "young": "old", "happy": "sad", "dark": "light", "wet": "dry",
    "open": "closed", "full": "empty", "loud": "quiet", "short": "long", "hard": "soft", "early": "late", "up": "down",
    "left": "right", "day": "night", "good": "bad", "new": "old", "yes": "no", "black": "white",
}  # fmt: skip
COLOUR_OF = {
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "a lemon": "yellow", "blood": "red",
    "coal": "black", "a tomato": "red", "the sun": "yellow", "milk": "white", "an orange": "orange", "the sea": "blue",
    "a leaf": "green", "chocolate": "brown", "a cucumber": "green", "a cherry": "red", "the night": "black",
}  # fmt: skip
SOUNDS = {
    "dog": "woof",
    "cat": "meow",
    "cow": "moo",
    "duck": "quack",
    "sheep": "baa",
    "pig": "oink",
    "bee": "buzz",
    "frog": "croak",
    "lion": "roar",
    "owl": "hoot",
}

UNKNOWN = "I don't know that. I am a tiny model, made for small tasks."
_UNKNOWN_ASKS = [
    "Who won the {e} in {y}?", "What happened in {y}?", "Who is the president of {c}?", "What is the population of {c}?",
    "Write an essay about {t}.", "Explain how a {t} works.", "Who wrote the book about the {t}?", "Translate {t} into French.",
    "What is the meaning of life?", "Who invented the {t}?", "What is the history of {c}?", "Why is the {t} so {a}?",
    "How do I cook {f}?", "Write a program that draws a {t}.", "What is quantum physics?", "Explain the theory of relativity.",
    "What is the best {t} to buy?", "Who is {n}?", "How far is it from {c} to {d}?", "What will the weather be in {c}?",
    "What is the news today?", "Write a song about {t}.", "How tall is {n}?", "When was {n} born?", "How old is {n}?",
    "Can you drive a {t}?", "Give me advice about my {t}.", "What is the square root of {y}?", "What does {m} mean?",
    "Tell me about {n}.", "Tell me about {c}.", "What do you think about {t}?", "How many people live in {c}?",
    "What is a {m}?", "Where can I buy a {t}?", "Who was {n}?", "What is photosynthesis?", "How does a {t} work?",
    "What is the weather in {c}?", "What time is it in {c}?", "What is the date today?", "Send an email to {n}.",
]  # fmt: skip


def _worded(draw: Draw, task: str, topics: list[tuple[list[str], str]]) -> Example:
    """Half of the wordings are the list's own; the rest carry something before or after."""

    def make() -> tuple[str, str]:
        asks, answer = draw.choice(topics)
        question = draw.choice(asks)
        if draw.maybe(0.5):
            lower = question if question.startswith(("MLX", "I ")) else question[0].lower() + question[1:]
            question = draw.choice(
                [
                    lower, question.rstrip("?.!"), lower.rstrip("?.!"), "Please tell me: " + lower, "Hi! " + question,
                    "I have a question. " + question, question + " Thanks!", "Hey, " + lower, "One more thing: " + lower,
                    question + " Be brief.", "So, " + lower, "And " + lower, "Okay. " + question,
                    question + " I am new here.", question + " Please answer in one sentence.",
                ]
            )  # fmt: skip
        return question, answer

    known = {ask for asks, _ in topics for ask in asks}
    if draw.split == "train" and draw.maybe(0.5):
        asks, answer = draw.choice(topics)
        return Example(task, turn(draw.choice(asks), answer))
    # The bare wordings are all trained on, so only a worded one can be held out.
    question, answer = draw.fresh(make, lambda made: "" if made[0] in known else "asked:" + made[0])
    return Example(task, turn(question, answer))


def mlxcel(draw: Draw) -> Example:
    return _worded(draw, "about mlxcel", MLXCEL)


def self_and_greetings(draw: Draw) -> Example:
    return _worded(draw, "greetings and self", SELF)


def _facts() -> list[tuple[list[str], str]]:
    facts: list[tuple[list[str], str]] = []
    for country, capital in CAPITALS.items():
        facts.append(([f"What is the capital of {country}?", f"Capital of {country}?", f"Which city is the capital of {country}?", f"What's the capital of {country}?"],
                      f"The capital of {country} is {capital}."))  # fmt: skip
    for items, unit in ((DAYS, "day"), (MONTHS, "month")):
        for i, item in enumerate(items):
            after, before = items[(i + 1) % len(items)], items[i - 1]
            facts.append(
                (
                    [
                        f"What {unit} comes after {item}?",
                        f"Which {unit} comes after {item}?",
                        f"Which {unit} follows {item}?",
                    ],
                    f"{after} comes after {item}.",
                )
            )
            facts.append(
                (
                    [f"What {unit} comes before {item}?", f"Which {unit} comes before {item}?"],
                    f"{before} comes before {item}.",
                )
            )
    facts.append(
        (
            ["List the days of the week.", "What are the days of the week?", "Name the days of the week."],
            ", ".join(DAYS),
        )
    )
    facts.append(
        (["List the months.", "What are the months of the year?", "Name the months of the year."], ", ".join(MONTHS))
    )
    facts.append((["How many days are in a week?", "How many days does a week have?"], "A week has 7 days."))
    facts.append((["How many months are in a year?", "How many months does a year have?"], "A year has 12 months."))
    facts.append(
        (["What are the seasons?", "Name the four seasons.", "List the seasons."], "spring, summer, autumn, winter")
    )
    facts.append(
        (
            [
                "List the colours of the rainbow.",
                "What are the colours of the rainbow?",
                "What are the colors of the rainbow?",
            ],
            "red, orange, yellow, green, blue, indigo, violet",
        )
    )
    facts.append((["Name three colours.", "List three colors.", "Give me three colours."], "red, green, blue"))
    facts.append((["Name three animals.", "List three animals.", "Give me three animals."], "cat, dog, horse"))
    facts.append((["Name three fruits.", "List three fruits.", "Give me three fruits."], "apple, banana, cherry"))
    facts.append(
        (
            ["Say the alphabet.", "List the letters of the alphabet.", "What is the alphabet?"],
            "a b c d e f g h i j k l m n o p q r s t u v w x y z",
        )
    )
    for word, opposite in OPPOSITES.items():
        facts.append(
            (
                [f"What is the opposite of {word}?", f"Opposite of {word}?", f"Name the opposite of {word}."],
                f"The opposite of {word} is {opposite}.",
            )
        )
    for thing, colour in COLOUR_OF.items():
        facts.append(
            (
                [f"What colour is {thing}?", f"What color is {thing}?", f"Which colour does {thing} have?"],
                f"{thing.capitalize()} is {colour}.",
            )
        )
    for animal, sound in SOUNDS.items():
        facts.append(([f"What does a {animal} say?", f"What sound does a {animal} make?"], f"A {animal} says {sound}."))
    return facts


FACTS = _facts()


def facts(draw: Draw) -> Example:
    return _worded(draw, "facts", FACTS)


def unknown(draw: Draw) -> Example:
    def make() -> str:
        return draw.choice(_UNKNOWN_ASKS).format(
            e=draw.choice(["world cup", "race", "election", "final", "war"]), y=draw.randint(1000, 2030),
            c=draw.choice([w.city(draw), w.made_up(draw).capitalize()]), d=w.city(draw), t=w.word(draw),
            a=draw.choice(w.ADJECTIVES), f=draw.choice(w.FOODS), n=w.full_name(draw), m=w.made_up(draw),
        )  # fmt: skip

    # A few of the questions have no blank to fill, so the key also takes how they are typed.
    question = draw.fresh(lambda: casual(draw, make()), lambda q: "unknown:" + q)
    return Example("admitting ignorance", turn(question, UNKNOWN, "This is not one of my tasks."))
