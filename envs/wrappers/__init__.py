"""Wrappers around any task family: visible time, histories, action repeats, noise, delays, engines, metrics of effort.

    Delayed(Noisy(HalfCheetahVel(), obs_noise=Uniform(0, 0.1), action_noise=0.05), action_delay=Choice([0, 1, 2]))

Each is itself a family. A strength is a number, or a range, which adds a parameter to the task (domain randomisation):
the task's record then has one more field.

Episodes are independent: delays start empty, repeats stop at an episode's end. Rows that are not active keep their last
observation. Optional abilities of the inner environment (rendering) stay available.
"""

from envs.wrappers.action_repeat import ActionRepeat
from envs.wrappers.delayed import Delayed
from envs.wrappers.effort import Effort
from envs.wrappers.history import History
from envs.wrappers.noisy import Noisy
from envs.wrappers.on_engine import OnEngine
from envs.wrappers.time_aware import TimeAware

__all__ = ["ActionRepeat", "Delayed", "Effort", "History", "Noisy", "OnEngine", "TimeAware"]
