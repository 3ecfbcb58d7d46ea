"""SIGKILL at seeded random moments: what is there is whole, and the next start ends as if nothing had happened."""

import pytest
import scenarios
from exchange_server import MINUTES, Binance, serving
from harness import kill, start, undisturbed

QUICK = ("download", "training", "follow", "ledger")
SEEDS = range(9)


@pytest.fixture(scope="module")
def server():
    first = int(scenarios.START.timestamp() * 1000)
    with serving(Binance(now=first + 30 * 96 * 15 * MINUTES, listed=first)) as state:
        yield state


@pytest.fixture(scope="module")
def whole(server, tmp_path_factory):
    """Scenario, seconds and result of the undisturbed work, made when they are asked for."""
    made = {}
    download = scenarios.Download(Binance(server.now, server.listed, url=server.url))
    by_name = {
        "prepare": scenarios.Prepare(),
        "training": scenarios.Train(),
        "download": download,
        "follow": scenarios.Follow(),
        "ledger": scenarios.Ledger(),
        "pages": scenarios.Pages(),
    }

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(f"{name}-whole")
            made[name] = (by_name[name], *undisturbed(by_name[name], folder))
        return made[name]

    return of


def killed_until_done(whole, folder, name, seed, kills, record):
    scenario, seconds, result = whole(name)
    done = sum(kill(scenario, folder, moment) for moment in scenarios.moments(seed, seconds, kills))
    process = start(scenario, folder)
    process.join()
    assert process.exitcode == 0
    scenario.check(folder)
    assert scenario.result(folder) == result
    record("fault", f"SIGKILL during: {scenario.name}")
    record("kills", done)
    record("outcome", "next start goes on; artefacts whole; result equal to the undisturbed one")


@pytest.mark.parametrize("name", QUICK)
def test_killed_work_goes_on(whole, tmp_path, record_property, name):
    killed_until_done(whole, tmp_path / "w", name, 100, 2, record_property)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", ["prepare", *QUICK])
def test_work_killed_at_random_moments_goes_on(whole, tmp_path, record_property, name, seed):
    killed_until_done(whole, tmp_path / "w", name, seed, 1 + seed % 3, record_property)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(3))
def test_a_killed_notebook_run_goes_on(whole, tmp_path, record_property, seed):
    killed_until_done(whole, tmp_path / "w", "pages", seed, 2, record_property)
