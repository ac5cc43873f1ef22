"""The callback of transformers, in transformers' own Trainer, with models from a configuration: nothing is loaded."""

import os
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import ConcatDataset, DataLoader

from dash_core import dash_, dash_batches_, find_weights
from tests.integrations import data

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def kit(tmp_path_factory) -> SimpleNamespace:
    """Return the library, the callback and makers of models; the library is imported when a test needs it."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from dash_core.integrations.transformers import WarmStart

    class Model(nn.Module):
        """A model with a loss of its own."""

        def __init__(self) -> None:
            super().__init__()
            self.net = data.network()

        def forward(self, inputs=None, labels=None):
            return {"loss": functional.cross_entropy(self.net(inputs), labels)}

    class Watch(transformers.TrainerCallback):
        """Note the state after the callbacks before it."""

        def on_train_begin(self, args, state, control, model, optimizer, **others):
            self.state, self.random = data.state(model), torch.get_rng_state()
            self.modes = {module.training for module in model.modules()}
            self.gradients = [parameter.grad for parameter in model.parameters()]
            self.step = state.global_step

    def collate(pairs):
        inputs, labels = zip(*pairs, strict=True)
        return {"inputs": torch.stack(inputs), "labels": torch.stack(labels)}

    def trainer(model, dataset, *callbacks, folder=None, collator=collate, **options):
        quiet = {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "save_strategy": "no", "seed": 0}
        quiet |= {"per_device_train_batch_size": 8, "num_train_epochs": 1, "remove_unused_columns": False}
        arguments = transformers.TrainingArguments(str(folder or tmp_path_factory.mktemp("hf")), **(quiet | options))
        return transformers.Trainer(
            model, arguments, train_dataset=dataset, data_collator=collator, callbacks=list(callbacks)
        )

    return SimpleNamespace(library=transformers, WarmStart=WarmStart, Model=Model, Watch=Watch, trainer=trainer)


def chunks_of(*numbers: int):
    return [data.chunk(number).tensors for number in numbers]


def test_the_weights_are_dashs_from_datasets_and_everything_else_is_as_found(kit):
    model, first, watch = kit.Model(), kit.Watch(), kit.Watch()
    both = ConcatDataset([data.chunk(0), data.chunk(1)])
    warm_start = kit.WarmStart("dash", chunks=[data.chunk(0), data.chunk(1)], floor=0.2)
    kit.trainer(model, both, first, warm_start, watch).train()
    expected = data.network()
    dash_(expected, chunks_of(0, 1), floor=0.2)
    data.assert_equal(watch.state, {f"net.{key}": value for key, value in data.state(expected).items()}, 1e-6)
    assert torch.equal(watch.random, first.random)
    assert watch.modes == first.modes
    assert watch.gradients == [None] * len(watch.gradients)
    assert list(warm_start.reports) == ["net.0.weight", "net.0.bias", "net.4.weight", "net.4.bias"]


def test_training_that_resumes_from_a_checkpoint_is_not_shrunk_again(kit, tmp_path):
    def train(resume):
        watch = kit.Watch()
        warm_start = kit.WarmStart("dash", chunks=[data.chunk(0), data.chunk(1)])
        both = ConcatDataset([data.chunk(0), data.chunk(1)])
        saving = {"save_strategy": "steps", "save_steps": 4}
        model = kit.Model()
        trainer = kit.trainer(model, both, warm_start, watch, folder=tmp_path, **saving)
        trainer.train(resume_from_checkpoint=resume)
        return watch, warm_start

    train(None)
    checkpoint = tmp_path / "checkpoint-4"
    resumed, warm_start = train(str(checkpoint))
    assert resumed.step == 4
    assert warm_start.reports is None
    assert any(checkpoint.iterdir())


@pytest.fixture(scope="module")
def gpt2(kit):
    torch.manual_seed(0)
    config = kit.library.GPT2Config(
        vocab_size=20, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return kit.library.GPT2LMHeadModel(config)


def test_gpt2_is_shrunk_in_its_body_too_and_its_positions_are_named(gpt2):
    shrunk = {weight.name: weight.dims for weight in find_weights(gpt2).shrunk}
    for block in range(2):
        for layer in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"):
            assert shrunk[f"transformer.h.{block}.{layer}.weight"] == (0,)
    assert shrunk["lm_head.weight"] == (1,)  # and so the embedding that it shares
    others = {name for name, reason in find_weights(gpt2).left_alone.items() if "LayerNorm" not in reason}
    assert others == {"transformer.wpe.weight"}


def test_a_language_model_weighs_batches_by_their_tokens(kit, gpt2):
    draws = torch.Generator().manual_seed(0)
    tokens = torch.randint(20, (9, 8), generator=draws)
    labels = torch.where(torch.arange(8) < torch.tensor([8, 3, 5, 8, 2, 8, 8, 4, 6])[:, None], tokens, -100)
    rows = [{"input_ids": row, "labels": label} for row, label in zip(tokens, labels, strict=True)]
    expected = kit.library.GPT2LMHeadModel(gpt2.config)
    expected.load_state_dict(gpt2.state_dict())
    loss = lambda rows: (expected(input_ids=rows["input_ids"], labels=rows["labels"]).loss, 1)
    dash_batches_(expected, [[{"input_ids": tokens, "labels": labels}]], loss=loss)
    model = kit.library.GPT2LMHeadModel(gpt2.config)
    model.load_state_dict(gpt2.state_dict())
    watch = kit.Watch()
    collate = kit.library.default_data_collator
    kit.trainer(
        model, rows, kit.WarmStart("dash", chunks=[DataLoader(rows, 4, collate_fn=collate)]), watch, collator=collate
    ).train()
    data.assert_equal(watch.state, data.state(expected), 1e-6)


def test_smoothed_labels_need_a_loss(kit, gpt2):
    rows = [{"input_ids": torch.arange(8), "labels": torch.arange(8)}] * 4
    warm_start = kit.WarmStart("dash", chunks=[rows])
    collate = kit.library.default_data_collator
    trainer = kit.trainer(gpt2, rows, warm_start, collator=collate, label_smoothing_factor=0.1)
    with pytest.raises(ValueError, match=r"smooths labels and the model's loss does not: give WarmStart\(..., loss=\)"):
        trainer.train()


@pytest.mark.slow
def test_three_arrivals_give_the_weights_of_the_same_loop_in_plain_torch(kit):
    model, plain = kit.Model(), data.network()
    model.net[3].p = plain[3].p = 0.0  # the Trainer seeds dropout in its own way
    for arrival in range(3):
        seen = range(arrival + 1)
        dataset = ConcatDataset([data.chunk(n) for n in seen])
        callbacks = [kit.WarmStart("dash", chunks=[data.chunk(n) for n in seen], floor=0.2)] if arrival else []
        trainer = kit.trainer(
            model, dataset, *callbacks, num_train_epochs=3, optim="sgd", learning_rate=0.05, max_grad_norm=0.0,
            lr_scheduler_type="constant",
        )  # fmt: skip
        trainer.get_train_dataloader = lambda dataset=dataset, trainer=trainer: DataLoader(
            dataset, 8, collate_fn=trainer.data_collator
        )
        trainer.train()
        if arrival:
            dash_(plain, [data.loader(n) for n in seen], floor=0.2)
        data.train(plain, torch.optim.SGD(plain.parameters(), lr=0.05), data.loader(*seen), epochs=3)
    data.assert_equal(data.state(model.net), data.state(plain), tolerance=1e-4)
