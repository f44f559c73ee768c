"""The invoke tasks for generated files, OLM packages, images and the demo."""

from __future__ import annotations

from pathlib import Path

from invoke.collection import Collection
from invoke.context import Context
from invoke.tasks import task

from devcluster.folders import CHECKOUT
from devcluster.shell import ClusterError
from devcluster.tasks import speaking_plainly
from release import bundle as bundles
from release import catalog as catalogs
from release import cut as cuts
from release import demo as demonstration
from release import documents, earlier, images, projects
from release import generate as generated
from release import lock as locks
from release import scorecard as scorecards
from release.packages import PACKAGES, Package, find

_CHECK = {"check": "write nothing; fail if a committed file is not up to date with its sources"}


@task
@speaking_plainly
def demo(_: Context) -> None:
    """Starts a cluster, installs both operators through OLM, books a ticket and heals an etcd cluster."""
    demonstration.run()


@task(help={"upgrade": "use the newest versions that pyproject.toml allows"})
@speaking_plainly
def lock(_: Context, upgrade: bool = False) -> None:
    """Writes the lock files in requirements/ from pyproject.toml."""
    locks.lock(upgrade=upgrade)


@task(help=_CHECK)
@speaking_plainly
def generate(_: Context, check: bool = False) -> None:
    """Writes CRDs, the API part of ClusterServiceVersions, docs/reference, and the stubs of etcd."""
    _put(generated.files(), check, "inv generate")


@task(
    help={
        "package": "name of a package; default: all",
        "image": "image to use in place of the released one, NAME@sha256:DIGEST; requires --output",
        "output": "folder for the bundle with that image",
        **_CHECK,
    }
)
@speaking_plainly
def bundle(_: Context, package: str = "", image: str = "", output: str = "", check: bool = False) -> None:
    """Generates the OLM bundles with operator-sdk and validates them. Warnings are errors."""
    for one in _chosen(package):
        if image or output:
            if not (image and output):
                raise ClusterError(
                    "--image and --output require each other, because the committed bundle has the released "
                    "image"
                )
            bundles.substitute(one.bundle, image, Path(output) / one.name)
            bundles.validate(Path(output) / one.name)
            print(f"{Path(output) / one.name}: valid, no warnings")
            continue
        _put(bundles.files(one), check, "inv bundle", one.bundle)
        bundles.validate(one.bundle)
        print(f"{one.bundle.relative_to(CHECKOUT)}: valid, no warnings")


@task(help=_CHECK)
@speaking_plainly
def catalog(_: Context, check: bool = False) -> None:
    """Renders the file-based catalog from the bundles with opm, and validates it."""
    for one in PACKAGES.values():
        _put(catalogs.files(one), check, "inv catalog", one.catalog)
    catalogs.validate()
    print("catalog: valid")


@task(help={"package": "name of a package; default: all"})
@speaking_plainly
def scorecard(_: Context, package: str = "") -> None:
    """Runs operator-sdk's scorecard on the bundles in the cluster."""
    for one in _chosen(package):
        for name, state in scorecards.score(one).items():
            print(f"{one.name}  {name:28} {state}")


@task(help={"reference": "NAME@sha256:DIGEST"})
@speaking_plainly
def pin(_: Context, reference: str) -> None:
    """Pins an image as the released one, for the bundles and the catalog."""
    images.pin(reference)


@task(help={"revision": "the commit or tag that released an earlier version"})
@speaking_plainly
def keep(_: Context, revision: str) -> None:
    """Records an earlier release, so that the catalog keeps it. Afterwards, run inv catalog."""
    kept = earlier.record(revision)
    print(
        f"{earlier.FILE.relative_to(CHECKOUT)} has {kept.version}, {', '.join(kept.catalog)}: {kept.commit}"
    )


@task(
    help={
        "local_images": "for a version that is not published: pin the local cluster's builds of the images "
        "that the operators run, in place of the official ones"
    }
)
@speaking_plainly
def release(_: Context, local_images: bool = False) -> None:
    """Builds and pushes the images, pins their digests, and writes bundles and catalog."""
    for path in cuts.cut(local_images=local_images):
        print(f"wrote {path.relative_to(CHECKOUT)}")


def _chosen(package: str) -> list[Package]:
    return [find(package)] if package else list(PACKAGES.values())


def _put(files: dict[Path, str], check: bool, command: str, *whole: Path) -> None:
    if check:
        documents.check(files, command, whole)
        return
    for path in documents.write(files, whole):
        print(f"{'wrote' if path.exists() else 'removed'} {path.relative_to(CHECKOUT)}")


image = Collection("image", projects.build, pin, keep, release)
