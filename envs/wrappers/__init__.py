"""What can lie between an agent and any task family: the time made visible, repeats, noise and delays.

    Delayed(Noisy(HalfCheetahVel(), obs_noise=Uniform(0, 0.1), action_noise=0.05), action_delay=Choice([0, 1, 2]))

Each is a family around a family. A strength is a number, or a range that it is drawn from for each task anew; then it
is one more parameter of the task (domain randomisation): the record of the inner task has it beside its own.

Nothing crosses the end of an episode: delays start empty, repeats stop. Rows that are not active keep what they have
seen. What the inner environment can do beside the contract, such as rendering, stays within reach.
"""

from envs.wrappers.action_repeat import ActionRepeat
from envs.wrappers.delayed import Delayed
from envs.wrappers.noisy import Noisy
from envs.wrappers.time_aware import TimeAware

__all__ = ["ActionRepeat", "Delayed", "Noisy", "TimeAware"]
