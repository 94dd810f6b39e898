"""Exported agents: state in, state out, and the same actions as in PyTorch."""

import importlib
import importlib.util
import json
import subprocess
import sys
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete

import metarl
from agents.algorithm_distillation import ADConfig
from agents.dpt import DPTConfig
from agents.hypernetwork_policy import HypernetworkPolicyConfig
from agents.inner_learner import InnerLearnerConfig
from agents.maml import MAMLTRPOConfig
from agents.memories import MEMORIES
from agents.pearl import PEARLConfig
from agents.rl2 import RL2Config
from agents.rl2_sac import RL2SACConfig
from agents.teacher_student import TeacherStudentConfig
from agents.varibad import VariBADConfig
from envs.torch_families.bandits import BernoulliBandit
from envs.torch_families.gridworld import GridNavi
from envs.torch_families.navigation import Semicircle
from experiments.experiment.definition import Experiment
from experiments.exporting.export import export
from experiments.exporting.files import OnnxFile
from experiments.exporting.graphs import Graph, captured, part_graph, save_onnx, step_graph
from experiments.exporting.metadata import metadata_of
from experiments.exporting.parity import check_parity
from experiments.exporting.through import FileAgent
from metarl.adaptation.recurrent import RecurrentConfig
from metarl.adaptation.snail import SnailConfig
from metarl.adaptation.transformer import TransformerConfig
from metarl.adaptation.window import WindowConfig
from metarl.errors import UserError
from metarl.fewshot.catalog import LEARNERS
from metarl.trainer import TrainConfig, Trainer
from tests.experiments.command import run as command

RUNNER = Path(__file__).parents[3] / "docs" / "deployment" / "run_onnx.py"
SMALL_SNAIL = SnailConfig(filters=(4,), key_sizes=(4,), value_sizes=(4,), length=16)
SMALL_TRANSFORMER = TransformerConfig(num_layers=1, num_heads=2)
GRID = GridNavi(size=3, horizon=5, num_episodes=2)
POINT = Semicircle(horizon=5, dense=True)
NETS: dict[str, Any] = {"hidden_sizes": (16,), "encoder_sizes": (16,)}
CASES: dict[str, tuple[Any, Any]] = {
    **{f"rl2 {name}": (GRID, RL2Config(memory=memory, hidden_size=16)) for name, memory in MEMORIES.items()},
    "rl2 snail": (GRID, RL2Config(memory=SMALL_SNAIL, hidden_size=16)),
    "rl2 transformer": (GRID, RL2Config(memory=SMALL_TRANSFORMER, hidden_size=16)),
    **{
        f"rl2 transformer {kind}": (GRID, RL2Config(memory=replace(SMALL_TRANSFORMER, positions=kind), hidden_size=16))
        for kind in ("none", "learned", "sinusoidal")
    },
    "rl2 in a box": (POINT, RL2Config(hidden_size=8, encoder_sizes=(8,), whole_transition=True)),
    "rl2 on a bandit": (BernoulliBandit(num_arms=3), RL2Config(hidden_size=8)),
    "rl2 without rewards": (POINT, RL2Config(hidden_size=8, reward_input=False)),
    "rl2 with an inner learner": (GRID, RL2Config(hidden_size=8, inner=InnerLearnerConfig())),
    "rl2 with a hypernetwork": (POINT, RL2Config(hidden_size=8, policy=HypernetworkPolicyConfig(embedding_size=3))),
    "rl2_sac": (POINT, RL2SACConfig(hidden_size=8, head_sizes=(8,), encoder_sizes=(8,))),
    "rl2_sac with a transformer": (GRID, RL2SACConfig(memory=SMALL_TRANSFORMER, hidden_size=16, head_sizes=(8,))),
    "rl2 whose critic saw the task": (POINT, RL2Config(hidden_size=8, critic_sees="task")),
    "student of actions": (POINT, TeacherStudentConfig(hidden_size=8)),
    "student of latents": (
        POINT,
        TeacherStudentConfig(
            imitates="latent", memory=WindowConfig(num_items=40, channels=4), hidden_size=8, reward_input=False
        ),
    ),
    "varibad": (GRID, VariBADConfig(hidden_size=8, memory=RecurrentConfig("lstm"))),
    "varibad with a hypernetwork": (
        GRID,
        VariBADConfig(hidden_size=8, policy=HypernetworkPolicyConfig(embedding_size=3, hidden_sizes=(4,))),
    ),
    "pearl": (POINT, PEARLConfig(num_train_tasks=2, normalise_obs=True, **NETS)),
    "pearl with the prior": (POINT, PEARLConfig(num_train_tasks=2, aggregation="product_with_prior", **NETS)),
    "pearl with next observations": (
        POINT,
        PEARLConfig(num_train_tasks=2, aggregation="attention", next_obs_in_context=True, **NETS),
    ),
    "pearl on a grid": (GRID, PEARLConfig(num_train_tasks=2, aggregation="mean", **NETS)),
    "ad": (GRID, ADConfig(memory=SMALL_TRANSFORMER, hidden_size=16, context=20)),
    "dpt": (GRID, DPTConfig(memory=replace(SMALL_TRANSFORMER, positions="none"), hidden_size=16, context=20)),
    "maml": (POINT, MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=4, normalise_obs=True)),
    "maml on a grid": (GRID, MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=4)),
}

IN_FILES = (  # cases with operations of their own; "rl2 in a box" is exported by the command, and maml further below
    "rl2 lstm",
    "rl2 splagger",
    "rl2 snail",
    "rl2 transformer",
    "rl2 with an inner learner",
    "rl2 with a hypernetwork",
    "rl2_sac",
    "student of latents",
    "varibad",
)


def trainer_of(case: str, seed: int = 0) -> Trainer:
    """A trainer whose agent has random weights, large enough for actions to depend on everything."""
    family, config = CASES[case]
    trainer = Trainer(family, config, TrainConfig(num_iterations=1, num_tasks=2), agent_name="agent", seed=seed)
    generator = torch.Generator().manual_seed(seed)

    def shaken(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: shaken(inner) for name, inner in value.items() if name not in ("optimizer", "optimizers")}
        if isinstance(value, torch.Tensor) and value.dtype == torch.float32:
            return value + 0.3 * torch.randn(value.shape, generator=generator)
        return value

    state = trainer.agent.state_dict()
    trainer.agent.load_state_dict({**state, **{name: shaken(state[name]) for name in state if name in _NETS}})
    return trainer


_NETS = ("net", "teacher", "student", "policy", "vae", "encoder", "sac", "actor_memory", "adaptation")


def graph_of(trainer: Trainer, num_steps: int | None = None) -> tuple[Graph, int | None]:
    family = trainer.family
    agent = trainer.agent.deployed(trainer.num_points * family.horizon if num_steps is None else num_steps)
    return step_graph(agent, family.observation_space, family.action_space), agent.max_items


def in_torch(graph: Graph, inputs: Any) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        values = graph.function(*(inputs[name] for name in graph.inputs))
    return dict(zip(graph.outputs, values, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_a_step_with_its_state_passed_in_and_out_is_the_agents_own(case):
    trainer = trainer_of(case)
    graph, max_items = graph_of(trainer)
    run = partial(in_torch, graph)
    parity = check_parity(trainer, graph, run, max_items=max_items, num_steps=60)
    assert parity.difference <= 2e-6


@pytest.mark.parametrize("case", CASES)
def test_a_new_task_clears_its_own_row_and_no_other(case):
    trainer = trainer_of(case)
    graph, _ = graph_of(trainer)
    generator = torch.Generator().manual_seed(1)

    def inputs(first: bool) -> dict[str, torch.Tensor]:
        drawn = {}
        for name, value in graph.inputs.items():
            if name in graph.state:
                continue
            is_real = value.dtype == torch.float32
            drawn[name] = torch.rand(value.shape, generator=generator) if is_real else torch.zeros_like(value)
        return drawn | {"new_task": torch.full((2,), first)}

    state = {name: torch.zeros_like(graph.inputs[name]) for name in graph.state}
    for number in range(5):
        last = inputs(number == 0)
        outputs = in_torch(graph, last | state)
        state = {name: outputs[following] for name, following in graph.state.items()}
    last = inputs(False)
    kept = in_torch(graph, last | state)
    cleared = in_torch(graph, last | state | {"new_task": torch.tensor([True, False])})
    blank = {name: torch.zeros_like(value) for name, value in state.items()}
    fresh = in_torch(graph, last | blank | {"new_task": torch.tensor([True, True])})
    for name in graph.outputs:
        torch.testing.assert_close(cleared[name][0], fresh[name][0])
        torch.testing.assert_close(cleared[name][1], kept[name][1])


def test_a_full_window_forgets_the_oldest_item_and_goes_on():
    trainer = trainer_of("rl2 transformer none")
    few, many = (graph_of(trainer, size)[0] for size in (4, 40))
    generator = torch.Generator().manual_seed(0)
    items = [torch.rand(1, 9, generator=generator) for _ in range(12)]

    def after(graph: Graph, observed: list[torch.Tensor]) -> torch.Tensor:
        outputs: dict[str, torch.Tensor] = {}
        state = {name: torch.zeros_like(graph.inputs[name][:1]) for name in graph.state}
        for number, obs in enumerate(observed):
            rest = {name: torch.zeros_like(value[:1]) for name, value in graph.inputs.items() if name not in state}
            outputs = in_torch(graph, rest | state | {"obs": obs, "new_task": torch.tensor([number == 0])})
            state = {name: outputs[following] for name, following in graph.state.items()}
        return outputs["next.state.memory.hidden"]

    assert torch.isfinite(after(few, items)).all()
    assert not torch.equal(after(few, items), after(many, items))
    torch.testing.assert_close(after(few, items[:4]), after(many, items[:4]))


def test_a_file_that_differs_is_refused_with_the_output_and_the_step():
    trainer = trainer_of("rl2 in a box")
    graph, _ = graph_of(trainer)
    calls = []

    def wrong(inputs: Any) -> dict[str, torch.Tensor]:
        outputs = in_torch(graph, inputs)
        calls.append(inputs)
        return outputs | {"action": outputs["action"] + (1e-3 if len(calls) > 120 else 0.0)}

    with pytest.raises(UserError, match=r"differs from the learner by 0.001 in action at step 120 of 200"):
        check_parity(trainer, graph, wrong)


def test_metadata_name_what_a_robots_engineer_must_know():
    from envs.locomotion.half_cheetah import HalfCheetahVel

    config = TrainConfig(num_iterations=1, num_tasks=2)
    trainer = Trainer(HalfCheetahVel(), RL2Config(hidden_size=4), config, agent_name="rl2", seed=0)
    graph, max_items = graph_of(trainer)
    found = json.loads(json.dumps(metadata_of(trainer, graph, max_items, None)))
    names = found["observation"]["names"]
    assert len(names) == found["observation"]["size"] == 17
    assert (names[0], names[8], names[-1]) == ("rootz", "rootx.velocity", "ffoot.velocity")
    assert [one["joint"] for one in found["robot"]["actuators"]] == [
        "bthigh", "bshin", "bfoot", "fthigh", "fshin", "ffoot"
    ]  # fmt: skip
    assert found["control_rate_hz"] == pytest.approx(20)
    assert (found["horizon"], found["episodes_in_a_trial"]) == (200, 2)
    assert found["action"]["clip"] == {"low": [-1.0] * 6, "high": [1.0] * 6}
    low, high = found["task_ranges"]["velocity"]
    assert 0 <= low < 0.1
    assert 2.9 < high <= 3
    assert found["reads_reward"]
    assert "never a new episode" in found["cleared_by"]


@pytest.mark.parametrize("case", ["pearl", "pearl with next observations", "pearl on a grid"])
def test_pearls_encoder_and_policy_do_together_what_its_step_does(case):
    trainer = trainer_of(case)
    step, _ = graph_of(trainer)
    spaces_of = trainer.family.observation_space, trainer.family.action_space
    encoder, policy = (part_graph(part, *spaces_of) for part in trainer.agent.deployed_parts())
    generator = torch.Generator().manual_seed(0)

    def drawn(graph: Graph, name: str) -> torch.Tensor:
        like = graph.inputs[name][:1]
        return torch.randn(like.shape, generator=generator) if like.is_floating_point() else torch.zeros_like(like)

    state = {name: torch.zeros_like(graph_input[:1]) for name, graph_input in step.inputs.items() if name in step.state}
    sums = {name: torch.zeros_like(encoder.inputs[name][:1]) for name in encoder.state}
    before, latest, noise, ended = torch.empty(0), sums, {}, 0
    for number in range(12):
        given = {name: drawn(step, name) for name in step.inputs if name not in step.state}
        end = number % 4 == 3
        given |= {"new_task": torch.tensor([number == 0]), "episode_end": torch.tensor([end])}
        outputs = in_torch(step, given | state)
        if number:
            following = {"next_obs": given["next_obs"]} if "next_obs" in given else {}
            transition = {"obs": before, "action": given["previous_action"], "reward": given["reward"], **following}
            added = in_torch(encoder, transition | sums)
            sums = {name: added[output] for name, output in encoder.state.items()}
        ended += end
        if end or number == 0:  # an episode starts: the policy is given these sums and this noise throughout
            blank = {name: torch.zeros_like(value) for name, value in sums.items()}
            latest = sums if ended >= trainer.agent.config.num_exploration_episodes else blank
            noise = {"noise": given["noise"]} if "noise" in given else {}
        action = in_torch(policy, {"obs": given["obs"], **noise, **latest})["action"]
        torch.testing.assert_close(action, outputs["action"])
        for name in sums:
            torch.testing.assert_close(sums[name], outputs[step.state[name]])
        state, before = {name: outputs[output] for name, output in step.state.items()}, given["obs"]


def test_noise_samples_the_actions_that_dpt_predicts():
    trainer = trainer_of("dpt")
    graph, _ = graph_of(trainer)
    rows = 20_000
    given = {name: value[:1].expand(rows, *value.shape[1:]) for name, value in graph.inputs.items()}
    noise = torch.randn(rows, given["noise"].shape[1], generator=torch.Generator().manual_seed(0))
    actions = in_torch(graph, given | {"noise": noise, "new_task": torch.ones(rows, dtype=torch.bool)})["action"]
    predicted = trainer.agent.net.answers(trainer.agent.prior(1).memory, given["obs"][:1]).softmax(-1)[0]
    drawn = actions.bincount(minlength=len(predicted)) / rows
    torch.testing.assert_close(drawn, predicted.detach(), atol=0.015, rtol=0)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_one_line(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    line = f"export needs {package}, which is not installed: pip install 'metarl\\[export\\]'"
    with pytest.raises(UserError, match=line):
        export(trainer_of("rl2 gru"), tmp_path)
    assert not list(tmp_path.iterdir())


# Files


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> tuple[Path, Path]:
    """A run, and the folder that the command has exported it to."""
    folder = tmp_path_factory.mktemp("exported")
    train = TrainConfig(num_iterations=1, num_tasks=2, eval_tasks=2)
    agent = RL2Config(hidden_size=8, num_epochs=1)
    run = metarl.train(Experiment(POINT, agent, train), run_dir=folder / "run", log=(), progress=False)
    with pytest.raises(SystemExit) as stop:
        importlib.import_module("experiments.cli.main").main(
            ["export", str(run.path), "--checkpoint", "latest", "--out", str(folder / "out")]
        )
    assert not stop.value.code
    return run.path, folder / "out"


def test_the_command_writes_both_formats_and_the_metadata_beside_and_inside(exported):
    _, out = exported
    beside = json.loads((out / "step.json").read_text())
    inside = OnnxFile(out / "step.onnx").metadata
    assert inside == {name: value for name, value in beside.items() if name != "parity"}
    assert beside["parity"]["difference"] <= 1e-5
    assert len(beside["adaptation_curve"]["points"]) == POINT.num_episodes
    assert (out / "step.pt2").is_file()


def test_the_graph_has_products_and_gates_but_no_recurrent_operator_and_no_path_of_this_machine(exported):
    import onnx

    path = exported[1] / "step.onnx"
    operators = {node.op_type for node in onnx.load(path).graph.node}
    assert not operators & {"GRU", "LSTM", "RNN"}
    assert {"Gemm", "Sigmoid", "Tanh"} <= operators
    assert str(Path(__file__).parents[3]).encode() not in path.read_bytes()


def test_the_runner_of_the_docs_acts_as_the_agent_does(exported):
    run, out = exported
    spec = importlib.util.spec_from_file_location("run_onnx", RUNNER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(RUNNER.read_text().splitlines()) <= 60
    ours, theirs = metarl.load(run, deterministic=True), module.Agent(str(out / "step.onnx"))
    random, action = np.random.default_rng(0), None
    for number in range(40):
        if number == 20:
            ours.new_task()
            theirs.new_task()
        obs, reward, end = random.standard_normal(2).astype("float32"), random.random(), number % 7 == 6
        if number % 20:
            ours.observe(obs, action, reward, end, False)
        action = ours.act(obs)
        np.testing.assert_allclose(theirs.act(obs, reward, end)[0], action, atol=1e-5)


def test_the_runner_imports_neither_torch_nor_metarl(exported):
    code = f"import runpy, sys; sys.argv = ['', {str(exported[1] / 'step.onnx')!r}]; "
    code += f"runpy.run_path({str(RUNNER)!r}, run_name='__main__'); assert not {{'torch', 'metarl'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[[") == 3


def test_the_curve_through_the_file_is_the_policys_own_curve(exported, capsys):
    run, out = exported
    words = ("evaluate", str(run), "--tasks", "5", "--json")
    own = json.loads(command(capsys, *words, "--deterministic")[1])
    through = json.loads(command(capsys, *words, "--through", str(out / "step.onnx"))[1])
    assert through["facts"]["through"] == "step.onnx"
    assert through["tasks_hash"] == own["tasks_hash"]
    assert [one["mean"] for one in through["points"]] == pytest.approx([one["mean"] for one in own["points"]], abs=1e-3)


def test_a_file_for_other_observations_is_refused(exported, capsys):
    trainer = trainer_of("rl2 gru")
    from experiments.exporting.through import file_agent

    with pytest.raises(UserError, match=r"reads observations of shape \[2\]; those of grid_navi are \[9\]"):
        file_agent(OnnxFile(exported[1] / "step.onnx"), trainer.family, trainer.agent, deterministic=True, seed=0)
    choices: Any = SimpleNamespace(name="p", observation_space=POINT.observation_space, action_space=Discrete(3))
    with pytest.raises(UserError, match=r'gives actions .*"continuous".*; those of p are .*"discrete", "choices": 3'):
        file_agent(OnnxFile(exported[1] / "step.onnx"), choices, trainer.agent, deterministic=True, seed=0)
    status, _, errors = command(capsys, "evaluate", str(exported[0]), "--through", str(RUNNER))
    assert status == 2
    assert "cannot be read as ONNX" in errors


@pytest.mark.slow
@pytest.mark.parametrize("case", IN_FILES)
def test_files_of_every_agent_and_kind_of_memory_do_what_the_agent_does(case, tmp_path):
    done = export(trainer_of(case), tmp_path)
    assert all(part.parity.difference <= 1e-5 for part in done)


@pytest.mark.slow
def test_noise_draws_the_latents_that_pearl_explores_with(tmp_path):
    trainer = trainer_of("pearl")
    parts = export(trainer, tmp_path)
    assert [part.onnx.name for part in parts] == ["step.onnx", "encoder.onnx", "policy.onnx"]
    file = OnnxFile(tmp_path / "step.onnx")
    tasks = trainer.family.sample(500, "test", torch.Generator().manual_seed(0))
    env = trainer.family.make_env(500, torch.Generator().manual_seed(1))
    step = env.reset(tasks)
    agent = FileAgent(file, torch.Generator().manual_seed(2))
    first = agent.observe(agent.prior(500), None, step)
    latent = first.state["state.latent"]
    assert latent.mean().abs() < 0.1
    assert latent.std() == pytest.approx(1, abs=0.1)
    again = agent.observe(first, first.action, replace(step, truncated=torch.zeros(500, dtype=torch.bool)))
    torch.testing.assert_close(again.state["state.latent"], latent)


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Any:
    """A family of small images: seven classes, of four images each."""
    from PIL import Image

    from metarl.fewshot.images.photos import ImageFolder

    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in [f"train/a{number}" for number in range(4)] + [f"test/b{number}" for number in range(3)]:
        (folder / name).mkdir(parents=True)
        for image in range(4):
            Image.fromarray(random.integers(0, 255, (9, 9), np.uint8)).save(folder / name / f"{image}.png")
    sizes: dict[str, Any] = {"ways": 2, "shots": 2, "queries": 2, "test_queries": 2, "size": 8, "channels": 1}
    return ImageFolder(data_dir=str(folder), **sizes)


def learner_of(family: Any, config: Any) -> Trainer:
    return Trainer(family, config, TrainConfig(num_iterations=1, num_tasks=2), agent_name="learner", seed=0)


def predictor_from(name: str) -> Any:
    module, _, attribute = LEARNERS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def small(name: str) -> Any:
    """A learner's settings, with nets for the small images."""
    config = predictor_from(name)()
    names = {field.name for field in fields(config)}
    if "conv" in names:
        config = replace(config, conv=replace(config.conv, filters=4, num_blocks=2))
    if "batching" in names:
        config = replace(config, batching="vmap")
    return config


@pytest.mark.slow
def test_a_few_shot_learner_is_one_graph_from_support_and_queries_to_classes(images, tmp_path):
    (part,) = export(learner_of(images, small("prototypical")), tmp_path)
    assert part.parity.difference <= 1e-5
    file = OnnxFile(tmp_path / "predict.onnx")
    assert {name: form["shape"] for name, form in file.metadata["inputs"].items()} == {
        "support_x": [4, 1, 8, 8],
        "query_x": [4, 1, 8, 8],
    }
    assert (file.metadata["ways"], file.metadata["shots"]) == (2, 2)


@pytest.mark.slow
def test_the_file_of_matching_networks_predicts_as_they_do(images, tmp_path):
    (part,) = export(learner_of(images, small("matching")), tmp_path)
    assert part.parity.difference <= 1e-5


@pytest.mark.slow
def test_the_gradient_steps_of_maml_on_images_are_part_of_its_file(images, tmp_path):
    config = small("maml")
    config = replace(config, num_inner_steps=1, conv=replace(config.conv, filters=2, num_blocks=1))
    trainer = Trainer(
        images, config, TrainConfig(num_iterations=1, num_tasks=2, num_points=1), agent_name="maml", seed=0
    )
    (part,) = export(trainer, tmp_path)
    assert part.parity.difference <= 1e-5


@pytest.mark.slow
def test_an_operation_that_onnx_lacks_is_named(tmp_path):
    graph = Graph("predict", lambda x: (torch.linalg.solve(x, x),), {"x": torch.eye(2)}, ("y",), {}, has_rows=False)
    with pytest.raises(UserError, match=r"with opset 18: it has no operation for torch's aten\._linalg_solve_ex"):
        save_onnx(captured(graph), graph, tmp_path / "predict.onnx", {}, 18)


@pytest.mark.slow
def test_a_neural_process_takes_its_targets_too(tmp_path):
    from metarl.fewshot.regression import Sinusoid

    (part,) = export(learner_of(Sinusoid(), small("cnp")), tmp_path)
    assert list(OnnxFile(part.onnx).metadata["inputs"]) == ["support_x", "support_y", "query_x"]


@pytest.mark.slow
def test_the_inner_step_of_maml_runs_in_its_file_as_in_the_evaluation(tmp_path, capsys):
    train = TrainConfig(num_iterations=2, num_tasks=4, eval_tasks=2)
    agent = MAMLTRPOConfig(hidden_sizes=(8,), num_rollouts=4)
    run = metarl.train(Experiment(POINT, agent, train), run_dir=tmp_path / "run", log=(), progress=False)
    out = tmp_path / "out"
    assert command(capsys, "export", str(run.path), "--checkpoint", "latest", "--out", str(out))[0] == 0
    assert (out / "adapt.onnx").is_file()
    words = ("evaluate", str(run.path), "--tasks", "100", "--points", "3", "--json")
    own = json.loads(command(capsys, *words)[1])
    through = json.loads(command(capsys, *words, "--through", str(out / "step.onnx"))[1])
    for one, other in zip(own["points"], through["points"], strict=True):
        assert other["mean"] == pytest.approx(one["mean"], abs=one["ci95"][1] - one["ci95"][0])
