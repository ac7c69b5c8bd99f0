"""The jobs room: RQ with a safe payload, an allow-list, and workers that lose nothing they accepted."""

from .component import Jobs
from .dispatch.payload import JsonSerializer
from .face import JobsFace
from .settings import JobsSettings
from .tasks.task import Dispatcher, Task

__all__ = ["Dispatcher", "Jobs", "JobsFace", "JobsSettings", "JsonSerializer", "Task"]
