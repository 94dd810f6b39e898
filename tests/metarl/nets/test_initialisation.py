"""Fresh weights are the same numbers with any number of threads."""

import pytest
import torch

from agents.rl2 import RL2Config
from envs.torch_families.gridworld import GridNavi
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.nets.initialisation import orthogonal_


@pytest.fixture(autouse=True)
def _threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "memory", [RecurrentConfig("gru"), RecurrentConfig("lstm"), SnailConfig(), TransformerConfig()]
)
def test_an_agent_begins_alike_with_one_thread_and_with_three(memory):
    family, weights = GridNavi(), []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        generator = torch.Generator().manual_seed(0)
        config = RL2Config(memory=memory, hidden_size=128, head_sizes=(128,))
        agent = config.make(family.observation_space, family.action_space, num_iterations=1, generator=generator)
        assert torch.get_num_threads() == threads
        weights.append(torch.cat([value.detach().flatten() for value in agent.net.parameters()]))
    assert torch.equal(*weights)


def test_rows_are_orthogonal_and_of_the_length_of_the_gain():
    weight = orthogonal_(torch.empty(3, 8), 2.0, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(weight @ weight.mT, 4 * torch.eye(3))
