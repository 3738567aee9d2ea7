"""Run IsoNet 0.2, the program of its authors, from a tomogram to the restored one, on the CPU.

    PYTHON benchmarks/peer_isonet.py CLONE SETTINGS

PYTHON has tensorflow 2.15 or older (the program writes Keras 2 models) and what the clone's requirements.txt lists, but
for PyQt5, which only its window needs. SETTINGS is JSON: `tomogram` (MRC file), `folder` (new), `cubes`, `patch`,
`crop`, `channels`, `levels`, `batch`, `iterations`, `steps` in each. The commands of the program run as they are, but
for its check for a GPU, which is left out. Prints one line of JSON: weights, versions.
"""

import json
import os
import shutil
import sys
import types
from pathlib import Path

sys.dont_write_bytecode = True
package = types.ModuleType("IsoNet")  # the clone is the package, whatever its folder is called
package.__path__ = [sys.argv[1]]
sys.modules["IsoNet"] = package

import tensorflow  # noqa: E402
from IsoNet.bin import refine  # noqa: E402
from IsoNet.bin.isonet import ISONET  # noqa: E402


def main() -> None:
    s = json.loads(sys.argv[2])
    refine.check_gpu = lambda arguments: None
    os.makedirs(Path(s["folder"], "tomograms"))
    os.chdir(s["folder"])
    shutil.copy(s["tomogram"], "tomograms")
    program = ISONET()
    program.prepare_star("tomograms", number_subtomos=s["cubes"])
    program.extract("tomograms.star", cube_size=s["patch"], crop_size=s["crop"])
    program.refine(
        "subtomo.star", iterations=s["iterations"], epochs=1, steps_per_epoch=s["steps"], batch_size=s["batch"],
        noise_level=(0.05,), noise_start_iter=(1000,), filter_base=s["channels"], unet_depth=s["levels"], gpuID="0",
        preprocessing_ncpus=1,
    )  # fmt: skip
    model = f"results/model_iter{s['iterations']:02d}.h5"
    program.predict("tomograms.star", model, cube_size=s["patch"], crop_size=s["crop"], batch_size=s["batch"], gpuID=0)
    if not list(Path("corrected_tomos").glob("*.mrc")):
        raise SystemExit(Path("log.txt").read_text().strip().splitlines()[-1])
    count = tensorflow.keras.models.load_model(model).count_params()
    print("\n" + json.dumps({"parameters": count, "versions": f"tensorflow {tensorflow.__version__}"}))


if __name__ == "__main__":
    main()
