"""The paper's known numbers: ResNet-18, standard protocol, mean and population std over its seeds."""

from collections.abc import Mapping

from dash_core.views.reproduction.orderings import Number

LAST, STEPS, MEAN, MEAN_STEPS = "last_accuracy", "last_steps", "average_accuracy", "average_steps"

PRINTED: Mapping[str, Mapping[tuple[str, str], Number]] = {
    "cifar10/sgd": {
        ("cold", LAST): (67.32, 0.51),
        ("cold", STEPS): (5161, 156),
        ("cold", MEAN): (57.66, 0.11),
        ("cold", MEAN_STEPS): (2916, 37),
        ("warm", LAST): (63.53, 0.56),
        ("warm", STEPS): (1173, 0),
        ("warm", MEAN): (54.87, 0.18),
        ("warm", MEAN_STEPS): (665, 11),
        ("shrink_perturb", LAST): (81.25, 0.14),
        ("shrink_perturb", STEPS): (5395, 625),
        ("dash", LAST): (84.08, 0.52),
        ("dash", STEPS): (6490, 399),
    },
    "cifar10/sam": {
        ("cold", LAST): (75.68, 0.39),
        ("cold", STEPS): (17125, 292),
        ("cold", MEAN): (66.27, 0.13),
        ("cold", MEAN_STEPS): (8121, 26),
        ("warm", LAST): (70.99, 0.59),
        ("warm", STEPS): (3910, 247),
        ("warm", MEAN): (63.27, 0.55),
        ("warm", MEAN_STEPS): (2153, 23),
        ("shrink_perturb", LAST): (85.53, 0.22),
        ("dash", LAST): (86.75, 0.53),
    },
    "tiny_imagenet/sgd": {
        ("cold", LAST): (25.69, 0.13),
        ("cold", STEPS): (30237, 368),
        ("cold", MEAN): (17.37, 0.06),
        ("cold", MEAN_STEPS): (17503, 53),
        ("warm", LAST): (9.57, 0.24),
        ("warm", STEPS): (3388, 368),
        ("warm", MEAN): (6.70, 0.04),
        ("warm", MEAN_STEPS): (1785, 5),
        ("shrink_perturb", LAST): (34.34, 0.48),
        ("shrink_perturb", STEPS): (13815, 368),
        ("dash", LAST): (46.11, 0.34),
    },
    "tiny_imagenet/sam": {
        ("cold", LAST): (31.30, 0.09),
        ("cold", STEPS): (40142, 368),
        ("cold", MEAN): (21.95, 0.11),
        ("cold", MEAN_STEPS): (22513, 74),
        ("warm", LAST): (13.94, 0.37),
        ("warm", STEPS): (5474, 0),
        ("warm", MEAN): (9.88, 0.21),
        ("warm", MEAN_STEPS): (2773, 7),
        ("shrink_perturb", LAST): (37.39, 0.18),
        ("dash", LAST): (49.57, 0.36),
    },
}
