"""A registry in a folder, filled with bare ONNX files: publishing would run the graphs, and some of them never end."""

from pathlib import Path

from bench.servers.roles import registry_in


class FaultRegistry:
    """An MLflow registry in sqlite. Its methods block, and may be called on any thread.

    Attributes:
        uri: its address.
    """

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        folder.mkdir(parents=True, exist_ok=True)
        self.uri, _ = registry_in(folder)
        self._folder = folder
        self._client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self._files = 0

    def add(self, model: str, onnx: bytes) -> str:
        """Registers the model's next version, and returns its number."""
        self._files += 1
        folder = self._folder / "files" / str(self._files)
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(onnx)
        if not self._client.search_registered_models(f"name='{model}'"):
            self._client.create_registered_model(model)
        return str(self._client.create_model_version(model, source=folder.as_uri()).version)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Gives a version a role."""
        self._client.set_registered_model_alias(model, alias, version)

    def delete_alias(self, model: str, alias: str) -> None:
        """Ends a role."""
        self._client.delete_registered_model_alias(model, alias)
