"""Two questions of ours about the paper's effect: is it DASH's directions, and does it depend on how fast data grow?

Neither is in the paper, and no published ablation answers them. Expectation and rule of decision are written here
before any run; the pages say what comes out.

**direction.** In a network with BatchNorm, the norm of a filter sets its effective learning rate alone, and its
direction the function. DASH changes both. `dash_norms` gives each filter DASH's norm and keeps its direction;
`dash_direction` gives it DASH's direction and keeps its norm; warm changes neither: a 2x2 of norms and directions.
`dash_permuted_in_filter` has DASH's factors on the wrong kernels of the right filter: as much of a change of
direction, but a random one. `dash_permuted` has them on any kernel of the layer.

Expectation: DASH is above warm by points, `dash_norms` keeps most of that, and DASH is not above
`dash_permuted_in_filter`. Reasons: on ResNet-18 as many factors are at the floor as for random gradients
(docs/findings.md); S&P, which has no direction, gains as much as DASH on the thin network; and others close the gap by
raising the learning rate anew (Lyle et al. 2025).

Decision, on last test accuracy, with the 95 % interval of the differences paired by seed. It is the shrinking if
`dash_norms` loses no more than CLOSE points to DASH. Where that does not hold, the direction matters if DASH is above
both permuted controls. It is a change of direction, but any would do, if `dash_norms` loses more, DASH is above neither
permuted control, and `dash_direction` is above warm. Anything else is not decided.

**growth.** The same images in 2 to 50 chunks: warm starts on data that double, and on data that grow by a fiftieth. The
gap is cold's last accuracy minus warm's. Cold's last experiment trains a new network on all images, however many chunks
there were before, so the cold run of the fewest chunks is the reference of all.

Expectation: the loss follows the abruptness of the change (Liu & Mou 2026), so the gap is largest with 2 chunks and
smaller with 50. Decision: the interval of warm's last accuracy with the most chunks minus that with the fewest. Above
0: the gap shrinks with slower growth; below 0: it grows; else not decided.
"""

from collections.abc import Mapping, Sequence

from dash_core.spread import Spread
from dash_core.views.figures.look import STYLES
from dash_core.views.reproduction.claims import Above, Claim
from dash_core.views.reproduction.figures import Curve, bars, curves, method_styles
from dash_core.views.reproduction.item import Item, Overlay, PageFigure, Scale, View
from dash_core.views.reproduction.outcome import Measured, Outcome
from dash_core.views.reproduction.reading import AVERAGE_ACCURACY, LAST_ACCURACY, gap, measured
from dash_core.views.reproduction.settings import OURS_PROTOCOL, SEEDS, smoke, standard, thin, thin_words
from dash_core.views.reproduction.views import SPREAD, rows_table, setting, tables
from dash_core.views.rules import Rule

ARMS = ("warm", "dash_norms", "dash_direction", "dash", "dash_permuted_in_filter", "dash_permuted")
PERMUTED = ("dash_permuted_in_filter", "dash_permuted")
CLOSE = 1.0  # points of last accuracy; a control that loses no more than this to DASH is as good; our margin
OURS = "written down before the runs, in the source of this item"
TEN_FULL = [*range(SEEDS[0], SEEDS[0] + 10)]


def _above(one: str, other: str, key: str, margin: float = 0.0) -> Above:
    return Above(measured(one, LAST_ACCURACY, key), measured(other, LAST_ACCURACY, key), margin)


def _direction_claims(keys: Sequence[str]) -> list[Claim]:
    key = keys[0]
    return [
        Claim("the effect is there: DASH is above warm in last test accuracy", [_above("dash", "warm", key)], OURS),
        Claim(
            "the direction matters: DASH is above its own factors permuted within each filter, and over each layer",
            [_above("dash", control, key) for control in PERMUTED],
            OURS,
        ),
        Claim(
            f"the norms suffice: DASH's norms on warm's directions lose no more than {CLOSE:g} point to DASH",
            [_above("dash_norms", "dash", key, CLOSE)],
            OURS,
        ),
        Claim(
            f"the directions suffice: DASH's directions with warm's norms lose no more than {CLOSE:g} point to DASH",
            [_above("dash_direction", "dash", key, CLOSE)],
            OURS,
        ),
        Claim(
            "a direction alone does something: `dash_direction` is above warm",
            [_above("dash_direction", "warm", key)],
            OURS,
        ),
    ]


def _direction_answer(outcome: Outcome, rule: Rule) -> str:
    """Return the plain answer: does the direction matter, or is it the shrinking? As this file decides it."""
    key = next(iter(outcome))

    def judged(check: Above) -> str:
        return check.verdict(outcome, rule).judgement

    def differences(*pairs: tuple[str, str]) -> str:
        return "; ".join(_above(one, other, key).verdict(outcome, rule).numbers for one, other in pairs)

    permuted = [judged(_above("dash", control, key)) for control in PERMUTED]
    norms = judged(_above("dash_norms", "dash", key, CLOSE))
    if judged(_above("dash", "warm", key)) != "agree":
        return f"Not decided: DASH is not above warm here. {differences(('dash', 'warm'))}."
    if norms == "agree":
        answer = "It is the shrinking: DASH's norms on warm's directions do as well"
    elif permuted == ["agree"] * len(PERMUTED):
        answer = "The direction matters: DASH is above its own factors on the wrong kernels"
    elif norms == "disagree" and "agree" not in permuted and judged(_above("dash_direction", "warm", key)) == "agree":
        answer = "It is a change of direction, but any would do: DASH's factors on the wrong kernels do as well"
    else:
        answer = "Not decided by the rule that was written down"
    pairs = [("dash", "warm"), *(("dash", control) for control in PERMUTED), ("dash_norms", "dash")]
    return f"{answer}. {differences(*pairs)}."


def _direction_view(outcome: Outcome) -> View:
    drawings = []
    for key, one in outcome.items():
        groups = {label: _spreads(one, label) for label in one.params.compare.methods if one.method(label).runs}
        caption = (
            f"{setting(one)}. warm: neither; dash_norms: DASH's norms; dash_direction: DASH's directions; dash: both; "
            f"permuted: DASH's factors on the wrong kernels. {SPREAD}."
        )
        figure = bars(groups, method_styles(one.methods), "test accuracy", "%")
        drawings.append(PageFigure(f"direction-{key}", f"Norms and directions: {key}", caption, figure))
    return View(drawings, tables(outcome))


def _spreads(one: Measured, label: str) -> dict[str, Spread]:
    runs = one.method(label).runs.values()
    columns = {"last": LAST_ACCURACY, "average": AVERAGE_ACCURACY}
    return {name: Spread.of([column.measure(run) * column.scale for run in runs]) for name, column in columns.items()}


DIRECTION = Item(
    name="direction",
    shows="does DASH's direction matter, or is it the shrinking? norms and directions apart",
    setting="not an item of the paper; CIFAR-10, ResNet-18, standard protocol, 10 seeds",
    ours=(*OURS_PROTOCOL, "the whole item: controls, expectation and rule of decision"),
    scales={
        "full": Scale({"cifar10": standard("cifar10", "resnet18", ARMS, seeds=TEN_FULL)}),
        "small": Scale({"cifar10": thin(compared=ARMS, seeds=[*range(10)])}, thin_words()),
        "smoke": Scale({"digits": smoke(ARMS)}),
    },
    view=_direction_view,
    claims=_direction_claims,
    answer=_direction_answer,
)

COUNTS = (2, 5, 10, 20, 50)


def _growing(base: Overlay, counts: Sequence[int]) -> dict[str, Overlay]:
    """Return a comparison for each number of chunks, keys 'j chunks': warm in all, cold in the first."""
    return {
        f"{count} chunks": {
            **base,
            "chunks": count,
            "experiments": None,
            "compare": {"methods": ["cold", "warm"] if number == 0 else ["warm"]},
        }
        for number, count in enumerate(counts)
    }


def _gaps(outcome: Outcome) -> Mapping[int, Mapping[int, float]]:
    """Return cold − warm in points of last accuracy, by number of chunks and seed."""
    keys = list(outcome)
    return {
        outcome[key].params.chunks: gap(
            measured("cold", LAST_ACCURACY, keys[0]), measured("warm", LAST_ACCURACY, key), key
        ).values(outcome)
        for key in keys
    }


def _growth_view(outcome: Outcome) -> View:
    keys = list(outcome)
    found = {count: by_seed for count, by_seed in _gaps(outcome).items() if by_seed}
    spreads = [Spread.of(list(by_seed.values())) for by_seed in found.values()]
    seeds = min((len(by_seed) for by_seed in found.values()), default=0)
    line = Curve("cold − warm", STYLES["warm"], list(found), spreads, seeds)
    axis = {"type": "log", "tickmode": "array", "tickvals": list(found)}
    figure = curves([line], "chunks of the same images", "cold − warm, last accuracy (points)", **axis)
    caption = f"{setting(outcome[keys[0]])}. Cold: its last experiment with {keys[0]}. {SPREAD}."
    rows = [
        (f"{count}", f"{100 / (count - 1):.0f} %", f"{spread.mean:.2f} ({spread.std:.2f})", str(len(by_seed)))
        for (count, by_seed), spread in zip(found.items(), spreads, strict=True)
    ]
    headings = ("Chunks", "Last growth of the data", "cold − warm, points", "Seeds")
    drawing = PageFigure("growth", "The gap by the number of chunks", caption, figure)
    return View([drawing], [rows_table("The gap by the growth of the data", headings, rows)])


def _slower(keys: Sequence[str]) -> Above:
    fast, slow = (measured("warm", LAST_ACCURACY, key, f"warm ({key})") for key in (keys[0], keys[-1]))
    return Above(slow, fast)


def _growth_answer(outcome: Outcome, rule: Rule) -> str:
    """Return the plain answer: does the gap depend on how fast the data grow? As this file decides it."""
    verdict = _slower(list(outcome)).verdict(outcome, rule)
    answer = {
        "agree": "The gap shrinks where the data grow slowly",
        "disagree": "The gap grows where the data grow slowly, in many chunks",
    }.get(verdict.judgement, "Whether the gap depends on how fast the data grow is not decided")
    return f"{answer}. {verdict.numbers}."


GROWTH = Item(
    name="growth",
    shows="the gap between cold and warm starts against the growth of the data: the same images in 2 to 50 chunks",
    setting="not an item of the paper; CIFAR-10, ResNet-18, standard protocol but for the chunks, 5 seeds",
    ours=(*OURS_PROTOCOL, "the whole item: expectation and rule of decision"),
    scales={
        "full": Scale(_growing(standard("cifar10", "resnet18"), COUNTS)),
        "small": Scale(
            _growing(thin(dataset={"train_size": 800}, diagnostics=[]), COUNTS),
            "a ResNet-18 of a quarter of the width on 800 images of CIFAR-10",
        ),
        "smoke": Scale(_growing(smoke(), (2, 3))),
    },
    view=_growth_view,
    claims=lambda keys: [
        Claim(
            f"where the data grow slowly, warm loses less: {keys[-1]} are above {keys[0]} in warm's last test accuracy",
            [_slower(keys)],
            OURS,
        ),
        *(
            Claim(
                f"{key}: warm ends below cold",
                [Above(measured("cold", LAST_ACCURACY, keys[0]), measured("warm", LAST_ACCURACY, key))],
                OURS,
            )
            for key in keys
        ),
    ],
    answer=_growth_answer,
)

ITEMS = (DIRECTION, GROWTH)
