"""The test kit for operators: a model of the API server, virtual time, a real API server, and faults."""

from pilothouse.testing.api_server import ApiServer, ApiServerError
from pilothouse.testing.documents import Json
from pilothouse.testing.explore import FaultMatrix, explore
from pilothouse.testing.faults import API_ERRORS, Errors, Fault, Faults, Injection, Killed, Site
from pilothouse.testing.faulty import FaultyApi, Outside
from pilothouse.testing.freezing import Freezable
from pilothouse.testing.model import Call, ModelApi
from pilothouse.testing.process import Process
from pilothouse.testing.scenario import Run, Scenario, objects_state
from pilothouse.testing.server import ModelServer
from pilothouse.testing.virtual_time import VirtualTimeLoop, VirtualTimeStuck
from pilothouse.testing.waiting import eventually, explain, objects
from pilothouse.testing.world import play

__all__ = [
    "API_ERRORS",
    "ApiServer",
    "ApiServerError",
    "Call",
    "Errors",
    "Fault",
    "FaultMatrix",
    "Faults",
    "FaultyApi",
    "Freezable",
    "Injection",
    "Json",
    "Killed",
    "ModelApi",
    "ModelServer",
    "Outside",
    "Process",
    "Run",
    "Scenario",
    "Site",
    "VirtualTimeLoop",
    "VirtualTimeStuck",
    "eventually",
    "explain",
    "explore",
    "objects",
    "objects_state",
    "play",
]
