"""The command reproduce: what it hands to the flow of an item."""

import contextlib

from dash_core.comparison import Params
from flows.command_line import reproduction
from flows.command_line.output import output_console
from flows.command_line.reproduction import ReproductionFailed, Selection
from tasks.store.place import place_of


def test_the_flow_gets_the_parameters_that_were_checked(tmp_path, monkeypatch):
    given = []

    def flow(*arguments):
        given.append(arguments)
        raise ReproductionFailed("enough")

    for name in ("standing_by", "services"):
        monkeypatch.setattr(reproduction, name, lambda *arguments: contextlib.nullcontext())
    monkeypatch.setattr(reproduction, "check_data", lambda *arguments: None)
    monkeypatch.setattr(reproduction, "reproduce_item", flow)
    selection = Selection.of(["figure-1"], "smoke", ["seeds=[7]"], again=True)
    place = place_of(Params(), tmp_path, None)
    with contextlib.suppress(ReproductionFailed):
        reproduction.reproduce(selection, place, output_console())
    ((name, scale, settings, where, overrides, again),) = given
    assert (name, scale, where, overrides, again) == ("figure-1", "smoke", place, ["seeds=[7]"], True)
    assert settings is selection.settings["figure-1"]
    assert all(params.seeds == [7] for params in settings.values())
