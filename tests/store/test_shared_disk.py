"""Databases of a store that several machines share are kept on a disk of this machine."""

import os
from pathlib import Path

import pytest

from dash_core.errors import ConfigError
from flows.command_line.options import SharedOptions
from tasks.store import shared_disk
from tasks.store.place import place_of
from tasks.store.shared_disk import file_system, is_shared, local_services
from tasks.tracking.address import tracking_uri
from tests import toy


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Pretend that folders are mounts of given types."""

    def pretend(**types: str) -> Path:
        lines = ["overlay / overlay rw 0 0", "damaged"]
        for name, kind in types.items():
            (tmp_path / name).mkdir()
            lines.append(f"server:/x {str(tmp_path / name).replace('_', chr(92) + '137')} {kind} rw,vers=4.2 0 0")
        table = tmp_path / "mounts"
        table.write_text("\n".join(lines))
        monkeypatch.setattr(shared_disk, "MOUNTS", table)
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
        return table

    return pretend


def test_a_path_is_on_the_file_system_of_its_nearest_mount(tmp_path, mounts):
    mounts(a_share="nfs4", disk="ext4")
    assert file_system(tmp_path / "a_share" / "not" / "there") == "nfs4"
    assert file_system(tmp_path / "disk") == "ext4"
    assert file_system(tmp_path) == "overlay"
    (tmp_path / "link").symlink_to(tmp_path / "a_share")
    assert file_system(tmp_path / "link" / "store") == "nfs4"
    assert file_system(tmp_path, tmp_path / "no table") is None


def test_network_file_systems_are_shared_and_layers_of_containers_are_not():
    shared = ["nfs", "nfs4", "lustre", "gpfs", "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs", "cifs", "ceph", "beegfs"]
    assert all(map(is_shared, shared))
    assert not any(map(is_shared, ["ext4", "xfs", "overlay", "tmpfs", "fuseblk", "fuse.fuse-overlayfs", "zfs", None]))


def test_databases_of_a_shared_store_are_on_this_machine_and_all_else_is_in_the_store(tmp_path, mounts, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # MLflow sets it where a test names a store
    mounts(share="lustre", disk="xfs")
    place = place_of(toy.params(), tmp_path / "share" / "store", None)
    assert place.services == place.databases == local_services(place.store)
    assert place.services.parent == tmp_path / "state" / "dashpipe"
    assert str(place.services / "mlflow.db") in tracking_uri(place.databases)
    for folder in (place.locks, place.cache, place.beginnings, place.splits):
        assert place.store in folder.parents
    assert place_of(toy.params(), tmp_path / "share" / "other", None).services != place.services

    own = place_of(toy.params(), tmp_path / "disk" / "store", None)
    assert (own.given_services, own.databases) == (None, own.store)
    assert own.services == own.common_services == own.store / ".dashpipe"


def test_homes_that_are_shared_too_are_left_for_var_tmp(tmp_path, mounts, monkeypatch):
    mounts(share="nfs", state="nfs")
    monkeypatch.setattr(shared_disk, "OWN_TEMPORARY", tmp_path / "tmp")
    assert local_services(tmp_path / "share").parent == tmp_path / "tmp"
    monkeypatch.setattr(os, "getuid", lambda: -1)
    (tmp_path / "tmp").mkdir()  # somebody else's
    assert local_services(tmp_path / "share").parent == tmp_path / "state" / "dashpipe"


def test_services_names_another_folder_and_a_command_that_is_repeated_names_it_too(tmp_path):
    options = SharedOptions(store=tmp_path / "store", services=tmp_path / "own")
    options.__dict__["settings"] = toy.params()
    assert options.place.databases == options.services_folder == tmp_path / "own"
    assert f"--services {tmp_path / 'own'}" in options.ui_command
    long = SharedOptions(store=tmp_path, services=tmp_path / "/".join(["x" * 200] * 3))
    with pytest.raises(ConfigError, match=r"--services: .* name a folder with a shorter path"):
        long.place_for(toy.params())
