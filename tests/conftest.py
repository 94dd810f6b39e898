"""Settings of the whole suite."""

import os

import pytest
import torch

# The tensors of the tests are tiny: a second thread only waits, and on a busy machine it waits long.
torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _a_signing_key_of_the_tests_own(tmp_path_factory: pytest.TempPathFactory):
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("config"))
