"""The cost of the methods: table 9 by method, table 10 by hardware."""

from dash_core.spread import Spread
from dash_core.views.reproduction.claims import Above, Claim
from dash_core.views.reproduction.item import Item, Scale, View, always
from dash_core.views.reproduction.outcome import Measured, Outcome
from dash_core.views.reproduction.reading import TERAFLOPS, measured
from dash_core.views.reproduction.settings import DIGITS, OURS_PROTOCOL, small_digits, smoke, standard, thin, thin_words
from dash_core.views.reproduction.views import rows_table, setting
from dash_core.views.summary import Column, MethodRuns, total_cost

NOTHING = "–"
GIB = 2**30
SPENT = (
    Column("epochs", "Epochs", lambda run: sum(record.epochs for record in run), 1),
    Column("seconds", "Seconds", lambda run: total_cost(run).seconds, 1),
    TERAFLOPS,
    Column("memory", "Memory GiB", lambda run: total_cost(run).peak_memory, 2, 1 / GIB),
)
AUTHORS = ("authors: cold, CIFAR-10, ResNet-18, 50 experiments", "RTX A6000", "5,761", "1")


def _cuda(one: Measured) -> bool:
    return any(machine.get("device_type") == "cuda" for machine in one.machines)


def _costs(outcome: Outcome) -> View:
    """Return one row per method; memory is that of the process on a CPU, and of the allocator on CUDA."""
    rows = []
    for key, one in outcome.items():
        for method in one.methods:
            runs = method.runs.values()
            cells = [column.write(Spread.of([column.measure(run) for run in runs])) for column in SPENT]
            memory = (NOTHING, cells[-1]) if _cuda(one) else (cells[-1], NOTHING)
            rows.append((key, method.label, *cells[:-1], *memory, str(len(runs))))
    headings = ("Setting", "Method", *(c.title for c in SPENT[:-1]), "CPU memory GiB", "CUDA memory GiB", "Seeds")
    notes = (
        "mean (population std) over seeds; all phases together; memory: the highest level, of the process on a CPU, "
        "of torch's allocator on CUDA",
        *(
            f"{key}: {setting(one)}, {one.params.experiments or one.params.chunks} experiments"
            for key, one in outcome.items()
        ),
    )
    return View(tables=[rows_table("Table 9: cost by method", headings, rows, *notes)])


TWO = {"experiments": 2}
TABLE_9 = Item(
    name="table-9",
    shows="epochs, seconds, TeraFLOPs and memory by method",
    setting="2 of 50 experiments of the standard protocol",
    ours=(*OURS_PROTOCOL, "dataset and model: CIFAR-10 and ResNet-18"),
    scales={
        "full": Scale({"cifar10": standard("cifar10", "resnet18", **TWO)}),
        "small": Scale({"digits": small_digits()}, f"{DIGITS}, all of them"),
        "smoke": Scale({"digits": smoke(chunks=3, **TWO)}),
    },
    view=_costs,
    claims=lambda keys: [
        Claim(
            "warm spends the fewest FLOPs",
            [
                Above(measured(other, TERAFLOPS, keys[0]), measured("warm", TERAFLOPS, keys[0]))
                for other in ("cold", "shrink_perturb", "dash")
            ],
            "it takes the fewest steps; the paper's numbers are UNKNOWN",
        )
    ],
)


def _by_hardware(outcome: Outcome) -> View:
    rows = [
        (f"{method.label}, {setting(one)}", _hardware(one), _seconds(method), str(len(method.runs)))
        for one in outcome.values()
        for method in one.methods
        if method.runs
    ]
    note = "seconds of a whole run, all phases: mean (population std) over seeds"
    headings = ("Run", "Hardware", "Seconds", "Seeds")
    return View(tables=[rows_table("Table 10: total seconds by hardware", headings, [AUTHORS, *rows], note)])


def _hardware(one: Measured) -> str:
    return ", ".join(dict.fromkeys(f"{m.get('device')}, {m.get('threads')} thread(s)" for m in one.machines))


def _seconds(method: MethodRuns) -> str:
    return SPENT[1].write(Spread.of([total_cost(run).seconds for run in method.runs.values()]))


TABLE_10 = Item(
    name="table-10",
    shows="total seconds by hardware: the authors' cold run, and this machine's runs",
    setting="the authors' cold run of CIFAR-10 and ResNet-18: 5,761 s on an RTX A6000",
    ours=(*OURS_PROTOCOL, "other hardware and numbers of the paper are UNKNOWN"),
    scales={
        "full": Scale({"cifar10": standard("cifar10", "resnet18")}),
        "small": Scale(
            {"cifar10": thin(), "digits": small_digits()},
            f"{thin_words()}, diagnostics included, and {DIGITS}",
        ),
        "smoke": Scale({"digits": smoke()}),
    },
    view=_by_hardware,
    claims=always(),
)

ITEMS = (TABLE_9, TABLE_10)
