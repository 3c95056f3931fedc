"""What the tests of the application's side share."""

from gpu_offload.client.model_client import ModelClient

NO_NUMBERS = ["\u00b2", "1" * 5000, "-1", "x", ""]


def client(server, folder, **more):
    return ModelClient(server.url, folder, **({"interval": 0, "pause": 0.001, "timeout": 5} | more))


def body_of(model):
    return model.path.read_bytes()


def kept(model, old):
    """Return the problem with which a client went on with the model of before."""
    assert body_of(model) == old
    return model.problem
