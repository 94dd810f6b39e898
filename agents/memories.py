"""The memories that agents which read a trial step by step have a choice of, and the settings that go with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from metarl.adaptation.no_memory import NoMemoryConfig
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.splagger import SplAggerConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.adaptation.window import WindowConfig
from metarl.checks import widths

MEMORIES = {  # the memories by the names that the command line takes
    "gru": RecurrentConfig("gru"),
    "lstm": RecurrentConfig("lstm"),
    "snail": SnailConfig(),
    "transformer": TransformerConfig(),
    "window": WindowConfig(),
    "splagger": SplAggerConfig(),
    "none": NoMemoryConfig(),
}
MemoryConfig = NoMemoryConfig | RecurrentConfig | SnailConfig | SplAggerConfig | TransformerConfig | WindowConfig


@dataclass(frozen=True)
class WithMemory:
    """The settings of an agent with one of these memories, or with one for its policy and one for its critics."""

    memory: MemoryConfig = field(  # memory of the trial so far
        default_factory=RecurrentConfig, metadata={"variants": MEMORIES}
    )
    hidden_size: int = 128  # size of the memory's output: number of units, or a transformer's width
    encoder_sizes: tuple[int, ...] = ()  # hidden layers between the inputs and the memory

    def check_memory(self) -> None:
        """Check that the memory is one of these, and that it suits the other settings.

        Raises:
            ValueError: naming the setting.
        """
        widths(self, "hidden_size", "encoder_sizes")
        if not isinstance(self.memory, MemoryConfig):
            classes = dict.fromkeys(type(memory).__name__ for memory in MEMORIES.values())
            raise ValueError(f"memory is {self.memory!r}; must be one of {', '.join(classes)}")
        if isinstance(self.memory, TransformerConfig):
            self.memory.check_width(self.hidden_size)
        if isinstance(self.memory, NoMemoryConfig) and self.encoder_sizes:
            raise ValueError(f"encoder_sizes is {self.encoder_sizes}; must be empty without a memory")
        if isinstance(self.memory, SplAggerConfig):
            self.memory.sizes(self.hidden_size)  # refuses an empty part

    @property
    def memory_size(self) -> int:
        """The size of the memory's output."""
        return 0 if isinstance(self.memory, NoMemoryConfig) else self.hidden_size

    @property
    def max_trial_steps(self) -> int | None:
        """The number of steps in the longest trial that the memory can read; None: unlimited."""
        if isinstance(self.memory, TransformerConfig) and self.memory.positions == "learned":
            return self.memory.max_items - 1
        return None
