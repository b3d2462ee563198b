"""Sums, differences, products, comparisons, and a second step on the result.

A sum and its mirror image are one problem, and so are a difference and its mirror image:
a negative result is worked out through the positive one. Problems with two one-digit operands
are a table that everybody knows by heart, so they are always trained on.
"""

from __future__ import annotations

from .base import Draw, Example, casual, split_of, turn

SUM_PHRASES = [
    "What is {a} + {b}?", "What is {a} plus {b}?", "{a} + {b}", "{a}+{b}", "{a} + {b} = ?",
    "Add {a} and {b}.", "Calculate {a} + {b}.", "How much is {a} plus {b}?",
    "Compute the sum of {a} and {b}.", "What's {a} + {b}?", "What do you get if you add {b} to {a}?",
]  # fmt: skip
DIFFERENCE_PHRASES = [
    "What is {a} - {b}?", "What is {a} minus {b}?", "{a} - {b}", "{a}-{b}", "{a} - {b} = ?",
    "Subtract {b} from {a}.", "Calculate {a} - {b}.", "How much is {a} minus {b}?",
    "Compute the difference of {a} and {b}.", "What's {a} - {b}?", "Take {b} away from {a}.",
]  # fmt: skip
PRODUCT_PHRASES = [
    "What is {a} * {b}?", "What is {a} times {b}?", "{a} * {b}", "{a} x {b}", "Multiply {a} by {b}.",
    "Calculate {a} times {b}.", "How much is {a} times {b}?", "What's {a} * {b}?",
]  # fmt: skip
BARE = [" Answer with just the number.", " Only the number, please.", " Reply with the number only."]


def allowed(draw: Draw, a: int, sign: str, b: int) -> bool:
    """Whether this problem may turn up in the split of `draw`."""
    if a < 10 and b < 10:
        return draw.split == "train"
    large, small = max(a, b), min(a, b)
    key = f"+:{small}:{large}" if sign == "+" else f"{sign}:{large}:{small}"
    return split_of(key) == draw.split


def pair(draw: Draw, sign: str, low: int = 0, high: int = 99) -> tuple[int, int]:
    """Operands of this split; more than half of them two-digit ones where the range allows it."""
    if high == 99 and low < 10 and draw.maybe(0.6):
        low = 10
    while True:
        a, b = draw.randint(low, high), draw.randint(low, high)
        if sign == "-" and a < b and not draw.maybe(0.1):
            a, b = b, a
        if allowed(draw, a, sign, b):
            return a, b


def apply(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "*": a * b}[sign]


def equation(a: int, sign: str, b: int) -> str:
    """The problem and its result; a negative one by way of the problem turned round."""
    turned = f"-({b} - {a}) = " if sign == "-" and a < b else ""
    return f"{a} {sign} {b} = {turned}{apply(a, sign, b)}"


def sum_thought(a: int, b: int) -> str:
    """Column addition, ones first."""
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    first = f"Ones: {a % 10} + {b % 10} = {ones}."
    if ones >= 10:
        return f"{first} Write {ones % 10}, carry 1. Tens: {a // 10} + {b // 10} + 1 = {tens + 1}. Together {a + b}."
    return f"{first} Tens: {a // 10} + {b // 10} = {tens}. Together {a + b}."


def difference_thought(a: int, b: int) -> str:
    """Column subtraction."""
    if a < b:
        return f"{b} is larger than {a}, so I turn them round and write a minus. {difference_thought(b, a)}"
    ones, tens = a % 10 - b % 10, a // 10 - b // 10
    if ones < 0:
        return (
            f"Ones: {a % 10} - {b % 10} needs a ten. {a % 10 + 10} - {b % 10} = {ones + 10}. "
            f"Tens: {a // 10} - {b // 10} - 1 = {tens - 1}. Together {a - b}."
        )
    return f"Ones: {a % 10} - {b % 10} = {ones}. Tens: {a // 10} - {b // 10} = {tens}. Together {a - b}."


def _asked(draw: Draw, task: str, phrases: list[str], a: int, sign: str, b: int, thought: str) -> Example:
    question = casual(draw, draw.choice(phrases).format(a=a, b=b))
    # Carrying without the problem on the page is beyond this size, so the problem is written
    # down even when only the number was asked for. Not counted as something it can do.
    if draw.split == "train" and draw.maybe(0.05):
        question += draw.choice(BARE)
    return Example(task, turn(question, equation(a, sign, b), thought))


def sums(draw: Draw) -> Example:
    a, b = pair(draw, "+")
    return _asked(draw, "sums", SUM_PHRASES, a, "+", b, sum_thought(a, b))


def two_digit_sums(draw: Draw) -> Example:
    a, b = pair(draw, "+", 10, 99)
    return _asked(draw, "two-digit sums", SUM_PHRASES, a, "+", b, sum_thought(a, b))


def differences(draw: Draw) -> Example:
    a, b = pair(draw, "-")
    return _asked(
        draw,
        "negative differences" if a < b else "differences",
        DIFFERENCE_PHRASES,
        a,
        "-",
        b,
        difference_thought(a, b),
    )


def negative_differences(draw: Draw) -> Example:
    """The smaller number first: too rare among `differences` to be learnt there."""
    small, large = sorted(pair(draw, "-"))
    if small == large:
        return negative_differences(draw)
    thought = difference_thought(small, large)
    return _asked(draw, "negative differences", DIFFERENCE_PHRASES, small, "-", large, thought)


def products(draw: Draw) -> Example:
    """The table to 12 x 12 is known by heart: what is held out is the wording."""

    def make() -> tuple[str, int, int]:
        a, b = draw.randint(0, 12), draw.randint(0, 12)
        return draw.choice(PRODUCT_PHRASES).format(a=a, b=b), a, b

    question, a, b = draw.fresh(make, lambda made: made[0])
    return Example(
        "products", turn(casual(draw, question), equation(a, "*", b), f"I know this by heart: {equation(a, '*', b)}.")
    )


def worksheet(draw: Draw) -> Example:
    """Several problems at once."""
    lines = []
    for _ in range(draw.randint(2, 4)):
        sign = draw.choice("++-")
        lines.append((*pair(draw, sign, 10 if draw.maybe(0.5) else 0), sign))
    head = draw.choice(["Solve:", "Work these out:", "Calculate:", "Solve these:"])
    question = "\n".join([head] + [f"{a} {sign} {b}" for a, b, sign in lines])
    return Example("worksheet", turn(question, "\n".join(equation(a, sign, b) for a, b, sign in lines)))


def second_step(draw: Draw) -> Example:
    """`Now add 3 to it`: the next problem starts from the last result, while that has two digits."""
    a, b = pair(draw, "+", 1, 49)
    messages = turn(draw.choice(SUM_PHRASES).format(a=a, b=b), equation(a, "+", b))
    total = a + b
    for _ in range(draw.randint(1, 2)):
        sign = draw.choice("+-")
        steps = [n for n in range(1, min(20, total) + 1) if allowed(draw, total, sign, n)]
        if not steps or total > 99:
            break
        step = draw.choice(steps)
        phrases = {
            "+": ["Now add {n} to it.", "Add {n}.", "And plus {n}?", "Add {n} to that.", "Now add {n}."],
            "-": ["Now subtract {n} from it.", "Subtract {n}.", "And minus {n}?", "Take away {n}."],
        }[sign]
        messages += turn(casual(draw, draw.choice(phrases).format(n=step)), equation(total, sign, step))
        total = apply(total, sign, step)
    return Example("second step", messages) if len(messages) > 2 else second_step(draw)


def comparisons(draw: Draw) -> Example:
    def make() -> tuple[int, int]:
        """Often one digit against two, or the same tens: what is easily got wrong."""
        a = draw.randint(0, 99)
        close = (a // 10 * 10, a // 10 * 10 + 9)
        spans = [(0, 99), (0, 99), (0, 9), close]
        # Training sees more of the closest.
        low, high = draw.choice([*spans, close, close] if draw.split == "train" else spans)
        b = draw.choice([n for n in range(low, high + 1) if n != a])
        return (a, b) if draw.maybe(0.5) else (b, a)

    a, b = draw.fresh(make, lambda ab: f"cmp:{min(ab)}:{max(ab)}")
    more, less = max(a, b), min(a, b)
    question, answer = draw.choice(
        [
            (f"Is {a} larger than {b}?", f"{'Yes' if a > b else 'No'}, {more} is larger than {less}."),
            (f"Is {a} greater than {b}? Answer yes or no.", "Yes" if a > b else "No"),
            (f"Is {a} < {b}? Answer yes or no.", "Yes" if a < b else "No"),
            (f"Which is larger, {a} or {b}?", f"{more} is larger than {less}."),
            (f"Which is smaller: {a} or {b}?", f"{less} is smaller than {more}."),
        ]
    )
    return Example("comparisons", turn(casual(draw, question), answer, f"{more} is larger than {less}."))
