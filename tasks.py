"""All tasks of `./inv --list`. Each is defined in the package of its subject."""

from invoke.collection import Collection

from devcluster.tasks import cluster_tasks, tools_tasks
from release import by_hand, core_types, etcd_stubs, new, projects
from release import tasks as release
from tests import tasks as tests

namespace = Collection(
    release.demo,
    by_hand.play,
    by_hand.explain,
    by_hand.run,
    new.new,
    projects.project,
    release.generate,
    core_types.core_types,
    etcd_stubs.etcd_protos,
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
