"""The callback of Lightning, in Lightning's own Trainer."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from dash_core import dash_, shrink_perturb_
from tests.integrations import data

pytestmark = pytest.mark.filterwarnings("ignore")  # Lightning warns of few workers, batches and loggers


@pytest.fixture(scope="module")
def kit() -> SimpleNamespace:
    """Return Lightning, the callback and a module; the library is imported when a test needs it."""
    lightning = pytest.importorskip("lightning.pytorch")
    torchmetrics = pytest.importorskip("torchmetrics")
    from dash_core.integrations.lightning import WarmStart

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = data.network()
            self.accuracy = torchmetrics.classification.MulticlassAccuracy(data.CLASSES)
            self.register_buffer("steps", torch.zeros(()))
            self.seen: dict = {}

        def training_step(self, batch, batch_idx):
            outputs = self.net(batch[0])
            self.steps = self.steps + 1
            self.accuracy(outputs, batch[1])
            self.log("accuracy", self.accuracy)
            self.log_dict({"images": float(len(batch[1]))})
            return {"loss": functional.cross_entropy(outputs, batch[1])}

        def on_train_start(self):  # after the callbacks' own
            self.seen = {
                "state": data.state(self.net),
                "modes": [module.training for module in self.net.modules()],
                "steps": float(self.steps),
                "updates": self.accuracy.update_count,
                "random": torch.get_rng_state(),
                "gradients": [parameter.grad for parameter in self.parameters()],
                "momentum": {key: value.clone() for key, value in self._momentum()},
            }

        def _momentum(self):
            optimizer = self.optimizers().optimizer
            for number, parameter in enumerate(self.net.parameters()):
                if parameter in optimizer.state:
                    yield number, optimizer.state[parameter]["momentum_buffer"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)

    class Steps(lightning.Callback):
        """Note the random state before the callbacks, and stop."""

        def __init__(self, stop_after: int | None = None) -> None:
            self.stop_after = stop_after

        def on_train_start(self, trainer, pl_module):
            self.random = torch.get_rng_state()

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.should_stop or trainer.global_step == self.stop_after

    def trainer(*callbacks, epochs=1, **options):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "num_sanity_val_steps": 0}
        return lightning.Trainer(max_epochs=epochs, callbacks=list(callbacks), **(quiet | options))

    return SimpleNamespace(WarmStart=WarmStart, Module=Module, Steps=Steps, trainer=trainer)


def chunks_of(*numbers: int):
    return [data.chunk(number).tensors for number in numbers]


def test_the_weights_are_dashs_and_everything_else_is_as_found(kit):
    module, steps = kit.Module(), kit.Steps()
    before = data.state(module.net)
    warm_start = kit.WarmStart("dash", chunks=[data.loader(0), data.loader(1)], floor=0.2)
    kit.trainer(steps, warm_start).fit(module, data.loader(0, 1))
    expected = data.network()
    reports = dash_(expected, chunks_of(0, 1), floor=0.2)
    data.assert_equal(module.seen["state"], data.state(expected), tolerance=1e-6)
    assert not torch.equal(module.seen["state"]["0.weight"], before["0.weight"])
    assert [report.vectors for report in warm_start.reports.values()] == [r.vectors for r in reports.values()]
    assert module.seen["modes"] == [True] * len(module.seen["modes"])
    assert (module.seen["steps"], module.seen["updates"]) == (0, 0)
    assert torch.equal(module.seen["random"], steps.random)
    assert module.seen["gradients"] == [None] * len(module.seen["gradients"])
    assert module.steps == 6  # and the fit went on


def test_a_fit_that_continues_from_its_checkpoint_is_not_shrunk_again(kit, tmp_path):
    def fit(epochs: int, path=None):
        module = kit.Module()
        callback = kit.WarmStart("dash", chunks=[data.loader(0), data.loader(1)])
        trainer = kit.trainer(callback, epochs=epochs)
        trainer.fit(module, data.loader(0, 1), ckpt_path=path)
        return module, trainer, callback

    module, trainer, _ = fit(1)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    resumed, _, callback = fit(2, tmp_path / "half.ckpt")
    data.assert_equal(resumed.seen["state"], data.state(module.net))
    assert callback.reports is None
    assert resumed.seen["momentum"]


def test_momentum_of_a_checkpoint_without_the_callback_is_kept(kit, tmp_path):
    module = kit.Module()
    trainer = kit.trainer()
    trainer.fit(module, data.loader(0))
    trainer.save_checkpoint(tmp_path / "old.ckpt")
    momentum = dict(module._momentum())
    shrunk = kit.Module()
    warm_start = kit.WarmStart("shrink_perturb", shrink=0.4, seed=3)
    kit.trainer(warm_start, epochs=2).fit(shrunk, data.loader(0, 1), ckpt_path=tmp_path / "old.ckpt")
    assert all(torch.equal(value, momentum[key]) for key, value in shrunk.seen["momentum"].items())
    assert len(shrunk.seen["momentum"]) == len(momentum) == 6
    expected = data.network()
    expected.load_state_dict(data.state(module.net))
    shrink_perturb_(expected, shrink=0.4, generator=torch.Generator().manual_seed(3))
    data.assert_equal(shrunk.seen["state"], data.state(expected))


def test_a_module_that_steps_its_optimiser_itself_needs_a_loss(kit):
    module = kit.Module()
    module.automatic_optimization = False
    with pytest.raises(ValueError, match=r"training_step steps the optimiser or reads its loader itself: give .*loss="):
        kit.trainer(kit.WarmStart("dash", chunks=[data.loader(0)])).fit(module, data.loader(0))


@pytest.mark.slow
def test_three_arrivals_give_the_weights_of_the_same_loop_in_plain_torch(kit):
    module, plain = kit.Module(), data.network()
    module.net[3].p = plain[3].p = 0.0  # dropout draws from the global generator, and so does Lightning
    for arrival in range(3):
        seen = range(arrival + 1)
        callbacks = [kit.WarmStart("dash", chunks=[data.loader(n) for n in seen], floor=0.2)] if arrival else []
        torch.manual_seed(arrival)
        kit.trainer(*callbacks, epochs=3).fit(module, data.loader(*seen))
        if arrival:
            dash_(plain, [data.loader(n) for n in seen], floor=0.2)
        torch.manual_seed(arrival)
        optimizer = torch.optim.SGD(plain.parameters(), lr=0.05, momentum=0.9)
        data.train(plain, optimizer, data.loader(*seen), epochs=3)
    inputs, labels = (torch.cat(tensors) for tensors in zip(*chunks_of(0, 1, 2), strict=True))
    accuracies = [(net.eval()(inputs).argmax(1) == labels).float().mean().item() for net in (module.net, plain)]
    assert min(accuracies) > 0.8
    data.assert_equal(data.state(module.net), data.state(plain), tolerance=1e-4)
