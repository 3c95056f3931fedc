"""The application's side: keeps a local copy of a published model up to date."""

from gpu_offload.client.model_client import Model, ModelClient, NoModelError, TransferError

__all__ = ["Model", "ModelClient", "NoModelError", "TransferError"]
