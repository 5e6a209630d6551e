"""What ``[page]`` may say: where the status page listens, by what names it is called, and who may see it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated, LiteralString, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError


class Address(NamedTuple):
    """Where to listen: an IP address, as text, and a TCP port."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """``127.0.0.1:8080``, ``[::1]:8080``, ``localhost:8080``. Raises PydanticCustomError.

    No other names: to look one up may take as long as a name server likes, and it may change.
    """
    match = re.fullmatch(r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+)|localhost):(?P<port>[0-9]{1,5})", text)
    if match is not None and 0 < int(match["port"]) < 65_536:
        try:
            host = ipaddress.ip_address(match["six"] or match["four"] or "127.0.0.1")
        except ValueError:
            pass
        else:
            return Address(str(host), int(match["port"]))
    raise PydanticCustomError(
        "listen", 'not an IP address and a port: as "127.0.0.1:8080", "[::1]:8080", or "0.0.0.0:8080" for all networks'
    )


def _address(text: str) -> str:
    parse_address(text)
    return text


HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=253)]


class PageSettings(BaseModel):
    """The status page in a browser, and what programs ask beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, AfterValidator(_address)] | None = Field(
        None,
        description="IP address and port of the status page (needs outstation[page]). "
        "Any other address than a loopback one needs token_file. Default: there is no page.",
    )
    token_file: Path | None = Field(
        None,
        description="File with the token that opens the page: 16 characters at least, read at the start. "
        "HTTP does not hide it from who listens on the network: for more than a LAN put TLS before it.",
    )
    hosts: tuple[HostName, ...] = Field(
        (),
        description="Names by which browsers may call the page, beside IP addresses, localhost and this machine's own "
        "name, also with .local: those of a proxy, say.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> PageSettings:
        def wrong(message: LiteralString) -> PydanticCustomError:
            return PydanticCustomError("page", message)

        if self.listen is None:
            if self.token_file is not None or self.hosts:
                raise wrong('token_file and hosts do nothing without listen = "127.0.0.1:8080"')
        elif self.token_file is None and not parse_address(self.listen).loopback:
            raise wrong("listen is not a loopback address, so that everyone on that network could look: set token_file")
        return self


def lacks() -> str | None:
    """What has to be installed for the page, and why it is missing; None: nothing is."""
    for name in ("h11", "prometheus_client"):
        try:
            __import__(name)
        except ImportError as error:
            return f"{name} cannot be imported ({error})"
    return None
