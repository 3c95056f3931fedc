"""A server of models, the folder of an application, and the model that it has already."""

import pytest
from client_case import client
from model_server import ModelServer


@pytest.fixture
def server():
    with ModelServer() as server:
        yield server


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "models"


@pytest.fixture
def old(server, folder):
    """The bytes of the version `aaaa`, which the application has."""
    body = server.publish("aaaa")
    client(server, folder).get()
    return body
