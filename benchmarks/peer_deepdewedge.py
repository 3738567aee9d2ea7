"""Run the program of DeepDeWedge's authors from half-tomograms to the restored tomogram, on the CPU.

    PYTHON benchmarks/peer_deepdewedge.py CLONE SETTINGS

PYTHON has what the clone's requirements.txt lists. SETTINGS is JSON: `halves` (two MRC files), `folder` (new),
`subtomogram`, `stride`, `validation`, `channels`, `levels`, `batch`, `epochs`, `learning_rate`, `wedge` (degrees) and
`threads`. The three commands of the program run as they are but for one thing: `fit-model` names a GPU to Lightning,
which is told the CPU instead. Prints one line of JSON: seconds of the stages, steps taken, parameters, versions.
"""

import itertools
import json
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import pytorch_lightning as lightning  # noqa: E402
import torch  # noqa: E402


class OnCPU(lightning.Trainer):
    def __init__(self, **options: object) -> None:
        super().__init__(**(options | {"accelerator": "cpu", "devices": 1}))
        OnCPU.last = self


lightning.Trainer = OnCPU
import ddw  # noqa: E402


def main() -> None:
    s = json.loads(sys.argv[2])
    torch.set_num_threads(s["threads"])
    first, second = ([Path(half)] for half in s["halves"])
    times = [time.perf_counter()]
    ddw.prepare_data(
        first, second, s["subtomogram"], val_fraction=s["validation"], project_dir=s["folder"], seed=0,
        subtomo_extraction_strides=[s["stride"]] * 3,
    )  # fmt: skip
    times.append(time.perf_counter())
    ddw.fit_model(
        {"chans": s["channels"], "num_downsample_layers": s["levels"], "drop_prob": 0.0}, {"lr": s["learning_rate"]},
        num_epochs=s["epochs"], batch_size=s["batch"], subtomo_size=s["subtomogram"], mw_angle=s["wedge"], gpu=[0],
        num_workers=1, project_dir=s["folder"], check_val_every_n_epochs=1, seed=0,
        save_model_every_n_epochs=s["epochs"], update_subtomo_missing_wedges_every_n_epochs=s["epochs"] // 2 + 1,
    )  # fmt: skip
    times.append(time.perf_counter())
    checkpoint = max(Path(s["folder"]).glob("logs/**/epoch/*.ckpt"), key=lambda path: path.stat().st_mtime)
    ddw.refine_tomogram(
        first, second, checkpoint, s["subtomogram"], s["wedge"], project_dir=s["folder"], batch_size=s["batch"]
    )
    times.append(time.perf_counter())
    stages = dict(zip(("prepare", "train", "restore"), (b - a for a, b in itertools.pairwise(times)), strict=True))
    network = OnCPU.last.lightning_module.unet
    report = stages | {
        "output": str(Path(s["folder"], "refined_tomograms")),
        "steps": OnCPU.last.global_step,
        "parameters": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "versions": f"torch {torch.__version__}, pytorch-lightning {lightning.__version__}",
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
