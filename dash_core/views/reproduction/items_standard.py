"""The standard setting: figures 1, 7 and 12, tables 1 to 7, and table 8 of the SoTA setting."""

from collections.abc import Mapping, Sequence

from dash_core.views.reproduction.claims import Above, Claim
from dash_core.views.reproduction.item import Item, Overlay, Scale, View, always
from dash_core.views.reproduction.orderings import at_least, chain, fewest_steps, ordered, printed
from dash_core.views.reproduction.outcome import Outcome
from dash_core.views.reproduction.paper_numbers import PRINTED
from dash_core.views.reproduction.reading import LAST_ACCURACY, LAST_STEPS, gap, measured
from dash_core.views.reproduction.settings import (
    DATASETS,
    DIGITS,
    FOUR,
    MODELS,
    OPTIMISERS,
    OURS_PROTOCOL,
    small,
    small_digits,
    smoke,
    sota,
    standard,
    thin,
    thin_words,
)
from dash_core.views.reproduction.views import by_optimiser, lines_view, rows_table, tables_view
from dash_core.views.summary import Column, Records

REAL = ("fashion_mnist", "cifar10")  # the datasets of small scales, the simple one first
TWO_SETS = "Fashion-MNIST and of CIFAR-10"
PROPER_NAMES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "svhn": "SVHN", "tiny_imagenet": "Tiny-ImageNet"}
ORDER = ("dash", "shrink_perturb", "cold", "warm")
RHO = "SAM's ρ: 0.1, the default of the authors' code (0.05 in their notebook)"
STANDS_IN = f"{thin_words()}, in place of 50,000 in 50 chunks and ResNet-18"
OWN_DATA = "; a dataset that is not here is downloaded, or put into the data root as docs/data.md says"


def _growth(records: Records) -> float:
    """Return the steps of the last experiment minus those of the middle one: the extra cost of twice the data."""
    return records[-1].steps - records[(len(records) - 1) // 2].steps


GROWTH = Column("last_steps", "steps", _growth, 0)


def _optimisers(overlays: Mapping[str, Overlay]) -> dict[str, Overlay]:
    """Return each setting with SGD and with SAM, under keys 'setting/optimiser'."""
    return {
        f"{key}/{name}": {**overlay, "optimizer": {**overlay["optimizer"], "name": name}}
        for key, overlay in overlays.items()
        for name in OPTIMISERS
    }


def _smoke_pair(key: str) -> dict[str, Overlay]:
    return _optimisers({key: smoke(optimizer={"name": "sgd"})})


FIGURE_1 = Item(
    name="figure-1",
    shows="test accuracy and steps by experiment: cold, warm, S&P, DASH",
    setting="Tiny-ImageNet, ResNet-18, standard protocol, 3 seeds",
    ours=OURS_PROTOCOL,
    scales={
        "full": Scale({"tiny_imagenet": standard("tiny_imagenet", "resnet18", FOUR)}),
        "small": Scale(
            {"digits": small_digits(FOUR), **{data: thin(data, FOUR) for data in REAL}},
            f"{thin_words(TWO_SETS)}, and {DIGITS}, in place of Tiny-ImageNet with ResNet-18 in 50",
        ),
        "smoke": Scale({"digits": smoke(FOUR)}),
    },
    view=lines_view,
    claims=lambda keys: [*ordered(keys, ORDER), *fewest_steps(keys, ("cold", "shrink_perturb", "dash"))],
    numbers=printed("tiny_imagenet", PRINTED["tiny_imagenet/sgd"]),
)


def _growing(keys: Sequence[str]) -> list[Claim]:
    key = keys[0]
    cold, warm = (measured(label, GROWTH, key, f"{label}'s growth") for label in ("cold", "warm"))
    return [
        Claim(
            "cold's steps grow with the data: the last experiment takes more than the middle one", [Above(cold, 0.0)]
        ),
        Claim("cold's steps grow by more than warm's", [Above(cold, warm)]),
    ]


FIGURE_7 = Item(
    name="figure-7",
    shows="steps to converge grow with the data from cold starts, hardly from warm ones",
    setting="CIFAR-10, ResNet-18, standard protocol, 5 seeds",
    ours=(*OURS_PROTOCOL, "dataset and model: those of the authors' logs"),
    scales={
        "full": Scale({"cifar10": standard("cifar10", "resnet18", ("cold", "warm"))}),
        "small": Scale(
            {"cifar10": thin(compared=("cold", "warm"))},
            STANDS_IN,
        ),
        "smoke": Scale({"digits": smoke(("cold", "warm"), chunks=3)}),
    },
    view=lines_view,
    claims=_growing,
)


def _gaps(keys: Sequence[str]) -> list[Claim]:
    """Keys: from the simplest to the most complex set; their ends are compared."""
    simple, complex_ = keys[0], keys[-1]
    claims = []
    for column, (high, low), what in (
        (LAST_ACCURACY, ("cold", "warm"), "accuracy that warm loses to cold grows"),
        (LAST_STEPS, ("cold", "warm"), "steps that warm saves grow"),
    ):
        gaps = [
            gap(measured(high, column, key), measured(low, column, key), f"({high} − {low} on {key})")
            for key in (complex_, simple)
        ]
        claims.append(Claim(f"the {what} with the dataset's complexity: {simple} to {complex_}", [Above(*gaps)]))
    return claims


FIGURE_12 = Item(
    name="figure-12",
    shows="the gap between warm and cold starts grows with the complexity of the dataset",
    setting="the datasets of section 5, ResNet-18, standard protocol",
    ours=(*OURS_PROTOCOL, "order of complexity: SVHN, CIFAR-10, CIFAR-100, Tiny-ImageNet"),
    scales={
        "full": Scale(
            {
                name: standard(name, "resnet18", ("cold", "warm"))
                for name in ("svhn", "cifar10", "cifar100", "tiny_imagenet")
            }
        ),
        "small": Scale(
            {name: thin(name, ("cold", "warm")) for name in REAL},
            f"{thin_words('Fashion-MNIST, the simple set, and of CIFAR-10, the complex one')}, in place of the "
            "four datasets of section 5 and ResNet-18",
        ),
        "smoke": Scale(
            {
                "digits": smoke(("cold", "warm")),
                "noisy digits": smoke(("cold", "warm"), dataset={"label_noise": 0.2}),
            }
        ),
    },
    view=lines_view,
    claims=_gaps,
)

TABLE_1 = Item(
    name="table-1",
    shows="test accuracy and steps of cold, warm, warm ReM, S&P and DASH with SGD and SAM",
    setting="four datasets, ResNet-18, standard protocol, 5 seeds (Tiny-ImageNet: 3)",
    ours=(*OURS_PROTOCOL, RHO),
    scales={
        "full": Scale(_optimisers({name: standard(name, "resnet18") for name in DATASETS})),
        "small": Scale(
            {**_optimisers({"digits": small_digits()}), **{f"{name}/sgd": thin(name) for name in REAL}},
            f"{thin_words(TWO_SETS)}, with SGD alone, and {DIGITS}, in place of the four datasets of section 5 "
            "with ResNet-18 in 50",
        ),
        "smoke": Scale(_smoke_pair("digits")),
    },
    view=by_optimiser("Table 1: test accuracy and steps"),
    claims=lambda keys: [*ordered(keys, ORDER), *fewest_steps(keys, ("cold", "shrink_perturb", "dash"))],
    numbers=[claim for key, numbers in PRINTED.items() for claim in printed(key, numbers)],
)

L2_AND_RESET = ("cold", "warm", "l2_init", "head_reset")
TABLE_2 = Item(
    name="table-2",
    shows="L2 INIT and Reset, made for plasticity in changing settings, against cold and warm",
    setting="CIFAR-10, ResNet-18, standard protocol, 5 seeds",
    ours=(
        *OURS_PROTOCOL,
        "dataset and model",
        "L2 INIT: Kumar et al.'s, its λ the default; the authors' code squares a sum of norms (`l2_init_authors`)",
    ),
    scales={
        "full": Scale({"cifar10": standard("cifar10", "resnet18", L2_AND_RESET)}),
        "small": Scale(
            {"cifar10": thin(compared=L2_AND_RESET)},
            STANDS_IN,
        ),
        "smoke": Scale({"digits": smoke(L2_AND_RESET)}),
    },
    view=tables_view,
    claims=lambda keys: [
        Claim(
            "neither method closes the gap: cold is above L2 INIT, Reset and warm in last test accuracy",
            [check for other in L2_AND_RESET[1:] for check in chain(keys[0], ("cold", other))],
            "the paper's numbers are UNKNOWN",
        )
    ],
)


def _dataset_table(number: int, dataset: str) -> Item:
    name = PROPER_NAMES[dataset]
    shorter = {} if dataset == "cifar10" else {"experiments": 2, "diagnostics": []}
    small_scale = {"resnet18/sgd": thin(dataset, **shorter, **_SMALLER.get(dataset, {}))}
    experiments, left_out = 2, "VGG-16, the MLP and SAM are left out"
    if dataset == "cifar10":
        small_scale["mlp/sgd"] = small(data=dataset, compared=FOUR)
        experiments, left_out = 3, "the paper's MLP on 1,000 images in 5 chunks; VGG-16 and SAM are left out"
    own = "" if dataset == "cifar10" else OWN_DATA
    return Item(
        name=f"table-{number}",
        shows=f"{name}: ResNet-18, VGG-16 and MLP, each with SGD and SAM, five methods",
        setting=f"{name}, standard protocol, {3 if dataset == 'tiny_imagenet' else 5} seeds",
        ours=(*OURS_PROTOCOL, RHO, "which of tables 3 to 6 holds which dataset: the order of section 5"),
        scales={
            "full": Scale(_optimisers({model: standard(dataset, model) for model in MODELS})),
            "small": Scale(small_scale, f"{thin_words(name, experiments)}, in place of all in 50; {left_out}{own}"),
            "smoke": Scale(_smoke_pair("cnn3_small")),
        },
        view=by_optimiser(f"Table {number}: {name}"),
        claims=lambda keys: [*ordered(keys, ORDER), *fewest_steps(keys, ("cold", "shrink_perturb", "dash"))],
        numbers=[
            claim
            for optimiser in OPTIMISERS
            for claim in printed(f"resnet18/{optimiser}", PRINTED.get(f"{dataset}/{optimiser}", {}))
        ],
    )


_SMALLER: Mapping[str, Overlay] = {"tiny_imagenet": {"dataset": {"train_size": 1000}}}  # of four times the pixels
TABLES_3_TO_6 = tuple(_dataset_table(number, dataset) for number, dataset in enumerate(DATASETS, start=3))


def _settings_view(outcome: Outcome) -> View:
    """Show the settings of the full scales; no run is needed."""
    headings = ("Setting", "lr", "Batch", "DASH α", "DASH λ", "S&P λ", "S&P σ", "max epochs", "Seeds")
    rows = []
    for dataset in DATASETS:
        for model in MODELS:
            params = Scale({"": standard(dataset, model)}).params()[""]
            dash, perturb = params.methods["dash"], params.methods["shrink_perturb"]
            numbers = (params.optimizer.lr, params.training.batch_size, dash["alpha"], dash["floor"])
            more = (perturb["shrink"], perturb["sigma"], params.training.max_epochs, len(params.seeds))
            rows.append((f"{dataset}, {model}", *(f"{value:g}" for value in (*numbers, *more))))
    note = "the paper's own table is UNKNOWN: learning rate, batch and α are of its section 5, the rest is ours"
    return View(tables=[rows_table("Table 7: our settings", headings, rows, note)])


TABLE_7 = Item(
    name="table-7",
    shows="hyperparameters by dataset and model: our settings, since the paper's table is UNKNOWN",
    setting="standard protocol",
    ours=("the whole table: λ by setting is UNKNOWN",),
    scales={"full": Scale({}), "small": Scale({}), "smoke": Scale({})},
    view=_settings_view,
    claims=always(),
)


def _state_of_the_art(keys: Sequence[str]) -> list[Claim]:
    claims = []
    for key in keys:
        others = ("warm", "warm_rm", "shrink_perturb")
        claims.append(at_least(key, "cold", ("dash",), f"{key}: cold is no worse than DASH in the SoTA setting"))
        checks = [check for other in others for check in chain(key, ("dash", other))]
        claims.append(Claim(f"{key}: DASH is above warm, warm ReM and S&P in last test accuracy", checks))
    return claims


SMALL_SOTA = {
    "training": {"recipe": "sota", "batch_size": 64, "max_epochs": 15},
    "optimizer": {"lr": 0.05},
    "diagnostics": [],
}
TABLE_8 = Item(
    name="table-8",
    shows="the SoTA setting: augmentation, weight decay, schedule; cold is best there, DASH next",
    setting="CIFAR-10 and CIFAR-100, ResNet-18 without max-pool, recipe sota, 50 chunks, 3 seeds",
    ours=(
        "the floor of DASH and λ of S&P: 0.3, the default; the mode of DASH's gradients: eval",
        "an experiment ends at 99.9 % train accuracy here too; whether the paper's does is UNKNOWN",
        "the rate falls at epoch 160 as well, as from the authors' side; the paper's text names 60, 120 and 200",
    ),
    scales={
        "full": Scale({name: sota(name) for name in ("cifar10", "cifar100")}),
        "small": Scale(
            {"cifar10": thin(**SMALL_SOTA)},
            f"{thin_words()}, with max-pool and at most 15 epochs an experiment: warm-up, weight decay "
            "and augmentation are the recipe's, its schedule has no step so early",
        ),
        "smoke": Scale({"digits": smoke(training={"recipe": "sota", "augmentation": "none", "warmup_epochs": 1})}),
    },
    view=tables_view,
    claims=_state_of_the_art,
)

ITEMS = (FIGURE_1, FIGURE_7, FIGURE_12, TABLE_1, TABLE_2, *TABLES_3_TO_6, TABLE_7, TABLE_8)
