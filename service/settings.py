"""What a service is told at its start, by options or by environment variables named REID_...."""

import re
from collections.abc import Collection, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from reid import cli
from reid.data.images import MAX_MEGAPIXELS
from reid.inference.pretrained import Pretrained, model_of
from reid.names import Runtime
from service.records import DECODE_SECONDS, Consistency, EngineName, MilvusIndex

BACKUPS_FOLDER = "backups"  # of a gallery
MAX_FILES = 256  # that may ever come in one request; as many may wait for the model
ROOT_PATH = r"(/(?!\.\.?(/|$))[A-Za-z0-9._~-]+)*"  # of a proxy's path: nothing that would have to be quoted anywhere
Network = IPv4Network | IPv6Network


class Backend(BaseSettings):
    """Where a gallery is kept beside its folder, and what finds its items; the same for every process that opens it."""

    model_config = SettingsConfigDict(env_prefix="REID_")

    engine: EngineName = "memory"
    rows: Literal["memory", "disk"] = Field("memory", description="where the engine memory has its vectors")
    database: SecretStr | None = Field(None, description="of a PostgreSQL database; by default a file")
    milvus_uri: str | None = None
    milvus_token: SecretStr | None = None
    milvus_consistency: Consistency = "Strong"
    milvus_index: MilvusIndex = "flat"
    milvus_effort: int | None = Field(None, ge=1, le=32_768, description="ef of hnsw, nprobe of ivf")
    backups: Path | None = Field(None, description="by default the folder backups of the gallery")
    runtime: Runtime = Field("auto", description="what embeds photos: onnx is ONNX Runtime, with an export")
    # Read from the environment wherever a picture is read; here, so that one that is none is refused at the start.
    decode_seconds: float = Field(
        DECODE_SECONDS,
        gt=0,
        allow_inf_nan=False,
        description="of a processor for a small picture, more for a larger one",
    )
    max_megapixels: float = Field(MAX_MEGAPIXELS, gt=0, allow_inf_nan=False, description="of one picture")

    @property
    def database_url(self) -> str | None:
        """The URL of the database, with its password; None for a file in the gallery's folder."""
        return None if self.database is None else self.database.get_secret_value()

    @field_validator("database")
    @classmethod
    def _require_postgresql(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not url.get_secret_value().startswith(("postgresql://", "postgresql+psycopg://")):
            raise ValueError("expected postgresql://USER:PASSWORD@HOST/DATABASE")
        return url

    @model_validator(mode="after")
    def _require_address(self) -> Self:
        if self.engine == "milvus" and self.milvus_uri is None:
            raise ValueError("engine milvus without REID_MILVUS_URI, such as http://127.0.0.1:19530")
        if self.rows == "disk" and self.engine != "memory":
            raise ValueError(f"REID_ROWS disk with engine {self.engine}: expected engine memory")
        return self


class Settings(Backend):
    """A gallery with its model, a classifier, or both; one address, who may ask, and how much one request may bring."""

    checkpoint: Path | None = None
    backbone: str | None = Field(None, description="in the place of a checkpoint, a network as others trained it")
    weights: str | None = Field(None, description="of the backbone: imagenet or a file")
    image_size: str | None = Field(None, description="of the backbone: height x width, by default that of its weights")
    mean: str | None = Field(None, description="of the backbone: of the pixels, by default that of its weights")
    std: str | None = Field(None, description="of the backbone: of the pixels, by default that of its weights")
    gallery: Path | None = None
    classifier: Path | None = None
    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8000, ge=0, le=65535, description="0 is any free port")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    watch: Path | None = Field(None, description="a folder whose photos are enrolled as they come")
    require_keys: bool | None = Field(None, description="by default wherever others than this machine can ask")
    admin_key: SecretStr | None = Field(None, description="a key for everything, beside those stored")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        [], description="names, between commas, to ask by without key"
    )
    root_path: str = Field("", description="the path below which a proxy shows the service, as /reid")
    public_url: str | None = Field(None, description="the address that people use, as https://photos.example.org/reid")
    trusted_proxies: Annotated[list[Network], NoDecode] = Field(
        [], description="addresses or networks, between commas, whose X-Forwarded-... headers are believed"
    )
    keep_days: Annotated[dict[str, float], NoDecode] = Field(
        {}, description="after how many days items are deleted, as 30, or north=30,south=7,*=90; for ever by default"
    )
    query_log_days: float = Field(90, gt=0, description="after how many days a query is removed from the log")
    query_log_mb: float = Field(1024, gt=0, description="how large the log of queries may be, about")
    subject_days: float = Field(7, gt=0, lt=100_000, description="after how many days photos that were searched for go")
    subject_mb: float = Field(1024, gt=0, description="how much room these may take, about; then the oldest go")
    import_days: float = Field(7, gt=0, lt=100_000, description="after how many days without change imports go")
    import_mb: float = Field(20_480, gt=0, description="how much room the files of imports may take together")
    cors_origins: Annotated[list[str], NoDecode] = Field(
        [],
        description="where pages of other sites come from that may ask with a key, between commas, as https://example.org",
    )
    log_format: Literal["text", "json"] | None = Field(None, description="text on a terminal by default, else json")
    max_connections: int = Field(800, ge=1, description="open at a time")  # of the 1,024 files that are common
    max_connections_of_address: int = Field(200, ge=1, description="open at a time, other than of this machine")
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
    def _read_hosts(cls, names: Any) -> Any:
        return _between_commas(names)

    @field_validator("keep_days", mode="before")
    @classmethod
    def _read_days(cls, days: Any) -> Any:
        """Days for all cameras, or for each: `*` are those that are not named."""
        if not isinstance(days, str):
            return days
        form = "expected days, as 30, or CAMERA=DAYS between commas, as north=30,*=90"
        kept: dict[str, float] = {}
        for part in filter(None, days.split(",")):
            camera, _, number = part.rpartition("=")
            try:
                kept[camera.strip() or "*"] = float(number)
            except ValueError:
                raise ValueError(f"{part!r}: {form}") from None
        if not all(0 < number < 100_000 for number in kept.values()):
            raise ValueError(f"{days!r}: {form}, each above 0")
        return kept

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _read_origins(cls, names: Any) -> Any:
        origins = [name.rstrip("/").lower() for name in _between_commas(names)]
        if wrong := [origin for origin in origins if not re.fullmatch(r"https?://[^/?#@*\s]+", origin)]:
            raise ValueError(f"{wrong[0]!r}: expected origins between commas, as https://example.org")
        return origins

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _read_networks(cls, names: Any) -> Any:
        try:
            return [ip_network(name, strict=False) for name in _between_commas(names)]
        except ValueError as error:
            raise ValueError(
                f"{error}: expected addresses or networks between commas, as 127.0.0.1,10.0.0.0/8"
            ) from None

    @field_validator("root_path")
    @classmethod
    def _require_path(cls, path: str) -> str:
        path = path.rstrip("/")
        if not re.fullmatch(ROOT_PATH, path):
            raise ValueError(f"{path!r}: expected a path of letters, digits and any of ._~- as /reid")
        return path

    @field_validator("public_url")
    @classmethod
    def _require_address_of_people(cls, url: str | None) -> str | None:
        if url is None or re.fullmatch(rf"https?://([\w.-]+|\[[0-9a-fA-F:.]+\])(:\d+)?{ROOT_PATH}/?", url):
            return url
        raise ValueError(f"{url!r}: expected https://HOST or https://HOST/PATH")

    @model_validator(mode="after")
    def _require_one_path(self) -> Self:
        path = urlsplit(self.public_url or "").path.rstrip("/")
        if self.root_path and self.public_url and path != self.root_path:
            raise ValueError(
                f"REID_ROOT_PATH {self.root_path}, REID_PUBLIC_URL {self.public_url}: expected the same path in both"
            )
        return self

    @model_validator(mode="after")
    def _require_something_to_serve(self) -> Self:
        model = self.model
        if model is None and self.gallery is None and self.classifier is None:
            raise ValueError("nothing to serve: expected --checkpoint with --gallery, or --classifier, or all three")
        if model is None and self.gallery is not None:
            raise ValueError("--gallery without --checkpoint (or REID_CHECKPOINT), the model that embeds its photos")
        if self.watch is not None and self.gallery is None:
            raise ValueError("--watch without --gallery (or REID_GALLERY), into which photos are enrolled")
        if self.gallery is None and model is not None:
            named = "--checkpoint" if self.backbone is None else "--backbone"
            raise ValueError(f"{named} without --gallery (or REID_GALLERY), the folder of what it embeds")
        return self

    @property
    def model(self) -> Path | Pretrained | None:
        """What embeds the photos of the gallery; raises ValueError for options that contradict each other."""
        return model_of(self.checkpoint, {name: getattr(self, name) for name in Pretrained.model_fields})

    @property
    def admin_secret(self) -> str | None:
        """The secret of `admin_key`, if there is one."""
        return None if self.admin_key is None else self.admin_key.get_secret_value()

    @property
    def most_bytes_of_imports(self) -> int:
        """`import_mb` in bytes."""
        return int(self.import_mb * 2**20)

    @property
    def root(self) -> str:
        """The path below which the service is seen, without a slash at its end; empty at the root of a host."""
        return self.root_path or urlsplit(self.public_url or "").path.rstrip("/")

    @property
    def public_host(self) -> str | None:
        """The host of the address that people use, in small letters, if it is told."""
        return None if self.public_url is None else urlsplit(self.public_url).hostname

    @property
    def public_origin(self) -> str | None:
        """The address that people use as browsers name where a page comes from: no path, nor the usual port."""
        if self.public_url is None:
            return None
        parts = urlsplit(self.public_url.lower())
        usual = {"http": ":80", "https": ":443"}[parts.scheme]
        return f"{parts.scheme}://{parts.netloc.removesuffix(usual)}"

    @property
    def behind_proxy(self) -> bool:
        """Whether others may ask through this machine."""
        return bool(self.root_path or self.public_url or self.trusted_proxies)

    @property
    def open_to_others(self) -> bool:
        """Whether others than this machine may ask, by themselves or through it."""
        return self.behind_proxy or not _is_loopback(self.host)

    @property
    def keys_required(self) -> bool:
        """Whether a request without key is refused."""
        return self.open_to_others if self.require_keys is None else self.require_keys


def _between_commas(names: Any) -> Any:
    return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names


Kind = TypeVar("Kind", bound=Backend)


def load(kind: type[Kind], options: Mapping[str, Any] | None = None) -> Kind:
    """The settings of a command from its options, which go first, and the environment.

    Raises `cli.UsageError`, naming them, for those that cannot be used.
    """
    given = options or {}
    try:
        return kind(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        raise cli.UsageError("; ".join(_complaint(one["loc"], one["msg"], given) for one in error.errors())) from None


def _complaint(where: tuple[int | str, ...], message: str, options: Collection[str]) -> str:
    message = message.removeprefix("Value error, ")
    if not where:  # of several settings, which it names
        return message
    name = str(where[0])
    given = f"--{name} or " if name in options else ""
    return f"{name} ({given}REID_{name.upper()}): {message[0].lower()}{message[1:]}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
