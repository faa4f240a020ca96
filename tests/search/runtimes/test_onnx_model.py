import sys

import numpy as np
import pytest
import torch
from torch import nn

from fedpareto.search.runtimes.extras import require_onnx
from fedpareto.search.runtimes.onnx_model import OPSET, open_session, to_onnx
from fedpareto.supernet.common.errors import UserError


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_names_the_line_that_installs_it(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"^{missing} is not installed; .*pip install 'fedpareto\[export\]'$"):
        require_onnx()


def test_a_module_and_its_model_compute_the_same_for_any_batch() -> None:
    pytest.importorskip("onnxruntime")
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Hardswish()).eval()
    model = to_onnx(module, (torch.zeros(2, 3, 8, 8),), (("a",), ("b",)), dynamic_batch=True)
    assert {opset.domain: opset.version for opset in model.opset_import}[""] == OPSET
    assert b"site-packages" not in model.SerializeToString()
    session = open_session(model, 1)
    for batch in (1, 5):
        images = torch.randn(batch, 3, 8, 8)
        (found,) = session.run(None, {"a": images.numpy()})
        np.testing.assert_allclose(found, module(images).detach().numpy(), atol=1e-5)
