"""The network leaves PyTorch's eager mode whole: torch.export and ONNX, for any batch size."""

import numpy as np
import onnxruntime
import pytest
import torch
from made_up import made_up_data
from torch import Tensor

from kernels import CELLS
from model.batches import Batcher
from model.config import ModelConfig
from model.data import TEST
from model.embeddings import Inputs
from model.features import fit_schema
from model.zoo.dien import Dien

STEPS = 4
# torch.onnx walks into torch's own pytree classes.
pytestmark = pytest.mark.filterwarnings(r"ignore:.isinstance\(treespec, LeafSpec\). is deprecated:FutureWarning")


def of_lengths(batcher: Batcher, *lengths: int) -> Inputs:
    """Impressions with the longest histories, cut to these lengths."""
    order = np.argsort(batcher.start - batcher.end, kind="stable")[: len(lengths)]
    inputs = batcher.batch(order, np.random.default_rng(0)).inputs
    return inputs._replace(
        history=inputs.history[:, :STEPS], actions=inputs.actions[:, :STEPS], lengths=torch.tensor(lengths)
    )


@pytest.fixture(scope="module", params=CELLS)
def exported(request: pytest.FixtureRequest) -> tuple[Dien, torch.export.ExportedProgram, Inputs]:
    """A network, its export from 5 rows, and 9 other rows with histories of 0, 1 and many."""
    data = made_up_data(longest=40)
    schema = fit_schema(data)
    torch.manual_seed(0)
    config = ModelConfig(hidden=8, embedding=4, cell=request.param, head=(6, 5), initial_deviation=0.7)
    model = Dien(schema, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that scores differ
    batcher = Batcher(data, schema, TEST)
    example, other = of_lengths(batcher, 4, 4, 3, 3, 2), of_lengths(batcher, 0, 4, 1, 3, 0, 2, 4, 4, 1)
    rows = torch.export.Dim("rows", min=1, max=4096)
    shapes = (Inputs(*({0: rows} for _ in example)),)  # type: ignore[arg-type]
    return model, torch.export.export(model, (example,), dynamic_shapes=shapes), other


def expected(model: Dien, inputs: Inputs) -> Tensor:
    with torch.inference_mode():
        logits: Tensor = model(inputs)
    assert logits.std() > 0.05
    return logits


def test_torch_export(exported: tuple[Dien, torch.export.ExportedProgram, Inputs]) -> None:
    model, program, other = exported
    torch.testing.assert_close(program.module()(other).detach(), expected(model, other))
    one = Inputs(*(part[:1] for part in other))
    torch.testing.assert_close(program.module()(one).detach(), expected(model, other)[:1])


@pytest.mark.no_cover  # the exporter is Python, and would take twice as long
@pytest.mark.parametrize("exported", ["augru"], indirect=True)
def test_onnx(exported: tuple[Dien, torch.export.ExportedProgram, Inputs]) -> None:
    model, program, other = exported
    onnx = torch.onnx.export(program, dynamo=True, verbose=False)
    assert onnx is not None
    session = onnxruntime.InferenceSession(onnx.model_proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    (logits,) = session.run(None, dict(zip(names, (part.numpy() for part in other), strict=True)))
    torch.testing.assert_close(torch.from_numpy(logits), expected(model, other), rtol=1e-5, atol=1e-5)
