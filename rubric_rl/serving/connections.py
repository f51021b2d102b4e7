"""The connections to an endpoint: as many as it takes, each reply that of its own request."""

import resource

import aiohttp

from rubric_rl.common.errors import UserError

SPARE_DESCRIPTORS = 64  # beside those of the connections: logs, records, the event loop


class Connections(aiohttp.TCPConnector):
    """Takes no connection again on which something came after the last reply.

    aiohttp would give it out as the reply to the next request: the verdict on another question.
    """

    async def connect(self, *args, **kwargs) -> aiohttp.connector.Connection:
        """A connection on which nothing waits to be read."""
        while True:
            connection = await super().connect(*args, **kwargs)
            if connection.protocol is None or not connection.protocol.should_close:
                return connection
            connection.close()


def in_words(failure: Exception) -> str:
    """What a user is told of a failed attempt: aiohttp says some things for programmers."""
    if isinstance(failure, aiohttp.ClientPayloadError):
        packed = "content-encoding" in str(failure)
        return "the reply cannot be unpacked" if packed else "the reply broke off"
    if isinstance(failure, aiohttp.ClientResponseError):
        reason, *_ = failure.message.splitlines() or [""]
        return f"the reply is no HTTP that can be read ({reason.rstrip(':')})"
    return str(failure) or "the connection failed without a reason"


def allow_descriptors(concurrency: int, prefix: str) -> None:
    """Raises the process's soft limit on open files where the connections need it.

    Raises UserError when the hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 2 * concurrency + SPARE_DESCRIPTORS  # a grader and a policy may be asked at once
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    if hard != resource.RLIM_INFINITY and hard < needed:
        most = (hard - SPARE_DESCRIPTORS) // 2
        lower = f"lower it to {most}, or " if most > 0 else ""
        what = f"{prefix}concurrency {concurrency} needs {needed} open files, {hard} are allowed"
        raise UserError(f"{what}; {lower}raise ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
