"""Chunks, hold-out and models in DVC, one file or folder each; contract and ledger stay in git, as they are text."""

import subprocess
import sys
from collections.abc import Iterator

from dash_core.data.arrived import CHUNKS, HELD_OUT
from dash_core.files import write_atomically
from dash_core.stream.state import StreamState
from tasks.store.stream.folder import StreamFolder

IGNORED = """# written by dashpipe: what git and DVC need not keep of a stream
/.cache/
/accepted/
/champion.json
/evaluations/*.npz
/quarantine/
/report/
/training/
"""


def write_ignored(stream: StreamFolder) -> None:
    """Write the .gitignore of a stream's folder."""
    write_atomically(stream.path / ".gitignore", IGNORED.encode())


def add_to_dvc(stream: StreamFolder, state: StreamState) -> Iterator[str]:
    """Add every recorded file to DVC that is not there yet; wait for DVC's lock. Yield what DVC refuses."""
    wanted = [stream.numbered(CHUNKS, one.chunk, one.chain) for one in state.chunks]
    wanted += [stream.numbered(HELD_OUT, one.number, one.held_digest) for one in state.arrivals if one.held_out]
    wanted += [stream.model(model) for model in state.models]
    missing = [str(path) for path in wanted if not path.with_name(f"{path.name}.dvc").exists()]
    if not missing:
        return
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "add", "--quiet", *missing]
    ended = subprocess.run(command, cwd=stream.path, capture_output=True, text=True)
    if ended.returncode:
        yield f"DVC has not taken {len(missing)} files ({ended.stderr.strip()[-300:]}); the next pass tries again"
