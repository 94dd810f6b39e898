"""Teacher and student: who acts and learns when, what each of them sees, and that the student learns to learn."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from agents.teacher_student import TeacherStudent, TeacherStudentConfig
from envs.samplers import Uniform
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import PointNavigation
from envs.wrappers import Noisy
from metarl.adaptation.window import WindowConfig
from metarl.protocols import TaskFamily
from metarl.records import Step, task_numbers
from metarl.rl.rollouts import collect
from metarl.rl.visible_task import VisibleTaskEnv
from metarl.trainer import TrainConfig, Trainer

GRID = GridNavi(size=3, horizon=4)
POINT = PointNavigation(horizon=4)
SMALL = TeacherStudentConfig(latent_size=3, task_encoder_sizes=(8,), head_sizes=(8,), hidden_size=8)
SETTINGS = {
    "action": {},
    "latent": {"imitates": "latent"},
    "window": {"imitates": "latent", "memory": WindowConfig(channels=4), "reward_input": False},
}
every_student = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
discrete_and_continuous = pytest.mark.parametrize("family", [GRID, POINT], ids=["discrete", "continuous"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trainer(family: TaskFamily = GRID, num_iterations: int = 4, seed: int = 0, **settings) -> Trainer:
    train = TrainConfig(num_iterations=num_iterations, num_tasks=6, num_points=2, eval_tasks=4)
    return Trainer(family, replace(SMALL, **settings), train, agent_name="teacher_student", seed=seed)


def agent_of(made: Trainer) -> TeacherStudent:
    assert isinstance(made.agent, TeacherStudent)
    return made.agent


def parameters(net: torch.nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def moments(agent: TeacherStudent) -> Tensor:
    return torch.cat([value.flatten() for each in vars(agent.moments).values() for value in vars(each).values()])


@discrete_and_continuous
@every_student
def test_the_teacher_learns_first_and_then_the_student_alone(family, settings):
    made = trainer(family, **settings)
    agent = agent_of(made)
    nets = agent.teacher_net, agent.student_net
    for iteration in range(4):
        before = [*map(parameters, nets), moments(agent)]
        made.iterate()
        changed = [not torch.equal(b, a) for b, a in zip(before, [*map(parameters, nets), moments(agent)], strict=True)]
        # Of the teacher's net, the student's net, the moments.
        assert changed == ([True, False, True] if iteration < 2 else [False, True, False])


def test_only_the_students_iterations_can_be_the_best():
    made = trainer()
    for _ in range(2):
        assert "meta_train/return/total" not in made.iterate()
    assert not made.close_window()
    assert "meta_train/return/total" in made.iterate()
    assert made.close_window()


@pytest.mark.parametrize(("fraction", "iterations", "expected"), [(0.5, 4, 2), (0.9, 3, 2), (0.1, 3, 1), (0.5, 1, 1)])
def test_the_teacher_has_its_fraction_of_the_iterations_and_at_least_one(fraction, iterations, expected):
    agent = agent_of(trainer(num_iterations=iterations, teacher_fraction=fraction))
    assert (agent.teacher_iterations, agent.student_iterations) == (expected, iterations - expected)


def trial(agent: TeacherStudent, family: TaskFamily, *, visible: bool):
    env = family.make_env(6, seeded(1))
    tasks = family.sample(6, "train", seeded(1))
    shown = VisibleTaskEnv(env, task_numbers(tasks, 6).shape[1]) if visible else env
    return collect(shown, agent, tasks, 2, generator=seeded(2))


@discrete_and_continuous
@every_student
def test_the_student_acts_the_same_whether_or_not_the_task_is_visible(family, settings):
    made = trainer(family, **settings)
    for _ in range(3):
        made.iterate()
    one, other = (trial(agent_of(made), family, visible=visible) for visible in (True, False))
    assert torch.equal(one.decision.action, other.decision.action)
    assert torch.equal(one.obs[..., : agent_of(made).obs_size], other.obs)


@discrete_and_continuous
@every_student
def test_the_student_learns_on_what_it_acted_on(family, settings):
    made = trainer(family, **settings)
    for _ in range(3):
        made.iterate()
    agent = agent_of(made)
    seen = trial(agent, family, visible=True)
    hidden = agent.student_net.memory.unroll(agent.student_net.memory.prior(6), agent._items(seen))
    obs = agent._seen(seen.obs)
    distribution = agent._distribution(agent._imitation(hidden, obs), obs)
    log_prob = distribution.log_prob(agent.policy.from_env(seen.decision.action))
    torch.testing.assert_close(log_prob, seen.decision.log_prob, rtol=1e-4, atol=1e-5)


@discrete_and_continuous
def test_the_teachers_learning_sees_the_policy_that_acted(family):
    """Also after an update, when the normalisers are not the identity."""
    made = trainer(family, num_epochs=1, num_minibatches=1)
    for _ in range(2):
        metrics = made.iterate()
        assert metrics["train/num_gradient_steps"] == 1
        assert metrics["train/approx_kl"] < 1e-9


def test_the_teacher_sees_the_task_and_the_student_does_not():
    agent = agent_of(trainer(POINT))
    obs = torch.zeros(2, agent.obs_size + len(agent.moments.task.mean))
    obs[1, agent.obs_size :] = 1.0
    mean = agent.policy(agent.teacher_features(obs)).mode
    assert not torch.equal(mean[0], mean[1])
    no = torch.zeros(2, dtype=torch.bool)
    state = agent.observe(agent.prior(2), None, Step(obs, obs, torch.zeros(2), no, no))
    assert torch.equal(*agent.act(state, obs, None).action)


@every_student
def test_every_parameter_gets_a_gradient(settings):
    made = trainer(POINT, encoder_sizes=(8,), **settings)
    for _ in range(3):
        made.iterate()
    agent = agent_of(made)
    for net in (agent.teacher_net, agent.student_net):
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


def test_a_perfect_imitation_has_no_error():
    """The latent's is zero at the teacher's latent, and a discrete choice's at logits that differ by a constant."""
    target = torch.randn(5, 2, 3, generator=seeded())
    agent = agent_of(trainer(imitates="latent"))
    assert not agent._error(target, target).any()
    torch.testing.assert_close(agent._error(target + 2, target), torch.full((5, 2), 4.0))
    discrete = agent_of(trainer())
    torch.testing.assert_close(discrete._error(target + 2, target), torch.zeros(5, 2))
    assert (discrete._error(target.flip(-1), target) > 0).all()


def test_without_the_reward_as_input_rewards_change_nothing():
    no = torch.zeros(1, dtype=torch.bool)
    obs, action = torch.zeros(1, 9), torch.zeros(1, dtype=torch.long)
    for reads, same in ((True, False), (False, True)):
        agent = agent_of(trainer(reward_input=reads))
        steps = [Step(obs, obs, torch.full((1,), reward), no, no) for reward in (0.0, 1.0)]
        hidden = [agent.observe(agent.prior(1), action, step).hidden for step in steps]
        assert torch.equal(*hidden) is same


def test_an_evaluation_shows_the_teacher_on_the_same_tasks():
    made = trainer()
    made.iterate()
    evaluation = made.evaluate(num_tasks=5)
    assert len(evaluation.bounds["teacher"]) == 2
    assert evaluation.per_task is not None
    assert len(evaluation.per_task.bounds["teacher"][0]) == 5
    assert made.evaluate(num_tasks=5).bounds == evaluation.bounds


def test_the_teacher_of_an_evaluation_cannot_read_tasks_with_other_parameters():
    made = trainer(POINT)
    noisy = Noisy(POINT, obs_noise=Uniform(0.0, 0.1))
    assert "teacher" not in made.evaluate(num_tasks=5, family=noisy).bounds


@every_student
@pytest.mark.parametrize("stop", [1, 2, 3])
def test_a_resumed_training_is_the_same_bit_for_bit_in_either_phase(settings, stop):
    whole = trainer(**settings)
    for _ in range(4):
        whole.iterate()
    first, second = trainer(**settings), trainer(**settings)
    for _ in range(stop):
        first.iterate()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for _ in range(4 - stop):
        second.iterate()
    assert second.metrics == whole.metrics
    for name in ("teacher_net", "student_net"):
        assert torch.equal(parameters(getattr(second.agent, name)), parameters(getattr(whole.agent, name)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"teacher_fraction": 1.0}, r"teacher_fraction is 1\.0; must be between 0 and 1 \(exclusive\)"),
        ({"imitates": "value"}, "imitates is 'value'; must be one of latent, action"),
        ({"latent_size": 0}, "latent_size is 0; must"),
        ({"memory": "gru"}, "memory is 'gru'; must be a RecurrentConfig or WindowConfig"),
        ({"num_student_epochs": 0}, "num_student_epochs is 0; must"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        TeacherStudentConfig(**settings)


@pytest.mark.learn
@pytest.mark.parametrize("imitates", ["action", "latent"])
def test_the_student_of_a_teacher_that_knows_the_best_arm_learns_to_learn(imitates):
    """Two arms, ten pulls: knowing nothing earns 5.0; the best arm alone, which the teacher sees, 6.67."""
    config = TeacherStudentConfig(
        hidden_size=24,
        imitates=imitates,
        learning_rate=5e-3,
        final_learning_rate=1e-3,
        num_minibatches=2,
        student_learning_rate=5e-3,
    )
    train = TrainConfig(num_iterations=60, num_tasks=256)
    made = Trainer(BernoulliBandit(num_arms=2, num_pulls=10), config, train, agent_name="teacher_student", seed=0)
    before = made.evaluate(num_tasks=2000)
    for _ in range(60):
        made.iterate()
    after = made.evaluate(num_tasks=2000)
    print(
        before.total.mean, after.total.mean, sum(after.bounds["teacher"]), after.points[0].mean, after.points[-1].mean
    )
    assert before.total.mean < 5.3
    assert sum(after.bounds["teacher"]) > 6.4
    assert after.total.mean > 5.5
    assert after.points[-1].mean > after.points[0].mean + 0.1  # within the trial, not by a fixed habit
