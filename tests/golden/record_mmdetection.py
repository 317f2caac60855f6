"""Names and shapes of the weights that mmdetection builds, for `test_mmdetection_names.py`.

    python tests/golden/test_mmdetection_names.py FOLDER  # small bundles' code, by scratch-nas
    python tests/golden/record_mmdetection.py FOLDER > tests/golden/mmdetection_names.json

The second command runs in an environment with mmdetection 3.3. The backbone, which is ours, is left
out.
"""

from __future__ import annotations

import json
import sys
from multiprocessing import get_context
from pathlib import Path


def shapes(folder: Path) -> dict[str, list[int]]:
    """Shapes by name of what a configuration builds."""
    sys.path.insert(0, str(folder))
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    config = Config.fromfile(folder / "mmdet_config.py")
    config.model.backbone.weights = None
    init_default_scope("mmdet")
    state = MODELS.build(config.model).state_dict()
    return {
        name: list(x.shape) for name, x in sorted(state.items()) if not name.startswith("backbone.")
    }


if __name__ == "__main__":
    folders = sorted(path.resolve() for path in Path(sys.argv[1]).iterdir())
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # each has modules of one name
        recorded = pool.map(shapes, folders, chunksize=1)
    lines = (
        f"{json.dumps(folder.name)}: {json.dumps(found)}"
        for folder, found in zip(folders, recorded, strict=True)
    )
    print("{\n" + ",\n".join(lines) + "\n}")
