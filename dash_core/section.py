"""The base class of the sections of the configuration, and the types of value that several sections use."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

AsTuple = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)  # can be hashed


def _pairs(value: object) -> object:
    """Return a mapping as pairs, in the order of the keys: they can be hashed."""
    return tuple(sorted(value.items(), key=str)) if isinstance(value, Mapping) else value


AsPairs = (BeforeValidator(_pairs), PlainSerializer(dict))  # given and written as a mapping
Share = Annotated[float, Field(ge=0, le=1)]
Accuracy = Annotated[float, Field(gt=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_\-]{0,63}$")]
Gibibytes = Annotated[float, Field(gt=0, le=2**20)]
LayerName = Annotated[str, Field(min_length=1)]
FolderName = Annotated[str, Field(min_length=1)]
FileName = FolderName
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256
Colour = Annotated[str, Field(pattern=r"^(white|black|gr[ae]y|#[0-9a-fA-F]{6})$")]
Threads = Annotated[int, Field(ge=1, le=1024)]
Batch = Annotated[int, Field(ge=2, lt=2**31)]  # images; BatchNorm has no variance for one image


class Section(BaseModel):
    """A frozen section of the configuration: unknown keys, NaN and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    later: ClassVar[frozenset[str]] = frozenset()  # fields that were added after runs had been made without them
    symbols: ClassVar[Mapping[str, str]] = {}  # the paper's symbols, and the field that each stands for

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with changed fields, as pydantic does; the copy computes its cached properties anew."""
        copy = super().model_copy(update=update, deep=deep)
        for cached in copy.__dict__.keys() - type(self).model_fields.keys():
            del copy.__dict__[cached]
        return copy

    @property
    def identity(self) -> dict[str, Any]:
        """The section's content, JSON-able, as hashes see it.

        Later fields are left out at their defaults, so that older runs and chunk plans keep their names.
        """
        content = self.model_dump(mode="json")
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if isinstance(value, Section):
                content[name] = value.identity
            if name in self.later and value == field.default:
                del content[name]
        return content
