"""Works that are killed: each is done in a folder, and is whole or absent, and the same, whatever happens on the way.

A scenario is picklable and stands in this module, because it is done in a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import yaml
from exchange_server import Binance
from slim import panel_of, slim

from cmat_lib.config import load_config, project_root
from cmat_lib.data.cache import verify
from cmat_lib.data.sources.exchange import Downloader
from cmat_lib.training import trainer
from cmat_lib.training.checkpoint import read_tensors
from cmat_lib.training.resume import SavePoint
from cmat_lib.workflow.follow import CsvOutput
from cmat_lib.workflow.ledger import append_trial
from cmat_lib.workflow.lock import working_in
from cmat_lib.workflow.run import STAGE_NAMES, Run
from cmat_lib.workflow.stages.training import prepare_features

CPU = torch.device("cpu")
START = pd.Timestamp("2024-01-01", tz="UTC")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Prepare(NamedTuple):
    """Stages 01 and 02 of a run, with an empty feature cache."""

    name = "cache build and stages 01, 02"

    def config(self, folder: Path):
        changes = {"run_dir": str(folder / "run"), "cache": {"dir": str(folder / "cache"), "jobs": 1}}
        return load_config(project_root() / "params/smoke.yaml", changes)

    def work(self, folder: Path) -> None:
        with working_in(folder / "run"):
            prepare_features(self.config(folder), lambda line: None)

    def check(self, folder: Path) -> None:
        run = Run(self.config(folder), "03_model_build")
        assert verify(folder / "cache") == []
        for stage in STAGE_NAMES[:2]:  # a record promises artefacts that are there as they were written
            assert not run.damaged(stage)
        for path in (folder / "run").glob("**/*"):
            if path.suffix == ".npy" and not path.name.startswith("."):
                np.load(path, allow_pickle=False)
            if path.suffix == ".parquet" and not path.name.startswith("."):
                pd.read_parquet(path)

    def result(self, folder: Path) -> dict[str, str]:
        hidden = {path.name for path in (folder / "run").rglob(".*")}
        assert hidden <= {".lock", ".lock.inner", ".lock.train"}, "what kills left in the run folder is removed"
        files = [*(folder / "run/data").glob("[!.]*"), *(folder / "cache").glob("*/*")]
        return {path.name: digest(path) for path in files}


class Train(NamedTuple):
    """A training that keeps its state at every step."""

    name = "training, state kept at every step"

    def work(self, folder: Path) -> None:
        trainer.SAVE_SECONDS = 0.0  # of this process, which ends with this work
        config = slim(epochs=4, early_stopping_patience=4)
        there = (folder / "last.pt").is_file()
        trained = trainer.train(config, panel_of(config), save_point=SavePoint(folder / "last.pt", "print", there))
        torch.save(trained.model.state_dict(), folder / "weights.pt")

    def check(self, folder: Path) -> None:
        if (folder / "last.pt").is_file():
            assert read_tensors(folder / "last.pt", CPU)["fingerprint"] == "print"

    def result(self, folder: Path) -> dict[str, list]:
        return {name: tensor.tolist() for name, tensor in read_tensors(folder / "weights.pt", CPU).items()}


class Download(NamedTuple):
    """A download of five pages, each saved at once."""

    server: Binance
    name = "download"

    def work(self, folder: Path) -> None:
        download = Downloader(self.server.exchange(), "15m", folder, (0.0, 0.0, 0.0), progress=False)
        for days in range(2, 22, 2):  # as ten calls of the command would
            download.download("BTC/USDT", START, START + pd.Timedelta(days=days))

    def check(self, folder: Path) -> None:
        for path in folder.glob("[!.]*.parquet"):
            assert pd.read_parquet(path)["timestamp"].is_monotonic_increasing

    def result(self, folder: Path) -> dict[str, str]:
        return {p.name: pd.read_parquet(p).to_csv() for p in folder.glob("[!.]*.parquet")}


class Follow(NamedTuple):
    """Lines of `cmat predict --follow`, going on where the file ends."""

    name = "predict --follow output"

    def work(self, folder: Path) -> None:
        output = CsvOutput(folder / "p.csv", "m1")
        times = pd.date_range(START, periods=1500, freq="1h")
        times = times[times > output.last["A"]] if "A" in output.last else times
        for time in times:
            score = (time.value // 10**9 % 977) / 977
            output.append(pd.DataFrame({"symbol": "A", "timestamp": [time], "probability": score, "model": "m1"}))

    def check(self, folder: Path) -> None:
        """Half a line may be there; the next start drops it, which `result` sees."""

    def result(self, folder: Path) -> str:
        return (folder / "p.csv").read_text()


class Ledger(NamedTuple):
    """Rows of the ledger of trials."""

    name = "ledger of trials"

    def work(self, folder: Path) -> None:
        for number in range(60):
            row = {"fingerprint": str(number), "data_hash": "d", "run": f"run{number}", "value": number / 7}
            append_trial(folder / "ledger.parquet", row)

    def check(self, folder: Path) -> None:
        if (folder / "ledger.parquet").is_file():
            assert pd.read_parquet(folder / "ledger.parquet")["fingerprint"].is_unique

    def result(self, folder: Path) -> list[float]:
        return sorted(pd.read_parquet(folder / "ledger.parquet")["value"])


class Pages(NamedTuple):
    """`cmat run` until page 03: papermill, kernels, exported pages, report."""

    name = "notebook run and report (pages 01 to 03)"

    def work(self, folder: Path) -> None:
        from cmat_lib.workflow.notebooks import run_notebooks

        run_notebooks(Prepare().config(folder), STAGE_NAMES[:3], lambda line: None)

    def check(self, folder: Path) -> None:
        run = Run(Prepare().config(folder), "03_model_build")
        for stage in STAGE_NAMES[:3]:
            assert not run.damaged(stage)
        for path in (folder / "run/report").glob("[!.]*.html"):
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
        for path in (folder / "run/stages").glob("[!.]*.json"):
            json.loads(path.read_text())

    def result(self, folder: Path) -> dict[str, object]:
        report = folder / "run/report"
        pages = sorted(p.name for p in report.glob("[!.]*.html") if p.read_text(encoding="utf-8").strip())
        params = yaml.safe_load((folder / "run/params.yaml").read_text())
        return {
            **Prepare().result(folder),
            "pages": pages,
            "params": params["data"],
            "spec": digest(folder / "run/model_spec.json"),
        }


def moments(seed: int, seconds: float, kills: int) -> list[float]:
    """Moments of `kills` kills in a row, each at random in a work that takes `seconds`."""
    rng = random.Random(seed)
    return [rng.uniform(0.0, seconds) for _ in range(kills)]
