"""Of which models answers are kept, and in how much memory: the table `[response_cache]` of the settings file."""

from dataclasses import dataclass, field
from math import inf

from penstock_server.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class OwnResponseCacheSettings:
    """Whether the answers of one model are kept, whatever its files and the other settings say."""

    enable: bool


@dataclass(frozen=True, slots=True)
class Caching:
    """What the settings say of one model.

    Attributes:
        has_memory: there is memory for answers.
        own: whether its answers are kept; None where the settings do not name it.
        default: whether they are where its files do not say so either.
    """

    has_memory: bool = False
    own: bool | None = None
    default: bool = False

    def wants(self, declared: bool | None) -> bool:
        """Whether its answers are to be kept, if there is memory; `declared` is what its files say, None for nothing."""
        return next(each for each in (self.own, declared, self.default) if each is not None)


@dataclass(frozen=True, slots=True)
class ResponseCacheSettings:
    """Which answers are kept.

    Attributes:
        max_mib: the memory for answers in each worker, those of all models together; 0 keeps none. Those that were asked for
            longest ago make room.
        enable: whether answers are kept of models that `models` does not name and whose `config.pbtxt` does not say.
        models: whether they are of models of these names.
    """

    max_mib: float = 0.0
    enable: bool = False
    models: dict[str, OwnResponseCacheSettings] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        # Written so that NaN, which TOML can say, is refused as well.
        if not 0 <= self.max_mib < inf:
            raise InvalidInputError(f"response_cache.max_mib is {self.max_mib}, expected 0 or more")
        enabling = ["enable", *(f"models.{name}.enable" for name, own in self.models.items() if own.enable)]
        if not self.max_mib and (self.enable or enabling[1:]):
            name = enabling[0] if self.enable else enabling[1]
            raise InvalidInputError(
                f"response_cache.{name} is true and response_cache.max_mib is 0, expected the memory for answers"
            )

    @property
    def max_bytes(self) -> int:
        return int(self.max_mib * 2**20)

    def of(self, model: str) -> Caching:
        """What is said of one model."""
        own = self.models.get(model)
        return Caching(self.max_bytes > 0, None if own is None else own.enable, self.enable)
