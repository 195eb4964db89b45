"""What a service is told at its start, by options or by environment variables named REID_...."""

from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from service.records import EngineName

MAX_FILES = 256  # that may ever come in one request; as many may wait for the model


class Settings(BaseSettings):
    """One model, one gallery, one address, who may ask, and how much one request may bring."""

    model_config = SettingsConfigDict(env_prefix="REID_")

    checkpoint: Path
    gallery: Path
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535, description="0 is any free port")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: EngineName = "memory"
    backups: Path | None = Field(None, description="by default the folder backups of the gallery")
    require_keys: bool | None = Field(None, description="by default wherever others than this machine can ask")
    admin_key: SecretStr | None = Field(None, description="a key for everything, beside those stored")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="names, between commas, to ask by without key"
    )
    log_format: Literal["text", "json"] | None = Field(None, description="text on a terminal by default, else json")
    max_body_bytes: int = Field(64 * 2**20, ge=1)
    max_upload_bytes: int = Field(20 * 2**20, ge=1, description="of one image file")
    max_images: int = Field(32, ge=1, le=MAX_FILES, description="in one request")

    @field_validator("admin_key")
    @classmethod
    def _require_printable(cls, key: SecretStr | None) -> SecretStr | None:
        secret = None if key is None else key.get_secret_value()
        if secret is not None and not (32 <= len(secret) <= 200 and secret.isascii() and secret.isprintable()):
            raise ValueError("expected 32 to 200 printable ASCII characters, for others do not survive a header")
        return key

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split(cls, hosts: Any) -> Any:
        return [host.strip() for host in hosts.split(",") if host.strip()] if isinstance(hosts, str) else hosts

    @property
    def keys_required(self) -> bool:
        """Whether a request without key is refused."""
        return not _is_loopback(self.host) if self.require_keys is None else self.require_keys


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
