"""What a person can do here, a table of contents: each task lives where its subject does."""

from invoke.collection import Collection

from devcluster.tasks import cluster_tasks, tools_tasks
from release import tasks as release
from tests import tasks as tests

namespace = Collection(
    release.demo,
    release.generate,
    release.bundle,
    release.catalog,
    release.scorecard,
    release.lock,
    bench=tests.bench,
    cluster=cluster_tasks,
    image=release.image,
    test=tests.namespace,
    tools=tools_tasks,
)
