"""The vocabulary of the generator: plain word lists, and made-up names."""

from __future__ import annotations

from .base import Draw

FIRST_NAMES = """Ada Adam Alan Alice Amir Amy Ana Anna Anton Aria Ben Bella Bob Boris Carl Carla Chen
Chloe Clara Dan Daniel Dave Diana Elena Eli Ella Emil Emma Eric Eva Felix Fiona Frank Grace Greta
Hanna Hugo Ian Ida Ines Iris Ivan Jack James Jane Jin John Jonas Julia Kai Karen Karl Kate Kim Lara
Laura Lea Leo Lena Liam Lily Linus Lisa Lucas Lucy Luis Maja Marco Maria Mark Marta Max Maya Mei
Mia Mike Mila Mina Nadia Nick Nina Noah Nora Olga Oliver Omar Oscar Otto Paul Paula Pedro Peter Pia
Priya Ravi Rita Robert Rosa Ruth Sam Sara Sofia Sven Tara Theo Tim Tina Tom Uma Vera Victor Wanda
Wei Yan Yara Yuki Zara Zoe""".split()

LAST_NAMES = """Adams Baker Bauer Bell Berg Brown Clark Cohen Cole Costa Cruz Diaz Evans Fischer Ford
Garcia Gray Green Hall Hill Hopper Jones Kaya Khan Kim King Klein Lee Lopez Lovelace Martin Meyer
Miller Moore Nguyen Novak Park Patel Reed Rossi Sato Silva Singh Smith Stone Tanaka Taylor Turing
Vogel Wagner Walker Weber White Wilson Wolf Wong Wood Young""".split()

CITIES = (
    """Amsterdam Athens Austin Bangkok Barcelona Beijing Berlin Berne Boston Brussels Budapest
Cairo Chicago Copenhagen Dallas Delhi Denver Dublin Florence Geneva Hamburg Helsinki Istanbul Kyoto
Lagos Lima Lisbon London Lyon Madrid Manila Melbourne Miami Milan Montreal Moscow Munich Nairobi
Naples Oslo Ottawa Oxford Paris Porto Prague Rome Santiago Seattle Seoul Shanghai Singapore Sofia
Stockholm Sydney Tokyo Toronto Turin Venice Vienna Warsaw Zurich""".split()
    + ["New York", "Tel Aviv"]
)

JOBS = """actor artist baker barber builder chef clerk coach dentist designer doctor driver editor
engineer farmer gardener judge lawyer librarian manager mechanic musician nurse painter pilot
plumber poet printer sailor scientist singer teacher tailor vet waiter writer""".split()

COLOURS = "red orange yellow green blue purple pink brown black white grey gold silver".split()

ANIMALS = """ant bear bee bird cat cow crab crow deer dog dolphin donkey duck eagle fish fox frog goat
goose hamster hen horse koala lion lizard monkey mouse otter owl panda parrot penguin pig pony
rabbit rat seal shark sheep snail snake spider swan tiger toad turtle whale wolf zebra""".split()

FOODS = """apple apricot avocado banana bean berry bread butter cake carrot cheese cherry chocolate
coffee cookie corn cucumber egg fig garlic grape honey jam juice kiwi lemon lime mango melon milk
mushroom noodle nut olive onion orange pasta peach pear pepper pizza plum potato rice salad salt
soup spinach sugar tea tomato yogurt""".split()

THINGS = """bag ball basket bed bell belt bench bike boat book bottle box brush bucket button camera
candle card carpet chair clock coat comb cup desk doll door drum fan flag flute fork glass glove
guitar hammer hat helmet jacket jar kettle key knife ladder lamp laptop map mirror mug needle
notebook oven pan paper pen pencil phone piano pillow plate pot printer radio ring rope ruler
scarf shirt shoe shovel soap sofa spoon stamp stool table tablet tent ticket torch towel toy tray
umbrella vase violin wallet watch wheel whistle window""".split()

NATURE = """beach cloud desert field fire flower forest garden grass hill ice island lake leaf light
moon mountain night ocean rain river road rock sand sea sky snow spring star stone storm summer
sun tree valley village water wave wind winter wood""".split()

ADJECTIVES = """big bright calm clever cold dark deep dry empty fast fresh gentle happy heavy kind
large late light little long loud lucky new old open proud quick quiet round sharp short shy
simple slow small soft strong sweet tall tiny warm wet wild wise young""".split()

COMPANIES = """Acme Apex Beacon Bluebird Cobalt Delta Ember Falcon Globex Harbor Initech Juniper
Kestrel Lumen Meridian Nimbus Orbit Pioneer Quartz Summit Vertex Willow Zenith""".split()

EVENTS = """meeting concert workshop party exam lecture match wedding dinner lunch conference picnic
interview rehearsal tour race""".split()

WORDS = sorted({*COLOURS, *ANIMALS, *FOODS, *THINGS, *NATURE, *ADJECTIVES})
SPELT = sorted({*COLOURS, *ANIMALS, *FOODS})  # the words whose letters the model is taught

_ONSETS = "b br c ch d dr f fl g gr h j k kl l m n p pl qu r s sh st t tr v w y z".split()
_VOWELS = "a e i o u a e i o ai ee ia io ou".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m", "k", "x", "nd", "th", "ck"]


def made_up(draw: Draw) -> str:
    """A word that is in no list, so that copying is learnt and not the list."""
    syllables = draw.choice([1, 2, 2, 2, 3])
    parts = [draw.choice(_ONSETS) + draw.choice(_VOWELS) for _ in range(syllables)]
    return "".join(parts) + draw.choice(_CODAS)


def with_a_double(draw: Draw) -> str:
    """A made-up word with a letter twice in a row, as `apple` has and `made_up` never writes."""
    onset = draw.choice(["", draw.choice(_ONSETS)])
    vowel, double = draw.choice("aeiou"), draw.choice("bdfglmnprstz") * 2
    return onset + vowel + double + draw.choice(["le", "er", "y", "o", "a", "ow", "ot", "et", "el", "on"])


def name(draw: Draw) -> str:
    return made_up(draw).capitalize() if draw.maybe(0.3) else draw.choice(FIRST_NAMES)


def full_name(draw: Draw) -> str:
    last = made_up(draw).capitalize() if draw.maybe(0.3) else draw.choice(LAST_NAMES)
    return f"{name(draw)} {last}"


def city(draw: Draw) -> str:
    return made_up(draw).capitalize() if draw.maybe(0.25) else draw.choice(CITIES)


def word(draw: Draw) -> str:
    return draw.choice(WORDS)


def words(draw: Draw, count: int) -> list[str]:
    return draw.sample(WORDS, count)


def email(draw: Draw) -> str:
    user = draw.choice([name, made_up, word])(draw).lower()
    host = draw.choice(["example", "mail", "post", "home", "work", made_up(draw)])
    return f"{user}@{host}.{draw.choice(['com', 'org', 'net', 'io'])}"


def date(draw: Draw) -> str:
    return f"{draw.randint(2020, 2029)}-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}"


def clock(draw: Draw) -> str:
    return f"{draw.randint(0, 23):02}:{draw.choice(range(0, 60, 5)):02}"
