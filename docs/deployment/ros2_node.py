"""A template of a ROS 2 node around an exported agent; copy run_onnx.py next to it.

It reads joint states, acts at the rate of training and publishes joint efforts. What is specific to a robot is in the
three methods at the end. Start: ros2 run YOUR_PACKAGE adaptive_agent --ros-args -p model:=step.onnx
"""

import numpy as np
import rclpy
from rclpy.node import Node
from run_onnx import Agent
from sensor_msgs.msg import JointState
from std_msgs.msg import Float64MultiArray
from std_srvs.srv import Trigger


class AdaptiveAgent(Node):
    def __init__(self):
        super().__init__("adaptive_agent")
        self.agent = Agent(self.declare_parameter("model", "step.onnx").value)
        clip = self.agent.metadata["action"]["clip"]
        self.low, self.high = np.array(clip["low"]), np.array(clip["high"])
        self.joints = [one["joint"] for one in self.agent.metadata["robot"]["actuators"]]
        self.state, self.episode_end = None, False
        self.publisher = self.create_publisher(Float64MultiArray, "effort_controller/commands", 1)
        self.create_subscription(JointState, "joint_states", self.receive, 1)
        self.create_service(Trigger, "~/new_task", self.begin_task)
        self.create_service(Trigger, "~/end_episode", self.end_episode)
        self.create_timer(1 / self.agent.metadata["control_rate_hz"], self.step)

    def receive(self, message):
        self.state = message

    def begin_task(self, request, response):
        """The robot, its load or its goal has changed: the agent forgets."""
        self.agent.new_task()
        response.success = True
        return response

    def end_episode(self, request, response):
        """The robot starts again in the same task: the agent remembers."""
        self.episode_end, response.success = True, True
        return response

    def step(self):
        if self.state is None:
            return
        action = self.agent.act(self.observation(), self.reward(), self.episode_end)
        self.episode_end = False
        carried_out = np.clip(action, self.low, self.high)
        if "previous_action" in self.agent.values:
            self.agent.values["previous_action"] = carried_out.astype(np.float32)
        self.command(carried_out[0])

    def observation(self):
        """The numbers that the agent was trained on, in the order of metadata["observation"]["names"]."""
        place = {name: index for index, name in enumerate(self.state.name)}
        order = [place[name] for name in self.joints]
        position, velocity = (np.array(values)[order] for values in (self.state.position, self.state.velocity))
        return np.concatenate([position, velocity])  # add the body's pose and velocity from your state estimator

    def reward(self):
        """The reward of the last step; needed if metadata["reads_reward"], from what the robot can measure."""
        return 0.0

    def command(self, action):
        """Publish an action [A], in the order of metadata["robot"]["actuators"]."""
        gears = np.array([one["gear"] for one in self.agent.metadata["robot"]["actuators"]])
        self.publisher.publish(Float64MultiArray(data=(gears * action).tolist()))


def main():
    rclpy.init()
    rclpy.spin(AdaptiveAgent())


if __name__ == "__main__":
    main()
