"""The base class of the configuration's sections, and the kinds of value that several sections use."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Accuracy = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
Gibibytes = Annotated[float, Field(gt=0, le=2**20)]
FolderName = Annotated[str, Field(min_length=1)]
Threads = Annotated[int, Field(ge=1, le=1024)]
Batch = Annotated[int, Field(ge=2, lt=2**31)]  # images; BatchNorm has no variance for a single one


class Section(BaseModel):
    """A frozen section of the configuration: unknown keys, NaN and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
