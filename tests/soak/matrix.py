"""Kill a process at one named step and compare the end with that of an undisturbed play of the same scenario."""

from __future__ import annotations

from pathlib import Path

from dicom_node.steps import REGISTER
from tests.soak.forks import Nursery
from tests.soak.scenarios import SCENARIOS, scenario_of
from tests.soak.stage import Ending, ending, stage


class Matrix:
    """Plays steps; the undisturbed end of each scenario is played once."""

    def __init__(self, folder: Path, nursery: Nursery) -> None:
        self._folder = folder
        self._nursery = nursery
        self._golden: dict[str, Ending] = {}

    def undisturbed(self, name: str) -> Ending:
        if name not in self._golden:
            scenario = SCENARIOS[name]
            folder = self._folder / f"undisturbed {name}"
            with stage(folder, self._nursery, faults=scenario.faults, **scenario.options) as played:
                self._golden[name] = ending(played, scenario.play(played, folder / "in"))
        return self._golden[name]

    def kill_at(self, step: str) -> None:
        """Play the step's scenario, kill whoever is the first to reach the step, and compare the end."""
        assert step in REGISTER, f"{step} is no named step"
        name = scenario_of(step)
        assert name, f"{step} has no scenario"
        scenario, expected = SCENARIOS[name], self.undisturbed(name)
        folder = self._folder / step
        faults = ",".join(filter(None, (f"{step}:kill", scenario.faults)))
        with stage(folder, self._nursery, faults=faults, **scenario.options) as played:
            acknowledged = scenario.play(played, folder / "in")
            found = ending(played, acknowledged)
            # Some are reached only when a process ends.
            assert (folder / "marks" / step).exists(), f"{step} was never reached in {name!r}"
            assert [role for role, code in played.deaths if code == -9], f"nobody died at {step}"
        assert found.objects.keys() == expected.objects.keys(), "the same objects under the same UIDs"
        assert found.objects == expected.objects, "the same bytes"
        assert found.results == expected.results
        assert found.states == expected.states
