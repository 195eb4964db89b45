"""What a service is told at its start, by options or by environment variables named REID_...."""

from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """One model, one gallery, one address, who may ask, and how much one request may bring."""

    model_config = SettingsConfigDict(env_prefix="REID_")

    checkpoint: Path
    gallery: Path
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535, description="0 is any free port")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: Literal["memory", "faiss-ivf"] = "memory"
    backups: Path | None = Field(None, description="by default the folder backups of the gallery")
    require_keys: bool | None = Field(None, description="by default wherever others than this machine can ask")
    admin_key: SecretStr | None = Field(
        None, min_length=32, max_length=200, description="a key for everything, beside those stored"
    )
    allowed_hosts: list[str] = Field([], description="names under which this machine may be asked without a key")
    log_format: Literal["text", "json"] | None = Field(None, description="text on a terminal by default, else json")
    max_body_bytes: int = Field(64 * 2**20, ge=1)
    max_upload_bytes: int = Field(20 * 2**20, ge=1, description="of one image file")
    max_images: int = Field(32, ge=1, le=256, description="in one request; 256 may wait for the model")

    @field_validator("admin_key")
    @classmethod
    def _require_printable(cls, key: SecretStr | None) -> SecretStr | None:
        if key is not None and not (key.get_secret_value().isascii() and key.get_secret_value().isprintable()):
            raise ValueError("expected printable ASCII characters, for others do not survive a header")
        return key

    @property
    def keys_required(self) -> bool:
        """Whether a request without key is refused."""
        return not _is_loopback(self.host) if self.require_keys is None else self.require_keys


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
