"""Runs an exported agent; needs onnxruntime and numpy alone. Start: python run_onnx.py step.onnx"""

import json
import sys

import numpy as np
import onnxruntime


class Agent:
    """An agent that adapts; one row for each robot.

    Call `act` at the control rate, and `new_task` when the robot, its load or its goal has changed. A new episode, such
    as a robot put back to its start, is no new task: the agent must remember what it has learned.
    """

    def __init__(self, path, rows=1, seed=None):
        """seed: of posterior samples, where the agent explores by them; None for the posterior's mean."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # such small products are fastest in one thread
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.metadata = json.loads(self.session.get_modelmeta().custom_metadata_map["metarl"])
        self.outputs = [output.name for output in self.session.get_outputs()]
        self.values = {
            name: np.zeros((rows, *form["shape"][1:]), form["type"]) for name, form in self.metadata["inputs"].items()
        }
        self.random = None if seed is None else np.random.default_rng(seed)
        self.new_task()

    def new_task(self):
        self.values["new_task"][:] = True

    def act(self, obs, reward=0.0, episode_end=False, next_obs=None):
        """The action [rows, A] for obs [rows, O].

        reward, episode_end: what the previous action led to. next_obs: the last observation of an episode that has just
        ended, where obs is the first of another.
        """
        given = {"obs": obs, "reward": reward, "episode_end": episode_end}
        given["next_obs"] = obs if next_obs is None else next_obs
        for name, value in given.items():
            if name in self.values:  # an agent that needs no reward has no such input
                self.values[name][:] = value
        if "noise" in self.values and self.random is not None:
            self.values["noise"][:] = self.random.standard_normal(self.values["noise"].shape)
        result = dict(zip(self.outputs, self.session.run(self.outputs, self.values), strict=True))
        for name, output in self.metadata["state"].items():
            self.values[name] = result[output]
        if "previous_action" in self.values:  # replace it if the robot carries out something else
            self.values["previous_action"] = result["action"]
        self.values["new_task"][:] = False
        return result["action"]


if __name__ == "__main__":
    agent = Agent(sys.argv[1])
    for _ in range(3):
        print(agent.act(np.zeros(agent.values["obs"].shape)))
