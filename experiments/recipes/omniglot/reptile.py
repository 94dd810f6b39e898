"""Reptile on Omniglot, 5-way 1-shot, without transduction.

Nichol, Achiam, Schulman (2018): four strided blocks of 64 filters; five steps of Adam without momentum on ten examples
at a time; at meta-test fifty steps on the support. Each query is normalised with the support only, the paper's setting
without transduction; for transduction, see omniglot/reptile_transductive. Inner steps are three times as long as the
paper's, for a seventh of its iterations. The paper's budget and characters: --train.num-iterations 100000
--agent.inner-lr 0.001 --family.class-split random --family.random-sizes 1200 0 423 --family.test-rotations none
--family.resize nearest --family.ink dark.
"""

from experiments import Expected, Experiment
from metarl.fewshot.images.omniglot import Omniglot
from metarl.fewshot.methods.reptile import ReptileConfig
from metarl.trainer import TrainConfig

experiment = Experiment(
    family=Omniglot(ways=5, shots=1, train_shots=5, queries=5, test_queries=1),
    agent=ReptileConfig(inner_optimizer="adam", inner_lr=3e-3, inner_batch=10, transduction=False),
    train=TrainConfig(
        num_iterations=15000, num_tasks=5, num_points=50, eval_every=5000, eval_tasks=600, checkpoint_every=500
    ),
    expected=Expected(at_least=0.924, point=50, source="within three points of 0.954 in Nichol et al. 2018"),
)
