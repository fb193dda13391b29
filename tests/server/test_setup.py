import pytest

from fedge.errors import ConfigError
from server.settings import compose_experiment
from server.setup import prepare

CODEBOOK = ["compression=none", "compression.quantization=codebook"]


def test_training_for_a_codebook_that_is_folded_away_is_refused() -> None:
    settings = [*CODEBOOK, "compression.qat_rounds=2", "model=mobilenet"]
    with pytest.raises(ConfigError, match=r"qat_rounds: 2 .*choose int4"):
        prepare(compose_experiment(settings))


@pytest.mark.parametrize(
    "others",
    [
        ["compression.qat_rounds=2", "model=cnn"],
        ["compression.qat_rounds=0", "model=mobilenet"],
        ["compression.qat_rounds=2", "compression.quantization=int4"],
    ],
)
def test_elsewhere_it_is_not(others: list[str]) -> None:
    assert prepare(compose_experiment([*CODEBOOK, *others])).num_devices > 0
