"""The callback of skorch, in skorch's own nets."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from dash_core import dash_
from tests.integrations import data

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def kit() -> SimpleNamespace:
    """Return skorch and the callback; the library is imported when a test needs it."""
    skorch = pytest.importorskip("skorch")
    from dash_core.integrations.skorch import WarmStart

    class Watch(skorch.callbacks.Callback):
        """Note the state after the callbacks before it."""

        def on_train_begin(self, net, **others):
            self.state, self.random = data.state(net.module_), torch.get_rng_state()
            states = net.optimizer_.state.values()
            self.momentum = [
                state["momentum_buffer"].clone() for state in states if state.get("momentum_buffer") is not None
            ]

    def net(*callbacks, **options):
        settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 2, "lr": 0.05, "batch_size": 8, "train_split": None}
        settings |= {"optimizer__momentum": 0.9, "verbose": 0, "warm_start": True, "callbacks": list(callbacks)}
        torch.manual_seed(0)
        return skorch.NeuralNetClassifier(Net, **(settings | options))

    return SimpleNamespace(library=skorch, WarmStart=WarmStart, Watch=Watch, net=net)


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(*data.network())


def rows(*numbers: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [data.chunk(number).tensors for number in numbers]
    return tuple(torch.cat(tensors).numpy() for tensors in zip(*parts, strict=True))


def test_rows_beyond_the_last_fit_are_a_new_chunk_and_the_weights_are_dashs(kit):
    first, watch = kit.Watch(), kit.Watch()
    net = kit.net(("first", first), kit.WarmStart("dash", floor=0.2), ("watch", watch))
    net.fit(*rows(0))
    for seen in ((0, 1), (0, 1, 2)):
        last = data.state(net.module_)
        net.fit(*rows(*seen))
        expected = data.network()
        expected.load_state_dict(last)
        dash_(expected, [data.chunk(number).tensors for number in seen], floor=0.2)
        data.assert_equal(first.state, last)
        data.assert_equal(watch.state, data.state(expected), 1e-6)
        assert torch.equal(watch.random, first.random)
        assert all(map(torch.equal, watch.momentum, first.momentum))
    assert net.history[-1, "warm_start_rows"] == [24, 44, 72]
    assert net.score(*rows(0, 1, 2)) > 0.5


def test_a_fit_that_continues_is_not_shrunk_again(kit, tmp_path):
    checkpoint = kit.library.callbacks.Checkpoint(dirname=tmp_path, monitor=None)
    first, watch = kit.Watch(), kit.Watch()
    net = kit.net(kit.WarmStart("dash"), checkpoint)
    net.fit(*rows(0)).fit(*rows(0, 1))
    load = kit.library.callbacks.LoadInitState(checkpoint)
    again = kit.net(("load", load), ("first", first), kit.WarmStart("dash"), watch)
    again.fit(*rows(0, 1))
    data.assert_equal(watch.state, first.state)
    data.assert_equal(first.state, data.state(net.module_))
    assert again.history[-1, "warm_start_rows"] == [24, 44]


def test_a_net_without_its_history_is_told_the_rows_and_held_out_rows_are_left_aside(kit):
    watch = kit.Watch()
    split = kit.library.dataset.ValidSplit(11)
    net = kit.net(kit.WarmStart("dash", rows=[24]), watch, train_split=split)
    net.initialize()
    expected = data.network()
    expected.load_state_dict(data.state(net.module_))
    net.partial_fit(*rows(0, 1))
    inputs, labels = (torch.from_numpy(array) for array in rows(0, 1))
    train, _ = split(net.get_dataset(inputs, labels), labels)
    kept = np.asarray(train.indices)
    parts = [torch.from_numpy(kept[kept < 24]), torch.from_numpy(kept[kept >= 24])]
    dash_(expected, [(inputs[part], labels[part]) for part in parts])
    data.assert_equal(watch.state, data.state(expected), 1e-6)


def test_rows_that_are_not_those_of_the_last_fit_are_refused(kit):
    net = kit.net(kit.WarmStart("dash"))
    net.fit(*rows(0))
    before = data.state(net.module_)
    inputs, labels = rows(0, 1)
    for given, words in (
        ((inputs[:10], labels[:10]), "this fit has 10 rows and the last one had 24"),
        ((inputs[::-1].copy(), labels[::-1].copy()), "first 24 labels are not those of the last fit"),
        ((inputs, np.where(np.arange(44) == 40, 7, labels)), "classes that the earlier ones lack: 7"),
    ):
        with pytest.raises(ValueError, match=words):
            net.fit(*given)
        data.assert_equal(data.state(net.module_), before)


def test_the_callback_is_a_scikit_learn_object(kit):
    from sklearn.base import clone

    copy = clone(kit.WarmStart("shrink_perturb", shrink=0.4, seed=2))
    assert (copy.method, copy.shrink, copy.seed, copy.floor) == ("shrink_perturb", 0.4, 2, None)
    with pytest.raises(ValueError, match="dash has no parameter 'shrink'"):
        kit.WarmStart("dash", shrink=0.4)


def test_three_arrivals_give_the_weights_of_the_same_loop_in_plain_torch(kit):
    net = kit.net(kit.WarmStart("dash", floor=0.2), max_epochs=3)
    net.initialize()
    plain = data.network()
    net.module_[3].p = plain[3].p = 0.0  # dropout draws from the global generator
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)  # a warm start of skorch keeps its momentum
    for arrival in range(3):
        seen = range(arrival + 1)
        net.fit(*rows(*seen))
        if arrival:
            dash_(plain, [data.loader(number) for number in seen], floor=0.2)
        data.train(plain, optimizer, data.loader(*seen), epochs=3)
    assert net.score(*rows(0, 1, 2)) > 0.8
    data.assert_equal(data.state(net.module_), data.state(plain), tolerance=1e-4)
