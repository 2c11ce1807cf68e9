"""Trials side by side: processes of this machine, or KerasTuner's chief and workers on several.

A chief keeps the oracle and trains nothing; workers ask it for trials, and all share the folder of
the search, so that any of them can go on with what another one has begun.
"""

import contextlib
import ipaddress
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self

from kclassify import runtime
from kclassify.checks import InputError, parse_address
from kclassify.search.shared_data import laid_down

runtime.prepare()

from kclassify.search.child import Children  # noqa: E402
from kclassify.search.loop import Setting, run_trials  # noqa: E402

_VARIABLES = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
# How often a worker says that it is alive, and after what silence its trial is another's.
SECONDS_BETWEEN_SIGNS, SECONDS_TO_BE_LOST = 5.0, 30.0


def run_beside(
    setting: Setting, oracle: Any, *, workers: int, ended: Callable[[str], None]
) -> None:
    """Run each trial in a process of its own, `workers` of them at once.

    A trial whose process dies has failed; after Ctrl-C and SIGTERM all of them save their step.
    """
    threads = setting.base.threads or max(1, runtime.physical_cores() // workers)
    with laid_down(setting.sessions.source, setting.folder.data_dir) as data:
        children = Children(data, threads=threads)
        execute = partial(children.run, end=setting.end)
        with ThreadPoolExecutor(workers) as pool:
            asked = [
                pool.submit(run_trials, setting, oracle, execute, tuner_id=f"worker{n}",
                            ended=ended)
                for n in range(workers)
            ]  # fmt: skip
            try:
                done, _ = wait(asked, return_when=FIRST_EXCEPTION)
                for one in done:
                    one.result()
            finally:
                children.stop()


class Address:
    """Where the chief of a search listens: ``host:port``.

    Args:
        text: such as ``"127.0.0.1:8000"``.

    Raises:
        InputError: it is no address.
    """

    def __init__(self, text: str):
        found = parse_address(text)
        if found is None:
            raise InputError(
                f"`chief` must be a host and a port, such as '127.0.0.1:8000'. Received: {text!r}."
            )
        self.host, self.port = found

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        with contextlib.suppress(ValueError):
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        return False

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Role:
    """Who this process is in a search.

    Attributes:
        address: of the chief; None where there is one process.
        tuner_id: ``"chief"``, or a worker's own name.
    """

    address: Address | None = None
    tuner_id: str = "chief"

    @classmethod
    def of(cls, chief: str | None, tuner_id: str | None) -> Self:
        """Return the role that arguments say, or KerasTuner's environment variables.

        Raises:
            InputError: an address that is none, or an id without an address.
        """
        host, port, name = (os.environ.get(variable) for variable in _VARIABLES)
        text = chief or (f"{host}:{port}" if host else None)
        if text is None and tuner_id is not None:
            raise InputError(
                f"`chief` must be given with a tuner_id. Received: None, with {tuner_id!r}. "
                "Give the chief's address, such as '127.0.0.1:8000'."
            )
        if text is None:
            return cls()
        return cls(Address(text), tuner_id or name or "chief")

    @property
    def worker(self) -> bool:
        """Whether it trains what a chief gives out; KerasTuner calls those with "chief" chiefs."""
        return self.address is not None and "chief" not in self.tuner_id

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Say who is who in the variables by which KerasTuner's parts find each other."""
        if self.address is None:
            yield
            return
        before = {name: os.environ.get(name) for name in _VARIABLES}
        values = (self.address.host, str(self.address.port), self.tuner_id)
        os.environ.update(zip(_VARIABLES, values, strict=True))
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name, None)
                if value is not None:
                    os.environ[name] = value

    def client(self, oracle: Any) -> Any:
        """Return what asks the chief in the place of a worker's own oracle."""
        from keras_tuner.src.distribute.oracle_client import OracleClient

        return OracleClient(oracle)


def serve(oracle: Any, address: Address) -> None:
    """Answer workers until the search is over and all of them know, or are lost.

    Raises:
        InputError: the address is taken, or not one of this machine.
    """
    import grpc
    from keras_tuner.src import protos
    from keras_tuner.src.distribute.oracle_chief import OracleServicer

    if not address.loopback:
        warnings.warn(
            f"the chief listens at {address}, where anybody who reaches it can change the search: "
            "KerasTuner's port asks for no password. Use a network that only you are in.",
            stacklevel=2,
        )
    server = grpc.server(ThreadPoolExecutor(max_workers=1))
    protos.get_service_grpc().add_OracleServicer_to_server(OracleServicer(oracle), server)
    try:
        server.add_insecure_port(str(address))
    except RuntimeError as error:
        raise InputError(
            f"`chief` must be an address of this machine that is free. Received: '{address}', "
            "where nothing can listen. Choose another port."
        ) from error
    server.start()
    try:
        while not oracle.over():
            time.sleep(0.5)
            oracle.give_up_on(SECONDS_TO_BE_LOST)
    finally:
        server.stop(grace=1.0)


def work(setting: Setting, client: Any, execute: Any, *, tuner_id: str) -> None:
    """Run trials that a chief gives out, and let it know all along that this worker is alive."""
    current: dict[str, str] = {}
    finished = threading.Event()

    def signs() -> None:
        while not finished.wait(SECONDS_BETWEEN_SIGNS):
            if "trial" in current:
                with contextlib.suppress(Exception):
                    client.get_trial(current["trial"])

    def noted(job: Any, hp: Any) -> dict[str, Any]:
        current["trial"] = job.trial
        try:
            return execute(job, hp)
        finally:
            current.clear()

    thread = threading.Thread(target=signs, daemon=True)
    thread.start()
    try:
        run_trials(setting, client, noted, tuner_id=tuner_id, ended=lambda _: None)
    finally:
        finished.set()
